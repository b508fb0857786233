//! Reads what BPF saw, and looks after approvals that were never used and events that never came.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clawsec_core::EventSink;

use crate::bpf::abi::Counters;
use crate::error::Error;
use crate::gate::Shared;
use crate::order::{Order, UNDER_WAY};
use crate::{seen, sys};

/// How often approvals and counters are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// Events of this time are read together: a reader that wakes up for each one takes more time than it reads.
const TOGETHER: Duration = Duration::from_millis(5);
/// An exec takes this long at most between its approval and its event, before it is asked what the thread does.
const EXPECTED: Duration = Duration::from_millis(100);
/// A thread that runs for this long after its approval without an event has failed to exec.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Starts the thread. It ends when `shared.stopping` is set.
pub fn start(shared: Arc<Shared>) -> Result<JoinHandle<()>, Error> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("exec-events".into())
        .spawn(move || {
            let _told = Told(&shared.events);
            let on_event = |event| seen::report(&shared, &event);
            let on_garbage = || shared.events.lost("exec-event-unreadable", 1);
            let reader = match shared.verify.reader(on_event, on_garbage) {
                Ok(reader) => reader,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let mut losses = Losses::default();
            let mut last = Instant::now();
            while !shared.stopping.load(Ordering::Relaxed) {
                let order = &shared.events;
                if order.wanted().is_some() {
                    std::thread::sleep(UNDER_WAY);
                } else if order.is_waiting() {
                    std::thread::sleep(TOGETHER);
                } else {
                    match reader.wait(order.bell(), ROUND) {
                        Ok(true) if order.wanted().is_none() => std::thread::sleep(TOGETHER),
                        Ok(_) => {}
                        Err(error) => {
                            tracing::error!(%error, "the exec events cannot be waited for");
                            std::thread::sleep(ROUND);
                        }
                    }
                }
                let until = order.moment();
                reader.read();
                order.tell(until);
                if last.elapsed() >= ROUND {
                    last = Instant::now();
                    losses.report(&shared);
                    look_after_approvals(&shared, &mut losses);
                }
            }
            reader.read();
            shared.events.end();
            losses.report(&shared);
        })
        .map_err(Error::io("no thread for the exec events"))?;
    let started = is_ready.recv();
    started.unwrap_or_else(|_| Err(Error::Refused("the thread for the exec events has ended".into())))?;
    Ok(thread)
}

/// However the thread ends, nothing waits for it to tell.
struct Told<'a>(&'a Order);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What was lost so far, and told.
#[derive(Debug, Default)]
struct Losses {
    seen: Counters,
    seen_us: u64,
    // Execs whose approval was used and whose event did not come, and how many of them were told as such.
    missing: u64,
    missing_told: u64,
}

impl Losses {
    fn report(&mut self, shared: &Shared) {
        let (before, now) = (self.seen, shared.verify.counters());
        let since_us = if self.seen_us == 0 { sys::now_us() } else { self.seen_us };
        let until_us = sys::now_us();
        // A missing event that found the ring full is told as that.
        let missing = self.missing.saturating_sub(now.execs_lost).max(self.missing_told);
        let ways = [
            ("exec-ring-full", now.execs_lost, before.execs_lost),
            ("exit-ring-full", now.exits_lost, before.exits_lost),
            ("exec-verify-missed", now.missed, before.missed),
            ("exec-kill-failed", now.kill_failed, before.kill_failed),
            ("exec-lineage-full", now.images_full, before.images_full),
            ("exec-event-missing", missing, self.missing_told),
        ];
        for (way, now, before) in ways {
            if now > before {
                tracing::error!(way, count = now - before, "the exec verification lost something");
                shared.events.lost_between(way, now - before, since_us, until_us);
            }
        }
        (self.seen, self.seen_us, self.missing_told) = (now, until_us, missing);
    }
}

// An approved exec that failed in the kernel leaves its approval behind. It allows nothing but that same exec, and a
// new call of the thread replaces it, but it must not stay; the file descriptors must not either.
fn look_after_approvals(shared: &Shared, losses: &mut Losses) {
    let waiting: Vec<(i32, u64, Duration, bool)> = shared
        .pending()
        .waiting()
        .map(|(tid, entry)| (tid, entry.exec, entry.since.elapsed(), entry.patient))
        .filter(|(_, _, age, _)| *age > EXPECTED)
        .collect();
    for (tid, exec, age, patient) in waiting {
        if !shared.verify.is_approved(tid) {
            let mut pending = shared.pending();
            if pending.exec_of(tid) == Some(exec) {
                shared.verify.used(tid);
                pending.set_used(tid);
            }
            continue;
        }
        let over = match doing(tid) {
            Doing::Exec => false,
            Doing::Running => age > GIVEN_UP && !patient,
            Doing::Other => !patient,
            Doing::Gone => true,
        };
        if over {
            shared.revoke(tid, exec);
        }
    }
    let overdue = shared.pending().take_overdue(GIVEN_UP);
    for (tid, entry) in overdue {
        // The thread of an exec that is not the leader's is gone after it: then it is not known which it was.
        losses.missing += u64::from(doing(tid) != Doing::Gone);
        entry.report_unseen(&shared.lineage, &*shared.events);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Doing {
    Exec,
    Running,
    Other,
    Gone,
}

// `/proc/PID/syscall` begins with the number of the system call in which a thread waits, or says "running".
fn doing(tid: i32) -> Doing {
    let text = match fs::read_to_string(format!("/proc/{tid}/syscall")) {
        Ok(text) => text,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Doing::Gone,
        // It is not known, as when there are no descriptors left.
        Err(_) => return Doing::Running,
    };
    match text.split_whitespace().next() {
        Some("running") => Doing::Running,
        Some(number) => match number.parse() {
            Ok(libc::SYS_execve | libc::SYS_execveat) => Doing::Exec,
            // -1: it waits outside of a system call.
            _ => Doing::Other,
        },
        None => Doing::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_runs_and_a_missing_one_is_gone() {
        assert_eq!(doing(i32::MAX), Doing::Gone);
    }
}
