//! Reads what BPF saw, and looks after approvals that were never used and events that never came.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::bpf::abi::Counters;
use crate::error::Error;
use crate::gate::Shared;
use crate::{seen, sys};

/// How often approvals and counters are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// Events of this time are read together: a reader that wakes up for each one takes more time than it reads.
const TOGETHER: Duration = Duration::from_millis(5);
/// Whoever waits for the events to be reported waits this long.
const SETTLED: Duration = Duration::from_secs(1);
/// An exec takes this long at most between its approval and its event, before it is asked what the thread does.
const EXPECTED: Duration = Duration::from_millis(100);
/// A thread that runs for this long after its approval without an event has failed to exec.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Lets others wait until all events that there are have been reported.
#[derive(Debug)]
pub struct Rounds {
    bell: OwnedFd,
    // How often the ring was read to its end, and how often it is wanted to have been.
    state: Mutex<(u64, u64)>,
    changed: Condvar,
}

impl Rounds {
    pub fn new() -> Result<Self, Error> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = bell.map_err(|error| Error::io("no eventfd for the exec events")(error.into()))?;
        Ok(Self { bell, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when each event of what happened before the call was reported, or after a second. Blocks for some
    /// milliseconds at most while the thread reads.
    pub fn settle(&self) {
        let mut state = self.lock();
        // One may be under way; the next one reads all.
        let wanted = state.0 + 2;
        state.1 = state.1.max(wanted);
        // It fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        let done = self.changed.wait_timeout_while(state, SETTLED, |state| state.0 < wanted);
        if done.is_ok_and(|(_, waited)| waited.timed_out()) {
            tracing::error!("the exec events were not read within {SETTLED:?}");
        }
    }

    fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.0 < state.1
    }

    fn done(&self) {
        // Nothing to read: nobody rang.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.lock().0 += 1;
        self.changed.notify_all();
    }
}

/// Starts the thread. It ends when `shared.stopping` is set.
pub fn start(shared: Arc<Shared>) -> Result<JoinHandle<()>, Error> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("exec-events".into())
        .spawn(move || {
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
                let rounds = &shared.rounds;
                match if rounds.is_wanted() { Ok(false) } else { reader.wait(&rounds.bell, ROUND) } {
                    Ok(true) if !rounds.is_wanted() => std::thread::sleep(TOGETHER),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "the exec events cannot be waited for");
                        std::thread::sleep(ROUND);
                    }
                }
                reader.read();
                rounds.done();
                if last.elapsed() >= ROUND {
                    last = Instant::now();
                    losses.report(&shared);
                    look_after_approvals(&shared, &mut losses);
                }
            }
            reader.read();
            losses.report(&shared);
        })
        .map_err(Error::io("no thread for the exec events"))?;
    let started = is_ready.recv();
    started.unwrap_or_else(|_| Err(Error::Refused("the thread for the exec events has ended".into())))?;
    Ok(thread)
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
        entry.report_unseen(&*shared.events);
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
    let Ok(text) = fs::read_to_string(format!("/proc/{tid}/syscall")) else { return Doing::Gone };
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
