//! States of a sandbox, and the calls that change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clawsec_core::Scope;
use clawsec_init::wire::{self, FromShim, Spec, ToShim};
use clawsec_proto as pb;
use pb::kill_report::SandboxKill;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cgroup::Cgroups;
use crate::create::Init;
use crate::error::{Context, Error, Result};
use crate::io::Io;
use crate::layout::{Layout, check_sandbox_name};
use crate::runc::Runc;
use crate::secrets::Secrets;
use crate::shim::{self, Shim};
use crate::sweep::{GONE_TIMEOUT, Sweeper};
use crate::{Config, Hooks, sys};

/// A gate that does not cut in this time does not keep the kill waiting.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Ended sandboxes that are remembered.
const REMEMBERED: usize = 64;

/// Where a sandbox is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Created,
    Starting,
    Running { started_us: u64 },
    Ended { started_us: u64, ended_us: u64, exit: pb::ExitStatus, how: How },
}

/// Why a sandbox is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The main command ended by itself.
    Exited,
    /// A kill, a stop or a failure.
    Killed,
}

/// What is known of a sandbox from its request.
#[derive(Debug)]
pub(crate) struct Facts {
    created_us: u64,
    publish: Vec<pb::PublishedPort>,
    policy: Mutex<(u64, String)>,
}

impl Facts {
    pub(crate) fn new(request: &pb::CreateSandboxRequest, publish: Vec<pb::PublishedPort>) -> Self {
        let tables = request.tables.as_ref();
        let policy = tables.map(|tables| (tables.epoch, tables.policy_hash.clone())).unwrap_or_default();
        Self { created_us: now_us(), publish, policy: Mutex::new(policy) }
    }
}

/// One sandbox, from created to ended.
#[derive(Debug)]
pub struct Sandbox {
    scope: Scope,
    init: Init,
    io: Io,
    secrets: Option<Secrets>,
    /// Taken by the start.
    unstarted: Mutex<Option<(Shim, Spec)>>,
    /// Where signals for the main command go. Dropping it is the loader's death to the shim.
    to_shim: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    /// Ends, after the shim's end, with the status of the main command that the shim told.
    told: Mutex<Option<JoinHandle<Option<pb::ExitStatus>>>>,
    /// Why it is being killed; set once.
    killed: OnceLock<String>,
    facts: Facts,
    phase: watch::Sender<Phase>,
}

impl Sandbox {
    pub(crate) fn new(
        scope: Scope,
        init: Init,
        io: Io,
        secrets: Option<Secrets>,
        shim: Shim,
        spec: Spec,
        facts: Facts,
    ) -> Self {
        Self {
            scope,
            init,
            io,
            secrets,
            unstarted: Mutex::new(Some((shim, spec))),
            to_shim: tokio::sync::Mutex::new(None),
            told: Mutex::new(None),
            killed: OnceLock::new(),
            facts,
            phase: watch::Sender::new(Phase::Created),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.scope.sandbox
    }

    /// Its subjects and their cgroups.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Host pid of the shim.
    pub fn init_pid(&self) -> u32 {
        self.init.pid
    }

    /// Standard input, output and error of the main command.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Waits until it has ended and nothing of it is left.
    pub async fn ended(&self) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Ended { .. })).await;
    }

    /// Sends a signal to the main command's process group.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it is not running.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        let not_running = || Error::Precondition(format!("the sandbox {} is not running", self.name()));
        let mut to = self.to_shim.lock().await;
        let to = to.as_mut().ok_or_else(not_running)?;
        shim::send(to, &ToShim::Signal(signal)).await.map_err(|_| not_running())
    }

    /// Writes or rotates secrets.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it has ended, or has no secrets mount.
    pub fn put_secrets(&self, secrets: Vec<pb::Secret>) -> Result<()> {
        if self.killed.get().is_some() || matches!(*self.phase.borrow(), Phase::Ended { .. }) {
            return Err(Error::Precondition(format!("the sandbox {} has ended", self.name())));
        }
        let mount = self.secrets.as_ref();
        mount
            .ok_or_else(|| Error::Precondition(format!("the sandbox {} has no secrets mount", self.name())))?
            .put(secrets)
    }

    /// Empties every secret; returns how many.
    ///
    /// # Errors
    /// One could not be emptied.
    pub fn revoke_secrets(&self) -> Result<u32> {
        self.secrets.as_ref().map_or(Ok(0), Secrets::revoke)
    }

    /// Records that another policy holds now, for [`pb::SandboxInfo`].
    pub fn set_policy(&self, epoch: u64, policy_hash: &str) {
        *self.facts.policy.lock().unwrap_or_else(PoisonError::into_inner) = (epoch, policy_hash.to_owned());
    }

    /// Changes the phase if it is the expected one; says whether it was. An ended sandbox stays ended.
    fn advance(&self, expected: impl Fn(&Phase) -> bool, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let advances = expected(phase);
            if advances {
                *phase = next.clone();
            }
            advances
        })
    }

    fn is_live(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Ended { .. })
    }
}

enum Slot {
    Making,
    Made(Arc<Sandbox>),
}

pub(crate) struct Inner {
    pub(crate) sweeper: Sweeper,
    pub(crate) shim: PathBuf,
    pub(crate) protected: Vec<PathBuf>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) wait_killable: bool,
    shim_file: File,
    table: Mutex<BTreeMap<String, Slot>>,
    /// Sandboxes for which `Hooks::prepare` was called, but not yet `Hooks::gone`.
    prepared: Mutex<BTreeSet<String>>,
    /// Keeps a second loader off the runtime folder.
    _lock: File,
}

/// All sandboxes of a loader. Cheap to clone.
#[derive(Clone)]
pub struct Sandboxes {
    inner: Arc<Inner>,
}

impl Sandboxes {
    /// Locks the runtime folder, kills and removes what an earlier loader left, and becomes a child subreaper.
    /// Returns a sentence for each thing that was cleaned.
    ///
    /// # Errors
    /// Another loader has the folder, the shim is missing, or the host has no cgroup v2.
    pub async fn open(config: Config, hooks: Arc<dyn Hooks>) -> Result<(Self, Vec<String>)> {
        let layout = Layout { runtime: config.runtime_dir, instance: config.instance };
        fs::create_dir_all(&layout.runtime).context(format_args!("making {:?}", layout.runtime))?;
        for folder in [layout.sandboxes(), layout.runc(), layout.netns_folder()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .context("the runtime folder")?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).context("the runtime folder")?;
        }
        let runtime = fs::canonicalize(&layout.runtime).context("the runtime folder")?;
        let layout = Layout { runtime, ..layout };
        let lock = File::create(layout.runtime.join("lock")).context("the runtime folder's lock")?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let why =
                format!("another loader uses {:?}; stop it, or give another runtime folder", layout.runtime);
            return Err(Error::Precondition(why));
        }
        let shim = fs::canonicalize(&config.shim).context(format_args!("the init shim {:?}", config.shim))?;
        let shim_file = File::open(&shim).context("the init shim")?;
        sys::become_subreaper().context("becoming a child subreaper")?;
        let cgroups = Cgroups::find(&layout.cgroup_parent())?;
        let runc = Runc::new(layout.runc());
        let mut protected = vec![layout.runtime.clone()];
        protected.extend(config.protected);
        let sweeper = Sweeper { layout, cgroups, runc };

        let mut said = Vec::new();
        for name in sweeper.remains() {
            said.extend(sweeper.sweep(&name).await);
        }
        sweeper.remove_parents();
        let inner = Inner {
            sweeper,
            shim,
            protected,
            hooks,
            wait_killable: sys::seccomp_flags_known(sys::WAIT_KILLABLE),
            shim_file,
            table: Mutex::default(),
            prepared: Mutex::default(),
            _lock: lock,
        };
        Ok((Self { inner: Arc::new(inner) }, said))
    }

    /// Where things are on the host.
    pub fn layout(&self) -> &Layout {
        &self.inner.sweeper.layout
    }

    /// The host's cgroup hierarchies.
    pub fn cgroups(&self) -> &Cgroups {
        &self.inner.sweeper.cgroups
    }

    /// Makes a sandbox; nothing of it runs yet. Also returns a sentence for each remain of an earlier one that was
    /// removed first.
    ///
    /// # Errors
    /// [`Error::Exists`] when a live one has the name, [`Error::Invalid`] for a request that is refused. Nothing is
    /// left of a sandbox that was not made.
    pub async fn create(
        &self,
        mut request: pb::CreateSandboxRequest,
    ) -> Result<(pb::SandboxInfo, Vec<String>)> {
        check_sandbox_name(&request.name)?;
        let inner = self.inner.clone();
        inner.reserve(&request.name)?;
        detached(async move {
            let name = request.name.clone();
            let cleaned = inner.sweeper.sweep(&name).await;
            match inner.make(&mut request).await {
                Ok(sandbox) => {
                    inner.lock().insert(name, Slot::Made(sandbox.clone()));
                    tokio::spawn(inner.clone().watch_over(sandbox.clone()));
                    Ok((inner.info(&sandbox), cleaned))
                }
                Err(error) => {
                    inner.remove_all(&name).await;
                    inner.remove_parents(&name);
                    inner.lock().remove(&name);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Lets the main command run.
    ///
    /// # Errors
    /// [`Error::Precondition`] unless it is created; any other error has ended the sandbox.
    pub async fn start(&self, name: &str) -> Result<pb::SandboxInfo> {
        let sandbox = self.get(name)?;
        let inner = self.inner.clone();
        detached(async move {
            let begins = sandbox.advance(|phase| matches!(phase, Phase::Created), Phase::Starting);
            let taken = sandbox.unstarted.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((shim, spec)) = taken.filter(|_| begins) else {
                let why = format!("the sandbox {} is not in the state created", sandbox.name());
                return Err(Error::Precondition(why));
            };
            if let Err(error) = inner.start(&sandbox, shim, spec).await {
                inner.kill(&sandbox, &error.to_string()).await;
                sandbox.ended().await;
                return Err(error);
            }
            Ok(inner.info(&sandbox))
        })
        .await
    }

    /// SIGTERM to the main command, and after `grace` what [`Sandboxes::kill`] does.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<SandboxKill> {
        let sandbox = self.get(name)?;
        let inner = self.inner.clone();
        detached(async move {
            let begin = Instant::now();
            let running = matches!(*sandbox.phase.borrow(), Phase::Running { .. });
            if running {
                let processes = inner.sweeper.cgroups.processes(sandbox.name()).len() as u32;
                let _ = sandbox.killed.set("it was stopped".into());
                sandbox.init.signal(Signal::TERM);
                if tokio::time::timeout(grace, sandbox.ended()).await.is_ok() {
                    let us = micros(begin);
                    return Ok(SandboxKill {
                        name: sandbox.name().to_owned(),
                        processes,
                        survivors: 0,
                        network_cut_us: us,
                        secrets_empty_us: us,
                        signalled_us: us,
                        gone_us: us,
                    });
                }
            }
            Ok(inner.kill(&sandbox, "it was stopped").await)
        })
        .await
    }

    /// Network cut, secrets emptied, SIGKILL, until nothing is left. Idempotent. One that is being made is killed when
    /// it is made (nothing of it runs before).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn kill(&self, name: &str, reason: &str) -> Result<SandboxKill> {
        let (this, name, reason) = (self.clone(), name.to_owned(), reason.to_owned());
        detached(async move {
            let sandbox = this.made(&name).await?;
            Ok(this.inner.kill(&sandbox, &reason).await)
        })
        .await
    }

    /// Kills all live sandboxes at the same time.
    pub async fn kill_all(&self, reason: &str) -> Vec<SandboxKill> {
        let names: Vec<String> = self
            .inner
            .lock()
            .iter()
            .filter(|(_, slot)| !matches!(slot, Slot::Made(sandbox) if !sandbox.is_live()))
            .map(|(name, _)| name.clone())
            .collect();
        let kills: Vec<_> = names
            .into_iter()
            .map(|name| {
                let (this, reason) = (self.clone(), reason.to_owned());
                tokio::spawn(async move { this.kill(&name, &reason).await })
            })
            .collect();
        let mut reports = Vec::new();
        for kill in kills {
            // One that could not be made in the meantime needs no kill.
            if let Ok(Ok(report)) = kill.await {
                reports.push(report);
            }
        }
        reports
    }

    /// Waits for the end of a sandbox, clean-up included.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait(&self, name: &str) -> Result<pb::SandboxInfo> {
        let sandbox = self.get(name)?;
        sandbox.ended().await;
        Ok(self.inner.info(&sandbox))
    }

    /// A sandbox that was made and is not forgotten.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(&self, name: &str) -> Result<Arc<Sandbox>> {
        match self.inner.lock().get(name) {
            Some(Slot::Made(sandbox)) => Ok(sandbox.clone()),
            _ => Err(Error::NotFound(format!("there is no sandbox {name:?}"))),
        }
    }

    /// What is known of a sandbox.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn info(&self, name: &str) -> Result<pb::SandboxInfo> {
        let sandbox = self.get(name)?;
        Ok(self.inner.info(&sandbox))
    }

    /// Live sandboxes and the latest of those that ended.
    pub fn list(&self) -> Vec<pb::SandboxInfo> {
        let made: Vec<Arc<Sandbox>> = self.inner.lock().values().filter_map(Slot::made).cloned().collect();
        made.iter().map(|sandbox| self.inner.info(sandbox)).collect()
    }

    async fn made(&self, name: &str) -> Result<Arc<Sandbox>> {
        loop {
            if !matches!(self.inner.lock().get(name), Some(Slot::Making)) {
                return self.get(name);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Slot {
    fn made(&self) -> Option<&Arc<Sandbox>> {
        match self {
            Self::Made(sandbox) => Some(sandbox),
            Self::Making => None,
        }
    }
}

/// Runs to its end even when the caller goes away.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work)
        .await
        .map_err(|error| Error::Failed(format!("a fault of the loader itself: {error}")))?
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn prepared(&self, name: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    fn reserve(&self, name: &str) -> Result<()> {
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

    async fn start(self: &Arc<Self>, sandbox: &Arc<Sandbox>, mut shim: Shim, spec: Spec) -> Result<()> {
        let (scope, pid) = (&sandbox.scope, sandbox.init.pid);
        self.hooks.approve_shim(scope, pid, &self.shim_file, &[wire::INIT_PATH]).await?;
        self.sweeper.runc.start(sandbox.name(), &self.sweeper.layout.bundle(sandbox.name())).await?;
        let listener = shim.restrict(spec, sandbox.init.pidfd.get_ref()).await?;
        if let Some(listener) = listener {
            self.hooks.listener_ready(scope, pid, listener).await?;
        }
        // Held over the state's change, so that nobody sees "running" without a way to send signals, and that the end
        // of a short run finds what the shim told.
        let mut to_shim = sandbox.to_shim.lock().await;
        let (from, to) = shim.go().await?;
        *to_shim = Some(to);
        *sandbox.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(listen(from)));
        sandbox.advance(|phase| matches!(phase, Phase::Starting), Phase::Running { started_us: now_us() });
        Ok(())
    }

    async fn kill(&self, sandbox: &Sandbox, reason: &str) -> SandboxKill {
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
    async fn watch_over(self: Arc<Self>, sandbox: Arc<Sandbox>) {
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

    async fn remove_all(&self, name: &str) {
        for sentence in self.sweeper.sweep(name).await {
            tracing::debug!(sandbox = name, "{sentence}");
        }
        if self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            self.hooks.gone(name).await;
        }
    }

    /// Only with nothing live or being made but `ending`, which would have its cgroups below.
    fn remove_parents(&self, ending: &str) {
        let table = self.lock();
        let over = |slot: &Slot| slot.made().is_some_and(|sandbox| !sandbox.is_live());
        if table.iter().all(|(name, slot)| name == ending || over(slot)) {
            self.sweeper.remove_parents();
        }
    }

    fn info(&self, sandbox: &Sandbox) -> pb::SandboxInfo {
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

impl Sandbox {
    /// How it ended. The shim exits with 128 + signal for a main command that a signal ended, and with the same code for
    /// one that chose it; which of them it was is in what it told, so that goes first.
    fn conclude(&self, told: Option<pb::ExitStatus>, reaped: pb::ExitStatus) -> (u64, pb::ExitStatus, How) {
        let started_us = match *self.phase.borrow() {
            Phase::Running { started_us } => started_us,
            _ => 0,
        };
        let by_itself = told.is_some() && self.killed.get().is_none();
        (started_us, told.unwrap_or(reaped), if by_itself { How::Exited } else { How::Killed })
    }
}

/// Takes what the shim says while the sandbox runs, until it is gone.
async fn listen(mut from: OwnedReadHalf) -> Option<pb::ExitStatus> {
    let mut told = None;
    while let Ok(message) = shim::receive(&mut from).await {
        if let FromShim::Ended { code, signal } = message {
            told = Some(pb::ExitStatus { code, signal });
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

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
