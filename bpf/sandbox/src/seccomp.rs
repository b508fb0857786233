//! An OCI `LinuxSeccomp` profile as a filter for this machine, or a refusal.
//!
//! What cannot be said exactly is refused, never left out, because a rule that is missing from a filter is a hole:
//! - only the native architecture; a call of any other (`int 0x80`, x32) kills the process;
//! - a system call's name that neither libseccomp nor the table below knows is an error. It can be given as a decimal
//!   number. A name that libseccomp knows only on other architectures is skipped: there is no such call here;
//! - one entry with two conditions on one argument is an error (runc reads it as *or*, people as *and*);
//! - a call with an unconditional rule and another rule with a different action is an error, because libseccomp would
//!   drop the conditional one silently.

use std::collections::HashMap;
use std::io::Read;

use clawsec_init::wire::pack_instruction;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use serde::Deserialize;

use crate::error::{Context, Error, Result, invalid};

/// Calls newer than libseccomp 2.5.4. From 424 on, numbers are the same on all architectures.
/// Source: `scripts/syscall.tbl` of Linux.
const NEWER: &[(&str, i32)] = &[
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// A filter for `seccomp(2)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Packed as the shim's specification has them.
    pub instructions: Vec<u64>,
    /// True when something is notified, so that the filter needs a listener.
    pub notifies: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Compiles a profile.
///
/// # Errors
/// [`Error::Invalid`] for a profile that cannot be expressed exactly; [`Error::Failed`] when libseccomp fails.
pub fn compile(json: &[u8]) -> Result<Filter> {
    let profile: Profile = serde_json::from_slice(json)
        .map_err(|error| Error::Invalid(format!("the seccomp profile: {error}")))?;
    for architecture in &profile.architectures {
        if *architecture != native_name() {
            return invalid(format!(
                "the seccomp profile names {architecture}; only {} is supported, all others are killed",
                native_name()
            ));
        }
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    if default == ScmpAction::Notify {
        return invalid("the seccomp profile notifies by default, which no gate could answer");
    }
    let mut context = ScmpFilterContext::new(default).context("libseccomp")?;
    context.set_act_badarch(ScmpAction::KillProcess).context("libseccomp")?;
    // A binary tree instead of a list: the filter runs on every call.
    context.set_ctl_optimize(2).context("libseccomp")?;

    let mut seen = Seen::default();
    let mut notifies = false;
    for entry in &profile.syscalls {
        let action = action(&entry.action, entry.errno_ret)?;
        let conditions = conditions(entry)?;
        for name in &entry.names {
            let Some(number) = number(name)? else { continue };
            seen.check(name, number, action, conditions.is_empty())?;
            // libseccomp refuses rules that say what the default says.
            if action == default {
                continue;
            }
            notifies |= action == ScmpAction::Notify;
            let call = ScmpSyscall::from_raw_syscall(number);
            if conditions.is_empty() {
                context.add_rule_exact(action, call)
            } else {
                context.add_rule_conditional_exact(action, call, &conditions)
            }
            .map_err(|error| Error::Invalid(format!("the seccomp rule for {name}: {error}")))?;
        }
    }
    Ok(Filter { instructions: export(&context)?, notifies })
}

/// Rules of each call so far: those with and without conditions.
#[derive(Default)]
struct Seen(HashMap<i32, (Vec<ScmpAction>, Option<ScmpAction>)>);

impl Seen {
    fn check(&mut self, name: &str, number: i32, action: ScmpAction, unconditional: bool) -> Result<()> {
        let (conditional, always) = self.0.entry(number).or_default();
        if unconditional {
            if always.is_some_and(|other| other != action) {
                return invalid(format!(
                    "the seccomp profile has two different unconditional actions for {name}"
                ));
            }
            *always = Some(action);
        } else {
            conditional.push(action);
        }
        if always.is_some_and(|always| conditional.iter().any(|&other| other != always)) {
            return invalid(format!(
                "the seccomp profile has an unconditional rule for {name} beside a conditional one with another action"
            ));
        }
        Ok(())
    }
}

/// `None`: no such call on this architecture.
fn number(name: &str) -> Result<Option<i32>> {
    if name.bytes().all(|c| c.is_ascii_digit())
        && let Ok(number @ 0..=0xffff) = name.parse()
    {
        return Ok(Some(number));
    }
    if let Some(&(_, number)) = NEWER.iter().find(|(newer, _)| *newer == name) {
        return Ok(Some(number));
    }
    let call = ScmpSyscall::from_name(name).map_err(|_| {
        Error::Invalid(format!(
            "the seccomp profile names the system call {name:?}, which is not known here; give its number instead"
        ))
    })?;
    // libseccomp's negative numbers stand for calls of other architectures.
    Ok((call.as_raw_syscall() >= 0).then_some(call.as_raw_syscall()))
}

fn action(name: &str, errno: Option<u32>) -> Result<ScmpAction> {
    if errno.is_some() && name != "SCMP_ACT_ERRNO" {
        return invalid(format!("the seccomp profile gives an errno for {name}"));
    }
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_PROCESS" => Ok(ScmpAction::KillProcess),
        "SCMP_ACT_KILL_THREAD" => Ok(ScmpAction::KillThread),
        "SCMP_ACT_ERRNO" => match errno.unwrap_or(libc::EPERM as u32) {
            // 0 would be success without the call having been made.
            number @ 1..=4095 => Ok(ScmpAction::Errno(number as i32)),
            number => invalid(format!("the seccomp profile gives the errno {number}")),
        },
        "SCMP_ACT_NOTIFY" => Ok(ScmpAction::Notify),
        "SCMP_ACT_LOG" => Ok(ScmpAction::Log),
        "SCMP_ACT_ALLOW" => Ok(ScmpAction::Allow),
        // TRAP lets the process handle its own denial, TRACE lets a tracer change it.
        other => invalid(format!("the seccomp action {other:?} is not supported")),
    }
}

fn conditions(entry: &Entry) -> Result<Vec<ScmpArgCompare>> {
    let mut used = [false; 6];
    let mut conditions = Vec::new();
    for argument in &entry.args {
        match used.get_mut(argument.index as usize) {
            Some(used) if !*used => *used = true,
            Some(_) => {
                return invalid(format!(
                    "the seccomp rule for {:?} has two conditions on argument {}; use one entry for each",
                    entry.names, argument.index
                ));
            }
            None => {
                return invalid(format!("the seccomp rule for {:?} has an argument above 5", entry.names));
            }
        }
        let (op, datum) = match argument.op.as_str() {
            "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, argument.value),
            "SCMP_CMP_LT" => (ScmpCompareOp::Less, argument.value),
            "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, argument.value),
            "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, argument.value),
            "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, argument.value),
            "SCMP_CMP_GT" => (ScmpCompareOp::Greater, argument.value),
            // OCI: `value` is the mask, `valueTwo` what is compared.
            "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(argument.value), argument.value_two),
            other => return invalid(format!("the seccomp comparison {other:?} is not known")),
        };
        conditions.push(ScmpArgCompare::new(argument.index, op, datum));
    }
    Ok(conditions)
}

fn native_name() -> &'static str {
    match ScmpArch::native() {
        ScmpArch::X8664 => "SCMP_ARCH_X86_64",
        ScmpArch::Aarch64 => "SCMP_ARCH_AARCH64",
        _ => "of this machine",
    }
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u64>> {
    let memory = memfd_create("seccomp", MemfdFlags::CLOEXEC).context("memfd_create")?;
    context.export_bpf(&memory).context("libseccomp could not make the filter")?;
    seek(&memory, SeekFrom::Start(0)).context("seek")?;
    let mut bytes = Vec::new();
    std::fs::File::from(memory).read_to_end(&mut bytes).context("reading the filter")?;
    let instructions: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|raw| {
            let k = u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]);
            pack_instruction(u16::from_ne_bytes([raw[0], raw[1]]), raw[2], raw[3], k)
        })
        .collect();
    // BPF_MAXINSNS of the kernel.
    if instructions.is_empty() || instructions.len() > 4096 {
        return invalid(format!(
            "the seccomp filter has {} instructions, 1 to 4096 are possible",
            instructions.len()
        ));
    }
    Ok(instructions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(syscalls: &str) -> Result<Filter> {
        compile(format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{syscalls}}}"#).as_bytes())
    }

    #[test]
    fn a_profile_says_whether_it_needs_a_listener() {
        let plain = profile(r#"[{"names":["bpf"],"action":"SCMP_ACT_ERRNO"}]"#).unwrap();
        let asked = profile(r#"[{"names":["execve"],"action":"SCMP_ACT_NOTIFY"}]"#).unwrap();
        assert!(!plain.notifies);
        assert!(asked.notifies);
    }

    #[test]
    fn a_call_that_is_not_known_is_refused_and_its_number_is_not() {
        assert!(profile(r#"[{"names":["frobnicate"],"action":"SCMP_ACT_ERRNO"}]"#).is_err());
        assert!(profile(r#"[{"names":["499"],"action":"SCMP_ACT_ERRNO"}]"#).is_ok());
        assert!(profile(r#"[{"names":["setxattrat","mseal"],"action":"SCMP_ACT_ERRNO"}]"#).is_ok());
        assert!(profile(r#"[{"names":["s390_pci_mmio_read"],"action":"SCMP_ACT_ERRNO"}]"#).is_ok());
    }

    #[test]
    fn what_would_be_weaker_than_it_reads_is_refused() {
        for weak in [
            r#"[{"names":["clone"],"action":"SCMP_ACT_NOTIFY"},
                {"names":["clone"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]"#,
            r#"[{"names":["bpf"],"action":"SCMP_ACT_ERRNO"},{"names":["bpf"],"action":"SCMP_ACT_LOG"}]"#,
            r#"[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_GE"},{"index":0,"value":9,"op":"SCMP_CMP_LE"}]}]"#,
            r#"[{"names":["bpf"],"action":"SCMP_ACT_TRAP"}]"#,
            r#"[{"names":["bpf"],"action":"SCMP_ACT_ERRNO","errnoRet":0}]"#,
            r#"[{"names":["bpf"],"action":"SCMP_ACT_ERRNO","onlyOnMondays":true}]"#,
        ] {
            assert!(matches!(profile(weak), Err(Error::Invalid(_))), "{weak}");
        }
        assert!(compile(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
        assert!(
            compile(br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"]}"#).is_err(),
            "a foreign architecture"
        );
    }
}
