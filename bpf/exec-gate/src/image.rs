//! What the kernel will load for a call of execve: the file, or the interpreter of the script, and its arguments; and what
//! an interpreter, or the dynamic loader that is called by its own name, will open by these.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, makedev, openat};

use clawsec_core::pb;

use crate::bpf::abi::ARGV_MAX;
use crate::by_hand;
use crate::cache::{Cache, is_settled};
use crate::file::FileId;
use crate::handover::is_changeable;
use crate::operand::{self, Code};
use crate::operand_file;
use crate::resolve::{Failure, Found, Start, View, Who};
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

impl Call {
    /// One that could not be read.
    pub fn unknown() -> Self {
        Self { path: Vec::new(), start: Start::Cwd, follow: true, empty_path: false, argv: Vec::new() }
    }
}

/// What will be loaded.
#[derive(Debug)]
pub struct Image {
    /// The scripts, outermost first; the program that the dynamic loader is given by hand; and at last the file that
    /// becomes the image. Never empty.
    pub files: Vec<Found>,
    // How many are scripts, and through how many of these the kernel goes: an interpreter opens the others by itself.
    scripts: usize,
    by_kernel: usize,
    /// How many files an interpreter that is no script's is given.
    pub operands: usize,
    /// The name of the script as its interpreter is given it; of a program, as it was called.
    pub name: Vec<u8>,
    /// The arguments as they will lie in the memory of the new image, each with its terminating zero.
    pub argv: Vec<u8>,
    /// How many.
    pub argc: u32,
    /// What an interpreter runs by its arguments.
    pub code: pb::ExecCode,
    /// Why it is not known which files those are. Empty: it is known.
    pub script_unknown: String,
    /// Variables of the environment that options stand for.
    pub variables: Vec<&'static str>,
    /// The kernel loads none of it (ENOEXEC), and a shell that called reads the script by itself then.
    pub is_text: bool,
}

impl Image {
    /// The file that becomes the image.
    pub fn loaded(&self) -> &Found {
        &self.files[self.files.len() - 1]
    }

    /// What runs: the image, or the program that the dynamic loader is given.
    pub fn program(&self) -> &Found {
        &self.files[self.scripts]
    }

    /// The dynamic loader, where it is called by its own name.
    pub fn loader(&self) -> Option<&Found> {
        self.files.get(self.scripts + 1)
    }

    /// The scripts, outermost first.
    pub fn scripts(&self) -> &[Found] {
        &self.files[..self.scripts]
    }

    /// The file with the `#!` line that the caller named, or the one that an interpreter is given.
    pub fn script(&self) -> Option<&Found> {
        self.scripts().first()
    }

    /// The scripts between that one and the image: each the interpreter of the one before it, or given to one.
    pub fn nested(&self) -> &[Found] {
        self.scripts().get(1..).unwrap_or_default()
    }

    /// The interpreter that the first script names is a script, too.
    pub fn is_interpreted_by_script(&self) -> bool {
        self.by_kernel > 1
    }

    /// The files that the kernel opens, in its order.
    pub fn by_kernel(&self) -> impl Iterator<Item = &Found> {
        self.files[..self.by_kernel].iter().chain([self.loaded()])
    }

    /// Leaves out the script that an interpreter is given, which was decided about before.
    pub fn forget_operand(&mut self) {
        self.files.drain(self.by_kernel..self.scripts);
        self.scripts = self.by_kernel;
        self.script_unknown.clear();
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

// A file that is to be executed, with its beginning. Of a script it matters through which mounts it is found.
fn look(
    view: &View,
    headers: &Headers,
    who: Who,
    start: Start,
    path: &[u8],
    follow: bool,
) -> Result<(Found, Header), Failure> {
    let mut found = view.find_quickly(who, start, path, follow)?;
    check(&found)?;
    let mut header = headers.read(&found)?;
    if found.mounts.is_empty() && matches!(header, Header::Script { .. }) {
        found = view.find(who, start, path, follow)?;
        check(&found)?;
        header = headers.read(&found)?;
    }
    Ok((found, header))
}

/// Finds what the kernel will load. Changes `call.argv` only in the result.
pub fn find(view: &View, headers: &Headers, who: Who, call: &Call) -> Result<Image, Failure> {
    let (first, mut header) = if call.path.is_empty() && call.empty_path {
        let found = view.find_fd(who.tid, call.start)?;
        check(&found)?;
        let header = headers.read(&found)?;
        (found, header)
    } else {
        look(view, headers, who, call.start, &call.path, call.follow)?
    };
    // Since Linux 5.18 a missing argv[0] is an empty one.
    let mut argv: Cow<'_, [Vec<u8>]> =
        if call.argv.is_empty() { vec![Vec::new()].into() } else { (&call.argv).into() };
    let first_name = file_name(call);
    let mut name = first_name.clone();
    let mut files = vec![first];
    while let Header::Script { interpreter, argument } = header {
        if files.len() == 1 && is_closed_at_exec(who.tid, call) {
            // The interpreter could not open its script.
            return Err(Errno::ENOENT.into());
        }
        if files.len() > DEPTH_MAX {
            return Err(Errno::ELOOP.into());
        }
        let (found, next) = look(view, headers, who, Start::Cwd, &interpreter, true)?;
        header = next;
        files.push(found);
        let head = [Some(interpreter.clone()), argument, Some(name)];
        argv.to_mut().splice(..1, head.into_iter().flatten());
        name = interpreter;
    }
    let is_text = header == Header::Neither;
    if is_text && files.len() == 1 {
        // Who called interprets it, so it is the script, and no other program is known.
        let script = files[0].try_clone();
        files.push(script.map_err(|error| Failure::Refused(format!("it cannot be looked at ({error})")))?);
    }
    let mut bytes = Vec::with_capacity(argv.iter().map(|argument| argument.len() + 1).sum());
    for argument in argv.iter() {
        bytes.extend_from_slice(argument);
        bytes.push(0);
    }
    if bytes.len() > ARGV_MAX {
        return Err(Failure::Refused("the arguments are longer than 128 KiB".into()));
    }
    let argc = argv.len() as u32;
    let by_kernel = files.len() - 1;
    let mut image = Image {
        files,
        scripts: by_kernel,
        by_kernel,
        operands: 0,
        name: first_name,
        argv: bytes,
        argc,
        code: pb::ExecCode::Unspecified,
        script_unknown: String::new(),
        variables: Vec::new(),
        is_text,
    };
    if is_text {
        image.code = pb::ExecCode::File;
    } else {
        look_inside(view, headers, who, &mut image, &argv)?;
    }
    Ok(image)
}

// Adds what the image will open as its program or script. Most images are neither the loader nor an interpreter.
fn look_inside(
    view: &View,
    headers: &Headers,
    who: Who,
    image: &mut Image,
    argv: &[Vec<u8>],
) -> Result<(), Failure> {
    let mut argv = argv;
    if by_hand::is_loader(&image.loaded().path) {
        let Some(given) = by_hand::read(argv).map_err(Failure::Refused)? else { return Ok(()) };
        let named = String::from_utf8_lossy(given.program).into_owned();
        let refused = |why: &str| Failure::Refused(format!("the dynamic loader is given {named}, {why}"));
        let found = view
            .find(who, Start::Cwd, given.program, true)
            .map_err(|_| refused("which cannot be found; start programs by their own names"))?;
        check(&found).map_err(|_| refused("which cannot be executed"))?;
        if headers.read(&found)? != Header::Elf || by_hand::is_loader(&found.path) {
            return Err(refused("which is no program; start programs by their own names"));
        }
        if is_changeable(who.tid, &found) {
            return Err(refused("which the sandbox can change meanwhile; start it by its own name"));
        }
        image.variables = given.variables;
        image.files.insert(image.scripts, found);
        argv = &argv[given.at..];
    }
    let Some((language, code)) = operand::code(&image.program().path, argv) else { return Ok(()) };
    image.code = match &code {
        Code::Files(_) => pb::ExecCode::File,
        Code::Inline => pb::ExecCode::Inline,
        Code::Module => pb::ExecCode::Module,
        Code::Stream => pb::ExecCode::Stream,
        Code::Unknown(_) => pb::ExecCode::Unknown,
    };
    match code {
        Code::Unknown(why) => image.script_unknown = why,
        Code::Files(names) => {
            if image.scripts == 0 {
                image.operands = names.len();
                image.name.clone_from(&names[0]);
            }
            let mut is_told = false;
            for (place, name) in names.into_iter().enumerate() {
                match operand_file::find(view, who, language, &name) {
                    Ok((name, found)) => {
                        // Of a script with a "#!" line the kernel has told the interpreter. What is named again is
                        // read again, and counts again.
                        let mut by_kernel = image.files[..image.by_kernel].iter();
                        if !is_told && by_kernel.any(|script| script.id == found.id) {
                            is_told = true;
                            continue;
                        }
                        if FileType::from_raw_mode(found.mode) != FileType::RegularFile {
                            // Nothing is loaded from /dev/null.
                            if place == 0 || !is_null(&found) {
                                image.code = pb::ExecCode::Stream;
                            }
                            continue;
                        }
                        if place == 0 && image.operands > 0 {
                            image.name = name;
                        }
                        image.files.insert(image.scripts, found);
                        image.scripts += 1;
                    }
                    Err(why) => image.script_unknown = why,
                }
            }
        }
        Code::Inline | Code::Module | Code::Stream => {}
    }
    if image.code == pb::ExecCode::Stream
        && image.scripts > image.by_kernel
        && image.script_unknown.is_empty()
    {
        image.script_unknown = "its interpreter runs a script, and code that is read from a stream".into();
    }
    Ok(())
}

fn is_null(file: &Found) -> bool {
    fstat(&file.fd).is_ok_and(|stat| stat.st_rdev == makedev(1, 3))
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
