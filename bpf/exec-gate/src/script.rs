//! The `#!` line, exactly as the kernel reads it (fs/binfmt_script.c, `load_script`).

/// `BINPRM_BUF_SIZE` of linux/binfmts.h: all that the kernel looks at.
pub const HEADER_SIZE: usize = 256;

/// How the kernel will load a file, by its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The file itself is the image.
    Elf,
    /// Another program is loaded for it.
    Script {
        /// Path of the interpreter, as written.
        interpreter: Vec<u8>,
        /// All that stands behind it, as one argument.
        argument: Option<Vec<u8>>,
    },
    /// The kernel answers ENOEXEC; a shell that called takes it for a script then (execvp(3), POSIX sh 2.9.1.4).
    Neither,
}

impl Header {
    /// `bytes` is the beginning of the file, filled up with zeros.
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        if bytes.starts_with(b"\x7fELF") {
            return Self::Elf;
        }
        parse_script(bytes).unwrap_or(Self::Neither)
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

// The kernel's helpers look at `last` too.
fn next_non_blank(buffer: &[u8], first: usize, last: usize) -> Option<usize> {
    (first..=last).find(|&at| !is_blank(buffer[at]))
}

fn next_terminator(buffer: &[u8], first: usize, last: usize) -> Option<usize> {
    (first..=last).find(|&at| is_blank(buffer[at]) || buffer[at] == 0)
}

fn parse_script(header: &[u8; HEADER_SIZE]) -> Option<Header> {
    if !header.starts_with(b"#!") {
        return None;
    }
    let mut buffer = *header;
    let last = HEADER_SIZE - 1;
    // `strnchr` stops at a zero.
    let newline =
        buffer.iter().position(|&byte| byte == b'\n' || byte == 0).filter(|&at| buffer[at] == b'\n');
    let mut end = match newline {
        Some(at) => at,
        None => {
            let name = next_non_blank(&buffer, 2, last)?;
            // Without a blank or zero behind it the name may be cut off.
            next_terminator(&buffer, name, last)?;
            last
        }
    };
    while is_blank(buffer[end - 1]) {
        end -= 1;
    }
    let name = next_non_blank(&buffer, 2, end).filter(|&name| name != end)?;
    let separator = next_terminator(&buffer, name, end);
    let argument = separator.filter(|&at| buffer[at] != 0).and_then(|at| next_non_blank(&buffer, at, end));
    buffer[end] = 0;
    if let (Some(separator), Some(_)) = (separator, argument) {
        buffer[separator] = 0;
    }
    let string = |from: usize| {
        let rest = &buffer[from..];
        rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())].to_vec()
    };
    Some(Header::Script { interpreter: string(name), argument: argument.map(string) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Header {
        let mut bytes = [0; HEADER_SIZE];
        let size = text.len().min(HEADER_SIZE);
        bytes[..size].copy_from_slice(&text[..size]);
        Header::parse(&bytes)
    }

    fn script(interpreter: &str, argument: Option<&str>) -> Header {
        Header::Script { interpreter: interpreter.into(), argument: argument.map(Into::into) }
    }

    #[test]
    fn a_script_names_its_interpreter_and_at_most_one_argument() {
        for (text, interpreter, argument) in [
            ("#!/bin/sh\n", "/bin/sh", None),
            ("#! /bin/sh\necho", "/bin/sh", None),
            ("#!\t /bin/sh \t\n", "/bin/sh", None),
            ("#!/bin/sh -e\n", "/bin/sh", Some("-e")),
            ("#!/usr/bin/env  -S node --x \n", "/usr/bin/env", Some("-S node --x")),
            ("#!/bin/sh", "/bin/sh", None),
            ("#!/bin/sh -x", "/bin/sh", Some("-x")),
            ("#!sh\n", "sh", None),
            ("#!/bin/sh\r\n", "/bin/sh\r", None),
        ] {
            assert_eq!(parse(text.as_bytes()), script(interpreter, argument), "{text:?}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for text in ["", "#", "#!\n", "#! \t \n", "echo hello\n", "\x7fEL", "MZ"] {
            assert_eq!(parse(text.as_bytes()), Header::Neither, "{text:?}");
        }
        // An empty name is one to the kernel too; it fails to open with ENOENT.
        assert_eq!(parse(b"#!"), script("", None));
        // The name does not end within what the kernel reads.
        let long = format!("#!/{}\n", "x".repeat(HEADER_SIZE));
        assert_eq!(parse(long.as_bytes()), Header::Neither);
        // Its argument may be cut off.
        let cut = format!("#!/bin/sh {}\n", "x".repeat(HEADER_SIZE));
        assert_eq!(parse(cut.as_bytes()), script("/bin/sh", Some(&"x".repeat(HEADER_SIZE - 11))));
    }

    #[test]
    fn a_zero_ends_the_line() {
        assert_eq!(parse(b"#!/bin/sh\0 -x\n"), script("/bin/sh", None));
        assert_eq!(parse(b"#!/bin/sh -x\0y\n"), script("/bin/sh", Some("-x")));
    }

    #[test]
    fn an_elf_file_is_known_by_its_magic() {
        assert_eq!(parse(b"\x7fELF\x02\x01"), Header::Elf);
    }
}
