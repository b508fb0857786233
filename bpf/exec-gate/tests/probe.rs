//! The probes on a kernel that has everything.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clawsec_core::Without;
use clawsec_core::pb::CapabilityState;

// What a probe has made is not what another one left.
fn alone() -> MutexGuard<'static, ()> {
    static PROBING: Mutex<()> = Mutex::new(());
    PROBING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_probe_finds_its_mechanism_here_and_leaves_nothing_behind() {
    let _alone = alone();
    let capabilities = clawsec_exec_gate::probe(Without::default());
    let names: Vec<&str> = capabilities.iter().map(|capability| capability.name.as_str()).collect();
    assert_eq!(names, ["bpf.exec_verify", "bpf.lsm", "seccomp.notify", "ptrace.hold"]);
    for capability in &capabilities {
        // What a kernel may lack says so, and how to have it; test/vm has kernels with it.
        if !capability.required && std::env::var_os("CLAWSEC_TEST_LSM").is_none() {
            let missing = capability.state() == CapabilityState::Missing;
            assert_eq!(missing, !capability.remedy.is_empty(), "{capability:?}");
            println!(
                "{} is {}: {}",
                capability.name,
                if missing { "missing" } else { "there" },
                capability.detail
            );
            continue;
        }
        assert_eq!(capability.state(), CapabilityState::Present, "{capability:?}");
        assert!(capability.detail.ends_with('.') && capability.remedy.is_empty());
        println!("{}: {} [{}]", capability.name, capability.detail, capability.level);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
    let prefix = format!("clawsec-probe-{}-", std::process::id());
    let left = std::fs::read_dir(mount)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    assert_eq!(left.count(), 0);
}

#[test]
fn what_is_left_out_is_replaced_by_the_lesser_one_and_said_and_without_both_nothing_is_there() {
    let _alone = alone();
    let state = |without, name: &str| {
        let found = clawsec_exec_gate::probe(without);
        let found = found.into_iter().find(|capability| capability.name == name).unwrap();
        (found.state(), found.level, found.detail, found.remedy)
    };
    let typed = Without { typed_tracepoints: true, ..Default::default() };
    let (is, level, detail, _) = state(typed, "bpf.exec_verify");
    assert_eq!((is, level.as_str()), (CapabilityState::Present, "raw_tp"), "{detail}");
    assert!(detail.contains("Raw tracepoints are used"), "{detail}");
    let (is, _, detail, remedy) = state(Without { raw_tracepoints: true, ..typed }, "bpf.exec_verify");
    assert_eq!(is, CapabilityState::Missing);
    assert!(detail.contains("tp_btf is left out") && detail.contains("raw_tp is left out"), "{detail}");
    assert!(remedy.contains("raw_tp"), "{remedy}");
    let (is, level, detail, _) =
        state(Without { wait_killable: true, ..Default::default() }, "seccomp.notify");
    assert_eq!((is, level.as_str()), (CapabilityState::Present, "basic"), "{detail}");
}
