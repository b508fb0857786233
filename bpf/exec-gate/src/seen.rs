//! What the audit is told of an exec and of an exit that BPF has seen.

use std::sync::PoisonError;

use clawsec_core::pb;

use crate::bpf::abi::ExecResult;
use crate::bpf::event::{Cut, Event, EventKind, Loaded};
use crate::gate::Shared;
use crate::pending::Pending;
use crate::sys;

/// Reports an event of BPF, an exec together with what was decided about it.
pub fn report(shared: &Shared, event: &Event) {
    let sandboxes = shared.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
    let scope = sandboxes.get(&event.sandbox).map(|sandbox| sandbox.scope.clone());
    drop(sandboxes);
    let subject = scope.as_ref().and_then(|scope| scope.subject_of(event.cgroup));
    let lineage = &shared.lineage;
    let kind = match &event.kind {
        EventKind::Exec(loaded) => {
            let pending = take_seen(shared, loaded.thread, event.exec);
            if loaded.result != ExecResult::Verified {
                tracing::warn!(
                    process = event.process, sandbox = scope.as_ref().map(|scope| scope.sandbox.as_str()),
                    why = %loaded.result, "an image was killed before its first instruction"
                );
            }
            if lineage.record(event.exec).is_none() {
                // Nobody approved it.
                let path = text(&loaded.path.bytes);
                lineage.insert(event.exec, loaded.parent_exec, &path, || shared.live_images());
            }
            let decided = pending.and_then(|pending| pending.decided).map(|told| told.whole(lineage));
            let (caller, mut decision) = decided.map(|decided| (decided.process, decided.decision)).unzip();
            let mut exec = exec_event(loaded);
            if let Some(pb::decision_event::Action::Exec(action)) =
                decision.as_mut().and_then(|decision: &mut pb::DecisionEvent| decision.action.as_mut())
                && action.cwd.is_empty()
            {
                // Nothing was decided by it, and so it was not read before.
                action.cwd.clone_from(&exec.cwd);
            }
            (exec.caller, exec.decision) = (caller, decision);
            exec.exec_id = lineage.id(event.exec);
            exec.parent_exec_id = lineage.id(loaded.parent_exec);
            pb::event::Kind::Exec(exec)
        }
        EventKind::Refused { result, thread, device, inode, name } => {
            if let Some(pending) = take_seen(shared, *thread, event.exec) {
                pending.report_unseen(lineage, &*shared.events);
            }
            tracing::warn!(
                process = event.process, sandbox = scope.as_ref().map(|scope| scope.sandbox.as_str()),
                why = %result, "an exec was refused before the image was replaced"
            );
            let action = pb::ExecAction {
                requested_path: name.clone(),
                executable: name.clone(),
                file_id: format!("{}:{}:{inode}", device >> 20, device & 0xf_ffff),
                exec_id: lineage.id(event.exec),
                ..Default::default()
            };
            pb::event::Kind::Decision(pb::DecisionEvent {
                verdict: pb::Verdict::Deny.into(),
                layer: "bpf-lsm".into(),
                message: format!("the kernel refused it before it was loaded: {result}"),
                action: Some(pb::decision_event::Action::Exec(action)),
                ..Default::default()
            })
        }
        EventKind::Exit { status, began, forked } => pb::event::Kind::Exit(pb::ExitEvent {
            exec_id: lineage.id(event.exec),
            exit: Some(exit_status(*status)),
            started_us: sys::us_of_boot_ns(*began),
            ended_us: sys::us_of_boot_ns(event.time),
            forked: *forked,
        }),
    };
    let mut process = pb::Process {
        pid: event.process,
        uid: event.uid,
        gid: event.gid,
        comm: event.comm.clone(),
        ..Default::default()
    };
    let image = match event.kind {
        EventKind::Refused { .. } => shared.verify.image_of(event.process.cast_signed()),
        EventKind::Exec(_) | EventKind::Exit { .. } => event.exec,
    };
    lineage.describe(image, &mut process);
    let told = pb::Event {
        subject: subject.map(|subject| subject.name.clone()).unwrap_or_default(),
        sandbox: scope.map(|scope| scope.sandbox).unwrap_or_default(),
        process: Some(process),
        kind: Some(kind),
        ..Default::default()
    };
    shared.events.seen(event.time, told);
}

// What was approved for the exec that was seen.
fn take_seen(shared: &Shared, thread: u32, exec: u64) -> Option<Pending> {
    let thread = thread.cast_signed();
    let mut pending = shared.pending();
    if pending.exec_of(thread) == Some(exec) {
        // Not of a later one.
        shared.verify.used(thread);
    }
    pending.take_seen(thread, exec)
}

fn exec_event(loaded: &Loaded) -> pb::ExecEvent {
    let Loaded { result, device, inode, path, cwd, environment, .. } = loaded;
    let verified = *result == ExecResult::Verified;
    pb::ExecEvent {
        file_id: format!("{}:{}:{inode}", device >> 20, device & 0xf_ffff),
        verified,
        why: if verified { String::new() } else { result.to_string() },
        executable: text(&path.bytes),
        executable_partial: path.partial,
        executable_deleted: loaded.deleted,
        script: text(&loaded.script),
        argv: arguments(&loaded.argv.bytes),
        argv_truncated: loaded.argv.partial,
        argc: loaded.argc,
        cwd: text(&cwd.bytes),
        cwd_partial: cwd.partial,
        environment_names: names(environment),
        environment_truncated: environment.partial,
        ..Default::default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn arguments(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&byte| byte == 0).map(text).collect()
}

// What stands before `=`. Of a name that is cut nothing is shown.
fn names(environment: &Cut) -> Vec<String> {
    let mut names: Vec<&[u8]> = environment
        .bytes
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|variable| match variable.iter().position(|&byte| byte == b'=') {
            Some(end) => Some(&variable[..end]),
            None => variable.strip_suffix(b"\0"),
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(text).collect()
}

fn exit_status(status: i32) -> pb::ExitStatus {
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    pb::ExitStatus { code, signal }
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
    fn of_an_environment_the_names_are_shown_and_no_value_nor_a_cut_name() {
        let cut = |bytes: &[u8]| names(&Cut { bytes: bytes.to_vec(), partial: true });
        assert_eq!(cut(b"Z=1\0A=se=cret\0EMPTY\0A=2\0"), ["A", "EMPTY", "Z"]);
        assert_eq!(cut(b"A=1\0TOKEN=par"), ["A", "TOKEN"]);
        assert_eq!(cut(b"A=1\0TOK"), ["A"]);
        assert!(cut(b"").is_empty());
    }
}
