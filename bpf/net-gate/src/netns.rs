//! Network namespaces: making one that leads nowhere but to the gate, and doing things in one.
//!
//! A thread that enters a namespace is never used again: each of these functions has a thread of its own, so that
//! no thread of the runtime can be left in a sandbox's namespace, whatever fails.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// What went wrong with a namespace, and where.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {path}: {what}: {source}")]
pub struct NetnsError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// Makes a network namespace and binds it to `path`: `lo` up, every IPv4 address local. Nothing is left behind on an
/// error.
pub(crate) fn create(path: &Path) -> Result<(), NetnsError> {
    let fail = |what| move |source| NetnsError { path: path.to_owned(), what, source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail("its folder cannot be made"))?;
    }
    File::create_new(path).map_err(fail("its file cannot be made"))?;
    let made = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        bring_up_loopback()?;
        make_all_addresses_local()?;
        let none: Option<&str> = None;
        mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    made.map_err(|source| {
        // The file is empty and ours; a second error would hide the first.
        let _ = fs::remove_file(path);
        fail("it cannot be set up")(source)
    })
}

/// Unmounts and removes what [`create`] made. A namespace lives on while a process is in it.
pub(crate) fn remove(path: &Path) -> Result<(), NetnsError> {
    let fail = |what| move |source| NetnsError { path: path.to_owned(), what, source };
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(fail("it cannot be unmounted")(error.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(fail("its file cannot be removed")(error))
        }
        _ => Ok(()),
    }
}

/// Runs `work` in the namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(netns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("clawsec-netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread for the namespace panicked")))
    })
}

pub(crate) fn bring_up_loopback() -> io::Result<()> {
    // struct ifinfomsg: family, pad, type, index, flags, mask of flags to change.
    let up = u32::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    let mut body = Vec::with_capacity(16);
    body.extend([0, 0, 0, 0]);
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    route_request(libc::RTM_SETLINK, 0, &body)
}

/// `lo` is the first device of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// `ip route add local 0.0.0.0/0 dev lo`.
fn make_all_addresses_local() -> io::Result<()> {
    // struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags.
    let family = u8::try_from(libc::AF_INET).map_err(io::Error::other)?;
    let mut body = vec![
        family,
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes());
    // struct rtattr with the device.
    body.extend(8_u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    route_request(libc::RTM_NEWROUTE, create, &body)
}

/// One rtnetlink(7) request, and its acknowledgement.
fn route_request(kind: u16, flags: libc::c_int, body: &[u8]) -> io::Result<()> {
    const HEADER: usize = 16;
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(u32::try_from(HEADER + body.len()).map_err(io::Error::other)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(u16::try_from(flags).map_err(io::Error::other)?.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;

    let mut answer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // NLMSG_ERROR: the header, then the negative error number, 0 for success.
    match answer.get(HEADER..HEADER + 4) {
        Some(code) if length >= HEADER + 4 => {
            match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(-code)),
            }
        }
        _ => Err(io::Error::other("short answer from rtnetlink")),
    }
}

/// Makes sockets inside a namespace on demand, from a thread that stays there.
#[derive(Debug)]
pub(crate) struct SocketMaker {
    requests: mpsc::Sender<tokio::sync::oneshot::Sender<io::Result<OwnedFd>>>,
}

impl SocketMaker {
    /// Starts the thread. It ends when the maker is dropped.
    pub(crate) fn start(netns: File) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<tokio::sync::oneshot::Sender<io::Result<OwnedFd>>>();
        let (entered, ready) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("clawsec-netns".into()).spawn(move || {
            let inside = setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let is_inside = inside.is_ok();
            // Whoever started us waits for this; if it has gone, so is the queue.
            let _ = entered.send(inside);
            // Holding on to the file would keep the namespace; the thread itself does that, as long as it lives.
            drop(netns);
            while is_inside && let Ok(request) = queue.recv() {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let made = socket(AddressFamily::Inet, SockType::Stream, flags, None);
                // A requester that has gone no longer wants it.
                let _ = request.send(made.map_err(io::Error::from));
            }
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self { requests })
    }

    /// A TCP socket of the namespace, not connected and not blocking.
    pub(crate) async fn tcp(&self) -> io::Result<OwnedFd> {
        let (answer, made) = tokio::sync::oneshot::channel();
        self.requests.send(answer).map_err(io::Error::other)?;
        made.await.map_err(io::Error::other)?
    }
}

/// Opens the namespace at `path`. The empty file below the mount is refused: entering it would fail later.
pub(crate) fn open(path: &Path) -> Result<File, NetnsError> {
    let fail = |what| move |source| NetnsError { path: path.to_owned(), what, source };
    let file = File::open(path).map_err(fail("it cannot be opened"))?;
    let kind = fstatfs(&file).map_err(|error| fail("it cannot be examined")(error.into()))?.filesystem_type();
    if kind != NSFS_MAGIC {
        return Err(fail("it is refused")(io::Error::other("no namespace is mounted there")));
    }
    Ok(file)
}
