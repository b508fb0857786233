//! Figures, not claims: what an exec costs with and without the gate. Run alone, in a release build, with `--ignored`.

mod common;

use clawsec_core::pb;
use common::{World, allow, args, programs};

#[test]
#[ignore = "a measurement; the machine must be quiet"]
fn a_cached_exec_is_measured() {
    let world = World::new(|_| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..allow() });
    std::fs::write(world.path("ran"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let count = "2000";
    let bare = std::process::Command::new(&programs().actor)
        .args(args([&"/dev/null", &"-", &"time", &count, &programs().effect, &world.folder.path(), &"bare"]))
        .output()
        .unwrap();
    println!("bare:  {}", String::from_utf8_lossy(&bare.stdout).trim());
    let ended = world.run(&args([&"time", &count, &programs().effect, &world.folder.path(), &"ran"]));
    println!("gated: {}", ended.stdout.trim());
    println!("questions: {}", world.questions());
    let mut latencies: Vec<u64> = world
        .sink
        .events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match &event.kind {
            Some(pb::event::Kind::Decision(decision)) if decision.layer == "cache" => {
                Some(decision.latency_us)
            }
            _ => None,
        })
        .collect();
    latencies.sort_unstable();
    println!(
        "user space: p50 {} us, p99 {} us",
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100]
    );
}
