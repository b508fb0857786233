//! AppArmor profiles of sandboxes: loaded before there is a process, removed when none is left.
//!
//! A profile is named `clawsec-SANDBOX`, for the whole kernel. Two loaders on one host could therefore mean the same
//! one, so a profile that a live process is confined by is neither replaced nor removed: both would change what that
//! process may do.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawsec_proto as pb;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Context, Error, Result, invalid};

/// Longest run of the parser. Compiling a profile with many patterns takes seconds, and with some patterns ("?" after
/// "**") time and memory that double with each character.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest text of a profile, in bytes.
const MAX_TEXT: usize = 1 << 20;
const PREFIX: &str = "clawsec-";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Loads a sandbox's profile. Blocks while the parser compiles it.
///
/// # Errors
/// [`Error::Precondition`] where the kernel has no AppArmor, [`Error::Invalid`] for a profile of another name or one that
/// is too long, [`Error::Failed`] where it is not compiled within 20 s.
pub fn load(profile: &pb::AppArmorProfile, sandbox: &str) -> Result<()> {
    let name = &profile.name;
    if *name != format!("{PREFIX}{sandbox}") {
        return invalid(format!("the AppArmor profile of the sandbox {sandbox} is named {name:?}"));
    }
    if profile.text.len() > MAX_TEXT {
        return invalid(format!(
            "the AppArmor profile {name} has {} bytes, {MAX_TEXT} are possible; use fewer patterns in rules of \"file\"",
            profile.text.len()
        ));
    }
    enabled().map_err(|why| {
        let remedy = "boot with lsm=...,apparmor, or waive AppArmor in the policy";
        Error::Precondition(format!("the policy needs the AppArmor profile {name}, and {why}; {remedy}"))
    })?;
    // The text could replace any profile of the host.
    let names = parser(&["--names"], &profile.text)?;
    let ours = |line: &str| {
        line == name || line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with("//"))
    };
    if !names.lines().any(|line| line == name) || !names.lines().all(ours) {
        return invalid(format!("the text of the AppArmor profile {name} has the profiles {names:?}"));
    }
    if let Some(pid) = user_of(name) {
        return Err(Error::Precondition(format!(
            "the AppArmor profile {name} confines the process {pid} of another loader; use another name"
        )));
    }
    parser(&["--replace", "--skip-cache", "--quiet"], &profile.text)?;
    if loaded().iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Error::Failed(format!("the AppArmor profile {name} is not in the kernel although it was loaded")))
}

/// Removes a sandbox's profile; says whether there was one. One that confines a live process stays.
///
/// # Errors
/// With the parser's words.
pub fn remove(sandbox: &str) -> Result<bool> {
    let name = format!("{PREFIX}{sandbox}");
    if !loaded().contains(&name) {
        return Ok(false);
    }
    if let Some(pid) = user_of(&name) {
        return Err(Error::Failed(format!("it confines the process {pid}")));
    }
    parser(&["--remove", "--quiet"], &format!("profile {name} {{}}\n")).map(|_| true)
}

/// Sandboxes whose profile is in the kernel.
pub fn sandboxes() -> Vec<String> {
    loaded().iter().filter_map(|name| name.strip_prefix(PREFIX)).map(str::to_owned).collect()
}

/// The error is why not.
fn enabled() -> std::result::Result<(), String> {
    match fs::read_to_string("/sys/module/apparmor/parameters/enabled") {
        Ok(text) if text.trim() == "Y" => Ok(()),
        Ok(text) => Err(format!("the kernel's AppArmor is not enabled ({:?})", text.trim())),
        Err(_) => Err("the kernel has no AppArmor".into()),
    }
}

/// Names of all profiles but those inside others.
fn loaded() -> Vec<String> {
    // One line each: "NAME (MODE)". Without AppArmor there is no file.
    let text = fs::read_to_string(LOADED).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name.to_owned());
    names.filter(|name| !name.contains("//")).collect()
}

/// A process that is confined by a profile, or by one inside it.
fn user_of(profile: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let label = fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current"))
            .or_else(|_| fs::read_to_string(format!("/proc/{pid}/attr/current")));
        // "NAME (MODE)"; stacked: "ONE//&OTHER (MODE)"; inside: "NAME//INNER (MODE)".
        label.is_ok_and(|label| {
            let label = label.split(" (").next().unwrap_or_default().trim_end();
            label.split("//&").any(|part| part.split("//").next() == Some(profile))
        })
    })
}

/// Runs apparmor_parser on a text; what it printed.
fn parser(arguments: &[&str], text: &str) -> Result<String> {
    parser_within(TIMEOUT, arguments, text)
}

fn parser_within(longest: Duration, arguments: &[&str], text: &str) -> Result<String> {
    const WHAT: &str = "apparmor_parser";
    let mut input = File::from(memfd_create("clawsec-profile", MemfdFlags::CLOEXEC).context(WHAT)?);
    input.write_all(text.as_bytes()).and_then(|()| input.rewind()).context(WHAT)?;
    let mut child = Command::new(WHAT)
        .args(arguments)
        // What it does must not depend on who started the loader.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // It may start workers, which must end with it.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Error::Failed(format!("apparmor_parser cannot be run ({error}); install apparmor"))
        })?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context(WHAT)? {
            break status;
        }
        if begin.elapsed() > longest {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process_group(group, Signal::KILL).context("ending apparmor_parser")?;
            }
            child.wait().context(WHAT)?;
            return Err(Error::Failed(format!(
                "apparmor_parser did not end within {} s and was killed; patterns in rules of \"file\" can take it \
                 for ever: use fewer of them, and \"?\" and several \"*\" in one only where needed",
                longest.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (mut said, mut complaint) = (String::new(), String::new());
    if let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
        stdout.read_to_string(&mut said).context(WHAT)?;
        stderr.read_to_string(&mut complaint).context(WHAT)?;
    }
    if status.success() {
        return Ok(said.trim().to_owned());
    }
    let complaint = complaint.trim().replace('\n', "; ");
    Err(Error::Failed(format!("apparmor_parser {} failed: {complaint}", arguments.join(" "))))
}

/// Tries it: a profile is loaded, a thread enters it, and an open that it denies fails while another does not.
pub(crate) fn prove() -> Result<(String, String)> {
    enabled().map_err(Error::Failed)?;
    let version = parser(&["--version"], "")?;
    let version =
        version.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned();
    let sandbox = format!("probe-{}", std::process::id());
    let name = format!("{PREFIX}{sandbox}");
    let text = format!("profile {name} {{\n  file,\n  deny /proc/version r,\n}}\n");
    load(&pb::AppArmorProfile { name: name.clone(), text }, &sandbox)?;
    let tried = std::thread::spawn(move || {
        fs::read("/proc/version").context("reading before the profile was entered")?;
        let entered = fs::write("/proc/thread-self/attr/apparmor/current", format!("changeprofile {name}"));
        let entered =
            entered.or_else(|_| fs::write("/proc/thread-self/attr/current", format!("changeprofile {name}")));
        entered.context("entering a profile")?;
        fs::read("/proc/uptime").context("reading what the profile allows")?;
        match fs::read("/proc/version") {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
            other => Err(Error::Failed(format!(
                "a thread in a profile was not denied a read: {:?}",
                other.map(|bytes| bytes.len())
            ))),
        }
    });
    let tried = tried.join().unwrap_or_else(|_| Err(Error::Failed("the thread that tried it died".into())));
    let removed = remove(&sandbox);
    tried?;
    removed?;
    Ok((
        "a thread in a profile that was loaded for it could not read a file that it read before".into(),
        version,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, text: &str) -> pb::AppArmorProfile {
        pb::AppArmorProfile { name: name.into(), text: text.into() }
    }

    #[test]
    fn a_profile_of_another_name_is_refused() {
        let error = load(&profile("docker-default", "profile docker-default {}"), "box").unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_before_it_is_read() {
        let long = |bytes| load(&profile("clawsec-box", &"#".repeat(bytes)), "box").unwrap_err();
        let error = long(MAX_TEXT + 1);
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("1048577 bytes"), "{error}");
        assert!(!long(MAX_TEXT).to_string().contains("are possible"));
    }

    #[test]
    fn a_profile_that_takes_the_parser_for_ever_is_refused_in_time_and_the_parser_killed() {
        let compile = |limit, count: usize| {
            let wide = |at| format!("  deny \"/{{,**/}}*{at}{}\" rw,\n", "?".repeat(count));
            let text =
                format!("profile clawsec-box {{\n  file,\n{}}}\n", (10..40).map(wide).collect::<String>());
            parser_within(limit, &["--skip-kernel-load", "--skip-cache", "--quiet"], &text)
        };
        if let Err(error) = compile(TIMEOUT, 1) {
            // The allowance beside it; where the parser is not installed, that is the whole answer.
            assert!(error.to_string().contains("install apparmor"), "{error}");
            return;
        }
        let error = compile(Duration::from_secs(1), 24).unwrap_err();
        assert!(error.to_string().contains("did not end within 1 s and was killed"), "{error}");
        let children = fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid()));
        let left = children.unwrap().split_whitespace().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("apparmor_parser"))
        });
        assert!(!left, "a parser is still there");
    }

    #[test]
    fn a_kernel_without_apparmor_is_said_in_the_refusal_and_one_with_it_really_confines() {
        let loading = load(&profile("clawsec-test-box", "profile clawsec-test-box { file, }"), "test-box");
        match enabled() {
            Err(why) => {
                let error = loading.unwrap_err();
                assert!(matches!(error, Error::Precondition(_)), "{error}");
                assert!(
                    error.to_string().contains(&why) && error.to_string().contains("clawsec-test-box"),
                    "{error}"
                );
                assert!(prove().is_err());
                assert!(!remove("test-box").unwrap());
            }
            Ok(()) => {
                loading.unwrap();
                let foreign = load(&profile("clawsec-test-box", "profile other {}"), "test-box").unwrap_err();
                assert!(matches!(foreign, Error::Invalid(_)), "{foreign}");
                assert!(sandboxes().contains(&"test-box".into()));
                assert!(remove("test-box").unwrap());
                assert!(!remove("test-box").unwrap());
                prove().unwrap();
            }
        }
        assert!(!sandboxes().iter().any(|name| name == "test-box" || name.starts_with("probe-")));
    }
}
