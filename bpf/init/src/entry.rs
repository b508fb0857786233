//! A subject's entry: adds the entry's Landlock layer, cleans the environment, runs the entry's program.
//!
//! Which entry it is cannot be chosen by arguments: `/proc/self/exe` names the *mount* through which the kernel loaded
//! this image, and the sandbox can make no mounts. A symbolic link, a lying `argv[0]` or `/proc/self/fd/N` all end at
//! one of the paths that the loader mounted. And every entry's layer only takes rights away.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::exit;

use clawsec_init::wire::{self, EntrySpec};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::sys;

/// A specification is a list of paths; this is some ten thousand of them.
const MAX_SPEC: u64 = 1 << 20;

/// Environment variables that make the loader, the C library or an interpreter run or load what the caller names, so
/// that the program that starts would not be the one that was decided on. A trailing `*` stands for any rest.
/// Sources: ld.so(8), glibc's `unsecure-envvars.h`, bash(1), node(1), python(1), perlrun(1), ruby(1), java(1), lua(1),
/// git(1), npm-config(7), make(1), gcc(1), less(1), R's `Startup`, .NET's startup hooks.
const DANGEROUS: &[&str] = &[
    "LD_*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "GETCONF_DIR",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_*",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
    // The caller's private folder for temporary files is not the entry's: without these, programs use /tmp.
    "TMPDIR",
    "TMP",
    "TEMP",
    "BASH_ENV",
    "ENV",
    "BASH_FUNC_*",
    "SHELLOPTS",
    "BASHOPTS",
    "BASH_LOADABLES_PATH",
    "INPUTRC",
    "FPATH",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    "BUN_OPTIONS",
    // All of them: PYTHONPYCACHEPREFIX and PYTHONPLATLIBDIR load code as well, and new ones come.
    "PYTHON*",
    "PERL5OPT",
    "PERL5LIB",
    "PERLLIB",
    "PERL5DB",
    "PERLIO",
    "RUBYOPT",
    "RUBYLIB",
    "RUBYSHELL",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_*",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "IBM_JAVA_OPTIONS",
    "CLASSPATH",
    "LUA_INIT*",
    "LUA_PATH*",
    "LUA_CPATH*",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
    // Git runs what these name, or reads a configuration that names it.
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GIT_EDITOR",
    "GIT_SEQUENCE_EDITOR",
    "GIT_PAGER",
    "GIT_EXTERNAL_DIFF",
    "GIT_PROXY_COMMAND",
    "GIT_EXEC_PATH",
    "GIT_TEMPLATE_DIR",
    "GIT_CONFIG*",
    // npm reads its settings in any case, and these name what its scripts run with.
    "npm_config_*",
    "NPM_CONFIG_*",
    "MAKEFLAGS",
    "GNUMAKEFLAGS",
    "MAKEFILES",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "LESSOPEN",
    "LESSCLOSE",
    "R_PROFILE*",
    "R_ENVIRON*",
    "DOTNET_STARTUP_HOOKS",
    "CORECLR_*",
    "COR_*",
    "VIMINIT",
    "EXINIT",
];

/// Never returns.
pub fn run() -> ! {
    let why = match prepare() {
        Err(why) => why,
        Ok((path, argv, environment)) => {
            let error = sys::execve(&path, &argv, &environment);
            format!("{path:?} was not started: {error}")
        }
    };
    eprintln!("clawsec-init: {why}.");
    exit(126)
}

fn prepare() -> Result<(CString, Vec<CString>, Vec<CString>), String> {
    let exe = std::fs::read_link("/proc/self/exe").map_err(|error| format!("/proc/self/exe: {error}"))?;
    let name = entry_name(&exe).ok_or_else(|| {
        format!("{exe:?} is not a subject's entry, and this process is not a sandbox's init")
    })?;
    let spec = read_spec(name)?;
    let nul = |_| "a NUL byte in an argument".to_owned();
    let path = CString::new(spec.exec.as_str()).map_err(nul)?;
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    if argv.is_empty() {
        argv.push(Path::new(&spec.exec).file_name().unwrap_or(OsStr::new(&spec.exec)).to_owned());
    }
    let argv =
        argv.into_iter().map(|arg| CString::new(arg.into_vec()).map_err(nul)).collect::<Result<_, _>>()?;
    let environment = std::env::vars_os()
        .filter(|(name, _)| !is_dangerous(name))
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map_err(nul))
        .collect::<Result<_, _>>()?;
    spec.landlock.restrict_self().map_err(|refusal| format!("the entry {name:?} was refused: {refusal}"))?;
    Ok((path, argv, environment))
}

/// `/.clawsec/<name>` of anything but the init.
fn entry_name(exe: &Path) -> Option<&OsStr> {
    let name = exe.file_name()?;
    (exe.parent()? == Path::new(wire::DIR) && exe != Path::new(wire::INIT_PATH)).then_some(name)
}

/// Reads what an entry does.
pub fn read_spec(name: &OsStr) -> Result<EntrySpec, String> {
    let path = Path::new(wire::ENTRY_DIR).join(name);
    let wrong = |what: &dyn std::fmt::Display| format!("the entry specification {path:?}: {what}");
    let fd = open(&path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| wrong(&e))?;
    let stat = fstat(&fd).map_err(|errno| wrong(&errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_uid != 0
        || stat.st_mode & 0o022 != 0
    {
        return Err(wrong(&"it is not a file that only root can write"));
    }
    let mut json = Vec::new();
    File::from(fd).take(MAX_SPEC).read_to_end(&mut json).map_err(|error| wrong(&error))?;
    wire::decode(&json).map_err(|error| wrong(&error))
}

/// Whether an entry leaves a variable out.
pub fn is_dangerous(name: &OsStr) -> bool {
    let name = name.as_bytes();
    DANGEROUS.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == pattern.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_loads_code_is_dropped_and_its_neighbours_stay() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "BASH_FUNC_ls%%",
            "NODE_OPTIONS",
            "ENV",
            "LUA_INIT_5_4",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "PYTHONPYCACHEPREFIX",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "JAVA_TOOL_OPTIONS",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_KEY_0",
            "npm_config_node_options",
            "NPM_CONFIG_SCRIPT_SHELL",
        ] {
            assert!(is_dangerous(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "LDFLAGS",
            "ENVIRONMENT",
            "NODE_ENV",
            "LANG",
            "TERM",
            "GIT_AUTHOR_NAME",
            "GIT_DIR",
            "npm_package_name",
            "MAKE",
        ] {
            assert!(!is_dangerous(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn only_a_file_directly_in_the_shims_folder_is_an_entry() {
        assert_eq!(entry_name(Path::new("/.clawsec/bash")), Some(OsStr::new("bash")));
        for other in ["/.clawsec/init", "/.clawsec/entry/bash", "/tmp/.clawsec/bash", "/bin/bash", "/"] {
            assert_eq!(entry_name(Path::new(other)), None, "{other}");
        }
    }
}
