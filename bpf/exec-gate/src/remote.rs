//! Makes a stopped thread carry out system calls that it did not ask for, or others than it asked for.

use std::io;

/// What a thread stood with before its system call became another one.
#[derive(Debug)]
pub struct Saved(#[cfg(target_arch = "x86_64")] libc::user_regs_struct);

#[cfg(target_arch = "x86_64")]
pub use native::{Start, begin, call, end};
#[cfg(not(target_arch = "x86_64"))]
pub use other::{Start, begin, call, end};

#[cfg(target_arch = "x86_64")]
mod native {
    use std::io::IoSlice;

    use nix::sys::ptrace::{self, AddressType};
    use nix::sys::uio::{RemoteIoVec, process_vm_writev};
    use nix::unistd::Pid;

    use super::{Saved, io};
    use crate::sys::{self, GoOn};

    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    /// A stop of a system call (`PTRACE_O_TRACESYSGOOD`).
    const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
    /// So far below the stack of an image that has not run yet, a text of `PATH_MAX` fits: the kernel has made room for
    /// 128 KiB there (`setup_arg_pages` of fs/exec.c).
    const BELOW_STACK: u64 = 8192;

    /// Makes the system call at whose beginning a thread stands another one.
    pub fn begin(tid: i32, number: i64, args: [u64; 5]) -> io::Result<Saved> {
        let thread = Pid::from_raw(tid);
        let before = ptrace::getregs(thread)?;
        let mut registers = before;
        registers.orig_rax = number as u64;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8] = args;
        ptrace::setregs(thread, registers)?;
        Ok(Saved(before))
    }

    /// At the end of a system call that was made another one: it was what the thread asked for, with this result.
    pub fn end(tid: i32, Saved(before): Saved, result: i64) -> io::Result<()> {
        let registers = libc::user_regs_struct { rax: result as u64, ..before };
        Ok(ptrace::setregs(Pid::from_raw(tid), registers)?)
    }

    /// Makes a thread that stands at the end of a system call carry out another one, and gives its result. Signals that come
    /// meanwhile are taken away. ESRCH: it has ended.
    pub fn call(tid: i32, signals: &mut Vec<i32>, number: i64, args: [u64; 3]) -> io::Result<i64> {
        let thread = Pid::from_raw(tid);
        let before = ptrace::getregs(thread)?;
        let from = before.rip.wrapping_sub(SYSCALL.len() as u64);
        let word = ptrace::read(thread, from as AddressType)?;
        if word.to_ne_bytes()[..2] != SYSCALL {
            return Err(io::Error::other("it called the kernel in an unknown way"));
        }
        call_at(tid, signals, &before, from, number, args)
    }

    fn call_at(
        tid: i32,
        signals: &mut Vec<i32>,
        before: &libc::user_regs_struct,
        from: u64,
        number: i64,
        args: [u64; 3],
    ) -> io::Result<i64> {
        let thread = Pid::from_raw(tid);
        let mut registers = *before;
        registers.rip = from;
        registers.rax = number as u64;
        [registers.rdi, registers.rsi, registers.rdx] = args;
        ptrace::setregs(thread, registers)?;
        for _ in ["to its beginning", "to its end"] {
            run_to_system_call(tid, signals)?;
        }
        let result = ptrace::getregs(thread)?.rax as i64;
        ptrace::setregs(thread, *before)?;
        Ok(result)
    }

    // Goes on to the next stop at a system call. Signals that come before it are taken away, to be sent again.
    fn run_to_system_call(tid: i32, signals: &mut Vec<i32>) -> io::Result<()> {
        loop {
            sys::tracee_go_on(tid, GoOn::ToSystemCall(0))?;
            let (_, state) = sys::wait_for_tracee(tid)?;
            if !libc::WIFSTOPPED(state) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            match (state >> 16, libc::WSTOPSIG(state)) {
                (0, SYSCALL_STOP) => return Ok(()),
                (0, signal) => signals.push(signal),
                _ => {}
            }
        }
    }

    /// An image before its first instruction, made ready for system calls.
    pub struct Start {
        tid: i32,
        before: libc::user_regs_struct,
        code: i64,
    }

    impl Start {
        /// Of a process that stands at its exec event. It has left its execve after this.
        pub fn new(tid: i32, signals: &mut Vec<i32>) -> io::Result<Self> {
            run_to_system_call(tid, signals)?;
            let thread = Pid::from_raw(tid);
            let before = ptrace::getregs(thread)?;
            let code = ptrace::read(thread, before.rip as AddressType)?;
            let mut bytes = code.to_ne_bytes();
            bytes[..SYSCALL.len()].copy_from_slice(&SYSCALL);
            ptrace::write(thread, before.rip as AddressType, i64::from_ne_bytes(bytes))?;
            Ok(Self { tid, before, code })
        }

        /// Puts a text into its memory, with a zero behind it, and gives its address. Only the last one is kept.
        pub fn put(&self, text: &[u8]) -> io::Result<u64> {
            let bytes = [text, &[0]].concat();
            let base = self.before.rsp.wrapping_sub(BELOW_STACK);
            let remote = [RemoteIoVec { base: base as usize, len: bytes.len() }];
            let written = process_vm_writev(Pid::from_raw(self.tid), &[IoSlice::new(&bytes)], &remote)?;
            if written == bytes.len() { Ok(base) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
        }

        /// Carries out a system call, and gives its result.
        pub fn call(&self, signals: &mut Vec<i32>, number: i64, args: [u64; 3]) -> io::Result<i64> {
            call_at(self.tid, signals, &self.before, self.before.rip, number, args)
        }

        /// The image is as it was, still before its first instruction.
        pub fn end(self) -> io::Result<()> {
            Ok(ptrace::write(Pid::from_raw(self.tid), self.before.rip as AddressType, self.code)?)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::{Saved, io};

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub fn begin(_tid: i32, _number: i64, _args: [u64; 5]) -> io::Result<Saved> {
        unsupported()
    }

    pub fn end(_tid: i32, _saved: Saved, _result: i64) -> io::Result<()> {
        unsupported()
    }

    pub fn call(_tid: i32, _signals: &mut Vec<i32>, _number: i64, _args: [u64; 3]) -> io::Result<i64> {
        unsupported()
    }

    pub struct Start;

    impl Start {
        pub fn new(_tid: i32, _signals: &mut Vec<i32>) -> io::Result<Self> {
            unsupported()
        }

        pub fn put(&self, _text: &[u8]) -> io::Result<u64> {
            unsupported()
        }

        pub fn call(&self, _signals: &mut Vec<i32>, _number: i64, _args: [u64; 3]) -> io::Result<i64> {
            unsupported()
        }

        pub fn end(self) -> io::Result<()> {
            unsupported()
        }
    }
}
