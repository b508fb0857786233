//! What file a descriptor is, in the kernel's terms: the numbers that the BPF program sees.
//!
//! `stat` does not give them everywhere: on an overlay of several file systems and on btrfs its device and inode
//! are made up. `/proc/self/fdinfo` has the inode's own number and the mount, and mountinfo the mount's device.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, openat, readlinkat, statx};

/// File systems whose `stat` has the inode's own numbers, so that a read of fdinfo is spared.
const PLAIN: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs", "squashfs"];
/// Mounts kept in mind for one sandbox.
const MOUNTS_MAX: usize = 4096;

/// Identity and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device of the superblock, as the kernel encodes it.
    pub device: u32,
    /// Number of the inode in it.
    pub inode: u64,
    /// Change time, seconds and nanoseconds.
    pub changed: (i64, u32),
    /// Modification time.
    pub modified: (i64, u32),
    /// Bytes.
    pub size: u64,
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.device >> 20, self.device & 0xf_ffff, self.inode)
    }
}

/// Where a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// On a mount of the task.
    Mounted,
    /// On none: a memfd, or a file of a mount that the task does not have.
    Unmounted,
}

#[derive(Debug, Clone, Copy)]
struct Mount {
    device: u32,
    plain: bool,
}

/// The devices of the mounts of a sandbox.
#[derive(Debug, Default)]
pub struct Mounts {
    // A mount's number can come again; with another device behind it, it is looked up again.
    known: Mutex<HashMap<(u64, u32), Mount>>,
}

impl Mounts {
    /// Identifies an open file (also `O_PATH`), seen from the mount namespace of `tid`.
    pub fn identify(&self, fd: BorrowedFd<'_>, tid: i32) -> io::Result<(FileId, Visibility, Statx)> {
        let stat = status(fd)?;
        let (id, visibility) = self.identify_stat(fd, &stat, tid)?;
        Ok((id, visibility, stat))
    }

    /// As [`Mounts::identify`], where [`status`] of the file is known.
    pub fn identify_stat(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Statx,
        tid: i32,
    ) -> io::Result<(FileId, Visibility)> {
        let stat_device = encode(stat.stx_dev_major, stat.stx_dev_minor);
        let key = (stat.stx_mnt_id, stat_device);
        let mount = self.find(key, tid)?;
        let (device, visibility) = match mount {
            Some(mount) => (mount.device, Visibility::Mounted),
            None => (stat_device, Visibility::Unmounted),
        };
        let plain = mount.is_some_and(|mount| mount.plain && mount.device == stat_device);
        let inode = if plain { stat.stx_ino } else { inode_number(fd)? };
        let time = |stamp: StatxTimestamp| (stamp.tv_sec, stamp.tv_nsec);
        let id = FileId {
            device,
            inode,
            changed: time(stat.stx_ctime),
            modified: time(stat.stx_mtime),
            size: stat.stx_size,
        };
        Ok((id, visibility))
    }

    fn find(&self, key: (u64, u32), tid: i32) -> io::Result<Option<Mount>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = known.get(&key) {
            return Ok(Some(*mount));
        }
        let text = fs::read(format!("/proc/{tid}/mountinfo"))?;
        let text = String::from_utf8_lossy(&text);
        let found = text.lines().filter_map(parse_mount).find(|(id, _)| *id == key.0);
        let Some((_, mount)) = found else { return Ok(None) };
        if known.len() >= MOUNTS_MAX {
            known.clear();
        }
        known.insert(key, mount);
        Ok(Some(mount))
    }
}

/// `stat` of a descriptor, with the number of its mount.
pub fn status(fd: BorrowedFd<'_>) -> io::Result<Statx> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel does not number mounts in statx",
        ));
    }
    Ok(stat)
}

/// `dev_t` as the kernel has it inside.
pub fn encode(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

// A line of mountinfo (proc_pid_mountinfo(5)): id parent major:minor root point options [optional] - type ...
fn parse_mount(line: &str) -> Option<(u64, Mount)> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ');
    let id = words.next()?.parse().ok()?;
    let (major, minor) = words.nth(1)?.split_once(':')?;
    let device = encode(major.parse().ok()?, minor.parse().ok()?);
    let plain = PLAIN.contains(&after.split(' ').next()?);
    Some((id, Mount { device, plain }))
}

fn inode_number(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok());
    number
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "fdinfo has no inode number (Linux 5.14)"))
}

/// The name that an open file has now, as the namespace has it in which it was opened. Of one without a name it ends with
/// " (deleted)" (proc_pid_fd(5)).
pub(crate) fn name_of(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<u8>> {
    // Kept open: the way there takes longer than the answer, and each exec asks.
    static DESCRIPTORS: OnceLock<OwnedFd> = OnceLock::new();
    let descriptors = match DESCRIPTORS.get() {
        Some(descriptors) => descriptors,
        None => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
            DESCRIPTORS.get_or_init(|| opened)
        }
    };
    Ok(readlinkat(descriptors, fd.as_raw_fd().to_string(), Vec::with_capacity(256))?.into_bytes())
}

/// What there is to know of the file that a path leads to, its last link followed.
pub(crate) fn statx_of(path: &str) -> io::Result<Statx> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?)
}

/// Whether two are of the same file.
pub(crate) fn is_same(one: &Statx, other: &Statx) -> bool {
    (one.stx_dev_major, one.stx_dev_minor, one.stx_ino)
        == (other.stx_dev_major, other.stx_dev_minor, other.stx_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountinfo_line_gives_number_device_and_type() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let (id, mount) = parse_mount(line).unwrap();
        assert_eq!((id, mount.device, mount.plain), (36, 98 << 20, true));
        let (_, overlay) = parse_mount("1 2 0:48 / / rw - overlay overlay rw").unwrap();
        assert!(!overlay.plain);
        for garbage in ["", "x", "1 2 3", "1 2 3:4 / /", "a b c:d e f - g"] {
            assert!(parse_mount(garbage).is_none(), "{garbage:?}");
        }
    }

    #[test]
    fn an_open_file_has_its_name_of_now_whichever_descriptor_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let folder_name = fs::canonicalize(folder.path()).unwrap();
        let [one, two] = ["one", "two"].map(|name| folder_name.join(name));
        let file = fs::File::create(&one).unwrap();
        let again = file.try_clone().unwrap();
        for fd in [file.as_fd(), again.as_fd()] {
            assert_eq!(name_of(fd).unwrap(), one.as_os_str().as_encoded_bytes());
        }
        fs::rename(&one, &two).unwrap();
        assert_eq!(name_of(file.as_fd()).unwrap(), two.as_os_str().as_encoded_bytes());
        fs::remove_file(&two).unwrap();
        assert!(name_of(again.as_fd()).unwrap().ends_with(b"/two (deleted)"));
    }

    #[test]
    fn an_open_file_is_identified_and_a_memfd_is_on_no_mount() {
        let me = std::process::id() as i32;
        let mounts = Mounts::default();
        let file = fs::File::open("/proc/self/exe").unwrap();
        let (id, visibility, _) = mounts.identify(file.as_fd(), me).unwrap();
        assert_eq!(id.inode, inode_number(file.as_fd()).unwrap());
        assert_eq!(visibility, Visibility::Mounted);
        let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let (_, visibility, _) = mounts.identify(memory.as_fd(), me).unwrap();
        assert_eq!(visibility, Visibility::Unmounted);
    }
}
