//! Carrying bytes between two connections without bringing them into this process (splice(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::live;

/// Size of a pipe as the kernel makes it.
const SMALL_PIPE: usize = 64 * 1024;
/// Size for connections that carry much: the largest that needs no privilege (/proc/sys/fs/pipe-max-size).
const LARGE_PIPE: usize = 1024 * 1024;
/// Bytes after which a direction gets a large pipe.
const MUCH: u64 = 256 * 1024;
/// Longest time for the client to take what it was sent before its server failed.
const DELIVERY_TIME: Duration = Duration::from_secs(2);

/// Bytes carried, by direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) out: u64,
    pub(crate) back: u64,
}

/// Large pipes that a sandbox may have at once: bounds the kernel memory its slow receivers can tie up.
pub(crate) fn large_pipes() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(64))
}

/// Carries both directions until both have ended. The end of one direction is passed on as such, so that a client
/// that sends all and then waits for the answer gets it.
pub(crate) async fn both_ways(
    client: &TcpStream,
    upstream: &TcpStream,
    large: &Arc<Semaphore>,
) -> io::Result<Carried> {
    let (out, back) = tokio::try_join!(one_way(client, upstream, large), one_way(upstream, client, large))?;
    Ok(Carried { out, back })
}

/// Ends a connection of which one side has failed. What the client was already sent is still delivered, as on a
/// direct connection, but not for longer than [`DELIVERY_TIME`].
pub(crate) async fn end_both(client: &TcpStream, upstream: &TcpStream) {
    live::abort(upstream);
    let deadline = Instant::now() + DELIVERY_TIME;
    while Instant::now() < deadline && client.peer_addr().is_ok() && unsent(client) > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    live::abort(client);
}

/// Has both sides tell, within about two minutes, that they are gone. Else a client that died while its server was
/// silent would keep a place for ever: the gate cannot tell it from one that has sent all and waits.
pub(crate) fn keep_alive(stream: &TcpStream) {
    // Not being able to costs a place in a bounded list, nothing more.
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(75));
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, 4);
    // Small writes would otherwise wait for acknowledgements twice as often as on a direct connection.
    let _ = stream.set_nodelay(true);
}

nix::ioctl_read_bad!(
    /// SIOCOUTQ (tcp(7)): bytes that the other side has not acknowledged.
    outgoing_queue,
    libc::TIOCOUTQ,
    libc::c_int
);

fn unsent(stream: &TcpStream) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the kernel writes one int.
    let asked = unsafe { outgoing_queue(stream.as_raw_fd(), &raw mut bytes) };
    if asked.is_ok() { bytes } else { 0 }
}

async fn one_way(from: &TcpStream, to: &TcpStream, large: &Arc<Semaphore>) -> io::Result<u64> {
    // No pipe before it is needed: many connections are idle in one direction.
    if !has_news(from) {
        from.readable().await?;
    }
    let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut size = SMALL_PIPE;
    let mut permit: Option<OwnedSemaphorePermit> = None;
    let mut total = 0;
    loop {
        let taken = take(from, &inlet, size).await?;
        if taken == 0 {
            break;
        }
        let mut left = taken;
        while left > 0 {
            match to.async_io(Interest::WRITABLE, || move_bytes(&outlet, to, left)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                given => left = left.saturating_sub(given),
            }
        }
        total += u64::try_from(taken).map_err(io::Error::other)?;
        if total > MUCH && permit.is_none() && size == SMALL_PIPE {
            (permit, size) = enlarge(&outlet, large);
        }
    }
    // The other direction may have ended the connection already.
    let _ = rustix::net::shutdown(to, rustix::net::Shutdown::Write);
    drop(permit);
    Ok(total)
}

/// Whether bytes, the end or an error wait in the socket, whatever the runtime believes: whoever looked at the first
/// bytes has told it that they are known.
fn has_news(from: &TcpStream) -> bool {
    let peeked = rustix::net::recv(from, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(peeked, Err(rustix::io::Errno::AGAIN))
}

/// Takes what is there, or waits for some. 0 is the end.
async fn take(from: &TcpStream, inlet: &OwnedFd, most: usize) -> io::Result<usize> {
    match move_bytes(from, inlet, most) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            from.async_io(Interest::READABLE, || move_bytes(from, inlet, most)).await
        }
        other => other,
    }
}

/// Tries to get a large pipe; a small one works too.
fn enlarge(pipe: &OwnedFd, large: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, usize) {
    let Ok(permit) = large.clone().try_acquire_owned() else { return (None, SMALL_PIPE) };
    match fcntl_setpipe_size(pipe, LARGE_PIPE) {
        Ok(size) => (Some(permit), size),
        Err(_) => (None, SMALL_PIPE),
    }
}

/// One splice that does not wait.
fn move_bytes(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
