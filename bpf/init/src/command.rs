//! Commands beside the main one, for whoever asks the loader (`clawsec exec`).
//!
//! The shim forks them itself: a filter, its listener and a Landlock layer are inherited by a fork and can be had in no
//! other way, so there is nothing that such a command could lack. Its exec is decided as that of any process here.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;

use clawsec_init::wire::{self, Command};

use crate::{entry, pid1, sys};

/// Takes the command's descriptors and forks it. Returns its pid, or a sentence why there is none.
///
/// # Errors
/// The loader's socket.
pub fn fork(loader: &File, spec: &Command) -> io::Result<Result<i32, String>> {
    let mut descriptors = Vec::with_capacity(wire::COMMAND_DESCRIPTORS);
    for _ in 0..wire::COMMAND_DESCRIPTORS {
        descriptors.push(wire::receive_kept(loader)?);
    }
    let Ok([stdin, stdout, stderr, socket, cgroup]) =
        <[OwnedFd; wire::COMMAND_DESCRIPTORS]>::try_from(descriptors)
    else {
        unreachable!("as many as were asked for");
    };
    Ok(match sys::fork() {
        Ok(Some(pid)) => Ok(pid),
        Ok(None) => {
            become_command(spec, [stdin, stdout, stderr], File::from(socket), File::from(cgroup));
        }
        Err(error) => Err(format!("the command could not be forked: {error}")),
    })
}

/// In the forked child.
fn become_command(spec: &Command, streams: [OwnedFd; 3], mut socket: File, mut cgroup: File) -> ! {
    if let Err(error) = sys::take_streams(streams.each_ref().map(AsRawFd::as_raw_fd)) {
        refuse(spec, 126, &error);
    }
    // Before the loader knows it: a signal for its group must find one.
    if let Err(error) = rustix::process::setsid() {
        refuse(spec, 126, &error);
    }
    if spec.terminal
        && let Err(error) = sys::control_terminal()
    {
        refuse(spec, 126, &format!("the terminal: {error}"));
    }
    if let Err(error) = cgroup.write_all(b"0") {
        refuse(spec, 126, &format!("its subject's cgroup: {error}"));
    }
    drop(cgroup);
    if socket.write_all(&[0]).is_err() || socket.read_exact(&mut [0]).is_err() {
        // Nobody waits for it any more.
        exit(126);
    }
    let (path, argv, environment) = match prepare(spec) {
        Ok(image) => image,
        Err(why) => refuse(spec, 126, &why),
    };
    if let Err(error) = sys::close_others() {
        refuse(spec, 126, &format!("close_range: {error}"));
    }
    sys::reset_signals();
    let error = sys::execve(&path, &argv, &environment);
    // As a shell says it.
    refuse(spec, if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }, &error)
}

fn refuse(spec: &Command, code: i32, why: &dyn std::fmt::Display) -> ! {
    let command = spec.args.first().map_or("", String::as_str);
    // Not `eprintln!`, which panics when nobody reads any more.
    let _ = writeln!(io::stderr(), "clawsec: the command {command:?} was not started: {why}.");
    exit(code)
}

type Image = (CString, Vec<CString>, Vec<CString>);

fn prepare(spec: &Command) -> Result<Image, String> {
    let nul = |_| "it has a NUL byte in it".to_owned();
    let command = spec.args.first().ok_or("it is empty")?;
    let path = CString::new(pid1::search(command)).map_err(nul)?;
    let argv = spec.args.iter().map(|arg| CString::new(arg.as_str()).map_err(nul));
    let argv = argv.collect::<Result<_, _>>()?;
    let left_out = |name: &OsStr| {
        spec.entry.is_some() && entry::is_dangerous(name) || !spec.term.is_empty() && name == "TERM"
    };
    let variables = std::env::vars_os().filter(|(name, _)| !left_out(name));
    let mut environment: Vec<Vec<u8>> =
        variables.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    if !spec.term.is_empty() {
        environment.push([b"TERM=", spec.term.as_bytes()].concat());
    }
    let environment = environment.into_iter().map(|pair| CString::new(pair).map_err(nul));
    let environment = environment.collect::<Result<_, _>>()?;
    if let Some(name) = &spec.entry {
        let layer = entry::read_spec(OsStr::new(name))?.landlock;
        layer.restrict_self().map_err(|refusal| format!("the entry {name:?} was refused: {refusal}"))?;
    }
    Ok((path, argv, environment))
}
