//! Making a sandbox, up to the moment before its first instruction.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use clawsec_init::wire::Spec;
use clawsec_proto as pb;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::apparmor;
use crate::bundle::{self, Ours};
use crate::cgroup::move_process;
use crate::convert::ruleset;
use crate::engine::Inner;
use crate::error::{Context, Error, Result, invalid};
use crate::io::Prepared;
use crate::sandbox::{Facts, Sandbox};
use crate::secrets::Secrets;
use crate::shim::Shim;
use crate::{rootfs, seccomp, sys};

/// The sandbox's first process: first runc's init, then the shim. It is our child, so its pid is its own until it is
/// reaped.
#[derive(Debug)]
pub struct Init {
    pub pid: u32,
    pub pidfd: AsyncFd<OwnedFd>,
}

impl Init {
    fn open(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| Error::Failed(format!("runc says that the pid of its init is {pid}")))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).context("runc's init")?;
        if sys::reap(&pidfd).context("runc's init is not a child of this process")?.is_some() {
            return Err(Error::Failed("runc's init ended at once".into()));
        }
        let pidfd = sys::watch(pidfd).context("runc's init")?;
        Ok(Self { pid, pidfd })
    }

    /// A signal, to the process that this is. One that is gone is fine.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Waits until it and, as it is the init of its pid namespace, everything in the sandbox has ended.
    pub async fn ended(&self) {
        // The only error is a runtime that is shutting down.
        let _ = self.pidfd.readable().await.map(|mut ready| ready.retain_ready());
    }

    /// Waits for its end and takes its status: (exit code or 128 + signal, signal).
    pub async fn reap(&self) -> (i32, i32) {
        loop {
            self.ended().await;
            match sys::reap(self.pidfd.get_ref()) {
                Ok(Some(status)) => return status,
                Ok(None) => {}
                // Somebody else reaped it; that it was killed is the careful reading.
                Err(_) => return (128 + libc::SIGKILL, libc::SIGKILL),
            }
        }
    }
}

impl Inner {
    /// Makes a sandbox. After an error the caller sweeps; no process of it is left unreaped.
    pub(crate) async fn make(&self, request: &mut pb::CreateSandboxRequest) -> Result<Arc<Sandbox>> {
        let name = request.name.clone();
        let layout = &self.sweeper.layout;
        if request.args.is_empty() {
            return invalid("the main command is empty");
        }
        let filter = seccomp::compile(&request.seccomp)?;
        if let Some(profile) = request.apparmor.clone() {
            let sandbox = name.clone();
            let loaded = tokio::task::spawn_blocking(move || apparmor::load(&profile, &sandbox)).await;
            loaded.context("loading the AppArmor profile")??;
        }
        let secrets = self.secrets(request)?;

        let private = |folder: &std::path::Path| {
            fs::DirBuilder::new().mode(0o700).create(folder).context(format_args!("making {folder:?}"))
        };
        private(&layout.sandbox(&name))?;
        private(&layout.bundle(&name))?;
        rootfs::build(&layout.rootfs(&name), &request.rootfs)?;
        bundle::shim_folder(&layout.shim(&name), &request.subjects)?;

        let subjects: Vec<String> = request.subjects.iter().map(|subject| subject.name.clone()).collect();
        let scope = self.sweeper.cgroups.create(&name, &subjects)?;
        let first = scope.subjects.first().ok_or_else(|| Error::Invalid("no subject".into()))?.clone();
        self.prepared(&name);
        let network = self.hooks.prepare(&scope, request).await?;

        let config = bundle::configuration(
            request,
            &Ours {
                rootfs: &layout.rootfs(&name),
                cgroups_path: layout.cgroups_path(&name),
                netns: &network.netns,
                shim: &self.shim,
                shim_folder: &layout.shim(&name),
                protected: &self.protected,
            },
        )?;
        let config_file = layout.bundle(&name).join("config.json");
        fs::write(&config_file, config.to_string()).context("the bundle")?;
        fs::set_permissions(&config_file, fs::Permissions::from_mode(0o600)).context("the bundle")?;

        let (prepared, streams) = Prepared::new(request.terminal, &layout.bundle(&name))?;
        let (ours, theirs) = UnixStream::pair().context("the shim's socket")?;
        let pid = self.sweeper.runc.create(&name, &layout.bundle(&name), streams, theirs.into()).await?;
        let init = Init::open(pid)?;

        let spec = Spec {
            landlock: ruleset(request.landlock.as_ref()),
            filter: filter.instructions,
            listener: filter.notifies,
            wait_killable: filter.notifies && self.wait_killable,
            args: std::mem::take(&mut request.args),
            terminal: request.terminal,
            keep: false,
        };
        let finish = async {
            move_process(&first, pid)?;
            let io = prepared.pump(request.detached).await?;
            if let Some(secrets) = &secrets {
                secrets.attach(pid)?;
            }
            let kept = self.hooks.created(&scope, pid).await?;
            Ok((io, Shim::new(ours, kept)?))
        };
        match finish.await {
            Ok((io, shim)) => {
                let facts = Facts::new(request, network.publish);
                Ok(Arc::new(Sandbox::new(scope, init, io, secrets, shim, spec, facts)))
            }
            Err(error) => {
                init.signal(Signal::KILL);
                init.reap().await;
                Err(error)
            }
        }
    }

    fn secrets(&self, request: &mut pb::CreateSandboxRequest) -> Result<Option<Secrets>> {
        let values = std::mem::take(&mut request.secrets);
        let Some(mount) = &request.secrets_mount else {
            if values.is_empty() {
                return Ok(None);
            }
            return invalid("there are secrets, but no place to mount them");
        };
        let secrets = Secrets::new(mount)?;
        secrets.put(values)?;
        Ok(Some(secrets))
    }
}
