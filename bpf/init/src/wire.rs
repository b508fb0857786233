//! The protocol between the loader and the init shim, on a stream socket pair of which the shim holds descriptor 3.
//!
//! A frame is a 32-bit little-endian length and that many bytes of JSON. In order:
//!
//! | shim | loader |
//! |---|---|
//! | [`FromShim::Hello`] | |
//! | | [`ToShim::Spec`]; after one with [`Spec::keep`], one byte that carries a descriptor (`SCM_RIGHTS`) |
//! | [`FromShim::Restricted`], with the number of the seccomp listener | |
//! | | takes the listener with `pidfd_getfd(2)`, serves it, then [`ToShim::Go`] |
//! | [`FromShim::Running`] | |
//! | | [`ToShim::Signal`], any number of times |
//! | | [`ToShim::Command`], any number of times, each followed by [`COMMAND_DESCRIPTORS`] bytes with a descriptor each |
//! | | [`ToShim::CommandSignal`], any number of times |
//! | [`FromShim::CommandEnded`] or [`FromShim::CommandRefused`], once for each command | |
//! | [`FromShim::Ended`] | |
//!
//! The number of the listener is written instead of the descriptor being sent, because sending one needs
//! `sendmsg(2)`, which the new filter may itself notify about. At any moment the shim may say
//! [`FromShim::Refused`] and exit with [`EXIT_REFUSED`]. An end of file at the shim means that the loader is gone:
//! the shim kills everything and exits with [`EXIT_LOADER_GONE`], so that nothing runs without its gates.
//!
//! What the loader's end would open before that kill is done is kept shut by the descriptor of [`Spec::keep`]. The shim
//! does nothing with it but to hold it until nothing else of the sandbox is left.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::landlock::Ruleset;

/// Version of this protocol. Shim and loader are built together, so anything but equality is refused.
pub const PROTOCOL: u32 = 4;
/// Folder of the shim inside a sandbox; a read-only mount.
pub const DIR: &str = "/.clawsec";
/// Where the shim is as the sandbox's init.
pub const INIT_PATH: &str = "/.clawsec/init";
/// Folder of the [`EntrySpec`] files, each named as the last part of its entry path.
pub const ENTRY_DIR: &str = "/.clawsec/entry";
/// Descriptor of the socket to the loader.
pub const FD: i32 = 3;
/// Exit code: a restriction could not be applied, nothing was started.
pub const EXIT_REFUSED: i32 = 70;
/// Exit code: the loader was gone, everything was killed.
pub const EXIT_LOADER_GONE: i32 = 71;
/// Longest frame in bytes. A full seccomp filter (4,096 instructions) is about 90 KB; arguments are the rest.
pub const MAX_FRAME: usize = 8 << 20;

/// Descriptors that follow a [`ToShim::Command`]: standard input, output and error, the [`Command`]'s own socket, and
/// `cgroup.procs` of its subject.
pub const COMMAND_DESCRIPTORS: usize = 5;

/// What the shim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShim {
    /// The first frame.
    Hello {
        /// [`PROTOCOL`] of the shim.
        protocol: u32,
    },
    /// Landlock and the filter are in force.
    Restricted {
        /// Number of the seccomp listener in the shim's descriptor table; `None` when the spec asked for none.
        listener: Option<i32>,
    },
    /// The main command was forked.
    Running {
        /// Its pid, as the sandbox sees it.
        pid: i32,
    },
    /// A command ended, or was killed before it was one.
    CommandEnded {
        /// [`Command::id`].
        id: u64,
        /// Exit code, or 128 + signal.
        code: i32,
        /// Signal that ended it, 0 for none.
        signal: i32,
    },
    /// A command could not be forked, for this reason (a sentence).
    CommandRefused {
        /// [`Command::id`].
        id: u64,
        /// The reason.
        why: String,
    },
    /// The main command ended; the shim exits next, and everything in its pid namespace with it.
    Ended {
        /// Exit code, or 128 + signal.
        code: i32,
        /// Signal that ended it, 0 for none.
        signal: i32,
    },
    /// Nothing was started, for this reason (a sentence).
    Refused {
        /// The reason.
        why: String,
    },
}

/// What the loader says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShim {
    /// What to apply and to run.
    Spec(Box<Spec>),
    /// The listener is served: close your copy and run the main command.
    Go,
    /// Send this signal to the main command's process group.
    Signal(i32),
    /// Run one more command beside the main one.
    Command(Command),
    /// Send a signal to a command's process group. One that has ended is fine.
    CommandSignal {
        /// [`Command::id`].
        id: u64,
        /// The signal.
        signal: i32,
    },
}

/// A command beside the main one. It is forked by the shim, so it has its filter and Landlock layer, its user and its
/// environment, with nothing to be set again.
///
/// The forked child makes itself the leader of a session and moves itself into its subject's cgroup, by writing 0 to the
/// descriptor that the loader opened (the kernel asks for the rights of whoever opened it). If the loader moved it by its
/// number, the number could be another process's by then: the child can be killed at any moment, and is reaped here. Then
/// it writes a byte to its own socket (the kernel tells the loader with it which process that is), and waits for one.
/// An end of file instead of that byte means that nobody wants it any more. Neither socket nor cgroup is open in the
/// command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The loader's name for it.
    pub id: u64,
    /// One without a slash is searched in `PATH` of the sandbox's environment.
    pub args: Vec<String>,
    /// Entry whose Landlock layer is added, and whose caller's dangerous variables are left out: the last part of its
    /// path.
    pub entry: Option<String>,
    /// Standard input is a terminal, which becomes the controlling one of its session.
    pub terminal: bool,
    /// `TERM` in its environment; empty: as the sandbox has it.
    pub term: String,
}

/// What the shim applies to itself, and what it runs then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// For everything in the sandbox.
    pub landlock: Ruleset,
    /// The seccomp filter, one [`pack_instruction`] each.
    pub filter: Vec<u64>,
    /// Install the filter with `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
    pub listener: bool,
    /// Install the filter with `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (5.19); needs `listener`.
    pub wait_killable: bool,
    /// The main command. One without a slash is searched in `PATH` of the sandbox's environment.
    pub args: Vec<String>,
    /// Standard input is a terminal, of which the main command becomes the foreground process group.
    pub terminal: bool,
    /// A descriptor follows ([`send_kept`]).
    pub keep: bool,
}

/// What the shim does when it is run as a subject's entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrySpec {
    /// Layer that is added; it can only take away.
    pub landlock: Ruleset,
    /// Program to run with the caller's arguments.
    pub exec: String,
}

/// One `struct sock_filter` as a number: code, jt, jf, k from the high to the low bits.
pub fn pack_instruction(code: u16, jt: u8, jf: u8, k: u32) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

/// The reverse of [`pack_instruction`].
pub fn unpack_instruction(packed: u64) -> (u16, u8, u8, u32) {
    ((packed >> 48) as u16, (packed >> 40) as u8, (packed >> 32) as u8, packed as u32)
}

/// A whole frame with its length.
///
/// # Errors
/// The message does not fit into [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = checked_length(body.len())?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Length of the body that follows a frame's first four bytes.
///
/// # Errors
/// It is more than [`MAX_FRAME`].
pub fn body_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    checked_length(length)?;
    Ok(length)
}

/// The message in a frame's body.
///
/// # Errors
/// It is no such message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(body)?)
}

/// Writes one frame.
///
/// # Errors
/// Those of the writer.
pub fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads one frame.
///
/// # Errors
/// `UnexpectedEof` when the other side is gone; those of the reader; a frame that is none.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix)?;
    let mut body = vec![0; body_length(prefix)?];
    from.read_exact(&mut body)?;
    decode(&body)
}

/// Sends the descriptor that follows a [`Spec`] with `keep`.
///
/// # Errors
/// The kernel's; `WouldBlock` for a socket that does not wait.
pub fn send_kept(socket: impl AsFd, kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = [kept];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&kept)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the descriptor of [`send_kept`]; it is close-on-exec.
///
/// # Errors
/// The kernel's, or what came is not one descriptor.
pub fn receive_kept(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    control
        .drain()
        .find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no descriptor came"))
}

fn checked_length(length: usize) -> io::Result<u32> {
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes is longer than {MAX_FRAME}")));
    }
    Ok(length as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let message = ToShim::Spec(Box::new(Spec {
            filter: vec![pack_instruction(0x15, 1, 255, u32::MAX)],
            args: vec!["/bin/ü".into()],
            ..Spec::default()
        }));
        let frame = encode(&message).unwrap();
        assert_eq!(receive::<ToShim>(&frame[..]).unwrap(), message);
    }

    #[test]
    fn an_instruction_survives_packing() {
        for parts in [(0x15, 1, 255, u32::MAX), (u16::MAX, 0, 0, 0), (0, 255, 1, 0x4000_0000)] {
            let (code, jt, jf, k) = parts;
            assert_eq!(unpack_instruction(pack_instruction(code, jt, jf, k)), parts);
        }
    }

    #[test]
    fn a_kept_descriptor_comes_after_the_frame_and_never_reaches_a_program() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&ours, &ToShim::Go).unwrap();
        send_kept(&ours, writer.as_fd()).unwrap();
        send(&ours, &ToShim::Signal(1)).unwrap();
        drop(writer);
        assert_eq!(receive::<ToShim>(&theirs).unwrap(), ToShim::Go);
        let kept = receive_kept(&theirs).unwrap();
        assert_eq!(receive::<ToShim>(&theirs).unwrap(), ToShim::Signal(1));
        assert!(rustix::io::fcntl_getfd(&kept).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::write(&kept, b"x").unwrap();
        drop(kept);
        assert_eq!(io::read_to_string(reader).unwrap(), "x");
        send(&ours, &ToShim::Go).unwrap();
        assert!(receive_kept(&theirs).is_err(), "a byte without a descriptor");
    }

    #[test]
    fn a_frame_cut_short_is_an_error_and_a_huge_one_is_not_allocated() {
        let frame = encode(&ToShim::Go).unwrap();
        assert!(receive::<ToShim>(&frame[..]).is_ok());
        assert!(receive::<ToShim>(&frame[..frame.len() - 1]).is_err());
        assert!(receive::<ToShim>(&[255; 64][..]).is_err());
    }
}
