//! What is decided about is what runs, also when it is changed in between: effects are counted, not errors.

mod common;

use clawsec_core::pb;
use common::{World, allow, args, deny, hold, programs};

/// Tries of each race; `make races` takes more.
fn tries() -> u64 {
    std::env::var("CLAWSEC_RACE_TRIES").map_or(2000, |number| number.parse().unwrap())
}

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
    assert_eq!(ran + refused + killed, tries());
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
    let ended = world.run_tries(
        &args([&"race", &by, &tries().to_string(), &"0", &"f", &good, &world.folder.path()]),
        tries(),
    );
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
    let ended = world.run_tries(
        &args([
            &"race",
            &by,
            &tries().to_string(),
            &"2",
            &"f",
            &programs().effect,
            &world.folder.path(),
            &"good",
        ]),
        tries(),
    );
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
    let ended = world.run_tries(
        &args([
            &"race",
            &"process",
            &tries().to_string(),
            &"0",
            &"l",
            &world.path("link"),
            &world.folder.path(),
        ]),
        tries(),
    );
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    check(&world, &ended.stdout);
}

fn going_by(decision: pb::Decision, facts: &[pb::ExecFact]) -> pb::Decision {
    pb::Decision { depends_on: facts.iter().map(|fact| i32::from(*fact)).collect(), ..decision }
}

fn environment_race(by: &str) {
    let world = World::new(|question| {
        let known = exec(question).environment_names == ["good"];
        going_by(if known { allow() } else { deny() }, &[pb::ExecFact::Environment])
    });
    let program = &programs().by_environment;
    let folder = world.folder.path();
    let ended = world.run_tries(
        &args([&"race-environment", &by, &tries().to_string(), &"good=1", &"f", &program, &folder]),
        tries(),
    );
    assert_eq!(world.count("food"), 0, "the race was won");
    check(&world, &ended.stdout);
}

#[test]
fn a_thread_that_changes_a_variable_never_wins() {
    environment_race("thread");
}

#[test]
fn a_process_that_changes_a_variable_never_wins() {
    environment_race("process");
}

#[test]
fn a_process_with_the_same_memory_that_changes_a_variable_never_wins() {
    environment_race("memory");
}

fn cwd_world(facts: &'static [pb::ExecFact]) -> World {
    let world = World::new(move |question| {
        let answer = if exec(question).cwd.ends_with("/good") { allow() } else { deny() };
        going_by(answer, facts)
    });
    std::fs::create_dir_all(world.path("folders/good")).unwrap();
    std::fs::create_dir_all(world.path("folders/evil")).unwrap();
    world
}

fn cwd_race(world: &World, by: &str) -> common::Ended {
    let (good, evil) = (world.path("folders/good"), world.path("folders/evil"));
    let count = tries().to_string();
    world.run_tries(
        &args([&"race-cwd", &by, &count, &good, &evil, &programs().by_cwd, &world.folder.path()]),
        tries(),
    )
}

#[test]
fn a_thread_that_changes_the_working_directory_never_wins() {
    let world = cwd_world(&[pb::ExecFact::Cwd]);
    let ended = cwd_race(&world, "thread");
    check(&world, &ended.stdout);
}

#[test]
fn a_process_that_shares_the_working_directory_never_wins_and_runs_where_it_does_not_matter() {
    let world = cwd_world(&[pb::ExecFact::Cwd]);
    let ended = cwd_race(&world, "process");
    println!("{}", ended.stdout.trim());
    assert_eq!((world.count("good"), world.count("evil")), (0, 0), "the race was won");
    // It is shared still when the program runs, so it could be changed then as well.
    let counters = world.gate().counters();
    assert!(counters.killed > 0 && counters.kill_failed == 0 && counters.missed == 0, "{counters:?}");
    assert_eq!(
        world.killed_because(),
        "its working directory is decided about, and another process could change it"
    );
    let world = cwd_world(&[]);
    cwd_race(&world, "process");
    assert!(world.count("good") > 0);
}

#[test]
fn an_answer_that_does_not_go_by_the_environment_is_not_bound_to_it() {
    let world =
        World::new(|question| if exec(question).environment_names == ["good"] { allow() } else { deny() });
    let program = &programs().by_environment;
    let folder = world.folder.path();
    let count = tries().to_string();
    world.run_tries(
        &args([&"race-environment", &"thread", &count, &"good=1", &"f", &program, &folder]),
        tries(),
    );
    // The control: without the binding the race is won now and then.
    println!("won {} of {count}", world.count("food"));
    assert!(world.count("food") > 0 && world.gate().counters().killed == 0);
}

#[test]
fn a_held_exec_shows_the_environment_and_the_working_directory_that_are_there() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"run", &programs().by_cwd, &world.folder.path()]));
    let mut held = world.take_hold();
    let facts = held.wait_held();
    assert_eq!(facts.environment_names, ["TEST_SECRET"]);
    assert_eq!(facts.cwd, world.folder.path().to_str().unwrap());
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "exit 0\n");
}
