//! The calls that change sandboxes.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawsec_proto as pb;
use pb::kill_report::SandboxKill;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::cgroup::Cgroups;
use crate::engine::{Inner, Slot, micros};
use crate::error::{Context, Error, Result};
use crate::layout::{Layout, check_sandbox_name};
use crate::runc::Runc;
use crate::sandbox::{Phase, Sandbox};
use crate::sweep::Sweeper;
use crate::{Config, Hooks, sys};

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
            wait_killable: !config.without.wait_killable && sys::seccomp_flags_known(sys::WAIT_KILLABLE),
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

/// Runs to its end even when the caller goes away.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work)
        .await
        .map_err(|error| Error::Failed(format!("a fault of the loader itself: {error}")))?
}
