//! A gate that has no descriptors left. Alone in its process, whose limit it is.

mod common;

use clawsec_core::pb;
use common::{World, allow, args, programs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn set_limit(most: u64) -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(hard), hard).unwrap();
    soft
}

#[test]
fn a_gate_without_descriptors_refuses_on_record_and_goes_on_when_it_has_some() {
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
    let world = World::new(|question| {
        if let Some(pb::question::Action::Exec(exec)) = &question.action
            && exec.argv.iter().any(|part| part == "limited")
            && exec.argv.iter().any(|part| part == "burst")
        {
            set_limit(3);
        }
        allow()
    });
    let run = |name: &str| {
        let (family, effect, folder) = (&programs().family, &programs().effect, world.folder.path());
        world.run(&args([&"exec", family, &"burst", &"1", effect, &folder, &name])).stdout
    };
    assert_eq!((run("ran").as_str(), world.count("ran")), ("made 1\n", 1));

    let said = run("limited");
    set_limit(before);
    assert!(said.starts_with("number 0 failed: ") && said.contains("status 25600"), "{said}");
    assert_eq!(world.count("limited"), 0);
    let message = world.event("a refusal on record", |event| match &event.kind {
        Some(pb::event::Kind::Decision(decision)) if decision.verdict() == pb::Verdict::Deny => {
            Some((decision.layer.clone(), decision.message.clone()))
        }
        _ => None,
    });
    assert_eq!(message.0, "gate");
    assert!(message.1.contains("EMFILE") || message.1.contains("Too many open files"), "{message:?}");

    assert_eq!((run("again").as_str(), world.count("again")), ("made 1\n", 1));
}
