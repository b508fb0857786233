//! Which of the files that an interpreter opens is its script, and when it opens it for the last time.
//!
//! Found by tracing dash 0.5.12, bash 5.2, perl 5.36, Python 3.11 and Node 24. An interpreter that is not known is
//! followed for as long as it lives.

use std::path::Path;

use rustix::fs::OFlags;

use crate::handover::Script;

/// Interpreters by how they open their script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Once, by the name that they are given (dash, bash, perl), and they read on from that descriptor.
    Once,
    /// At first to look for an archive, then with fopen(3), without O_CLOEXEC, to run it. The name is made absolute.
    Python,
    /// By the name that realpath gives, and again when it turns out to be an ES module.
    Node,
    /// Not known, or one that executes another (env).
    Other,
}

/// One successful open of a regular file for reading.
#[derive(Debug)]
pub struct Opened<'a> {
    /// It is the approved file, or was asked for by the script's name.
    pub is_script: bool,
    /// How many times the script was opened, this one included.
    pub times: u32,
    pub flags: OFlags,
    /// The path as it was asked for.
    pub path: &'a Path,
    /// It is the interpreter's own executable.
    pub is_image: bool,
}

/// What an open means.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing to the script.
    Another,
    /// The script, which may be opened again.
    Script,
    /// The script, for the last time.
    LastScript,
    /// It may be what is run instead of the script.
    Instead,
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

    /// What an open means to the script.
    pub fn meaning(self, script: &Script, opened: &Opened<'_>) -> Meaning {
        let closed_at_exec = opened.flags.contains(OFlags::CLOEXEC);
        if opened.is_script {
            let is_last = match self {
                Self::Once => true,
                Self::Python => !closed_at_exec,
                Self::Node => !script.maybe_module || opened.times > 1,
                Self::Other => false,
            };
            return if is_last { Meaning::LastScript } else { Meaning::Script };
        }
        let is_instead = match self {
            Self::Once | Self::Other => false,
            Self::Python => !closed_at_exec && !is_named(opened.path, &PYTHON_START),
            Self::Node => opened.times == 0 && !opened.is_image && !is_of_start(opened.path),
        };
        if is_instead { Meaning::Instead } else { Meaning::Another }
    }
}

/// What Python, or the C library for it, opens with fopen(3) before its script.
const PYTHON_START: [&str; 3] = ["pyvenv.cfg", "pybuilddir.txt", "gconv-modules.cache"];

fn is_named(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.file_name().is_some_and(|file| file == *name))
}

// What Node opens before its script. JSON runs nothing.
fn is_of_start(path: &Path) -> bool {
    let folders =
        ["/proc", "/sys", "/dev", "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"];
    let is_library = || path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    is_named(path, &["package.json", "openssl.cnf"])
        || (folders.iter().any(|folder| path.starts_with(folder))
            && (is_library() || !path.starts_with("/usr/lib")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn script(maybe_module: bool) -> Script {
        let copy = File::open("/dev/null").unwrap();
        let original = crate::file::status(copy.as_fd()).unwrap();
        Script { copy, spare: 3, original, name: Vec::new(), names: Vec::new(), maybe_module }
    }

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
        let (closed, open) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::RDONLY);
        for (family, maybe_module, times, flags, meaning) in [
            (Family::Once, false, 1, open, Meaning::LastScript),
            (Family::Python, false, 1, closed, Meaning::Script),
            (Family::Python, false, 2, open, Meaning::LastScript),
            (Family::Node, false, 1, closed, Meaning::LastScript),
            (Family::Node, true, 1, closed, Meaning::Script),
            (Family::Node, true, 2, closed, Meaning::LastScript),
            (Family::Other, false, 9, open, Meaning::Script),
        ] {
            let path = Path::new("/work/a");
            let opened = Opened { is_script: true, times, flags, path, is_image: false };
            assert_eq!(family.meaning(&script(maybe_module), &opened), meaning, "{family:?} {times}");
        }
    }

    #[test]
    fn what_may_run_instead_of_the_script_is_told_from_what_an_interpreter_needs() {
        let (closed, open) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::RDONLY);
        for (family, path, flags, meaning) in [
            (Family::Node, "/work/evil.js", closed, Meaning::Instead),
            (Family::Node, "/usr/lib/node_modules/npm/bin/npm-cli.js", closed, Meaning::Instead),
            (Family::Node, "/work/evil.so", closed, Meaning::Instead),
            (Family::Node, "/usr/lib/x86_64-linux-gnu/libc.so.6", closed, Meaning::Another),
            (Family::Node, "/work/package.json", closed, Meaning::Another),
            (Family::Node, "/etc/ssl/openssl.cnf", open, Meaning::Another),
            (Family::Node, "/proc/1/maps", open, Meaning::Another),
            (Family::Python, "/work/evil.py", open, Meaning::Instead),
            (Family::Python, "/usr/lib/python3.11/os.py", closed, Meaning::Another),
            (Family::Python, "/work/pyvenv.cfg", open, Meaning::Another),
            (Family::Once, "/work/other", open, Meaning::Another),
        ] {
            let opened = Opened { is_script: false, times: 0, flags, path: Path::new(path), is_image: false };
            assert_eq!(family.meaning(&script(false), &opened), meaning, "{family:?} {path}");
        }
    }
}
