//! Who reaches into a process that executes something, or moves its files and mounts, wins nothing by it: effects are
//! counted, not errors. A sandbox may neither trace, nor write another's memory, nor mount; this is what holds if it could.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{Ended, World, allow, args, deny, hold, programs, sha256};

/// Tries of each race; `make races` takes more.
fn tries() -> u64 {
    std::env::var("CLAWSEC_RACE_TRIES").map_or(500, |number| number.parse().unwrap())
}

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

// How often the program ran with the one word and with the other one, which never may be more than what was allowed, and
// how often it was killed.
fn outcome(world: &World, ended: &Ended, other: &str) -> (u64, u64, u64) {
    println!("{}", ended.stdout.trim());
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let (ran, refused, killed) = (number(1), number(3), number(5));
    assert_eq!(ran + refused + killed, tries());
    assert_eq!(world.count("good") + world.count(other), ran);
    let counters = world.gate().counters();
    assert_eq!((counters.kill_failed, counters.missed), (0, 0));
    assert_eq!(counters.killed, killed);
    (world.count("good"), world.count(other), killed)
}

// The argument "good" becomes "food" and good again all the time, by "memory" or "trace".
fn reach_for_an_argument(
    by: &str,
    answer: impl Fn(bool) -> pb::Decision + Send + Sync + 'static,
) -> (u64, u64, u64) {
    let world = World::new(move |question| answer(exec(question).argv[2] == "good"));
    let (folder, count) = (world.folder.path(), tries().to_string());
    let ended = world.run_tries(
        &args([&"race-reach", &by, &count, &"2", &"f", &programs().effect, &folder, &"good"]),
        tries(),
    );
    outcome(&world, &ended, "food")
}

fn good_alone(good: bool) -> pb::Decision {
    if good { allow() } else { deny() }
}

#[test]
fn a_process_that_writes_an_argument_by_proc_mem_never_wins() {
    let (good, evil, killed) = reach_for_an_argument("memory", good_alone);
    assert_eq!(evil, 0, "the race was won");
    assert!(good > 0 && killed > 0, "the race was never close");
}

#[test]
fn a_process_that_writes_the_path_by_proc_mem_never_wins() {
    let world = World::new(|question| good_alone(exec(question).executable.ends_with("/good")));
    let good = world.path("good-or-evil/good");
    std::fs::create_dir(world.path("good-or-evil")).unwrap();
    std::fs::copy(&programs().good, &good).unwrap();
    std::fs::copy(&programs().evil, world.path("good-or-evil/food")).unwrap();
    let (folder, count) = (world.folder.path(), tries().to_string());
    let ended =
        world.run_tries(&args([&"race-reach", &"memory", &count, &"0", &"f", &good, &folder]), tries());
    let (good, evil, killed) = outcome(&world, &ended, "evil");
    assert_eq!(evil, 0, "the race was won");
    assert!(good > 0 && killed > 0, "the race was never close");
}

#[test]
fn a_process_that_traces_the_caller_and_writes_an_argument_never_wins() {
    let (good, evil, _) = reach_for_an_argument("trace", good_alone);
    assert_eq!(evil, 0, "the race was won");
    assert!(good > 0);
}

#[test]
fn what_a_tracer_wrote_runs_where_the_answer_does_not_look_at_it() {
    // The control: what the tracer writes arrives.
    let (_, evil, _) = reach_for_an_argument("trace", |_| allow());
    assert!(evil > 0);
}

// Allows what has the content of the good program.
fn by_content(world: &World) {
    let tables =
        pb::PolicyTables { epoch: 1, facts: Some(pb::FactsNeeded { sha256: true }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
    let good = sha256(&programs().good);
    world.asker.answer_with(move |question| good_alone(exec(question).executable_sha256 == good));
}

#[test]
fn a_process_that_mounts_another_program_over_the_path_never_wins() {
    let world = World::new(|_| deny());
    by_content(&world);
    let (path, other) = (world.path("program"), world.path("other"));
    std::fs::copy(&programs().good, &path).unwrap();
    std::fs::copy(&programs().evil, &other).unwrap();
    let (folder, count) = (world.folder.path(), tries().to_string());
    let ended = world.run_tries(&args([&"race-mount", &count, &other, &path, &folder]), tries());
    let (good, evil, killed) = outcome(&world, &ended, "evil");
    assert_eq!(evil, 0, "the race was won");
    assert!(good > 0 && killed > 0, "the race was never close");
}

fn exchange(one: &Path, other: &Path) {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
}

#[test]
fn a_program_that_is_renamed_all_the_time_under_its_hold_runs_as_it_was_shown_or_not_at_all() {
    let world = World::new(|_| hold());
    let (path, other) = (world.path("program"), world.path("other"));
    std::fs::copy(&programs().good, &path).unwrap();
    std::fs::copy(&programs().evil, &other).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let good = format!(":{}", inode(&path));
    let over = Arc::new(AtomicBool::new(false));
    let racer = std::thread::spawn({
        let (over, path) = (Arc::clone(&over), path.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                exchange(&path, &other);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        }
    });
    let mut actor = world.start(&args([&"repeat", &tries().to_string(), &path, &world.folder.path()]));
    let (mut shown_good, mut shown_evil) = (0, 0);
    while !actor.is_over() {
        let Some(mut held) = world.asker.take_hold() else {
            std::thread::sleep(std::time::Duration::from_micros(200));
            continue;
        };
        // Nobody stands where another file was loaded: it was killed.
        let Some(facts) = held.held_or_gone() else { continue };
        if facts.file_id.ends_with(&good) {
            shown_good += 1;
            held.decide(pb::Verdict::Allow);
        } else {
            shown_evil += 1;
            held.decide(pb::Verdict::Deny);
        }
    }
    over.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    let ended = actor.wait();
    println!("shown {shown_good} and {shown_evil}; {}", ended.stdout.trim());
    assert_eq!(world.count("evil"), 0, "the race was won");
    assert_eq!(world.count("good"), shown_good);
    assert!(shown_good > 0 && shown_evil > 0, "it was never renamed");
    assert_eq!(world.gate().counters().missed, 0);
}
