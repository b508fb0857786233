//! The root file system of a sandbox: an empty folder and the entries of the request, all root's.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clawsec_init::wire;
use clawsec_proto as pb;
use pb::rootfs_entry::Kind;
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, open, openat2, symlinkat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result, invalid};
use crate::layout::check_path;

/// Makes the folder `root` with these entries, and the shim's folder as a mount point.
///
/// Every step resolves below `root` and through no symbolic link, so that an entry cannot write outside: a link
/// entry is only ever a last name.
///
/// # Errors
/// [`Error::Invalid`] for a bad path, a doubled one, or one below a link or file entry.
pub fn build(root: &Path, entries: &[pb::RootfsEntry]) -> Result<()> {
    check(entries)?;
    fs::create_dir(root).context(format_args!("making {root:?}"))?;
    // The sandbox's users enter it; who may not is kept out by the folders above.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).context("chmod of the root file system")?;
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the root file system")?;
    folder(&root, wire::DIR)?;
    for entry in entries {
        let path = entry.path.as_str();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match &entry.kind {
            Some(Kind::Directory(_)) => drop(folder(&root, path)?),
            Some(Kind::Symlink(target)) => {
                symlinkat(target.as_str(), folder(&root, parent)?, name)
                    .context(format_args!("the symbolic link {path:?} of the root file system"))?;
            }
            Some(Kind::File(content)) => file(&folder(&root, parent)?, name, content)
                .context(format_args!("the file {path:?} of the root file system"))?,
            None => return invalid(format!("the root file system's entry {path:?} says not what it is")),
        }
    }
    Ok(())
}

fn check(entries: &[pb::RootfsEntry]) -> Result<()> {
    let mut seen = HashSet::new();
    for entry in entries {
        check_path("the root file system's entry", &entry.path)?;
        if !seen.insert(entry.path.as_str()) {
            return invalid(format!("the root file system has {:?} twice", entry.path));
        }
        if Path::new(&entry.path).starts_with(wire::DIR) {
            return invalid(format!(
                "the root file system's entry {:?} is in the shim's own folder",
                entry.path
            ));
        }
        if matches!(&entry.kind, Some(Kind::Symlink(target)) if target.is_empty() || target.contains('\0')) {
            return invalid(format!(
                "the symbolic link {:?} of the root file system has no target",
                entry.path
            ));
        }
    }
    Ok(())
}

fn below(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a folder, made with mode 0755 where it is missing, also its parents.
fn folder(root: &OwnedFd, path: &str) -> Result<OwnedFd> {
    let what = format_args!("the folder {path:?} of the root file system").to_string();
    match below(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(folder) => return Ok(folder),
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return invalid(format!("{what} is below an entry that is no folder"));
        }
        Err(errno) => return Err(Error::Failed(format!("{what}: {errno}"))),
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = folder(root, parent)?;
    mkdirat(&parent, name, Mode::from_raw_mode(0o755)).context(&what)?;
    let made = below(root, path, OFlags::RDONLY | OFlags::DIRECTORY).context(&what)?;
    // The umask may have taken some away.
    fchmod(&made, Mode::from_raw_mode(0o755)).context(&what)?;
    Ok(made)
}

fn file(parent: &OwnedFd, name: &str, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o444))?;
    fchmod(&made, Mode::from_raw_mode(0o444))?;
    File::from(made).write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> pb::RootfsEntry {
        pb::RootfsEntry { path: path.into(), kind: Some(kind) }
    }

    fn directory() -> Kind {
        Kind::Directory(pb::rootfs_entry::Directory {})
    }

    #[test]
    fn entries_are_made_as_asked_with_their_parents() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("rootfs");
        let entries = [
            entry("/etc/hosts", Kind::File(b"127.0.0.1 localhost\n".to_vec())),
            entry("/usr", directory()),
            entry("/bin", Kind::Symlink("usr/bin".into())),
            entry("/home/agent/workspace", directory()),
        ];
        build(&root, &entries).unwrap();
        assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), b"127.0.0.1 localhost\n");
        assert_eq!(fs::metadata(root.join("etc/hosts")).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        assert!(root.join("home/agent/workspace").is_dir() && root.join(".clawsec").is_dir());
    }

    #[test]
    fn no_entry_reaches_outside() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let target = outside.to_str().unwrap().to_owned();
        for (number, entries) in [
            vec![entry("/a", Kind::Symlink(target.clone())), entry("/a/b", Kind::File(vec![1]))],
            vec![entry("/a", Kind::Symlink(target)), entry("/a/b", directory())],
            vec![entry("/../outside/b", Kind::File(vec![1]))],
            vec![entry("/a", directory()), entry("/a", directory())],
            vec![entry("/.clawsec/init", Kind::File(vec![1]))],
            vec![pb::RootfsEntry { path: "/a".into(), kind: None }],
        ]
        .into_iter()
        .enumerate()
        {
            let root = place.path().join(number.to_string());
            assert!(matches!(build(&root, &entries), Err(Error::Invalid(_))), "case {number}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
