//! What is decided about is what runs, also when it is changed in between: effects are counted, not errors.

mod common;

use clawsec_core::pb;
use common::{World, allow, args, deny, programs};

const TRIES: u64 = 2000;

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

// Gives how many were killed: without those nothing raced.
fn check(world: &World, stdout: &str) -> u64 {
    println!("{}", stdout.trim());
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let (ran, refused, killed) = (number(1), number(3), number(5));
    assert_eq!(ran + refused + killed, TRIES);
    assert_eq!(world.count("evil"), 0, "the race was won");
    assert_eq!(world.count("good"), ran);
    assert!(ran > 0 && refused > 0, "both were tried");
    assert!(killed > 0, "the race was never close");
    let counters = world.gate().counters();
    assert_eq!((counters.kill_failed, counters.missed), (0, 0));
    assert_eq!(counters.killed, killed);
    killed
}

fn path_race(by: &str) {
    // "good" is allowed, and "evil" is the same name with another first letter.
    let world =
        World::new(|question| if exec(question).executable.ends_with("/good") { allow() } else { deny() });
    let good = world.path("good-or-evil/good");
    std::fs::create_dir(world.path("good-or-evil")).unwrap();
    std::fs::copy(&programs().good, &good).unwrap();
    std::fs::copy(&programs().evil, world.path("good-or-evil/food")).unwrap();
    let ended = world.run(&args([&"race", &by, &TRIES.to_string(), &"0", &"f", &good, &world.folder.path()]));
    check(&world, &ended.stdout);
}

#[test]
fn a_thread_that_changes_the_path_never_wins() {
    path_race("thread");
}

#[test]
fn a_process_that_changes_the_path_never_wins() {
    path_race("process");
}

fn argument_race(by: &str) {
    let world = World::new(|question| if exec(question).argv[2] == "good" { allow() } else { deny() });
    // The two values differ in one letter; the evil one is counted under its own name.
    let ended = world.run(&args([
        &"race",
        &by,
        &TRIES.to_string(),
        &"2",
        &"f",
        &programs().effect,
        &world.folder.path(),
        &"good",
    ]));
    assert_eq!(world.count("food"), 0, "the race was won");
    check(&world, &ended.stdout);
}

#[test]
fn a_thread_that_changes_an_argument_never_wins() {
    argument_race("thread");
}

#[test]
fn a_process_that_changes_an_argument_never_wins() {
    argument_race("process");
}

#[test]
fn a_symbolic_link_that_is_changed_never_wins() {
    let world =
        World::new(|question| if exec(question).executable.ends_with("/good") { allow() } else { deny() });
    let (link, other) = (world.path("link"), world.path("other"));
    std::os::unix::fs::symlink(&programs().good, &link).unwrap();
    std::os::unix::fs::symlink(&programs().evil, &other).unwrap();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = std::thread::spawn({
        let over = std::sync::Arc::clone(&over);
        move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &link, rustix::fs::CWD, &other, flags).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    });
    // Nothing in memory changes: the racer of the actor writes the letter that is there.
    let ended = world.run(&args([
        &"race",
        &"process",
        &TRIES.to_string(),
        &"0",
        &"l",
        &world.path("link"),
        &world.folder.path(),
    ]));
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    check(&world, &ended.stdout);
}
