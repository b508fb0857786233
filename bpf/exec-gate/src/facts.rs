//! What a question and an event say about an exec.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use clawsec_core::pb;
use sha2::{Digest, Sha256};

use crate::bpf::abi::{ENVIRONMENT_MAX, Hashed};
use crate::cache::is_settled;
use crate::file::{FileId, encode, status};
use crate::image::{Call, Image};
use crate::lineage::{Lineage, Record};
use crate::memory;
use crate::resolve::{Cwd, Failure, Found, Kind};
use crate::tracee::{self, Task};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes as text, each.
pub fn texts(argv: &[Vec<u8>]) -> Vec<String> {
    argv.iter().map(|argument| text(argument)).collect()
}

// Tells apart what is the same as lossy text. Each part goes in with its length.
fn argv_hash<Part: AsRef<[u8]>>(argv: &[Part], paths: [&[u8]; 4]) -> String {
    let mut hash = Sha256::new();
    hash.update((argv.len() as u64).to_le_bytes());
    for part in argv.iter().map(AsRef::as_ref).chain(paths) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The exec, without its environment and working directory.
pub fn action(call: &Call, image: &Image, exec_id: String) -> pb::ExecAction {
    let program = image.program();
    let script = image.script();
    // A script that has no name to trust is what matters, not its interpreter.
    let kind = match image.files.iter().map(|file| file.kind).find(|kind| *kind != Kind::File) {
        None | Some(Kind::File) => pb::ExecutableKind::File,
        Some(Kind::Anonymous) => pb::ExecutableKind::Anonymous,
        Some(Kind::Deleted) => pb::ExecutableKind::Deleted,
    };
    pb::ExecAction {
        requested_path: text(&call.path),
        executable: text(&program.path),
        loader: image.loader().map(|file| text(&file.path)).unwrap_or_default(),
        code: image.code.into(),
        script_unknown: image.script_unknown.clone(),
        script: script.map(|file| text(&file.path)).unwrap_or_default(),
        // Since Linux 5.18 a missing argv[0] is an empty one: that is what the program gets.
        argv: if call.argv.is_empty() { vec![String::new()] } else { texts(&call.argv) },
        argv_truncated: false,
        nested_scripts: image.nested().iter().map(|file| text(&file.path)).collect(),
        environment_names: Vec::new(),
        file_id: program.id.to_string(),
        script_file_id: script.map(|file| file.id.to_string()).unwrap_or_default(),
        kind: kind.into(),
        exec_id,
        ..Default::default()
    }
}

/// Hash of what an exec goes by beside what is shown of it. `asker`: who asks, where that cannot be told.
pub fn context_hash(
    files: &[Found],
    cwd: Option<&Cwd>,
    environment: Option<Hashed>,
    asker: (i32, u64),
) -> String {
    let mut hash = Sha256::new();
    for FileId { device, inode, changed, modified, size } in files.iter().map(|file| file.id) {
        hash.update(device.to_le_bytes());
        for number in [inode, size] {
            hash.update(number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [changed, modified] {
            hash.update(seconds.to_le_bytes());
            hash.update(nanoseconds.to_le_bytes());
        }
    }
    // Not its times: what is in the folder is not what is asked about.
    let folder = cwd.and_then(|cwd| status(cwd.fd.as_fd()).ok());
    if let Some(folder) = &folder {
        hash.update(encode(folder.stx_dev_major, folder.stx_dev_minor).to_le_bytes());
        hash.update(folder.stx_ino.to_le_bytes());
    }
    if let Some(Hashed { hash: keyed, length }) = environment {
        hash.update(keyed.to_le_bytes());
        hash.update(length.to_le_bytes());
    }
    let is_known = folder.is_some() && environment.is_some() && files.iter().all(|file| is_settled(&file.id));
    if !is_known {
        hash.update(asker.0.to_le_bytes());
        hash.update(asker.1.to_le_bytes());
    }
    format!("{:x}", hash.finalize())
}

/// Adds the working directory, and the hash over all that is shown of the call.
pub fn add_cwd(action: &mut pb::ExecAction, call: &Call, image: &Image, cwd: &[u8]) {
    let script = image.script().map_or(&[][..], |file| &file.path);
    action.cwd = text(cwd);
    action.argv_hash = argv_hash(&call.argv, [&call.path, &image.program().path, script, cwd]);
}

/// An exec of which no file is known.
pub fn unresolved(call: &Call) -> pb::ExecAction {
    pb::ExecAction {
        requested_path: text(&call.path),
        executable: text(&call.path),
        argv: texts(&call.argv),
        argv_truncated: true,
        argv_hash: argv_hash(&call.argv, [&call.path, &call.path, &[], &[]]),
        ..Default::default()
    }
}

/// The caller, as far as it costs nothing. `image`: number of the exec whose image it runs, with its record.
pub fn process(lineage: &Lineage, task: &Task, image: u64, record: Option<&Record>) -> pb::Process {
    let mut process = pb::Process {
        pid: task.pid.cast_unsigned(),
        uid: task.uid,
        gid: task.gid,
        comm: task.comm.clone(),
        ..Default::default()
    };
    lineage.describe_as(image, record, &mut process);
    process
}

/// Adds what only a question shows. `options`: variables that options of the program stand for. Gives the environment as it was then, unless it is too long to be compared.
pub fn complete(
    action: &mut pb::ExecAction,
    process: &mut pb::Process,
    tid: i32,
    envp: u64,
    options: &[&str],
) -> Result<Option<Vec<u8>>, Failure> {
    let memory::Environment { names, block } = memory::read_environment(tid, envp, ENVIRONMENT_MAX)?;
    if names.truncated {
        return Err(Failure::Refused("the names of the environment are longer than 128 KiB".into()));
    }
    let given = names.items.iter().map(|name| text(name));
    let all: BTreeSet<String> = given.chain(options.iter().map(|name| (*name).to_owned())).collect();
    action.environment_names = all.into_iter().collect();
    let (_, processes) = tracee::namespace_ids(tid);
    process.sandbox_pid = processes.last().map_or(0, |pid| pid.cast_unsigned());
    Ok(block)
}

/// The exec as it stands: path, arguments, environment and working directory of the new image of `pid`, which does not
/// run yet. The arguments of a script are given as its caller wrote them, if the kernel rewrote them as expected. What
/// is not as `expected` has another hash, which counts the expected one as the path that was asked for.
pub fn held(expected: &pb::ExecAction, image: &Loaded, pid: i32) -> pb::ExecAction {
    let mut action = expected.clone();
    let path = fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.into_os_string().into_vec());
    let path = path.unwrap_or_else(|_| image.path.clone());
    let path = match path.strip_suffix(b" (deleted)") {
        Some(name) if expected.kind() != pb::ExecutableKind::File => name,
        _ => &path,
    };
    // The dynamic loader is the image of the program that it is given.
    if expected.loader.is_empty() {
        action.executable = text(path);
    } else {
        action.loader = text(path);
    }
    let seen = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_else(|_| image.argv.clone());
    let parts: Vec<&[u8]> = seen.strip_suffix(b"\0").unwrap_or(&seen).split(|&byte| byte == 0).collect();
    if seen != image.argv {
        action.argv = parts.iter().map(|part| text(part)).collect();
    }
    // The same folder (BPF has compared it), but it may have another name by now.
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).map(|cwd| cwd.into_os_string().into_vec());
    let cwd = cwd.map_or_else(|_| expected.cwd.clone(), |cwd| text(&cwd));
    if seen != image.argv || path != image.path || cwd != expected.cwd {
        action.argv_hash = argv_hash(&parts, [expected.argv_hash.as_bytes(), path, &[], cwd.as_bytes()]);
    }
    action.cwd = cwd;
    if let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) {
        action.environment_names = environment_names(&environment);
        let options = image.variables.iter().map(|name| (*name).to_owned());
        action.environment_names.extend(options);
        action.environment_names.sort();
        action.environment_names.dedup();
    }
    action
}

// Sorted, each once. The block is the one that was read before the exec, so it is not longer than that could be.
fn environment_names(block: &[u8]) -> Vec<String> {
    let name = |entry: &[u8]| text(entry.split(|&byte| byte == b'=').next().unwrap_or_default());
    let block = block.strip_suffix(b"\0");
    let entries = block.iter().flat_map(|block| block.split(|&byte| byte == 0));
    let names: BTreeSet<String> = entries.map(name).collect();
    names.into_iter().collect()
}

/// The image that was approved: the path of its file, and its arguments as they lie in its memory.
#[derive(Debug)]
pub struct Loaded {
    pub path: Vec<u8>,
    pub argv: Vec<u8>,
    /// Variables that its options stand for.
    pub variables: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_one_byte_has_another_hash_and_the_same_has_the_same() {
        let paths = || [b"git".as_slice(), b"/usr/bin/git", b"", b"/work"];
        let hash = |argv: &[&[u8]]| argv_hash(argv, paths());
        let first = hash(&[b"git", b"\xff"]);
        assert_eq!(first.len(), 64);
        assert_eq!(first, hash(&[b"git", b"\xff"]));
        assert_eq!(text(b"\xff"), text(b"\xfe"));
        for other in [&[b"git".as_slice(), b"\xfe"][..], &[b"git\xff"], &[b"git", b"\xff", b""], &[]] {
            assert_ne!(first, hash(other));
        }
        for place in 0..4 {
            let mut other = paths();
            other[place] = b"\xfe";
            assert_ne!(first, argv_hash(&[b"git".as_slice(), b"\xff"], other), "path {place}");
        }
    }

    #[test]
    fn a_held_image_has_the_hash_of_its_question_unless_it_differs() {
        let me = std::process::id() as i32;
        let loaded =
            |path: &[u8], argv: &[u8]| Loaded { path: path.into(), argv: argv.into(), variables: Vec::new() };
        let path = fs::read_link("/proc/self/exe").unwrap().into_os_string().into_vec();
        let argv = fs::read("/proc/self/cmdline").unwrap();
        let expected = pb::ExecAction {
            argv_hash: "x".into(),
            kind: pb::ExecutableKind::File.into(),
            cwd: std::env::current_dir().unwrap().to_str().unwrap().into(),
            ..Default::default()
        };
        let elsewhere = pb::ExecAction { cwd: "/nowhere".into(), ..expected.clone() };
        assert_eq!(held(&elsewhere, &loaded(&path, &argv), me).argv_hash.len(), 64);
        assert_eq!(held(&expected, &loaded(&path, &argv), me).argv_hash, "x");
        let (one, two) =
            (held(&expected, &loaded(b"/", &argv), me), held(&expected, &loaded(&path, b"a\0"), me));
        assert_eq!((one.argv_hash.len(), two.argv_hash.len()), (64, 64));
        assert_eq!(two.argv_hash, held(&expected, &loaded(&path, b"a\0"), me).argv_hash);
        assert_eq!(two.argv.len(), std::env::args_os().len());
        assert_eq!(two.cwd, expected.cwd);
        assert!(two.environment_names.contains(&"PATH".to_owned()));
    }

    #[test]
    fn environment_names_are_sorted_and_each_is_there_once() {
        assert_eq!(environment_names(b"B=1\0A=\0B=2\0C\0"), ["A", "B", "C"]);
        assert_eq!(environment_names(b""), [""; 0]);
        assert_eq!(environment_names(b"\0"), [""]);
    }
}
