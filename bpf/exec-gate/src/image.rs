//! What the kernel will load for a call of execve: the file, or the interpreter of the script, and its arguments.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use crate::bpf::abi::ARGV_MAX;
use crate::cache::{Cache, is_settled};
use crate::file::FileId;
use crate::resolve::{Failure, Found, Start, View};
use crate::script::{HEADER_SIZE, Header};

/// Files whose beginning is kept in mind for one sandbox (twice this at most).
const HEADERS_MAX: usize = 1024;
/// Interpreters that the kernel follows (`exec_binprm` of fs/exec.c).
const DEPTH_MAX: usize = 5;

/// A call of execve or execveat, read from the caller.
#[derive(Debug)]
pub struct Call {
    /// The path as written.
    pub path: Vec<u8>,
    /// Where a relative path begins.
    pub start: Start,
    /// `AT_SYMLINK_NOFOLLOW` was not given.
    pub follow: bool,
    /// An empty path means the descriptor itself.
    pub empty_path: bool,
    /// The arguments as written.
    pub argv: Vec<Vec<u8>>,
}

/// What will be loaded.
#[derive(Debug)]
pub struct Image {
    /// The scripts, outermost first, and at last the file that becomes the image. Never empty.
    pub files: Vec<Found>,
    /// The name of the script as its interpreter is given it; of a program, as it was called.
    pub name: Vec<u8>,
    /// The arguments as they will lie in the memory of the new image, each with its terminating zero.
    pub argv: Vec<u8>,
    /// How many.
    pub argc: u32,
}

impl Image {
    /// The file that becomes the image.
    pub fn loaded(&self) -> &Found {
        &self.files[self.files.len() - 1]
    }

    /// The file with the `#!` line that the caller named, if it is one.
    pub fn script(&self) -> Option<&Found> {
        (self.files.len() > 1).then(|| &self.files[0])
    }

    /// The scripts between that one and the image, each the interpreter of the one before it.
    pub fn nested(&self) -> &[Found] {
        if self.files.len() > 2 { &self.files[1..self.files.len() - 1] } else { &[] }
    }
}

/// The beginnings of files that were loaded lately.
#[derive(Debug)]
pub struct Headers {
    known: Mutex<Cache<FileId, Header>>,
}

impl Default for Headers {
    fn default() -> Self {
        Self { known: Mutex::new(Cache::new(HEADERS_MAX)) }
    }
}

impl Headers {
    fn read(&self, file: &Found) -> Result<Header, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = known.get(&file.id) {
            return Ok(header);
        }
        drop(known);
        // Before it is read: what changes later has another time then.
        let settled = is_settled(&file.id);
        let header = read_header(file)
            .map_err(|error| Failure::Refused(format!("the executable cannot be read ({error})")))?;
        if settled {
            known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.put(file.id, header.clone());
        }
        Ok(header)
    }
}

// Through /proc, so that it is the same file however its path changes.
fn read_header(file: &Found) -> std::io::Result<Header> {
    let path = format!("/proc/self/fd/{}", file.fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut header = [0; HEADER_SIZE];
    let mut filled = 0;
    while filled < HEADER_SIZE {
        match file.read_at(&mut header[filled..], filled as u64) {
            Ok(0) => break,
            Ok(size) => filled += size,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Header::parse(&header))
}

fn check(file: &Found) -> Result<(), Failure> {
    let regular = FileType::from_raw_mode(file.mode) == FileType::RegularFile;
    if regular && file.mode & 0o111 != 0 { Ok(()) } else { Err(Errno::EACCES.into()) }
}

/// Finds what the kernel will load. Changes `call.argv` only in the result.
pub fn find(view: &View, headers: &Headers, tid: i32, call: &Call) -> Result<Image, Failure> {
    let first = if call.path.is_empty() && call.empty_path {
        view.find_fd(tid, call.start)?
    } else {
        view.find(tid, call.start, &call.path, call.follow)?
    };
    check(&first)?;
    // Since Linux 5.18 a missing argv[0] is an empty one.
    let mut argv = if call.argv.is_empty() { vec![Vec::new()] } else { call.argv.clone() };
    let first_name = file_name(call);
    let mut name = first_name.clone();
    let mut files = vec![first];
    while let Header::Script { interpreter, argument } = headers.read(&files[files.len() - 1])? {
        if files.len() == 1 && is_closed_at_exec(tid, call) {
            // The interpreter could not open its script.
            return Err(Errno::ENOENT.into());
        }
        if files.len() > DEPTH_MAX {
            return Err(Errno::ELOOP.into());
        }
        let found = view.find(tid, Start::Cwd, &interpreter, true)?;
        check(&found)?;
        files.push(found);
        let head = [Some(interpreter.clone()), argument, Some(name)];
        argv.splice(..1, head.into_iter().flatten());
        name = interpreter;
    }
    if headers.read(&files[files.len() - 1])? == Header::Neither {
        return Err(Errno::ENOEXEC.into());
    }
    let mut bytes = Vec::with_capacity(argv.iter().map(|argument| argument.len() + 1).sum());
    for argument in &argv {
        bytes.extend_from_slice(argument);
        bytes.push(0);
    }
    if bytes.len() > ARGV_MAX {
        return Err(Failure::Refused("the arguments are longer than 128 KiB".into()));
    }
    let argc = argv.len() as u32;
    Ok(Image { files, name: first_name, argv: bytes, argc })
}

// `bprm->filename` (alloc_bprm of fs/exec.c): what a script's interpreter is given to open.
fn file_name(call: &Call) -> Vec<u8> {
    let Start::Fd(number) = call.start else { return call.path.clone() };
    if call.path.starts_with(b"/") {
        return call.path.clone();
    }
    let mut name = format!("/dev/fd/{number}").into_bytes();
    if !call.path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(&call.path);
    }
    name
}

// `BINPRM_FLAGS_PATH_INACCESSIBLE`: the name goes through a descriptor that the exec closes.
fn is_closed_at_exec(tid: i32, call: &Call) -> bool {
    let Start::Fd(number) = call.start else { return false };
    if call.path.starts_with(b"/") {
        return false;
    }
    let info = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).unwrap_or_default();
    let flags =
        info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC.cast_unsigned() != 0)
}
