//! The probes on a kernel that has everything.

use clawsec_core::pb::CapabilityState;

#[test]
fn every_probe_finds_its_mechanism_here_and_leaves_nothing_behind() {
    let capabilities = clawsec_exec_gate::probe();
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
