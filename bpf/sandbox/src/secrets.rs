//! Secrets of a sandbox: files in a tmpfs that exists in no mount namespace but the sandbox's.
//!
//! The file system is made detached and never swapped, unless the policy waives that. The loader keeps a writable view of it, which is mounted nowhere;
//! the sandbox gets a read-only clone, moved into its mount namespace between create and start. So a value is never in
//! an environment, a layer, a bundle, the host's mounts or on a disk, and it is emptied where open descriptors and
//! maps see it: by truncation.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use clawsec_proto as pb;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, fchown, ftruncate, open, openat, openat2, renameat};
use rustix::fs::{Gid, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use zeroize::Zeroizing;

use crate::error::{Context, Error, Result, invalid};
use crate::layout::check_path;
use crate::sys;

/// Largest value in bytes.
const MAX_VALUE: usize = 64 << 10;
/// Size of the file system in bytes: 64 of the largest values while all of them are rotated at once.
const SIZE: &str = "8388608";
/// A rotation's new file, until it takes the old one's name. No secret's name begins with a dot.
const NEW: &str = ".new";

/// The secrets of one sandbox.
#[derive(Debug)]
pub struct Secrets {
    mount: OwnedFd,
    /// Read-only, for the sandbox; mounted nowhere until [`Secrets::attach`].
    view: OwnedFd,
    target: String,
    owner: (Uid, Gid),
}

impl Secrets {
    /// Makes the file system, with no secret in it.
    ///
    /// # Errors
    /// The kernel cannot make a tmpfs that is never swapped (6.4), and the policy does not waive it.
    pub fn new(mount: &pb::SecretsMount) -> Result<Self> {
        check_path("the secrets' mount", &mount.path)?;
        let [writable, view] = two_mounts(detached_tmpfs(mount.may_swap)?)?;
        sys::make_read_only(view.as_fd()).context("making the secrets read-only")?;
        Ok(Self {
            mount: writable,
            view,
            target: mount.path.clone(),
            owner: (Uid::from_raw(mount.uid), Gid::from_raw(mount.gid)),
        })
    }

    /// Writes or replaces secrets. A descriptor that is open on a replaced one reads end of file from now on. The
    /// values are wiped from the request's memory, whatever the outcome.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name or a value that is too long: then nothing was written.
    pub fn put(&self, secrets: Vec<pb::Secret>) -> Result<()> {
        let secrets: Vec<(String, Zeroizing<Vec<u8>>)> =
            secrets.into_iter().map(|secret| (secret.name, Zeroizing::new(secret.value))).collect();
        for (name, value) in &secrets {
            check_name(name)?;
            if value.len() > MAX_VALUE {
                return invalid(format!(
                    "the secret {name} has {} bytes, {MAX_VALUE} are possible",
                    value.len()
                ));
            }
        }
        for (name, value) in &secrets {
            self.put_one(name, value).context(format_args!("writing the secret {name}"))?;
        }
        Ok(())
    }

    fn put_one(&self, name: &str, value: &[u8]) -> std::io::Result<()> {
        let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = openat(&self.mount, name, write, Mode::empty()).ok();
        let new =
            openat(&self.mount, NEW, write | OFlags::CREATE | OFlags::TRUNC, Mode::from_raw_mode(0o400))?;
        fchown(&new, Some(self.owner.0), Some(self.owner.1))?;
        File::from(new).write_all(value)?;
        renameat(&self.mount, NEW, &self.mount, name)?;
        if let Some(old) = old {
            ftruncate(&old, 0)?;
        }
        Ok(())
    }

    /// Empties every secret: open descriptors read end of file, maps fault. Returns how many were emptied.
    ///
    /// # Errors
    /// The kernel's; all the others are emptied nevertheless.
    pub fn revoke(&self) -> Result<u32> {
        let mut emptied = 0;
        let mut failure = None;
        // A descriptor of its own, because reading a folder moves the descriptor's position.
        let listing =
            openat(&self.mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        for entry in Dir::read_from(listing.context("the secrets")?).context("the secrets")? {
            let entry = entry.context("listing the secrets")?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let result =
                openat(&self.mount, entry.file_name(), flags, Mode::empty()).and_then(|f| ftruncate(f, 0));
            match result {
                Ok(()) => emptied += 1,
                Err(errno) => failure = Some(errno),
            }
        }
        match failure {
            None => Ok(emptied),
            Some(errno) => Err(Error::Failed(format!("a secret could not be emptied: {errno}"))),
        }
    }

    /// Mounts the read-only view into the mount namespace of `pid`, which must stand still and not be reaped. Once.
    ///
    /// # Errors
    /// The kernel's; the mount point is missing.
    pub fn attach(&self, pid: u32) -> Result<()> {
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).context("the sandbox's mount namespace")?;
        on_a_thread(|| move_into(&namespace, &self.view, &self.target))
    }
}

/// On a thread that shares its root and working directory with no other: only such a one may change its mount namespace.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let alone = || {
        unshare(CloneFlags::CLONE_FS).context("unshare")?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(alone).join())
        .map_err(|_| Error::Failed("the thread that mounts secrets died".into()))?
}

/// Two mounts of the file system of one that is mounted nowhere; they are mounted nowhere, too. Before Linux 6.15 only
/// what is mounted in the caller's namespace can be cloned (open_tree(2): EINVAL), so it is mounted in one that ends at once.
fn two_mounts(detached: OwnedFd) -> Result<[OwnedFd; 2]> {
    on_a_thread(move || {
        let what = "cloning the secrets' mount";
        unshare(CloneFlags::CLONE_NEWNS).context(what)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).context(what)?;
        move_mount(&detached, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context(what)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let clone = || open_tree(&detached, "", flags).context(what);
        Ok([clone()?, clone()?])
    })
}

fn move_into(namespace: &File, view: &OwnedFd, target: &str) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNS).context("entering the sandbox's mount namespace")?;
    let what = format_args!("mounting the secrets on {target}").to_string();
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).context(&what)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
    let target = openat2(&root, target, flags, Mode::empty(), resolve).context(&what)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(view, "", &target, "", flags).context(&what)
}

fn detached_tmpfs(may_swap: bool) -> Result<OwnedFd> {
    let what = if may_swap { "a tmpfs" } else { "a tmpfs that is never swapped (Linux 6.4 or newer)" };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context(what)?;
    for (key, value) in [("size", SIZE), ("nr_inodes", "1024"), ("mode", "0755")] {
        fsconfig_set_string(&context, key, value).context(what)?;
    }
    if !may_swap {
        fsconfig_set_flag(&context, "noswap").context(what)?;
    }
    fsconfig_create(&context).context(what)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context(what)
}

/// `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`
fn check_name(name: &str) -> Result<()> {
    let rest = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let bytes = name.as_bytes();
    if bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.len() <= 128
        && bytes.iter().all(|&c| rest(c))
    {
        return Ok(());
    }
    invalid(format!(
        "{name:?} is no name of a secret: 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', not first a mark"
    ))
}

/// Proves that such a file system can be made here, with its two mounts.
///
/// # Errors
/// It cannot.
pub(crate) fn probe() -> Result<()> {
    detached_tmpfs(false).and_then(two_mounts).map(drop)
}
