//! What this host can do of what a sandbox needs, proven by doing it.
//!
//! Landlock and seccomp restrict single threads, so each is tried on a thread that ends afterwards.

use std::fs;
use std::time::Duration;

use clawsec_core::Without;
use clawsec_init::landlock::{self, Ruleset};
use clawsec_proto as pb;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{Cgroups, move_process};
use crate::error::{Context, Error, Result};
use crate::{apparmor, limits, runc, seccomp, secrets, sys};

/// `LANDLOCK_ACCESS_FS_READ_FILE`.
const READ_FILE: u64 = 1 << 2;

/// Tries everything. `instance` names the cgroups that are made and removed again. Blocks for some ten milliseconds.
pub fn probe(instance: &str, without: Without) -> Vec<pb::Capability> {
    let mut capabilities = vec![
        capability(
            "runc",
            "install runc 1.1 or newer",
            runc::version().map(|version| {
                let detail = format!("runc says that it is version {version}");
                (detail, version)
            }),
        ),
        waivable(
            "landlock",
            "use a kernel with Landlock (5.13; 6.2 for all that policies ask of it), started with lsm=landlock,...",
            try_landlock(),
        ),
        capability("seccomp.filter", "use a kernel with CONFIG_SECCOMP_FILTER", try_seccomp(without)),
        capability(
            "cgroup.kill",
            "use Linux 5.14 or newer, with cgroup v2 mounted",
            try_cgroup_kill(instance),
        ),
        waivable(
            "tmpfs.noswap",
            "use Linux 6.4 or newer, which secrets need",
            secrets::probe()
                .map(|()| ("a detached tmpfs that is never swapped was made".into(), String::new())),
        ),
        probe_apparmor(),
    ];
    capabilities.extend(limits::probe(&format!("clawsec-{instance}"), without));
    capabilities
}

/// Tries AppArmor alone. A sandbox whose policy waives it runs without.
pub fn probe_apparmor() -> pb::Capability {
    let remedy = "boot a kernel with CONFIG_SECURITY_APPARMOR with lsm=...,apparmor, and install apparmor (its parser)";
    waivable("apparmor", remedy, apparmor::prove())
}

/// What a policy can do without if it says so, and what not every policy needs. The compiler refuses the others.
fn waivable(name: &str, remedy: &str, outcome: Result<(String, String)>) -> pb::Capability {
    pb::Capability { required: false, ..capability(name, remedy, outcome) }
}

fn capability(name: &str, remedy: &str, outcome: Result<(String, String)>) -> pb::Capability {
    let mut capability = pb::Capability { name: name.into(), required: true, ..Default::default() };
    match outcome {
        Ok((detail, level)) => {
            capability.set_state(pb::CapabilityState::Present);
            (capability.detail, capability.level) = (detail, level);
        }
        Err(error) => {
            capability.set_state(pb::CapabilityState::Missing);
            (capability.detail, capability.remedy) = (error.to_string(), remedy.into());
        }
    }
    capability
}

/// On a thread of its own, which may lose its rights.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
        work()
    })
    .join()
    .map_err(|_| Error::Failed("the thread that tried it died".into()))?
}

fn try_landlock() -> Result<(String, String)> {
    let abi = landlock::abi();
    if abi == 0 {
        return Err(Error::Failed("the kernel has no Landlock, or was started without it".into()));
    }
    on_a_thread(move || {
        let file = "/proc/self/status";
        fs::read(file).context("reading before the restriction")?;
        let ruleset = Ruleset { abi: 1, handled_access_fs: READ_FILE, ..Ruleset::default() };
        ruleset.restrict_self().map_err(|refusal| Error::Failed(refusal.to_string()))?;
        match fs::read(file) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                Ok(("a restricted thread could not read a file that it read before".into(), abi.to_string()))
            }
            other => Err(Error::Failed(format!("a restricted thread was not denied a read: {other:?}"))),
        }
    })
}

fn try_seccomp(without: Without) -> Result<(String, String)> {
    let profile = br#"{"defaultAction":"SCMP_ACT_ALLOW",
        "syscalls":[{"names":["getcwd"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let filter = seccomp::compile(profile)?;
    on_a_thread(move || {
        std::env::current_dir().context("getcwd before the filter")?;
        sys::install_filter_on_this_thread(&filter.instructions).context("installing a filter")?;
        match std::env::current_dir() {
            Err(error) if error.raw_os_error() == Some(95) => {
                let wait = !without.wait_killable && sys::seccomp_flags_known(sys::WAIT_KILLABLE);
                let level = if wait { "wait-killable" } else { "" };
                Ok(("a filtered thread got the error that the filter gives".into(), level.into()))
            }
            other => Err(Error::Failed(format!("a filtered thread was not denied: {other:?}"))),
        }
    })
}

fn try_cgroup_kill(instance: &str) -> Result<(String, String)> {
    let cgroups = Cgroups::find(&format!("clawsec-{instance}"))?;
    // No sandbox can have this name: it has a capital letter.
    let name = format!("Probe-{}", std::process::id());
    let scope = cgroups.create(&name, &["one".into()])?;
    let child = sys::fork_sleeper().context("fork")?;
    let tried = (|| {
        let pid = Pid::from_raw(child).ok_or_else(|| Error::Failed("fork".into()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
        let moved = move_process(&scope.subjects[0], child as u32);
        let killed = moved.and_then(|()| cgroups.kill(&name)).and_then(|()| {
            if cgroups.wait_empty(&name, Duration::from_secs(2)) {
                return Ok(());
            }
            Err(Error::Failed("a process was still there two seconds after cgroup.kill".into()))
        });
        if killed.is_err() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // Dead by either way, so this ends.
        let mut status = sys::reap(&pidfd);
        while matches!(status, Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
            status = sys::reap(&pidfd);
        }
        killed
    })();
    let removed = cgroups.remove(&name);
    // Only when no sandbox is there: otherwise it is not empty.
    cgroups.remove_parents();
    tried?;
    removed?;
    Ok(("a process in a cgroup was killed by cgroup.kill".into(), String::new()))
}
