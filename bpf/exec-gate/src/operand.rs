//! What an interpreter runs, by its arguments: files, code in an argument, a module, what it reads from a stream.
//!
//! Interpreters are told by the base name of the executable, with or without a version. Their options are those of dash
//! 0.5.12, bash 5.2, busybox 1.35, Python 3.11 to 3.13, Node 18 to 24, perl 5.36, ruby 3.1 and PHP 8.2. An option that is
//! not in the tables may take a value, so that it is not certain which argument is the script: [`Code::Unknown`].

/// What runs, each file as its place in the arguments, or as a text of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// Files: the script, and what is loaded before it.
    Files(Vec<Vec<u8>>),
    /// An argument is the code.
    Inline,
    /// Found by name, or by the interpreter itself.
    Module,
    /// Standard input, a terminal.
    Stream,
    /// A sentence says why.
    Unknown(String),
}

/// Languages by the grammar of their interpreters' options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// dash and other small shells.
    Shell,
    /// bash, with its long options.
    Bash,
    /// Python.
    Python,
    /// Node.
    Node,
    /// perl.
    Perl,
    /// ruby.
    Ruby,
    /// PHP.
    Php,
}

/// How a short option goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    Plain,
    /// The rest of the argument is its value, also if nothing is left.
    Rest,
    /// The rest of the argument is its value, or the next argument.
    Value,
    /// The next argument is its value, and the cluster goes on.
    Next,
    /// These characters behind it belong to it.
    Digits(&'static str),
    /// A number behind it belongs to it, in hexadecimal where it begins with "x" (`-0` of perl).
    Number,
    /// Digits behind it belong to it, or one letter (`-K` of ruby); what else comes is not known.
    Level,
    Inline,
    /// Code, with the value as above.
    Module,
    Stream,
    /// Its value is the script.
    File,
    /// It makes the interpreter run something beside its script: the sentence says what.
    Also(&'static str),
    /// Names a module, whose name is code (`-M`, `-m` of perl).
    Use,
    /// What is behind a ":" belongs to it; in front of another letter the cluster goes on, by which code can come in though the
    /// operand is not read (`-V` of perl).
    Show,
    /// A pattern, which is code where it has delimiters of its own (`-F` of perl).
    Pattern,
    /// A library, found by name or by its path (`-r` of ruby).
    Library,
    /// A setting of PHP.
    Setting,
    /// The name of a setting of a shell (`-o NAME`), as `Next`.
    Named,
    /// A setting of Python (`-X`), as `Value`.
    Key,
    Unknown,
}

const PROMPT: &str = "code that it reads from standard input";
const EMBEDDED: &str = "code in its value";
const ELSEWHERE: &str = "a file of that name in another folder";

impl Language {
    /// By the base name of an executable, without its version; `None`: no interpreter of the table.
    pub fn of(executable: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(executable_name(executable)).ok()?;
        let name = name.strip_suffix("-static").or(name.strip_suffix(".distrib")).unwrap_or(name);
        Some(match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-') {
            "dash" | "ash" | "sh" | "ksh" | "mksh" | "zsh" | "lksh" | "posh" | "yash" => Self::Shell,
            "bash" | "rbash" => Self::Bash,
            "python" | "pypy" => Self::Python,
            "node" | "nodejs" => Self::Node,
            "perl" => Self::Perl,
            // perl5.36-x86_64-linux-gnu
            _ if name.starts_with("perl5.") => Self::Perl,
            "ruby" => Self::Ruby,
            "php" => Self::Php,
            _ => return None,
        })
    }

    fn short(self, letter: u8) -> Short {
        let is = |letters: &str| letters.as_bytes().contains(&letter);
        match self {
            Self::Shell | Self::Bash => match letter {
                b'c' => Short::Inline,
                b's' => Short::Stream,
                b'o' => Short::Named,
                b'O' if self == Self::Bash => Short::Next,
                _ if is("abdefhiklmnpqrtuvxBCDEHIPTV") => Short::Plain,
                _ => Short::Unknown,
            },
            Self::Python => match letter {
                b'c' => Short::Inline,
                b'm' => Short::Module,
                b'W' => Short::Value,
                b'X' => Short::Key,
                b'i' => Short::Also(PROMPT),
                _ if is("bBdEhIOPqRsStuvVx?") => Short::Plain,
                _ => Short::Unknown,
            },
            Self::Perl => match letter {
                b'e' | b'E' => Short::Inline,
                b'I' => Short::Value,
                b'l' => Short::Digits("01234567"),
                b'0' => Short::Number,
                b'C' => Short::Digits("IOEioADSLa0123456789"),
                b'i' | b'x' | b'D' => Short::Rest,
                b'V' => Short::Show,
                b'm' | b'M' => Short::Use,
                b'F' => Short::Pattern,
                b'd' => Short::Also("code that its debugger reads"),
                _ if is("acfnpstTuUvwWXhg") => Short::Plain,
                _ => Short::Unknown,
            },
            Self::Ruby => match letter {
                b'e' => Short::Inline,
                b'E' | b'I' => Short::Value,
                b'r' => Short::Library,
                b'C' | b'X' | b'x' => Short::Also(ELSEWHERE),
                b'0' => Short::Digits("01234567"),
                b'K' | b'W' | b'T' => Short::Level,
                b'F' | b'i' => Short::Rest,
                _ if is("acdhlnpsUvwy") => Short::Plain,
                _ => Short::Unknown,
            },
            Self::Php => match letter {
                b'r' | b'R' | b'B' | b'E' => Short::Inline,
                b'a' => Short::Stream,
                b'f' | b'F' => Short::File,
                b'd' => Short::Setting,
                b'c' | b'z' => Short::Also("what its settings and extensions name"),
                _ if is("CehHilmnqsvw") => Short::Plain,
                _ => Short::Unknown,
            },
            // Node has no clusters.
            Self::Node => Short::Unknown,
        }
    }
}

/// The last component of a path.
pub fn executable_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// What an executable runs with these arguments, the first being its own name; `None`: it is no interpreter of the table.
pub fn code(executable: &[u8], argv: &[Vec<u8>]) -> Option<(Language, Code)> {
    if executable_name(executable).starts_with(b"busybox") {
        return busybox(argv);
    }
    let language = Language::of(executable)?;
    Some((language, language.code(argv)))
}

// Its applet is named by the first argument that is not "busybox". A "-" before a name, as a login shell has, means nothing.
fn busybox(argv: &[Vec<u8>]) -> Option<(Language, Code)> {
    let name = |argument: &Vec<u8>| {
        let name = executable_name(argument);
        name.strip_prefix(b"-").unwrap_or(name).to_vec()
    };
    let at = argv.iter().position(|argument| !name(argument).starts_with(b"busybox"))?;
    match name(&argv[at]).as_slice() {
        b"sh" | b"ash" | b"hush" | b"bash" => Some((Language::Shell, Language::Shell.code(&argv[at..]))),
        _ => None,
    }
}

fn unknown(argument: &[u8]) -> Code {
    Code::Unknown(format!(
        "clawsec does not know the option {} of the interpreter, and so not which argument is the script",
        String::from_utf8_lossy(argument).chars().take(80).collect::<String>()
    ))
}

fn also(option: u8, what: &str) -> Code {
    Code::Unknown(format!(
        "with its option -{} the interpreter runs {what}, so that the script is not all that runs",
        char::from(option)
    ))
}

// perl writes the name into the program as it is, up to the first "=".
fn is_module_name(text: &[u8]) -> bool {
    let name = text.split(|&byte| byte == b'=').next().unwrap_or_default();
    let name = name.strip_prefix(b"-").unwrap_or(name);
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

// perl writes a pattern with delimiters into the program as it is; one without is quoted.
fn is_plain_pattern(text: &[u8]) -> bool {
    let Some((&delimiter @ (b'/' | b'"' | b'\''), rest)) = text.split_first() else { return true };
    let Some((&last, body)) = rest.split_last() else { return false };
    last == delimiter && body.iter().all(|byte| byte.is_ascii_alphanumeric() || b" ,;:|._+-\t".contains(byte))
}

// Whether a setting of PHP names a file that is run or loaded. It can have several lines.
fn loads(setting: &[u8]) -> bool {
    let text = String::from_utf8_lossy(setting).to_ascii_lowercase();
    ["auto_prepend", "auto_append", "extension", "preload", "opcache", "include_path", "user_ini"]
        .iter()
        .any(|key| text.contains(key))
}

// Settings of shells (`-o NAME`) that leave what is run as it is. dash's "stdin" is `-s`.
const SHELL_NAMES: [&str; 27] = [
    "allexport",
    "braceexpand",
    "debug",
    "emacs",
    "errexit",
    "errtrace",
    "functrace",
    "hashall",
    "histexpand",
    "history",
    "ignoreeof",
    "interactive-comments",
    "keyword",
    "monitor",
    "noclobber",
    "noexec",
    "noglob",
    "nolog",
    "notify",
    "nounset",
    "onecmd",
    "physical",
    "pipefail",
    "posix",
    "verbose",
    "vi",
    "xtrace",
];

// Settings of Python (`-X KEY` or `-X KEY=VALUE`) by which it loads nothing from elsewhere.
const PYTHON_KEYS: [&str; 19] = [
    "context_aware_warnings",
    "cpu_count",
    "dev",
    "disable_remote_debug",
    "faulthandler",
    "frozen_modules",
    "gil",
    "importtime",
    "int_max_str_digits",
    "no_debug_ranges",
    "perf",
    "perf_jit",
    "showrefcount",
    "thread_inherit_context",
    "tlbc",
    "tracemalloc",
    "utf8",
    "warn_default_encoding",
    "pathconfig_warnings",
];

// Whether the argument before this place, if there is one, names a setting of a shell that is known.
fn is_known_name(argv: &[Vec<u8>], at: usize) -> bool {
    argv.get(at - 1).is_none_or(|name| is_one_of(name, &SHELL_NAMES))
}

fn is_one_of(text: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| name.as_bytes() == text)
}

// What is gathered on the way to the operand.
#[derive(Default)]
struct Seen {
    inline: bool,
    stream: bool,
    // The option of a prompt, at which more is read when the rest has run.
    prompt: Option<u8>,
    // The option whose value is code that runs beside the script, or beside what stands for it.
    embedded: Option<u8>,
    // Loaded before the script.
    loaded: Vec<Vec<u8>>,
}

impl Seen {
    // Code that is no script. Where files are loaded before it, or a prompt comes after it, it is not all that runs.
    fn alone(&self, code: Code) -> Code {
        match (self.prompt, &code) {
            (Some(option), Code::Inline | Code::Module) => also(option, PROMPT),
            _ if !self.loaded.is_empty() => beside_loaded(),
            _ => code,
        }
    }
}

/// Of files that are loaded before code that is no script.
pub fn beside_loaded() -> Code {
    Code::Unknown("its interpreter loads a file that an option names, and runs code that is no script".into())
}

impl Language {
    fn code(self, argv: &[Vec<u8>]) -> Code {
        if self == Self::Node { crate::operand_node::code(argv) } else { self.walk(argv) }
    }

    fn walk(self, argv: &[Vec<u8>]) -> Code {
        let mut seen = Seen::default();
        match (self.found(argv, &mut seen), seen.embedded) {
            // perl reads its script, or standard input, as if there were no such code.
            (Code::Files(_) | Code::Stream | Code::Module, Some(option)) => also(option, EMBEDDED),
            (code, _) => code,
        }
    }

    fn found(self, argv: &[Vec<u8>], seen: &mut Seen) -> Code {
        let is_shell = matches!(self, Self::Shell | Self::Bash);
        // bash takes long options, also with one dash, only before all others.
        let mut longs = self == Self::Bash;
        let mut at = 1;
        while let Some(argument) = argv.get(at) {
            let argument = argument.as_slice();
            match argument {
                b"-" if is_shell => {
                    at += 1;
                    break;
                }
                b"-" => return Code::Stream,
                b"--" if self == Self::Php => return Code::Stream,
                b"--" => {
                    at += 1;
                    break;
                }
                _ if longs && let Some(option) = bash_long(argument) => {
                    at += 1;
                    if option {
                        seen.loaded.extend(argv.get(at).cloned());
                        at += 1;
                    }
                    continue;
                }
                [b'-', b'-', ..] => match self.long(argument) {
                    Some(valued) => {
                        at += 1 + usize::from(valued);
                        continue;
                    }
                    None => return unknown(argument),
                },
                [b'-', cluster @ ..] => {
                    longs = false;
                    at += 1;
                    if let Some(code) = self.cluster(cluster, argv, &mut at, seen) {
                        return code.unwrap_or_else(|| unknown(argument));
                    }
                }
                [b'+', cluster @ ..] if is_shell => {
                    longs = false;
                    at += 1;
                    if self.taken_back(cluster, argv, &mut at).is_none() {
                        return unknown(argument);
                    }
                }
                _ => break,
            }
        }
        let operand = argv.get(at).filter(|_| !seen.inline);
        match operand {
            // Also behind "--"; to a shell it is a file of that name.
            Some(operand) if !is_shell && operand == b"-" => seen.alone(Code::Stream),
            Some(operand) if !seen.stream => match seen.prompt {
                Some(option) => also(option, PROMPT),
                None => Code::Files([vec![operand.clone()], seen.loaded.clone()].concat()),
            },
            // dash reads on behind the code, bash does not.
            _ if seen.inline && seen.stream && self == Self::Shell => also(b's', PROMPT),
            _ if seen.inline => seen.alone(Code::Inline),
            _ => seen.alone(Code::Stream),
        }
    }

    // Options of a shell behind a "+". `None`: they mean more than that something is switched off: bash takes `+c` and `+s` for
    // `-c` and `-s`, and dash takes back a `-s` by `+s`.
    fn taken_back(self, cluster: &[u8], argv: &[Vec<u8>], at: &mut usize) -> Option<()> {
        for letter in cluster {
            match self.short(*letter) {
                Short::Plain if !matches!(letter, b'i' | b'l' | b'D') => {}
                Short::Next => *at += 1,
                Short::Named => {
                    *at += 1;
                    is_known_name(argv, *at).then_some(())?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    // `Some`: it is settled; `Some(None)`: it is not known.
    fn cluster(
        self,
        cluster: &[u8],
        argv: &[Vec<u8>],
        at: &mut usize,
        seen: &mut Seen,
    ) -> Option<Option<Code>> {
        let mut place = 0;
        while let Some(&letter) = cluster.get(place) {
            place += 1;
            match self.short(letter) {
                Short::Plain => {}
                // perl goes on with options behind a space in the same argument.
                Short::Rest | Short::Value | Short::Pattern
                    if self == Self::Perl && cluster[place..].iter().any(u8::is_ascii_whitespace) =>
                {
                    return Some(None);
                }
                Short::Rest => return None,
                Short::Number => {
                    let is_hex = matches!(cluster.get(place), Some(b'x' | b'X'));
                    place += usize::from(is_hex);
                    let belongs =
                        |digit: &u8| if is_hex { digit.is_ascii_hexdigit() } else { digit.is_ascii_digit() };
                    place += cluster[place..].iter().take_while(|digit| belongs(digit)).count();
                }
                Short::Level => {
                    let rest = &cluster[place..];
                    let is_known = match letter {
                        b'K' => rest.len() == 1,
                        b'W' if rest.starts_with(b":") => true,
                        _ => rest.iter().all(u8::is_ascii_digit),
                    };
                    return if is_known { None } else { Some(None) };
                }
                Short::Value => {
                    *at += usize::from(place == cluster.len());
                    return None;
                }
                Short::Next => *at += 1,
                Short::Named => {
                    *at += 1;
                    if !is_known_name(argv, *at) {
                        return Some(None);
                    }
                }
                Short::Key => {
                    let rest = &cluster[place..];
                    *at += usize::from(rest.is_empty());
                    let value =
                        if rest.is_empty() { argv.get(*at - 1).map_or(&[][..], Vec::as_slice) } else { rest };
                    let key = value.split(|&byte| byte == b'=').next().unwrap_or_default();
                    return (!is_one_of(key, &PYTHON_KEYS)).then_some(None);
                }
                Short::Digits(digits) => {
                    while cluster.get(place).is_some_and(|next| digits.as_bytes().contains(next)) {
                        place += 1;
                    }
                }
                // A shell's options go on behind it.
                Short::Inline if matches!(self, Self::Shell | Self::Bash) => seen.inline = true,
                Short::Inline => return Some(Some(seen.alone(Code::Inline))),
                Short::Module => return Some(Some(seen.alone(Code::Module))),
                Short::Stream if self == Self::Php => return Some(Some(Code::Stream)),
                Short::Stream => seen.stream = true,
                Short::File => {
                    let rest = cluster[place..].to_vec();
                    let file = if rest.is_empty() { argv.get(*at).cloned() } else { Some(rest) };
                    return Some(file.map(|file| Code::Files(vec![file])));
                }
                // The prompt comes after what runs, or is all that there is.
                Short::Also(PROMPT) => seen.prompt = Some(letter),
                Short::Also(what) => return Some(Some(also(letter, what))),
                Short::Show => {
                    let is_alone = match &cluster[place..] {
                        [] => true,
                        [b':', name @ ..] => !name.iter().any(u8::is_ascii_whitespace),
                        _ => false,
                    };
                    return if is_alone { None } else { Some(None) };
                }
                Short::Use | Short::Pattern => {
                    let text = &cluster[place..];
                    let is_plain = if letter == b'F' { is_plain_pattern(text) } else { is_module_name(text) };
                    if !is_plain {
                        seen.embedded = Some(letter);
                    }
                    return None;
                }
                Short::Library | Short::Setting => {
                    let rest = &cluster[place..];
                    *at += usize::from(rest.is_empty());
                    let value =
                        if rest.is_empty() { argv.get(*at - 1).map_or(&[][..], Vec::as_slice) } else { rest };
                    let is_named = if self == Self::Php { loads(value) } else { value.contains(&b'/') };
                    return is_named.then(|| Some(also(letter, "a file that it names")));
                }
                Short::Unknown => return Some(None),
            }
        }
        None
    }

    // Whether a long option takes the next argument; `None`: it is not known.
    fn long(self, argument: &[u8]) -> Option<bool> {
        let text = std::str::from_utf8(argument).ok()?;
        let (plain, valued): (&[&str], &[&str]) = match self {
            Self::Python => (
                &["--help", "--help-all", "--help-env", "--help-xoptions", "--version"],
                &["--check-hash-based-pycs"],
            ),
            Self::Ruby => (
                &[
                    "--copyright",
                    "--debug",
                    "--help",
                    "--jit",
                    "--verbose",
                    "--version",
                    "--yjit",
                    "--yydebug",
                ],
                &[
                    "--backtrace-limit",
                    "--disable",
                    "--dump",
                    "--enable",
                    "--encoding",
                    "--external-encoding",
                    "--internal-encoding",
                    "--parser",
                ],
            ),
            _ => return None,
        };
        let has_value = text.split_once('=').is_some_and(|(name, _)| valued.contains(&name));
        if plain.contains(&text) || has_value {
            return Some(false);
        }
        valued.contains(&text).then_some(true)
    }
}

// Whether a long option of bash takes a file that is read before the script; `None`: it is none.
fn bash_long(argument: &[u8]) -> Option<bool> {
    let name = argument.strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    match name {
        b"rcfile" | b"init-file" => Some(true),
        b"debug" | b"debugger" | b"dump-po-strings" | b"dump-strings" | b"help" | b"login" | b"noediting"
        | b"noprofile" | b"norc" | b"posix" | b"pretty-print" | b"protected" | b"restricted" | b"verbose"
        | b"version" | b"wordexp" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[path = "operand_tests.rs"]
mod tests;
