//! Tells the caller of a denied exec why, on its standard error, where that can be done without ever waiting.

use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fstat, openat};

use crate::sys;

/// Longest line, in bytes. Writes to a pipe up to 4,096 are whole.
const LINE_MAX: usize = 1024;
/// Lines a second for one sandbox, and how many may come at once.
const RATE: f64 = 20.0;
const BURST: f64 = 50.0;

/// How many lines a sandbox may still get.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    lines: f64,
    at: Instant,
    // Lines that were not written since the last one that was.
    unwritten: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { state: Mutex::new(Left { lines: BURST, at: Instant::now(), unwritten: 0 }) }
    }
}

impl Budget {
    // `None`: no line now. Else how many were not written before this one.
    fn take(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.lines = (state.lines + RATE * (now - state.at).as_secs_f64()).min(BURST);
        state.at = now;
        if state.lines < 1.0 {
            state.unwritten += 1;
            return None;
        }
        state.lines -= 1.0;
        Some(std::mem::take(&mut state.unwritten))
    }
}

/// The line for a denial. Whatever came from the sandbox or a policy is escaped.
pub fn line(executable: &[u8], rule: &str, layer: &str, message: &str) -> String {
    let rule = if rule.is_empty() { "default" } else { rule };
    let executable = escape(&String::from_utf8_lossy(executable), 400);
    let mut line = format!("clawsec: {executable} denied by rule {}", escape(rule, 100));
    if !layer.is_empty() {
        let _ = write!(line, " ({})", escape(layer, 40));
    }
    if !message.is_empty() {
        let _ = write!(line, ": {}", escape(message, 440));
    }
    line.push('\n');
    line
}

// No control characters, nothing that turns the direction of text; at most `limit` bytes.
fn escape(text: &str, limit: usize) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        let bidi =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let part = match character {
            '\u{2028}' | '\u{2029}' => character.escape_unicode().to_string(),
            _ if bidi || character.is_control() => character.escape_default().to_string(),
            _ => character.to_string(),
        };
        if escaped.len() + part.len() > limit - '…'.len_utf8() {
            escaped.push('…');
            break;
        }
        escaped.push_str(&part);
    }
    escaped
}

/// Writes the line to descriptor 2 of the caller behind `pidfd`, if that is a pipe, a unix socket, a terminal or a
/// regular file that takes it at once. Nothing that fails here matters to the denial.
pub fn tell(pidfd: BorrowedFd<'_>, budget: &Budget, line: &str) {
    debug_assert!(line.len() <= LINE_MAX);
    let Some(unwritten) = budget.take() else { return };
    let written = match unwritten {
        0 => write(pidfd, line.as_bytes()),
        _ => write(
            pidfd,
            format!("clawsec: the reasons of {unwritten} denials before this one were not written\n{line}")
                .as_bytes(),
        ),
    };
    if let Err(error) = written {
        tracing::trace!(%error, "the reason of a denial could not be written");
    }
}

fn write(pidfd: BorrowedFd<'_>, line: &[u8]) -> std::io::Result<()> {
    let fd = sys::pidfd_getfd(pidfd, libc::STDERR_FILENO)?;
    let flags = fcntl_getfl(&fd)?;
    let mode = flags & OFlags::RWMODE;
    if flags.contains(OFlags::PATH) || (mode != OFlags::WRONLY && mode != OFlags::RDWR) {
        return Ok(());
    }
    match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
        FileType::RegularFile => {
            rustix::io::write(&fd, line)?;
        }
        FileType::Socket => send(&fd, line)?,
        FileType::Fifo => write_now(&fd, line)?,
        FileType::CharacterDevice if rustix::termios::isatty(&fd) => write_now(&fd, line)?,
        _ => {}
    }
    Ok(())
}

// Another open file for the same pipe or terminal: the caller's own one keeps its flags.
fn write_now(fd: &OwnedFd, line: &[u8]) -> std::io::Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = openat(CWD, path, flags, Mode::empty())?;
    let mut fds = [PollFd::new(&own, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if fds[0].revents().contains(PollFlags::OUT) && !fds[0].revents().contains(PollFlags::ERR) {
        rustix::io::write(&own, line)?;
    }
    Ok(())
}

fn send(fd: &OwnedFd, line: &[u8]) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, send, sockopt};
    if sockopt::socket_domain(fd)? == AddressFamily::UNIX && sockopt::socket_type(fd)? == SocketType::STREAM {
        send(fd.as_fd(), line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded_whatever_is_in_it() {
        assert_eq!(
            line(b"/bin/x", "exec/no", "supervisor", "not here"),
            "clawsec: /bin/x denied by rule exec/no (supervisor): not here\n"
        );
        let nasty = "a\x1b[31m\n\u{202e}".repeat(1000);
        let text = line(nasty.as_bytes(), &nasty, &nasty, &nasty);
        assert!(text.len() <= LINE_MAX, "{}", text.len());
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
        assert_eq!(line(b"x", "", "", ""), "clawsec: x denied by rule default\n");
    }

    #[test]
    fn a_burst_is_allowed_and_then_no_more() {
        let budget = Budget::default();
        let taken: Vec<u64> = (0..1000).filter_map(|_| budget.take()).collect();
        assert!((50..60).contains(&taken.len()), "{}", taken.len());
        // What was left out is told with the next line, once.
        std::thread::sleep(std::time::Duration::from_millis(120));
        let left_out = 1000 - taken.len() as u64 - taken.iter().sum::<u64>();
        assert_eq!((budget.take(), budget.take()), (Some(left_out), Some(0)));
    }
}
