//! Which of the files that an interpreter opens is its script, and when it opens it for the last time.
//!
//! Found by tracing dash 0.5.12, bash 5.2, perl 5.36, Python 3.11 and Node 24. An interpreter that is not known is
//! followed for as long as it lives.

use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::handover::Script;

/// Interpreters by how they open their script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Once, by the name that they are given (dash, bash, perl), and they read on from that descriptor.
    Once,
    /// At first to look for an archive, then with fopen(3), without O_CLOEXEC, to run it, and so again when that is byte code.
    /// The name is made absolute.
    Python,
    /// By the name that realpath gives, and again when it turns out to be an ES module.
    Node,
    /// Not known, or one that executes another (env).
    Other,
}

/// A successful open for reading that was not by the script's name.
#[derive(Debug)]
pub struct Opened<'a> {
    /// How many times the script was opened by its name.
    pub times: u32,
    pub flags: OFlags,
    /// The path as it was asked for.
    pub path: &'a Path,
    pub kind: FileType,
    /// It is the interpreter's own executable.
    pub is_image: bool,
}

impl Family {
    /// By the path of the executable.
    pub fn of(executable: &Path) -> Self {
        let name = executable.file_name().unwrap_or_default().to_string_lossy();
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "dash" | "bash" | "perl" => Self::Once,
            "python" => Self::Python,
            "node" | "nodejs" => Self::Node,
            _ => Self::Other,
        }
    }

    /// Whether it has opened its script for the last time. `times`: how often it has done so by the script's name; `kept`: how
    /// often without O_CLOEXEC. Another name that leads to the same file does not count: the sandbox makes such names where
    /// it likes.
    pub fn is_last(self, script: &Script, times: u32, kept: u32) -> bool {
        match self {
            Self::Once => true,
            Self::Python => kept > u32::from(script.maybe_compiled),
            Self::Node => times > u32::from(script.maybe_module),
            Self::Other => false,
        }
    }

    /// Whether what it opens may be run instead of the script.
    pub fn is_instead(self, opened: &Opened<'_>) -> bool {
        // Nothing is read from a folder.
        if opened.kind == FileType::Directory {
            return false;
        }
        match self {
            Self::Once | Self::Other => false,
            Self::Python => {
                let closed_at_exec = opened.flags.contains(OFlags::CLOEXEC);
                let is_main = opened.path.file_prefix().is_some_and(|name| name == "__main__");
                is_main
                    || (!closed_at_exec
                        && !is_named(opened.path, &PYTHON_START)
                        && !is_of_libraries(opened.path))
            }
            Self::Node => opened.times == 0 && !opened.is_image && !is_of_start(opened.path),
        }
    }
}

/// What Python, or the C library for it, opens with fopen(3) before its script.
const PYTHON_START: [&str; 3] = ["pyvenv.cfg", "pybuilddir.txt", "gconv-modules.cache"];

fn is_named(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.file_name().is_some_and(|file| file == *name))
}

/// What libraries of the system read when they start. Whoever can write there has other ways into any process.
const LIBRARIES_START: [&str; 10] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/ssl",
    "/etc/pki",
    "/usr/lib/ssl",
    "/usr/local/ssl",
    "/usr/share/ca-certificates",
];
/// The devices that Node opens.
const NODE_DEVICES: [&str; 3] = ["/dev/null", "/dev/random", "/dev/urandom"];

fn is_of_libraries(path: &Path) -> bool {
    LIBRARIES_START.iter().any(|start| path.starts_with(start))
}

// What Node opens before its script. JSON runs nothing. Its script's name has no links any more when it opens it, so that
// it never begins with "/proc/self"; what has the number of a process in its name may have been written by that process.
fn is_of_start(path: &Path) -> bool {
    let of_kernel = path.starts_with("/proc/self") || path.starts_with("/sys") || {
        let name = path.strip_prefix("/proc").ok().and_then(|below| below.components().next());
        name.is_some_and(|name| !name.as_os_str().as_encoded_bytes()[0].is_ascii_digit())
    };
    let folders = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let is_library = || path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    is_named(path, &["package.json"])
        || is_of_libraries(path)
        || NODE_DEVICES.iter().any(|device| path == *device)
        || of_kernel
        || (is_library() && folders.iter().any(|folder| path.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_known_by_its_name_with_or_without_a_version() {
        for (name, family) in [
            ("/usr/bin/dash", Family::Once),
            ("/usr/bin/bash", Family::Once),
            ("/usr/bin/perl5.36.0", Family::Once),
            ("/usr/bin/python3.11", Family::Python),
            ("/opt/node/bin/node", Family::Node),
            ("/usr/bin/env", Family::Other),
            ("/usr/bin/ruby3.1", Family::Other),
        ] {
            assert_eq!(Family::of(Path::new(name)), family, "{name}");
        }
    }

    #[test]
    fn the_last_open_of_a_script_depends_on_the_interpreter() {
        for (family, twice, times, kept, is_last) in [
            (Family::Once, false, 1, 1, true),
            (Family::Python, false, 1, 0, false),
            (Family::Python, false, 2, 1, true),
            (Family::Python, true, 2, 1, false),
            (Family::Python, true, 3, 2, true),
            (Family::Node, false, 1, 0, true),
            (Family::Node, true, 1, 0, false),
            (Family::Node, true, 2, 0, true),
            (Family::Other, false, 9, 9, false),
        ] {
            let script = Script { maybe_module: twice, maybe_compiled: twice, ..Script::for_test() };
            assert_eq!(family.is_last(&script, times, kept), is_last, "{family:?} {times}");
        }
    }

    #[test]
    fn what_may_run_instead_of_the_script_is_told_from_what_an_interpreter_needs() {
        let (closed, open) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::RDONLY);
        let is_instead = |family: Family, path: &str, flags, kind| {
            family.is_instead(&Opened { times: 0, flags, path: Path::new(path), kind, is_image: false })
        };
        for (family, path, flags, expected) in [
            (Family::Node, "/work/evil.js", closed, true),
            (Family::Node, "/usr/lib/node_modules/npm/bin/npm-cli.js", closed, true),
            (Family::Node, "/work/evil.so", closed, true),
            (Family::Node, "/work/openssl.cnf", closed, true),
            (Family::Node, "/dev/shm/evil.js", closed, true),
            (Family::Node, "/dev/pts/0", closed, true),
            (Family::Node, "/etc/evil.js", closed, true),
            (Family::Node, "/proc/17/cmdline", closed, true),
            (Family::Node, "/usr/lib/x86_64-linux-gnu/libc.so.6", closed, false),
            (Family::Node, "/work/package.json", closed, false),
            (Family::Node, "/etc/ssl/openssl.cnf", open, false),
            (Family::Node, "/etc/ssl/certs/ca-certificates.crt", closed, false),
            (Family::Python, "/usr/lib/ssl/openssl.cnf", open, false),
            (Family::Node, "/proc/self/maps", open, false),
            (Family::Node, "/proc/meminfo", open, false),
            (Family::Node, "/sys/fs/cgroup/memory.max", open, false),
            (Family::Python, "/work/evil.py", open, true),
            (Family::Python, "/work/a.py/__main__.py", closed, true),
            (Family::Python, "/work/a.py/__pycache__/__main__.cpython-311.pyc", closed, true),
            (Family::Python, "/usr/lib/python3.11/os.py", closed, false),
            (Family::Python, "/work/pyvenv.cfg", open, false),
            (Family::Once, "/work/other", open, false),
        ] {
            assert_eq!(is_instead(family, path, flags, FileType::RegularFile), expected, "{family:?} {path}");
        }
        assert!(is_instead(Family::Node, "/work/pipe", closed, FileType::Fifo));
        assert!(is_instead(Family::Python, "/work/pipe", open, FileType::Fifo));
        assert!(!is_instead(Family::Node, "/work", closed, FileType::Directory));
    }
}
