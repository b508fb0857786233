//! Reads what BPF saw, reports it, and looks after approvals that were never used.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clawsec_core::pb;

use crate::bpf::abi::{Counters, Event, EventKind, ExecResult};
use crate::error::Error;
use crate::gate::Shared;
use crate::sys;

/// How often approvals and counters are looked at.
const ROUND: Duration = Duration::from_millis(100);
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
            let on_event = |event| report(&shared, &event);
            let on_garbage = || shared.events.lost("exec-event-unreadable", 1);
            let reader = match shared.verify.reader(on_event, on_garbage) {
                Ok(reader) => reader,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let mut seen = Counters::default();
            let mut last = Instant::now();
            while !shared.stopping.load(Ordering::Relaxed) {
                if let Err(error) = reader.poll(ROUND)
                    && error.kind() != libbpf_rs::ErrorKind::Interrupted
                {
                    tracing::error!(%error, "the exec events cannot be read");
                    std::thread::sleep(ROUND);
                }
                if last.elapsed() >= ROUND {
                    last = Instant::now();
                    look_after_approvals(&shared);
                    seen = report_losses(&shared, seen);
                }
            }
            let _ = reader.consume();
        })
        .map_err(Error::io("no thread for the exec events"))?;
    let started = is_ready.recv();
    started.unwrap_or_else(|_| Err(Error::Refused("the thread for the exec events has ended".into())))?;
    Ok(thread)
}

fn report(shared: &Shared, event: &Event) {
    let sandboxes = shared.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
    let sandbox = sandboxes.get(&event.sandbox).map(|sandbox| &sandbox.scope);
    let subject = sandbox.and_then(|scope| scope.subject_of(event.cgroup));
    let lineage = &shared.lineage;
    let (exec, kind) = match &event.kind {
        EventKind::Exec { result, thread, parent_exec, device, inode } => {
            let mut pending = shared.pending();
            let thread = thread.cast_signed();
            if pending.get(&thread).is_some_and(|entry| entry.exec == event.exec) {
                pending.remove(&thread);
                shared.verify.used(thread);
            }
            drop(pending);
            let verified = *result == ExecResult::Verified;
            if !verified {
                tracing::warn!(
                    process = event.process, sandbox = sandbox.map(|scope| scope.sandbox.as_str()),
                    why = %result, "an image was killed before its first instruction"
                );
            }
            let exec = pb::ExecEvent {
                exec_id: lineage.id(event.exec),
                parent_exec_id: lineage.id(*parent_exec),
                file_id: format!("{}:{}:{inode}", device >> 20, device & 0xf_ffff),
                verified,
                why: if verified { String::new() } else { result.to_string() },
            };
            // A killed image never was the process's.
            let running = if verified { event.exec } else { *parent_exec };
            (running, pb::event::Kind::Exec(exec))
        }
        EventKind::Refused { result, thread, device, inode, name } => {
            let mut pending = shared.pending();
            let thread = thread.cast_signed();
            if pending.get(&thread).is_some_and(|entry| entry.exec == event.exec) {
                pending.remove(&thread);
            }
            drop(pending);
            tracing::warn!(
                process = event.process, sandbox = sandbox.map(|scope| scope.sandbox.as_str()),
                why = %result, "an exec was refused before the image was replaced"
            );
            let action = pb::ExecAction {
                requested_path: name.clone(),
                executable: name.clone(),
                file_id: format!("{}:{}:{inode}", device >> 20, device & 0xf_ffff),
                exec_id: lineage.id(event.exec),
                ..Default::default()
            };
            let denial = pb::DecisionEvent {
                verdict: pb::Verdict::Deny.into(),
                layer: "bpf-lsm".into(),
                message: format!("the kernel refused it before it was loaded: {result}"),
                action: Some(pb::decision_event::Action::Exec(action)),
                ..Default::default()
            };
            let running = shared.verify.image_of(event.process.cast_signed());
            (running, pb::event::Kind::Decision(denial))
        }
        EventKind::Exit { status } => {
            let exit = pb::ExitEvent { exec_id: lineage.id(event.exec), exit: Some(exit_status(*status)) };
            (event.exec, pb::event::Kind::Exit(exit))
        }
    };
    let mut process = pb::Process {
        pid: event.process,
        uid: event.uid,
        gid: event.gid,
        comm: event.comm.clone(),
        ..Default::default()
    };
    lineage.describe(exec, &mut process);
    shared.events.emit(pb::Event {
        time_us: sys::now_us(),
        sandbox: sandbox.map(|scope| scope.sandbox.clone()).unwrap_or_default(),
        subject: subject.map(|subject| subject.name.clone()).unwrap_or_default(),
        process: Some(process),
        kind: Some(kind),
        ..Default::default()
    });
}

fn exit_status(status: i32) -> pb::ExitStatus {
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    pb::ExitStatus { code, signal }
}

fn report_losses(shared: &Shared, before: Counters) -> Counters {
    let now = shared.verify.counters();
    let ways = [
        ("exec-ring-full", now.ring_full, before.ring_full),
        ("exec-verify-missed", now.missed, before.missed),
        ("exec-kill-failed", now.kill_failed, before.kill_failed),
        ("exec-lineage-full", now.images_full, before.images_full),
    ];
    for (way, now, before) in ways {
        if now > before {
            tracing::error!(way, count = now - before, "the exec verification lost something");
            shared.events.lost(way, now - before);
        }
    }
    now
}

// An approved exec that failed in the kernel leaves its approval behind. It allows nothing but that same exec, and a
// new call of the thread replaces it, but it must not stay; the file descriptors must not either.
fn look_after_approvals(shared: &Shared) {
    let old: HashMap<i32, (u64, Duration, bool)> = shared
        .pending()
        .iter()
        .map(|(tid, entry)| (*tid, (entry.exec, entry.since.elapsed(), entry.patient)))
        .filter(|(_, (_, age, _))| *age > EXPECTED)
        .collect();
    for (tid, (exec, age, patient)) in old {
        let over = if shared.verify.is_approved(tid) {
            match doing(tid) {
                Doing::Exec => false,
                Doing::Running => age > GIVEN_UP && !patient,
                Doing::Other => !patient,
                Doing::Gone => true,
            }
        } else if doing(tid) == Doing::Gone {
            true
        } else if age > GIVEN_UP {
            // It was used, and no event came.
            shared.events.lost("exec-event-missing", 1);
            true
        } else {
            false
        };
        if over {
            shared.revoke(tid, exec);
        }
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
    fn an_exit_status_is_a_code_or_a_signal() {
        assert_eq!(exit_status(3 << 8), pb::ExitStatus { code: 3, signal: 0 });
        assert_eq!(exit_status(9), pb::ExitStatus { code: 137, signal: 9 });
        assert_eq!(exit_status(11 | 0x80), pb::ExitStatus { code: 139, signal: 11 });
    }

    #[test]
    fn this_thread_runs_and_a_missing_one_is_gone() {
        assert_eq!(doing(i32::MAX), Doing::Gone);
    }
}
