//! The copy of a script that its interpreter reads instead of the file.
//!
//! The kernel gives an interpreter the *name* of its script. Whoever can write the file, or a folder on its path, can
//! make it another one between the decision and the reading. So the content is copied when it is decided about, into a
//! memfd that the caller gets as a descriptor, and [`crate::opens`] sees to it that the interpreter reads that. A script
//! that nothing in the sandbox can change is left alone.
//!
//! The loader may read more than the sandbox, so the memfd stays empty until the image, which has the caller's rights and
//! nobody else's descriptors, has opened the script itself ([`Script::prove`]).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use clawsec_core::pb;
use nix::errno::Errno;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, Statx, fcntl_add_seals, memfd_create, openat};
use sha2::{Digest, Sha256};

use crate::bound::Bound;
use crate::file::{is_same, status, statx_of};
use crate::handler::{ExecHandler, Request};
use crate::resolve::{Found, Kind};
use crate::{copies, remote, sys};

/// Largest script that is copied.
const SIZE_MAX: u64 = 16 << 20;

/// A script that an interpreter is given.
#[derive(Debug)]
pub struct Script {
    /// The copy. The caller has the same open file, as its descriptor `spare`.
    pub copy: Content,
    pub spare: i32,
    /// What the image was told when it opened the script: then it gets nothing else, and no copy.
    pub unreadable: Option<Errno>,
    /// The file that was copied.
    pub original: Statx,
    /// Its name as the interpreter is given it.
    pub name: Vec<u8>,
    /// The absolute names by which an interpreter may open it, also without their "..".
    pub names: Vec<Vec<u8>>,
    /// What it contains may make Node read it a second time, as an ES module.
    pub maybe_module: bool,
    /// It may be byte code to Python, which reads that a second time.
    pub maybe_compiled: bool,
}

impl ExecHandler {
    /// Whether the script of an exec can be changed after the decision, and the decision goes by it.
    pub(crate) fn needs_script(&self, request: &Request, decision: &pb::Decision) -> bool {
        let by_script = Bound::of(decision).is_ok_and(|bound| bound.script);
        let scripts = request.image.scripts();
        by_script
            && scripts.iter().any(|file| is_changeable(request.task.tid, file))
            && !copies::has(request.task.pid, scripts)
    }

    /// Copies the script and puts the copy into the caller. May take some milliseconds. The error is a sentence.
    pub(crate) fn hand_over(&self, request: &Request, decision: &pb::Decision) -> Result<Script, String> {
        let [script] = request.image.scripts() else { return Err(several(request)) };
        if !cfg!(target_arch = "x86_64") {
            return Err("the policy goes by its script, which the sandbox can change; \
                        clawsec cannot prevent that on this architecture"
                .into());
        }
        let named = String::from_utf8_lossy(&script.path).into_owned();
        let fail = |why: &dyn std::fmt::Display| format!("the script {named} cannot be copied ({why})");
        let original = status(script.fd.as_fd()).map_err(|error| fail(&error))?;
        let bytes = read(script).map_err(|error| fail(&error))?;
        let digest = hex(&bytes);
        let expected = &request.action.script_sha256;
        if !expected.is_empty() && *expected != digest {
            return Err(format!("the script {named} was changed while it was decided about"));
        }
        if !self.sandbox.held.is_as_held(&decision.hold_id, digest) {
            return Err(format!(
                "the script {named} was changed since the hold that it would have joined was opened; \
                 try again when that has ended"
            ));
        }
        let maybe_module = may_be_module(&script.path, &bytes);
        let maybe_compiled = may_be_compiled(&request.image.name, &bytes);
        let copy = Content::of(bytes).map_err(|error| fail(&error))?;
        let spare = request.notification.put_fd(copy.as_fd()).map_err(|error| fail(&error))?;
        let cwd = request.cwd.as_ref().map_or(&[][..], |cwd| &cwd.path);
        let given = absolute(cwd, &request.image.name);
        let names = vec![without_dots(&given), given, absolute(b"/", &script.path)];
        let name = request.image.name.clone();
        Ok(Script { copy, spare, unreadable: None, original, name, names, maybe_module, maybe_compiled })
    }
}

impl Script {
    /// One of no content, which nobody has.
    #[cfg(test)]
    pub fn for_test() -> Self {
        let copy = Content::of(Vec::new()).unwrap();
        let original = status(copy.as_fd()).unwrap();
        let (name, names) = (Vec::new(), Vec::new());
        let (maybe_module, maybe_compiled) = (false, false);
        Self { copy, spare: 3, unreadable: None, original, name, names, maybe_module, maybe_compiled }
    }

    /// Makes an image that stands at its exec event open the script by its name, as its interpreter will. Only if that is the
    /// approved file the copy gets its content, and if it may not be read, nobody gets any.
    ///
    /// # Errors
    /// The name leads to another file by now, or to none; or the process has ended (ESRCH).
    pub fn prove(&mut self, pid: i32) -> io::Result<()> {
        let mut signals = Vec::new();
        let image = remote::Start::new(pid, &mut signals)?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let name = image.put(&self.name)?;
        let open = [libc::AT_FDCWD as u64, name, flags as u64];
        let opened = image.call(&mut signals, libc::SYS_openat, open)?;
        let is_original = if opened >= 0 {
            let found = statx_of(&format!("/proc/{pid}/fd/{opened}"))?;
            image.call(&mut signals, libc::SYS_close, [opened as u64, 0, 0])?;
            is_same(&found, &self.original)
        } else {
            false
        };
        match Errno::from_raw(-opened.clamp(-4095, 0) as i32) {
            errno @ (Errno::EACCES | Errno::EPERM) => self.unreadable = Some(errno),
            _ if is_original => {
                self.copy.fill()?;
                self.open_again(pid, &image, &mut signals)?;
            }
            _ => return Err(io::Error::other("the name of its script led to another file before its exec")),
        }
        image.end()?;
        for signal in signals {
            sys::signal_thread(pid, pid, signal)?;
        }
        Ok(())
    }

    // Who shared the caller's descriptors still has the open file that the caller was given, and moves its position as it
    // likes. So the image opens the copy anew, in its place.
    fn open_again(&self, pid: i32, image: &remote::Start, signals: &mut Vec<i32>) -> io::Result<()> {
        let path = image.put(format!("/proc/self/fd/{}", self.spare).as_bytes())?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let number = image.call(signals, libc::SYS_openat, [libc::AT_FDCWD as u64, path, flags as u64])?;
        let moved = number >= 0
            && number != i64::from(self.spare)
            && is_same(&statx_of(&format!("/proc/{pid}/fd/{number}"))?, &status(self.copy.as_fd())?)
            && image.call(signals, libc::SYS_dup3, [number as u64, self.spare as u64, 0])? >= 0
            && image.call(signals, libc::SYS_close, [number as u64, 0, 0])? == 0;
        if moved { Ok(()) } else { Err(io::Error::other("it could not open the copy of its script")) }
    }
}

// Why several scripts are refused. The kernel opens each that names another in its "#!" line, and the arguments say which:
// that is verified. But the one that a script interprets is data to that script: it, or a process that it forks, opens it
// at a time and as often as it likes, so that no moment is the last at which the copy must be given.
fn several(request: &Request) -> String {
    let scripts = request.image.scripts();
    let shown = |file: &Found| String::from_utf8_lossy(&file.path).chars().take(200).collect::<String>();
    let tid = request.task.tid;
    let changeable = scripts.iter().find(|file| is_changeable(tid, file)).map(shown).unwrap_or_default();
    let [first, second, ..] = scripts else { return "it is not known which script is read".into() };
    let (how, remedy) = if request.image.is_interpreted_by_script() {
        ("is interpreted by the script", "scripts on read-only mounts can be nested")
    } else {
        ("is read together with", "scripts on read-only mounts can be read together")
    };
    let (first, second) = (shown(first), shown(second));
    format!("{first} {how} {second}, and the sandbox can change {changeable} or what leads to it; {remedy}")
}

fn read(script: &Found) -> io::Result<Vec<u8>> {
    let path = format!("/proc/self/fd/{}", script.fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a script in memory: of its size at once, and empty until it is filled.
#[derive(Debug)]
pub struct Content {
    memory: File,
    reader: File,
    // `None`: it is filled.
    bytes: Option<Vec<u8>>,
}

impl Content {
    fn of(bytes: Vec<u8>) -> io::Result<Self> {
        let memory: OwnedFd = memfd_create("script", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let memory = File::from(memory);
        memory.set_len(bytes.len() as u64)?;
        fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK)?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let reader = File::from(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        Ok(Self { memory, reader, bytes: Some(bytes) })
    }

    /// Puts the bytes in place. After this nobody can change them.
    pub fn fill(&mut self) -> io::Result<()> {
        let Some(bytes) = self.bytes.take() else { return Ok(()) };
        self.memory.write_all_at(&bytes, 0)?;
        fcntl_add_seals(&self.memory, SealFlags::WRITE | SealFlags::SEAL)?;
        // Who has the reading end could open it for writing until now.
        let mut kept = vec![0; bytes.len()];
        self.memory.read_exact_at(&mut kept, 0)?;
        if kept != bytes {
            return Err(io::Error::other("the copy of its script was written to before it was sealed"));
        }
        Ok(())
    }
}

impl AsFd for Content {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// A name, absolute and without empty and "." components. ".." stays: what it means depends on links.
pub fn absolute(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let from = if name.starts_with(b"/") { &[][..] } else { folder };
    for part in from.split(|&byte| byte == b'/').chain(name.split(|&byte| byte == b'/')) {
        if !part.is_empty() && part != b"." {
            path.push(b'/');
            path.extend_from_slice(part);
        }
    }
    path
}

/// An absolute name as interpreters shorten it, without a look at what is there.
pub fn without_dots(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        match part {
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.iter().flat_map(|part| [b"/", *part].concat()).collect()
}

// Node reads a file as CommonJS first, and again as an ES module if it has the syntax of one; its extension can
// settle that, and without one of these words there is no such syntax.
fn may_be_module(path: &[u8], content: &[u8]) -> bool {
    let has = |word: &[u8]| content.windows(word.len()).any(|part| part == word);
    let settled = path.ends_with(b".mjs") || path.ends_with(b".cjs");
    !settled && [b"import".as_slice(), b"export", b"await"].into_iter().any(has)
}

// By its name, or by the first half of the magic number of its version, in which text has no second byte
// (`maybe_pyc_file` of Python/pythonrun.c; 3,000 to 4,095 and more are numbers of Python 3).
fn may_be_compiled(name: &[u8], content: &[u8]) -> bool {
    name.ends_with(b".pyc") || content.get(1).is_some_and(|byte| (0x0b..=0x1f).contains(byte))
}

// Whether anything in the sandbox could change the file, or what its name leads to. Not known counts as yes.
pub fn is_changeable(tid: i32, file: &Found) -> bool {
    if file.kind != Kind::File {
        return true;
    }
    let Ok(text) = std::fs::read(format!("/proc/{tid}/mountinfo")) else { return true };
    is_mounted_writable(&String::from_utf8_lossy(&text), &file.mounts)
}

struct Mount<'a> {
    id: u64,
    device: &'a str,
    root: &'a str,
    read_only: bool,
}

// proc_pid_mountinfo(5): id parent major:minor root point options [optional] - type source super-options
fn parse(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ');
    let id = words.next()?.parse().ok()?;
    let device = words.nth(1)?;
    let root = words.next()?;
    let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
    let read_only = is_ro(words.nth(1)?) || after.split(' ').nth(2).is_some_and(is_ro);
    Some(Mount { id, device, root, read_only })
}

// True when one of the mounts can be written, or what it shows is also shown by one that can.
fn is_mounted_writable(mountinfo: &str, used: &[u64]) -> bool {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse).collect();
    let below = |inner: &str, outer: &str| {
        outer == "/" || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    used.is_empty()
        || used.iter().any(|id| {
            let Some(mount) = mounts.iter().find(|mount| mount.id == *id) else { return true };
            !mount.read_only
                || mounts.iter().any(|other| {
                    !other.read_only
                        && other.device == mount.device
                        && (below(mount.root, other.root) || below(other.root, mount.root))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_absolute_and_its_dots_that_mean_nothing_go() {
        for (folder, name, path) in [
            ("/work", "a.sh", "/work/a.sh"),
            ("/work", "./a.sh", "/work/a.sh"),
            ("/work/", ".//b/./a.sh", "/work/b/a.sh"),
            ("/work", "/tmp/a.sh", "/tmp/a.sh"),
            ("/work", "../a.sh", "/work/../a.sh"),
        ] {
            assert_eq!(absolute(folder.as_bytes(), name.as_bytes()), path.as_bytes(), "{folder} {name}");
        }
    }

    #[test]
    fn a_name_is_shortened_as_interpreters_do() {
        for (name, short) in
            [("/a/b", "/a/b"), ("/a/../b", "/b"), ("/a/./b/..", "/a"), ("/../a", "/a"), ("/..", "")]
        {
            assert_eq!(without_dots(name.as_bytes()), short.as_bytes(), "{name}");
        }
    }

    fn writer(of: &Content) -> io::Result<File> {
        File::options().write(true).open(format!("/proc/self/fd/{}", of.as_fd().as_raw_fd()))
    }

    #[test]
    fn a_copy_is_empty_until_it_is_filled_and_cannot_be_written_after_that() {
        let mut copy = Content::of(b"echo good".to_vec()).unwrap();
        let mut bytes = Vec::new();
        copy.reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 9]);
        let early = writer(&copy).unwrap();
        early.write_all_at(b"echo evil", 0).unwrap();
        assert!(early.set_len(20).is_err() && early.set_len(2).is_err());

        copy.fill().unwrap();
        assert!(early.write_all_at(b"x", 0).is_err());
        assert!(writer(&copy).map_or(true, |late| late.write_all_at(b"x", 0).is_err()));
        copy.reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, b"echo good");
    }

    #[test]
    fn a_copy_that_is_mapped_for_writing_is_never_filled() {
        let mut copy = Content::of(b"echo good".to_vec()).unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_fd().as_raw_fd());
        let file = File::options().read(true).write(true).open(path).unwrap();
        // SAFETY: nobody else changes this memory.
        let _map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
        assert!(copy.fill().is_err());
    }

    #[test]
    fn a_script_may_be_a_module_by_its_words_unless_its_extension_settles_it() {
        for (path, content, expected) in [
            ("/a", "console.log(1)", false),
            ("/a", "import fs from 'fs'", true),
            ("/a.js", "// exports", true),
            ("/a.cjs", "await x", false),
            ("/a.mjs", "import 'x'", false),
        ] {
            assert_eq!(may_be_module(path.as_bytes(), content.as_bytes()), expected, "{path} {content}");
        }
    }

    #[test]
    fn a_script_may_be_byte_code_by_its_name_or_its_first_bytes() {
        for (name, content, expected) in [
            ("a.pyc", &b"print(1)"[..], true),
            ("a", b"\xa7\x0d\x0d\x0a", true),
            ("a.py", b"print(1)", false),
            ("a.py", b"\nprint(1)", false),
            ("a", b"", false),
        ] {
            assert_eq!(may_be_compiled(name.as_bytes(), content), expected, "{name} {content:?}");
        }
    }

    #[test]
    fn a_script_is_safe_only_where_no_mount_that_can_be_written_shows_it() {
        let root = "1 0 8:1 / / ro,relatime - ext4 /dev/sda1 rw";
        let usr = "2 1 8:2 /usr /usr ro,nosuid shared:1 - ext4 /dev/sda2 rw";
        let work = "3 1 8:2 /home/work /work rw - ext4 /dev/sda2 rw";
        let all = "4 1 8:2 / /all rw - ext4 /dev/sda2 rw";
        let inner = "5 1 8:2 /usr/local/share /share rw - ext4 /dev/sda2 rw";
        let sealed = "6 1 8:3 / /sealed rw - squashfs /dev/x ro";
        let is = |lines: &[&str], used: &[u64]| is_mounted_writable(&lines.join("\n"), used);
        assert!(!is(&[root, usr, work], &[1, 2]));
        assert!(!is(&[root, usr, sealed], &[1, 6]));
        assert!(is(&[root, usr, work], &[1, 3]));
        assert!(is(&[root, usr, all], &[1, 2]));
        assert!(is(&[root, usr, inner], &[1, 2]));
        // What is not known.
        assert!(is(&[root, usr], &[1, 9]));
        assert!(is(&[root, usr], &[]));
        assert!(is(&["garbage"], &[1]));
    }
}
