//! What a question and an event say about an exec.

use std::fs;

use clawsec_core::pb;

use crate::image::{Call, Image};
use crate::lineage::Lineage;
use crate::resolve::Kind;
use crate::tracee::{self, Task};

/// Strings and names that a question shows.
const ARGUMENTS_SHOWN: usize = 4096;
const NAMES_SHOWN: usize = 1024;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(argv: &[Vec<u8>]) -> Vec<String> {
    argv.iter().take(ARGUMENTS_SHOWN).map(|argument| text(argument)).collect()
}

/// The exec, without its environment.
pub fn action(call: &Call, image: &Image, cwd: &[u8], exec_id: String) -> pb::ExecAction {
    let loaded = image.loaded();
    let script = image.script();
    // A script that has no name to trust is what matters, not its interpreter.
    let kind = match image.files.iter().map(|file| file.kind).find(|kind| *kind != Kind::File) {
        None | Some(Kind::File) => pb::ExecutableKind::File,
        Some(Kind::Anonymous) => pb::ExecutableKind::Anonymous,
        Some(Kind::Deleted) => pb::ExecutableKind::Deleted,
    };
    pb::ExecAction {
        requested_path: text(&call.path),
        executable: text(&loaded.path),
        script: script.map(|file| text(&file.path)).unwrap_or_default(),
        argv: shown(&call.argv),
        argv_truncated: false,
        cwd: text(cwd),
        environment_names: Vec::new(),
        file_id: loaded.id.to_string(),
        script_file_id: script.map(|file| file.id.to_string()).unwrap_or_default(),
        kind: kind.into(),
        exec_id,
    }
}

/// An exec of which no file is known.
pub fn unresolved(call: &Call) -> pb::ExecAction {
    pb::ExecAction {
        requested_path: text(&call.path),
        executable: text(&call.path),
        argv: shown(&call.argv),
        argv_truncated: true,
        ..Default::default()
    }
}

/// The caller, as far as it costs nothing.
pub fn process(lineage: &Lineage, task: &Task, image: u64) -> pb::Process {
    let record = lineage.record(image);
    pb::Process {
        pid: task.pid.cast_unsigned(),
        sandbox_pid: 0,
        uid: task.uid,
        gid: task.gid,
        exec_id: lineage.id(image),
        ancestors: record.as_ref().map_or_else(Vec::new, |record| {
            record.ancestors.iter().map(|ancestor| lineage.id(*ancestor)).collect()
        }),
        executable: record.map(|record| record.executable.to_string()).unwrap_or_default(),
        comm: tracee::comm(task.tid),
    }
}

/// Adds what only a question shows.
pub fn complete(action: &mut pb::ExecAction, process: &mut pb::Process, tid: i32, envp: u64) {
    action.environment_names = tracee::read_environment_names(tid, envp, NAMES_SHOWN);
    let (_, processes) = tracee::namespace_ids(tid);
    process.sandbox_pid = processes.last().map_or(0, |pid| pid.cast_unsigned());
}

/// The exec as it stands: path and arguments of the new image of `pid`, which does not run yet. The arguments of a
/// script are given as its caller wrote them, if the kernel rewrote them as expected.
pub fn held(expected: &pb::ExecAction, loaded_argv: &[u8], pid: i32) -> pb::ExecAction {
    let mut action = expected.clone();
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
        let path = path.to_string_lossy().into_owned();
        action.executable = match path.strip_suffix(" (deleted)") {
            Some(name) if expected.kind() != pb::ExecutableKind::File => name.into(),
            _ => path,
        };
    }
    if let Ok(seen) = fs::read(format!("/proc/{pid}/cmdline"))
        && seen != loaded_argv
    {
        let parts = seen.strip_suffix(b"\0").unwrap_or(&seen).split(|&byte| byte == 0);
        action.argv = parts.take(ARGUMENTS_SHOWN).map(text).collect();
    }
    action
}
