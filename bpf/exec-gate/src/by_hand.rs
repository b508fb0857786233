//! The dynamic loader that is called by its own name: `ld.so PROGRAM` runs the program, which counts as what is executed.

use crate::operand::executable_name;

/// What the loader is given.
#[derive(Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// The program as written, and its place in the arguments.
    pub program: &'a [u8],
    pub at: usize,
    /// The variables of the environment that its options stand for.
    pub variables: Vec<&'static str>,
}

/// Whether an executable is a dynamic loader, by its base name: those of glibc and musl. musl's is a link to its `libc.so`,
/// which with glibc is a text.
pub fn is_loader(path: &[u8]) -> bool {
    let name = executable_name(path);
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    name == b"ld.so"
        || name == b"libc.so"
        || (name.starts_with(b"ld")
            && has(b".so")
            && (name[2..].starts_with(b"-") || name[2..].starts_with(b"64.")))
}

/// Reads the loader's arguments, the first being its own name. `None`: it is given no program. The error is a sentence.
pub fn read(argv: &[Vec<u8>]) -> Result<Option<Given<'_>>, String> {
    let mut variables = Vec::new();
    let mut at = 1;
    while let Some(argument) = argv.get(at) {
        let (name, has_value) = match argument.iter().position(|&byte| byte == b'=') {
            Some(place) if argument.starts_with(b"--") => (&argument[..place], true),
            _ => (argument.as_slice(), false),
        };
        let variable = match name {
            b"--list" | b"--verify" | b"--inhibit-cache" => {
                at += 1;
                continue;
            }
            b"--help" | b"--version" | b"--list-tunables" | b"--list-diagnostics" => return Ok(None),
            b"--library-path" => Some("LD_LIBRARY_PATH"),
            b"--preload" => Some("LD_PRELOAD"),
            b"--audit" => Some("LD_AUDIT"),
            b"--argv0" | b"--inhibit-rpath" | b"--glibc-hwcaps-prepend" | b"--glibc-hwcaps-mask" => None,
            b"--" => {
                at += 1;
                break;
            }
            [b'-', ..] => {
                let option: String = String::from_utf8_lossy(name).chars().take(80).collect();
                return Err(format!("clawsec does not know the option {option} of the dynamic loader"));
            }
            _ => break,
        };
        variables.extend(variable);
        at += if has_value { 1 } else { 2 };
    }
    let Some(program) = argv.get(at) else { return Ok(None) };
    if !program.contains(&b'/') {
        return Err(
            "the dynamic loader searches its folders for a program without \"/\"; give it a path".into()
        );
    }
    Ok(Some(Given { program, at, variables }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_loader_is_known_by_its_name_and_what_is_called_nearly_so_is_none() {
        for name in [
            "ld-linux-x86-64.so.2",
            "ld-linux-aarch64.so.1",
            "ld-2.31.so",
            "ld-musl-x86_64.so.1",
            "ld.so",
            "ld64.so.2",
            "libc.so",
        ] {
            assert!(is_loader(format!("/lib/{name}").as_bytes()), "{name}");
        }
        for name in ["ld", "ld.bfd", "ldd", "ldconfig", "libc.so.6", "ldap.so", "x"] {
            assert!(!is_loader(format!("/usr/bin/{name}").as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_program_stands_behind_the_options_and_their_values() {
        for (line, at, variables) in [
            ("ld.so /bin/p --preload", 1, &[][..]),
            ("ld.so --list /bin/p", 2, &[]),
            ("ld.so --argv0 x --inhibit-cache /bin/p", 4, &[]),
            (
                "ld.so --library-path /x --preload y --audit z ./p",
                7,
                &["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"],
            ),
            ("ld.so --preload=y -- /bin/p", 3, &["LD_PRELOAD"]),
        ] {
            let argv = words(line);
            let given = read(&argv).unwrap().unwrap();
            assert_eq!((given.at, given.variables.as_slice()), (at, variables), "{line}");
        }
    }

    #[test]
    fn what_runs_nothing_has_no_program_and_what_is_not_known_is_an_error() {
        for line in ["ld.so", "ld.so --version", "ld.so --list", "ld.so --preload x"] {
            assert_eq!(read(&words(line)), Ok(None), "{line}");
        }
        for line in ["ld.so --new /bin/p", "ld.so -x /bin/p", "ld.so p"] {
            assert!(read(&words(line)).is_err(), "{line}");
        }
    }
}
