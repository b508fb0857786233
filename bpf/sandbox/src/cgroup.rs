//! The cgroups of a sandbox: one in the v2 hierarchy for each subject, and what runc makes for its limits.
//!
//! On a hybrid host runc puts its limits into the v1 hierarchies; there only emptiness and removal are our business.
//! On a v2-only host runc's cgroup is the parent of the subjects' cgroups, so the limits hold for all of them together.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawsec_core::{Scope, SubjectScope};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, Error, Result};

/// The hierarchies of this host, and the folder of this loader in them.
#[derive(Debug, Clone)]
pub struct Cgroups {
    v2: PathBuf,
    v1: Vec<PathBuf>,
    parent: String,
}

impl Cgroups {
    /// Finds the hierarchies in `/proc/self/mountinfo`. `parent` is the loader's folder, e.g. `clawsec-1a2b3c4d`.
    ///
    /// # Errors
    /// There is no cgroup v2 hierarchy.
    pub fn find(parent: &str) -> Result<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let of_type = |wanted: &str| -> Vec<PathBuf> {
            table
                .lines()
                .filter_map(|line| {
                    let (mount, file_system) = line.split_once(" - ")?;
                    let is_it = file_system.split(' ').next() == Some(wanted);
                    is_it.then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
                })
                .collect()
        };
        let v2 = of_type("cgroup2").into_iter().next().ok_or_else(|| {
            Error::Failed(
                "no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup".into(),
            )
        })?;
        Ok(Self { v2, v1: of_type("cgroup"), parent: parent.to_owned() })
    }

    /// Where the v2 hierarchy is mounted.
    pub fn v2_mount(&self) -> &Path {
        &self.v2
    }

    fn loader_folder(&self) -> PathBuf {
        self.v2.join(&self.parent)
    }

    fn folder(&self, sandbox: &str) -> PathBuf {
        self.loader_folder().join(sandbox)
    }

    /// Makes one cgroup for each subject.
    ///
    /// # Errors
    /// The kernel's; some folders may have been made then.
    pub fn create(&self, sandbox: &str, subjects: &[String]) -> Result<Scope> {
        let folder = self.folder(sandbox);
        let subjects = subjects
            .iter()
            .map(|name| {
                let cgroup = folder.join(name);
                fs::create_dir_all(&cgroup).context(format_args!("making the cgroup {cgroup:?}"))?;
                let cgroup_id = fs::metadata(&cgroup).context(format_args!("{cgroup:?}"))?.ino();
                Ok(SubjectScope { name: name.clone(), cgroup, cgroup_id })
            })
            .collect::<Result<_>>()?;
        Ok(Scope { sandbox: sandbox.to_owned(), subjects })
    }

    /// Processes of a sandbox, in all its v2 cgroups. Zombies are not among them.
    pub fn processes(&self, sandbox: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_pids(&self.folder(sandbox), &mut pids);
        pids
    }

    /// Sends SIGKILL to everything in a sandbox's v2 cgroups, atomically against fork (`cgroup.kill`, 5.14).
    ///
    /// Frozen first, because the signals go out one by one: where the init is hit before another process, what only the
    /// init kept shut would be open to that one.
    ///
    /// # Errors
    /// The kernel's. A cgroup that does not exist has nothing to kill.
    pub fn kill(&self, sandbox: &str) -> Result<()> {
        let folder = self.folder(sandbox);
        // An error of the freezing is no reason not to kill. A SIGKILL ends what is frozen.
        let _ = fs::write(folder.join("cgroup.freeze"), "1");
        let killed = fs::write(folder.join("cgroup.kill"), "1");
        let _ = fs::write(folder.join("cgroup.freeze"), "0");
        match killed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::Failed(format!("cgroup.kill of {sandbox}: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Kills what is only in runc's v1 cgroups: a start that was cut short before the move to v2. Each pid is held by
    /// a pidfd and looked up again before the signal, so that no reused pid is hit.
    pub fn kill_v1(&self, sandbox: &str) -> usize {
        let mut killed = 0;
        for folder in self.v1_folders(sandbox) {
            let procs = folder.join("cgroup.procs");
            for pid in read_pids(&procs) {
                let Some(pid) = Pid::from_raw(pid as i32) else { continue };
                let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                let still = read_pids(&procs).contains(&(pid.as_raw_pid() as u32));
                if still && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                    killed += 1;
                }
            }
        }
        killed
    }

    /// Waits until no process (zombies aside) is left in a sandbox's v2 cgroups. Blocks; returns false at the timeout.
    pub fn wait_empty(&self, sandbox: &str, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let events = self.folder(sandbox).join("cgroup.events");
        loop {
            match fs::read_to_string(&events) {
                Ok(text) if text.lines().any(|line| line == "populated 1") => {}
                Ok(_) => return true,
                // A removed cgroup is empty; ENODEV is the same during the removal.
                Err(error) if error.kind() == ErrorKind::NotFound => return true,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return true,
                Err(_) => {}
            }
            if Instant::now() >= end {
                return false;
            }
            // Half a millisecond: a kill of one process takes some ten, and a notification would cost a descriptor.
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Removes the cgroups of a sandbox, v2 and v1.
    ///
    /// # Errors
    /// Something is still in them.
    pub fn remove(&self, sandbox: &str) -> Result<()> {
        for folder in std::iter::once(self.folder(sandbox)).chain(self.v1_folders(sandbox)) {
            remove_tree(&folder).context(format_args!("removing the cgroup {folder:?}"))?;
        }
        Ok(())
    }

    /// Removes this loader's own folders where they are empty: runc leaves the v1 ones. Call it when no other sandbox
    /// is being made.
    pub fn remove_parents(&self) {
        for hierarchy in std::iter::once(&self.v2).chain(&self.v1) {
            // Not empty, or not there: both are fine.
            let _ = fs::remove_dir(hierarchy.join(&self.parent));
        }
    }

    /// Names of all sandboxes that have a cgroup of this loader in any hierarchy.
    pub fn sandboxes(&self) -> Vec<String> {
        std::iter::once(&self.v2)
            .chain(&self.v1)
            .filter_map(|hierarchy| fs::read_dir(hierarchy.join(&self.parent)).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn v1_folders(&self, sandbox: &str) -> impl Iterator<Item = PathBuf> {
        self.v1
            .iter()
            .map(move |hierarchy| hierarchy.join(&self.parent).join(sandbox))
            .filter(|folder| folder.is_dir())
    }
}

/// Moves a process (all its threads) into a subject's cgroup.
///
/// # Errors
/// The kernel's, e.g. that it is gone.
pub fn move_process(subject: &SubjectScope, pid: u32) -> Result<()> {
    fs::write(subject.cgroup.join("cgroup.procs"), pid.to_string())
        .context(format_args!("moving process {pid} into the cgroup of subject {}", subject.name))
}

/// Where a process that writes 0 moves itself (all its threads) into a subject's cgroup, whoever it is: the kernel asks
/// for the rights of whoever opened the file (cgroups(7), "0" for the writing process; Linux 5.16 for the rights).
///
/// # Errors
/// The kernel's.
pub(crate) fn open_procs(subject: &SubjectScope) -> Result<OwnedFd> {
    let procs = subject.cgroup.join("cgroup.procs");
    let file = fs::OpenOptions::new().write(true).open(&procs);
    Ok(file.context(format_args!("the cgroup of subject {}", subject.name))?.into())
}

/// Whether a process is in a subject's cgroup at this moment.
pub(crate) fn holds(subject: &SubjectScope, pid: u32) -> bool {
    read_pids(&subject.cgroup.join("cgroup.procs")).contains(&pid)
}

fn read_pids(procs: &Path) -> Vec<u32> {
    fs::read_to_string(procs).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}

fn collect_pids(folder: &Path, pids: &mut Vec<u32>) {
    pids.extend(read_pids(&folder.join("cgroup.procs")));
    for child in child_folders(folder) {
        collect_pids(&child, pids);
    }
}

fn child_folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// Children first. EBUSY comes for some milliseconds after the last process ended, so it is tried again.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for child in child_folders(folder) {
        remove_tree(&child)?;
    }
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}
