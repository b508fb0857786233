//! The loader's unix socket: one loader for a runtime directory, and only known peers.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::{UnixListener, UnixStream};

/// Who may use the socket beside root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peers {
    /// A user.
    pub uid: Option<u32>,
    /// A group, as primary or supplementary group of the peer.
    pub gid: Option<u32>,
}

impl Peers {
    fn allow(self, uid: u32, groups: &[u32]) -> bool {
        uid == 0 || self.uid == Some(uid) || self.gid.is_some_and(|gid| groups.contains(&gid))
    }
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A live loader has it.
    #[error(
        "another loader serves {0}: stop it first, or choose another runtime directory with --runtime-dir"
    )]
    Busy(PathBuf),
    /// What is there is not a socket, or not ours to use.
    #[error("{path} cannot be used: {why}")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Io { what, path: path.to_owned(), source }
}

/// The listening socket of the loader, and its claim on the runtime directory.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    peers: Peers,
    /// Locked while we live; the kernel unlocks it however we end.
    _claim: File,
}

impl Socket {
    /// Claims `runtime_dir` (made with mode 0750 if it does not exist) and listens on `loader.sock` in it.
    ///
    /// A socket that a dead loader left is removed; one that answers is an error. Both the lock and the connect test
    /// are needed: the lock decides between two loaders that start at the same time, the test finds a listener that
    /// does not know of the lock.
    pub fn bind(runtime_dir: &Path, peers: Peers) -> Result<Self, BindError> {
        prepare(runtime_dir, peers)?;
        let claim = claim(runtime_dir)?;
        let path = runtime_dir.join("loader.sock");
        remove_stale(&path)?;
        // Made with mode 0600 by the umask and opened up afterwards, so that no one gets in before.
        let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(&path);
        nix::sys::stat::umask(old);
        let listener = listener.map_err(failed("listening on", &path))?;
        chown(&path, peers.uid, peers.gid).map_err(failed("giving away", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))
            .map_err(failed("setting the mode of", &path))?;
        Ok(Self { listener, path, peers, _claim: claim })
    }

    /// The path clients connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of a peer that may use the socket; others are closed at once, and logged. Never ends.
    pub async fn accept(&self) -> UnixStream {
        loop {
            if let Some(stream) = self.try_accept().await {
                return stream;
            }
        }
    }

    async fn try_accept(&self) -> Option<UnixStream> {
        let stream = match self.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that gave up: the listener itself is fine.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                return None;
            }
        };
        let (uid, pid, groups) = match credentials(&stream) {
            Ok(credentials) => credentials,
            Err(error) => {
                tracing::warn!(%error, "a connection was closed: its peer is not known");
                return None;
            }
        };
        if !self.peers.allow(uid, &groups) {
            tracing::warn!(
                uid,
                pid,
                "a connection was closed: only root and the configured user and group may use the loader"
            );
            return None;
        }
        tracing::debug!(uid, pid, "connected");
        Some(stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left is removed by the next loader as stale.
        let _ = fs::remove_file(&self.path);
    }
}

/// Peer's user, process and groups, at the time of connect(2).
fn credentials(stream: &UnixStream) -> io::Result<(u32, i32, Vec<u32>)> {
    let peer = getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?;
    let mut groups = peer_groups(stream)?;
    groups.push(peer.gid());
    Ok((peer.uid(), peer.pid(), groups))
}

/// Supplementary groups of the peer: SO_PEERGROUPS, unix(7), Linux 4.13.
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX is 65,536; ours would be a strange peer with more than a thousand.
    let mut groups = vec![0 as libc::gid_t; 1024];
    let mut length =
        libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `groups` is valid for writes of `length` bytes, and gid_t has no invalid values.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

fn prepare(runtime_dir: &Path, peers: Peers) -> Result<(), BindError> {
    if !runtime_dir.is_absolute() {
        return Err(BindError::Unusable {
            path: runtime_dir.to_owned(),
            why: "the runtime directory must be an absolute path".into(),
        });
    }
    if !runtime_dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(runtime_dir)
            .map_err(failed("making", runtime_dir))?;
        chown(runtime_dir, peers.uid, peers.gid).map_err(failed("giving away", runtime_dir))?;
    }
    let meta = fs::metadata(runtime_dir).map_err(failed("looking at", runtime_dir))?;
    let why = if !meta.is_dir() {
        "it is not a folder"
    } else if meta.uid() != 0 && Some(meta.uid()) != peers.uid {
        "it belongs to a user who may not use the loader"
    } else if meta.mode() & 0o002 != 0 {
        "everybody may write to it"
    } else {
        return Ok(());
    };
    Err(BindError::Unusable { path: runtime_dir.to_owned(), why: why.into() })
}

fn claim(runtime_dir: &Path) -> Result<File, BindError> {
    let path = runtime_dir.join("loader.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BindError::Busy(runtime_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed("locking", &path)(error)),
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at", path)(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::Unusable {
                path: path.to_owned(),
                why: "it exists and is not a socket; remove it if it is not needed".into(),
            });
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "the socket of a loader that is gone was removed");
            fs::remove_file(path).map_err(failed("removing", path))
        }
        Err(error) => Err(failed("testing", path)(error)),
        Ok(_) => Err(BindError::Busy(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_configured_user_and_group_are_let_in_and_nobody_else() {
        let nobody = Peers::default();
        assert!(nobody.allow(0, &[]));
        assert!(!nobody.allow(1000, &[0, 1000]));
        let peers = Peers { uid: Some(7), gid: Some(9) };
        assert!(peers.allow(7, &[7]));
        assert!(peers.allow(8, &[8, 9]));
        assert!(!peers.allow(8, &[7, 8]));
    }

    #[tokio::test]
    async fn a_stale_socket_is_removed_and_a_live_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stale = std::os::unix::net::UnixListener::bind(dir.path().join("loader.sock")).unwrap();
        let refused = Socket::bind(dir.path(), Peers::default()).unwrap_err();
        assert!(matches!(refused, BindError::Busy(_)), "{refused}");
        drop(stale);
        let socket = Socket::bind(dir.path(), Peers::default()).unwrap();
        let mode = fs::metadata(socket.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = Socket::bind(dir.path(), Peers::default()).unwrap_err();
        assert!(matches!(second, BindError::Busy(_)), "{second}");
        drop(socket);
        Socket::bind(dir.path(), Peers::default()).unwrap();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        fs::write(&path, "mine").unwrap();
        let refused = Socket::bind(dir.path(), Peers::default()).unwrap_err();
        assert!(matches!(refused, BindError::Unusable { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_folder_that_everybody_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Socket::bind(dir.path(), Peers::default()).unwrap_err();
        assert!(refused.to_string().contains("everybody may write"), "{refused}");
    }
}
