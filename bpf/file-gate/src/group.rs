//! A fanotify group that asks before opens (fanotify(7), FAN_CLASS_CONTENT).

use nix::errno::Errno;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

/// One group for one sandbox.
#[derive(Debug)]
pub(crate) struct Group {
    fanotify: Fanotify,
}

impl Group {
    /// Makes an empty group whose reads do not block. Needs CAP_SYS_ADMIN.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS;
        // O_NONBLOCK: the kernel opens the object for the event; opening a FIFO must not wait for its other end.
        let event = EventFFlags::O_RDONLY
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_NONBLOCK;
        Ok(Self { fanotify: Fanotify::init(flags, event)? })
    }

    /// Asks from now on for every open, also for execution, through the mount that `path` is on.
    pub(crate) fn guard_mount(&self, path: &Path) -> io::Result<()> {
        self.fanotify.mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT,
            MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_OPEN_EXEC_PERM,
            nix::fcntl::AT_FDCWD,
            Some(path),
        )?;
        Ok(())
    }

    /// Events that wait now; empty when there is none.
    pub(crate) fn read(&self) -> io::Result<Vec<FanotifyEvent>> {
        match self.fanotify.read_events() {
            Ok(events) => Ok(events),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the opener go on (`true`) or fail with EPERM.
    pub(crate) fn answer(&self, event: BorrowedFd<'_>, allowed: bool) -> io::Result<()> {
        let response = if allowed { Response::FAN_ALLOW } else { Response::FAN_DENY };
        match self.fanotify.write_response(FanotifyResponse::new(event, response)) {
            // ENOENT: the opener was killed meanwhile and nobody waits for the answer.
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }
}

impl AsRawFd for Group {
    fn as_raw_fd(&self) -> RawFd {
        self.fanotify.as_fd().as_raw_fd()
    }
}
