//! The limits that runc sets are proven on this host, and each can be left unused. Needs root and cgroup v2.

use clawsec_core::Without;
use clawsec_proto as pb;

fn limits(without: Without) -> Vec<(String, bool, pb::Capability)> {
    let found = clawsec_sandbox::probe("0badcafe", without);
    let limits = found
        .into_iter()
        .filter(|found| ["cgroup.memory", "cgroup.pids", "cgroup.cpu"].contains(&found.name.as_str()));
    let state = |found: &pb::Capability| found.state() == pb::CapabilityState::Present;
    limits.map(|found| (found.name.clone(), state(&found), found)).collect()
}

#[test]
fn each_limit_is_run_into_unless_it_is_left_unused_and_nothing_stays() {
    let all = limits(Without::NOTHING);
    assert_eq!(all.len(), 3);
    for (name, present, found) in &all {
        assert!(present, "{found:?}");
        assert!(!found.required, "a policy can waive {name}");
        assert!(["v1", "v2"].contains(&found.level.as_str()), "{found:?}");
    }
    let unused = [
        ("cgroup.memory", Without { cgroup_memory: true, ..Without::NOTHING }),
        ("cgroup.pids", Without { cgroup_pids: true, ..Without::NOTHING }),
        ("cgroup.cpu", Without { cgroup_cpu: true, ..Without::NOTHING }),
    ];
    for (left_out, without) in unused {
        for (name, present, found) in limits(without) {
            assert_eq!(present, name != left_out, "{found:?}");
            assert_eq!(!present, found.detail.contains(&format!("--without {name}")), "{found:?}");
        }
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table.lines().filter(|line| line.contains(" - cgroup"));
    for mount in mounts.filter_map(|line| line.split(' ').nth(4)) {
        let left = std::path::Path::new(mount).join("clawsec-0badcafe");
        assert!(!left.exists(), "{left:?} is left");
    }
}
