//! What can happen to a held process and to those around it, on the real kernel: nothing of it runs before somebody
//! allows it, and a hold that nobody waits for any more ends.

mod common;

use std::time::{Duration, Instant};

use clawsec_core::ask::Progress;
use clawsec_core::pb;
use common::{Hold, World, args, deny, hold, programs};

fn effect(mode: &[&str], world: &World) -> Vec<std::ffi::OsString> {
    let mut all: Vec<std::ffi::OsString> = mode.iter().map(Into::into).collect();
    all.extend(args([&programs().effect, &world.folder.path(), &"ran"]));
    all
}

fn touch(world: &World, name: &str) {
    std::fs::write(world.path(name), "").unwrap();
}

fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

fn gone(held: &mut Hold) -> String {
    match held.next() {
        Progress::Gone(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_held_and_runs_when_allowed_however_it_was_started() {
    for (mode, before, after) in
        [("spawn", "spawned\n", "exit 0\n"), ("setsid", "", "exit 0\n"), ("vfork", "gap", "exit 0\n")]
    {
        let world = World::new(|_| hold());
        let mut actor = world.start(&effect(&[mode], &world));
        let mut held = world.take_hold();
        held.wait_held();
        // Whoever started it goes on.
        if !before.is_empty() {
            assert!(actor.line().starts_with(before.trim_end()), "{mode}");
        }
        settle();
        assert_eq!(world.count("ran"), 0, "{mode}");
        held.decide(pb::Verdict::Allow);
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), (after, 1), "{mode}");
    }
}

#[test]
fn of_threads_that_exec_at_once_one_is_held_and_the_others_are_gone() {
    for allowed in [true, false] {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["exec-threads", "8"], &world));
        let mut waiting: Vec<Hold> = Vec::new();
        let until = Instant::now() + common::PATIENCE;
        let held = loop {
            assert!(Instant::now() < until, "none of {} is held", waiting.len());
            waiting.extend(world.try_hold());
            if let Some(held) = waiting.extract_if(.., is_held).next() {
                break held;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        settle();
        assert_eq!(world.count("ran"), 0);
        held.decide(if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny });
        let (said, ran) = if allowed { ("exit 0\n", 1) } else { ("signal 9\n", 0) };
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), (said, ran));
        // Nobody else waits for an answer.
        waiting.extend(std::iter::from_fn(|| world.try_hold()));
        let until = Instant::now() + common::PATIENCE;
        for other in waiting {
            while !other.decisions.is_closed() {
                assert!(Instant::now() < until, "a hold of a thread that is gone stays");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(world.gate().waiting_approvals(), 0);
    }
}

fn is_held(hold: &mut Hold) -> bool {
    matches!(hold.progress.try_recv(), Ok(Progress::Held(_)))
}

#[test]
fn a_held_command_outlives_its_parent_and_is_still_decided_about() {
    for allowed in [true, false] {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["orphan", "0"], &world));
        let mut held = world.take_hold();
        held.wait_held();
        touch(&world, "die");
        settle();
        assert_eq!(world.count("ran"), 0);
        held.decide(if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny });
        let (said, ran) = if allowed { ("exit 0\n", 1) } else { ("signal 9\n", 0) };
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), (said, ran));
    }
}

#[test]
fn a_held_command_that_wants_to_die_with_its_parent_does_and_its_hold_ends() {
    for (signal, why) in [
        (libc::SIGKILL, "the held process was killed"),
        (libc::SIGTERM, "the held process was ended by SIGTERM"),
    ] {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["orphan", &signal.to_string()], &world));
        let mut held = world.take_hold();
        held.wait_held();
        touch(&world, "die");
        assert_eq!(gone(&mut held), why);
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), ("signal 9\n", 0));
    }
}

#[test]
fn whoever_may_kill_a_held_command_can_and_its_hold_ends() {
    let (kill, term, int) = (libc::SIGKILL.to_string(), libc::SIGTERM.to_string(), libc::SIGINT.to_string());
    let hup = libc::SIGHUP.to_string();
    for (by, signal) in
        [("parent", &kill), ("parent", &term), ("other", &kill), ("other", &hup), ("group", &int)]
    {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["killed", by, signal, "default"], &world));
        let mut held = world.take_hold();
        held.wait_held();
        settle();
        touch(&world, "kill");
        assert!(gone(&mut held).starts_with("the held process was "), "{by} {signal}");
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), ("signal 9\n", 0), "{by} {signal}");
        // An answer that comes after changes nothing; there is nobody left to take it.
        assert!(held.decisions.send(common::allow()).is_err(), "somebody waits for an answer");
    }
}

#[test]
fn a_signal_that_would_not_end_the_command_does_not_end_its_hold() {
    let (term, chld) = (libc::SIGTERM.to_string(), libc::SIGCHLD.to_string());
    for (signal, how) in [(&term, "ignored"), (&term, "blocked"), (&chld, "default")] {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["killed", "parent", signal, how], &world));
        let mut held = world.take_hold();
        held.wait_held();
        touch(&world, "kill");
        settle();
        settle();
        assert_eq!(world.count("ran"), 0);
        held.decide(pb::Verdict::Allow);
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), ("exit 0\n", 1), "{signal} {how}");
    }
}

#[test]
fn a_storm_of_stops_and_continues_lets_nothing_through() {
    for allowed in [true, false] {
        let world = World::new(|_| hold());
        let actor = world.start(&effect(&["storm"], &world));
        let mut held = world.take_hold();
        held.wait_held();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(world.count("ran"), 0);
        held.decide(if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny });
        settle();
        touch(&world, "calm");
        let (said, ran) = if allowed { ("exit 0\n", 1) } else { ("signal 9\n", 0) };
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), (said, ran));
    }
}

#[test]
fn a_held_command_that_is_denied_tells_its_caller_why() {
    let world = World::new(|_| hold());
    let actor = world.start(&effect(&["run"], &world));
    let mut held = world.take_hold();
    held.wait_held();
    held.decide(pb::Verdict::Deny);
    let ended = actor.wait();
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("signal 9\n", 0));
    let expected = format!(
        "clawsec: {} denied by rule person (test): because of the test\n",
        programs().effect.display()
    );
    assert_eq!(ended.stderr, expected);
}

#[test]
fn a_held_command_that_is_denied_dies_although_its_standard_error_is_full() {
    let world = World::new(|_| hold());
    let actor = world.start(&effect(&["forked", "exec-fullerr"], &world));
    let mut held = world.take_hold();
    held.wait_held();
    held.decide(pb::Verdict::Deny);
    assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), ("signal 9\n", 0));
}

#[test]
fn a_storm_of_denials_does_not_flood_standard_error_and_says_how_many_it_left_out() {
    const COUNT: u64 = 400;
    let world = World::new(|_| deny());
    let started = Instant::now();
    let first = world.run(&effect(&["many", &COUNT.to_string()], &world));
    // What may be written grows with the time that passes.
    let most = 50 + 1 + (started.elapsed().as_secs_f64() * 20.0) as u64;
    assert_eq!((first.stdout.as_str(), world.count("ran")), ("exited 0 signalled 0 refused 400\n", 0));
    let written = |text: &str| text.lines().filter(|line| line.contains(" denied by rule ")).count() as u64;
    assert!((50..=most).contains(&written(&first.stderr)), "{} of {most}", written(&first.stderr));
    std::thread::sleep(Duration::from_millis(200));
    let last = world.run(&effect(&["run"], &world));
    let told = |text: &str| -> u64 {
        let counts = text.lines().filter_map(|line| line.strip_prefix("clawsec: the reasons of "));
        counts.map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let all = [&first.stderr, &last.stderr].map(|text| written(text) + told(text));
    assert_eq!(all.iter().sum::<u64>(), COUNT + 1, "{}", last.stderr);
}
