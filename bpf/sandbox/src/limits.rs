//! The limits of a sandbox (memory, processes, cpu), each proven by running into it with a throw-away process.
//!
//! runc sets them, and chooses where: cgroup v2 when that is what is mounted on `/sys/fs/cgroup`, else the v1 hierarchy
//! of each controller, and no other. So each is tried where runc would set it.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clawsec_core::Without;
use clawsec_proto as pb;
use rustix::fs::statfs;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, Error, Result};
use crate::sys;

/// Where runc looks for cgroup v2.
const UNIFIED: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: i64 = 0x6367_7270;
/// For a process that does next to nothing, on a host that is very busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a worker asks for, and how much it may have: far apart, so that what the kernel charges beside does not count.
const WANTED_MEMORY: u32 = 16 << 20;
const LITTLE_MEMORY: u64 = 4 << 20;
const MUCH_MEMORY: u64 = 256 << 20;

/// A tenth of a processor, in microseconds; the shortest quota that the kernel takes.
const QUOTA_US: u32 = 1_000;
const PERIOD_US: u32 = 10_000;

/// Tries the limits, but for those that are to be left unused. `parent`: the loader's folder in each hierarchy.
pub fn probe(parent: &str, without: Without) -> [pb::Capability; 3] {
    [
        one("memory", without.cgroup_memory, || memory(parent)),
        one("pids", without.cgroup_pids, || pids(parent)),
        one("cpu", without.cgroup_cpu, || cpu(parent)),
    ]
}

/// The capability of one controller. Not required: a policy can waive a limit by this name.
fn one(controller: &str, unused: bool, prove: impl FnOnce() -> Result<(String, String)>) -> pb::Capability {
    let name = format!("cgroup.{controller}");
    let mut capability = pb::Capability { name: name.clone(), ..Default::default() };
    if unused {
        capability.set_state(pb::CapabilityState::Missing);
        capability.detail = format!("it is left unused (--without {name})");
        capability.remedy = "start the loader without that option".into();
        return capability;
    }
    match prove() {
        Ok((detail, level)) => {
            capability.set_state(pb::CapabilityState::Present);
            (capability.detail, capability.level) = (detail, level);
        }
        Err(error) => {
            capability.set_state(pb::CapabilityState::Missing);
            capability.detail = error.to_string();
            capability.remedy = format!(
                "boot a kernel that has the {controller} controller, without cgroup_disable={controller}, and mount it: \
                 cgroup v2 on {UNIFIED}, or its own v1 hierarchy"
            );
        }
    }
    capability
}

fn memory(parent: &str) -> Result<(String, String)> {
    let scratch = Scratch::new("memory", parent)?;
    let tries = |limit: u64| {
        let [most, with_swap] = match scratch.version {
            Version::V1 => ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            Version::V2 => ["memory.max", "memory.swap.max"],
        };
        let limit = limit.to_string();
        scratch.set(most, &limit)?;
        // As in a sandbox: no swap beside it.
        scratch.set(with_swap, if matches!(scratch.version, Version::V1) { &limit } else { "0" })?;
        scratch.run(|| sys::take_memory(WANTED_MEMORY))
    };
    // The smaller limit first: a v1 hierarchy takes no limit with swap that is below the one without.
    let refused = tries(LITTLE_MEMORY)?;
    if !matches!(refused, (libc::ENOMEM, 0) | (_, libc::SIGKILL)) {
        return Err(Error::Failed(format!(
            "a process had more memory than its limit (it ended with {refused:?})"
        )));
    }
    scratch.lift_memory()?;
    let granted = tries(MUCH_MEMORY)?;
    if granted != (0, 0) {
        return Err(Error::Failed(format!(
            "a process did not get the memory of its limit (it ended with {granted:?})"
        )));
    }
    Ok((
        "a process was refused what is beyond its memory limit, and got what is within".into(),
        scratch.level(),
    ))
}

fn pids(parent: &str) -> Result<(String, String)> {
    let scratch = Scratch::new("pids", parent)?;
    let tries = |most: &str| {
        scratch.set("pids.max", most)?;
        scratch.run(sys::fork_once)
    };
    let (alone, two) = (tries("1")?, tries("2")?);
    if (alone, two) != ((libc::EAGAIN, 0), (0, 0)) {
        return Err(Error::Failed(format!(
            "a process that may not fork ended with {alone:?}, and one that may with {two:?}"
        )));
    }
    Ok(("a process could not fork at its limit, and could below it".into(), scratch.level()))
}

fn cpu(parent: &str) -> Result<(String, String)> {
    let scratch = Scratch::new("cpu", parent)?;
    match scratch.version {
        Version::V1 => {
            scratch.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            scratch.set("cpu.cfs_quota_us", &QUOTA_US.to_string())?;
        }
        Version::V2 => scratch.set("cpu.max", &format!("{QUOTA_US} {PERIOD_US}"))?,
    }
    let worker = scratch.start(sys::spin)?;
    let end = Instant::now() + PATIENCE;
    while scratch.throttled()? == 0 {
        if Instant::now() > end {
            return Err(Error::Failed("a process that never rests was not throttled at its limit".into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(worker);
    Ok(("a process that never rests was throttled at its limit".into(), scratch.level()))
}

#[derive(Debug, Clone, Copy)]
enum Version {
    V1,
    V2,
}

/// A cgroup that is removed at the end.
struct Scratch {
    folder: PathBuf,
    version: Version,
}

impl Scratch {
    fn new(controller: &str, parent: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (mount, version) = hierarchy(controller)?;
        let parent = mount.join(parent);
        // No sandbox can have this name: it has a capital letter.
        let folder = parent.join(format!("Probe-{}-{number}", std::process::id()));
        fs::create_dir_all(&parent).context(format_args!("making the cgroup {parent:?}"))?;
        if matches!(version, Version::V2) {
            for above in [&mount, &parent] {
                let file = above.join("cgroup.subtree_control");
                fs::write(&file, format!("+{controller}")).context(format_args!("{file:?}"))?;
            }
        }
        fs::create_dir(&folder).context(format_args!("making the cgroup {folder:?}"))?;
        Ok(Self { folder, version })
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.folder.join(file), value).context(format_args!("setting {file} to {value}"))
    }

    /// Before a limit that is higher than both: neither may be passed by the other.
    fn lift_memory(&self) -> Result<()> {
        match self.version {
            Version::V1 => self.set("memory.memsw.limit_in_bytes", "-1"),
            Version::V2 => Ok(()),
        }
    }

    fn throttled(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).context("cpu.stat")?;
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.unwrap_or_default().parse().context("cpu.stat")
    }

    fn level(&self) -> String {
        match self.version {
            Version::V1 => "v1".into(),
            Version::V2 => "v2".into(),
        }
    }

    /// How a process ended that did this here: (exit code or 128 + signal, signal).
    fn run(&self, work: impl FnOnce() -> i32) -> Result<(i32, i32)> {
        self.start(work)?.end()
    }

    fn start(&self, work: impl FnOnce() -> i32) -> Result<Worker> {
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        let child = sys::fork_worker(wait.as_fd(), work).context("fork")?;
        let pid = Pid::from_raw(child).ok_or_else(|| Error::Failed("fork".into()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
        let worker = Worker { pidfd };
        fs::write(self.folder.join("cgroup.procs"), child.to_string()).context("moving a process")?;
        rustix::io::write(&go, &[0]).context("pipe")?;
        Ok(worker)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(1);
        // EBUSY for some milliseconds after the last process ended.
        while fs::remove_dir(&self.folder).is_err() && self.folder.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Only when no sandbox is there: otherwise it is not empty.
        if let Some(parent) = self.folder.parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// A child that has not been reaped. Killed and reaped at the end, whatever happens.
struct Worker {
    pidfd: std::os::fd::OwnedFd,
}

impl Worker {
    fn end(&self) -> Result<(i32, i32)> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = sys::reap(&self.pidfd).context("waiting for a process")? {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(Error::Failed("a process that tried a limit did not end in time".into()));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that was reaped is none that a signal could reach.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        while matches!(sys::reap(&self.pidfd), Ok(None)) {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Where runc sets the limit of this controller.
fn hierarchy(controller: &str) -> Result<(PathBuf, Version)> {
    let unified = statfs(UNIFIED).is_ok_and(|found| found.f_type == CGROUP2);
    if unified {
        let file = Path::new(UNIFIED).join("cgroup.controllers");
        let known = fs::read_to_string(&file).context(format_args!("{file:?}"))?;
        if known.split_whitespace().any(|name| name == controller) {
            return Ok((UNIFIED.into(), Version::V2));
        }
        return Err(Error::Failed(format!("cgroup v2 has no {controller} controller here")));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mount = v1_mount(&table, controller).ok_or_else(|| {
        Error::Failed(format!(
            "no cgroup v1 hierarchy of the {controller} controller is mounted, and runc sets limits in cgroup v2 only \
             where that is mounted on {UNIFIED}"
        ))
    })?;
    Ok((mount, Version::V1))
}

/// Mount point of a controller's v1 hierarchy in a text like /proc/self/mountinfo (proc(5)).
fn v1_mount(table: &str, controller: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let is_v1 = fields.next() == Some("cgroup");
        let of_it = fields.nth(1)?.split(',').any(|option| option == controller);
        (is_v1 && of_it).then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,memory
";

    #[test]
    fn a_controllers_hierarchy_is_told_from_its_neighbours() {
        assert_eq!(v1_mount(TABLE, "cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(v1_mount(TABLE, "cpuset"), Some("/sys/fs/cgroup/cpuset".into()));
        assert_eq!(v1_mount(TABLE, "memory"), None);
        assert_eq!(v1_mount(TABLE, "pids"), None);
    }
}
