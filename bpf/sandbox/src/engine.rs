//! What [`crate::Sandboxes`] does behind its calls: start, kill, and the one place where a sandbox ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clawsec_init::wire::{self, FromShim, Spec};
use clawsec_proto as pb;
use pb::kill_report::SandboxKill;
use rustix::process::Signal;
use tokio::net::unix::OwnedReadHalf;

use crate::command::Commands;
use crate::error::{Error, Result};
use crate::sandbox::{How, Phase, Sandbox, now_us};
use crate::shim::{self, Shim};
use crate::sweep::{GONE_TIMEOUT, Sweeper};
use crate::{Hooks, sys};

/// A gate that does not cut in this time does not keep the kill waiting.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Ended sandboxes that are remembered.
const REMEMBERED: usize = 64;

pub(crate) enum Slot {
    Making,
    Made(Arc<Sandbox>),
}

pub(crate) struct Inner {
    pub(crate) sweeper: Sweeper,
    pub(crate) shim: PathBuf,
    pub(crate) protected: Vec<PathBuf>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) wait_killable: bool,
    pub(crate) shim_file: File,
    pub(crate) table: Mutex<BTreeMap<String, Slot>>,
    /// Sandboxes for which `Hooks::prepare` was called, but not yet `Hooks::gone`.
    pub(crate) prepared: Mutex<BTreeSet<String>>,
    /// Keeps a second loader off the runtime folder.
    pub(crate) _lock: File,
}

impl Slot {
    pub(crate) fn made(&self) -> Option<&Arc<Sandbox>> {
        match self {
            Self::Made(sandbox) => Some(sandbox),
            Self::Making => None,
        }
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn prepared(&self, name: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    pub(crate) fn reserve(&self, name: &str) -> Result<()> {
        let mut table = self.lock();
        match table.get(name) {
            Some(Slot::Making) => return Err(Error::Exists(format!("a sandbox {name:?} is being made"))),
            Some(Slot::Made(sandbox)) if sandbox.is_live() => {
                return Err(Error::Exists(format!(
                    "a sandbox {name:?} is live; stop it, or use another name"
                )));
            }
            _ => {}
        }
        table.insert(name.to_owned(), Slot::Making);
        forget_oldest(&mut table);
        Ok(())
    }

    pub(crate) async fn start(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        mut shim: Shim,
        spec: Spec,
    ) -> Result<()> {
        let (scope, pid) = (&sandbox.scope, sandbox.init.pid);
        self.hooks.approve_shim(scope, pid, &self.shim_file, &[wire::INIT_PATH]).await?;
        self.sweeper.runc.start(sandbox.name(), &self.sweeper.layout.bundle(sandbox.name())).await?;
        let listener = shim.restrict(spec, sandbox.init.pidfd.get_ref()).await?;
        if let Some(listener) = listener {
            self.hooks.listener_ready(scope, pid, listener).await?;
        }
        // When this process dies, it kills the sandbox, whatever keeps the processors busy there. Safe without it: late.
        if let Err(error) = sys::hasten(pid) {
            tracing::debug!(sandbox = sandbox.name(), %error, "the init has the ordinary priority");
        }
        // Held over the state's change, so that nobody sees "running" without a way to send signals, and that the end
        // of a short run finds what the shim told.
        let mut to_shim = sandbox.to_shim.lock().await;
        let (from, to) = shim.go().await?;
        *to_shim = Some(to);
        *sandbox.told.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(tokio::spawn(listen(from, Arc::clone(&sandbox.commands))));
        sandbox.advance(|phase| matches!(phase, Phase::Starting), Phase::Running { started_us: now_us() });
        Ok(())
    }

    pub(crate) async fn kill(&self, sandbox: &Sandbox, reason: &str) -> SandboxKill {
        let begin = Instant::now();
        let name = sandbox.name();
        let mut report = SandboxKill { name: name.to_owned(), ..Default::default() };
        if !sandbox.is_live() {
            return report;
        }
        if sandbox.killed.set(reason.to_owned()).is_ok() {
            tracing::info!(sandbox = name, reason, "kill");
        }
        report.processes = self.sweeper.cgroups.processes(name).len() as u32;
        self.cut(sandbox).await;
        report.network_cut_us = micros(begin);
        self.empty_secrets(sandbox);
        report.secrets_empty_us = micros(begin);
        sandbox.init.signal(Signal::KILL);
        if let Err(error) = self.sweeper.cgroups.kill(name) {
            tracing::error!(sandbox = name, %error, "kill");
        }
        report.signalled_us = micros(begin);
        let (cgroups, owned) = (self.sweeper.cgroups.clone(), name.to_owned());
        let gone = async {
            sandbox.init.ended().await;
            // After the init only processes that left its pid namespace could be there: none can.
            tokio::task::spawn_blocking(move || cgroups.wait_empty(&owned, GONE_TIMEOUT))
                .await
                .unwrap_or(false)
        };
        if !tokio::time::timeout(GONE_TIMEOUT, gone).await.unwrap_or(false) {
            // The init itself counts when it is all that is left.
            report.survivors = (self.sweeper.cgroups.processes(name).len() as u32).max(1);
        }
        report.gone_us = micros(begin);
        if report.survivors == 0 {
            sandbox.ended().await;
        }
        report
    }

    async fn cut(&self, sandbox: &Sandbox) {
        let cut = self.hooks.network_cut(sandbox.name());
        if tokio::time::timeout(CUT_TIMEOUT, cut).await.is_err() {
            tracing::error!(sandbox = sandbox.name(), "the network was not cut in time; the kill goes on");
        }
    }

    fn empty_secrets(&self, sandbox: &Sandbox) {
        if let Err(error) = sandbox.revoke_secrets() {
            tracing::error!(sandbox = sandbox.name(), %error, "secrets");
        }
    }

    /// Waits for the sandbox's end, however it comes, and cleans up. The only place where a sandbox ends.
    pub(crate) async fn watch_over(self: Arc<Self>, sandbox: Arc<Sandbox>) {
        sandbox.init.ended().await;
        self.cut(&sandbox).await;
        self.empty_secrets(&sandbox);
        let (code, signal) = sandbox.init.reap().await;
        let name = sandbox.name();
        *sandbox.to_shim.lock().await = None;
        self.remove_all(name).await;
        let told = sandbox.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        let told = match told {
            Some(told) => told.await.unwrap_or(None),
            None => None,
        };
        let (started_us, exit, how) = sandbox.conclude(told, pb::ExitStatus { code, signal });
        self.remove_parents(name);
        sandbox.phase.send_replace(Phase::Ended { started_us, ended_us: now_us(), exit, how });
    }

    pub(crate) async fn remove_all(&self, name: &str) {
        for sentence in self.sweeper.sweep(name).await {
            tracing::debug!(sandbox = name, "{sentence}");
        }
        if self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            self.hooks.gone(name).await;
        }
    }

    /// Only with nothing live or being made but `ending`, which would have its cgroups below.
    pub(crate) fn remove_parents(&self, ending: &str) {
        let table = self.lock();
        let over = |slot: &Slot| slot.made().is_some_and(|sandbox| !sandbox.is_live());
        if table.iter().all(|(name, slot)| name == ending || over(slot)) {
            self.sweeper.remove_parents();
        }
    }

    pub(crate) fn info(&self, sandbox: &Sandbox) -> pb::SandboxInfo {
        let (epoch, policy_hash) =
            sandbox.facts.policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut info = pb::SandboxInfo {
            name: sandbox.name().to_owned(),
            created_us: sandbox.facts.created_us,
            publish: sandbox.facts.publish.clone(),
            epoch,
            policy_hash,
            ..Default::default()
        };
        let phase = sandbox.phase.borrow().clone();
        let state = match phase {
            Phase::Created | Phase::Starting => pb::SandboxState::Created,
            Phase::Running { started_us } => {
                info.started_us = started_us;
                pb::SandboxState::Running
            }
            Phase::Ended { started_us, ended_us, exit, how } => {
                (info.started_us, info.ended_us, info.exit) = (started_us, ended_us, Some(exit));
                match how {
                    How::Exited => pb::SandboxState::Exited,
                    How::Killed => pb::SandboxState::Killed,
                }
            }
        };
        info.set_state(state);
        if sandbox.is_live() {
            info.init_pid = sandbox.init.pid;
            info.processes = self.sweeper.cgroups.processes(sandbox.name()).len() as u32;
        }
        info
    }
}

/// Takes what the shim says while the sandbox runs, until it is gone.
async fn listen(mut from: OwnedReadHalf, commands: Arc<Commands>) -> Option<pb::ExitStatus> {
    let mut told = None;
    while let Ok(message) = shim::receive(&mut from).await {
        match message {
            FromShim::Ended { code, signal } => told = Some(pb::ExitStatus { code, signal }),
            FromShim::CommandEnded { id, code, signal } => {
                commands.end(id, Ok(pb::ExitStatus { code, signal }));
            }
            FromShim::CommandRefused { id, why } => commands.end(id, Err(why)),
            FromShim::Hello { .. }
            | FromShim::Restricted { .. }
            | FromShim::Running { .. }
            | FromShim::Refused { .. } => {}
        }
    }
    told
}

fn forget_oldest(table: &mut BTreeMap<String, Slot>) {
    let ended_us = |slot: &Slot| match slot {
        Slot::Making => None,
        Slot::Made(sandbox) => match *sandbox.phase.borrow() {
            Phase::Ended { ended_us, .. } => Some(ended_us),
            _ => None,
        },
    };
    let mut ended: Vec<(u64, String)> =
        table.iter().filter_map(|(name, slot)| Some((ended_us(slot)?, name.clone()))).collect();
    ended.sort_unstable();
    for (_, name) in ended.iter().take(ended.len().saturating_sub(REMEMBERED)) {
        table.remove(name);
    }
}

pub(crate) fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}
