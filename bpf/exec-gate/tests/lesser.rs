//! On a kernel that lacks a mechanism, its replacement holds the same line.

mod common;

use std::time::Duration;

use clawsec_core::{Without, pb};
use common::{World, allow, args, deny, hold, programs};

const INTERRUPTIBLE: Without = Without { wait_killable: true, ..Without::NOTHING };
const RAW: Without = Without { typed_tracepoints: true, ..Without::NOTHING };

fn storm(world: &World) -> common::Actor {
    world.start(&args([&"storm", &programs().effect, &world.folder.path(), &"ran"]))
}

fn calm(world: &World) {
    std::fs::write(world.path("calm"), "").unwrap();
}

#[test]
fn raw_tracepoints_verify_kill_and_tell_ends() {
    let world = World::without(RAW, |question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.argv.iter().any(|part| part == "no") => deny(),
        _ => allow(),
    });
    let run = |name: &dyn AsRef<std::ffi::OsStr>| {
        world.run(&args([&"run", &programs().effect, &world.folder.path(), name])).stdout
    };
    assert_eq!((run(&"yes"), world.count("yes")), ("exit 0\n".into(), 1));
    assert_eq!((run(&"no"), world.count("no")), (format!("exit {}\n", libc::EACCES), 0));
    // Nothing is approved for who has no filter.
    let ended = world.run(&args([&"-", &"run", &programs().effect, &world.folder.path(), &"wild"]));
    assert_eq!((ended.stdout.as_str(), world.count("wild")), ("signal 9\n", 0));
    assert!(world.killed_because().contains("nothing was approved"));
    world.event("the end of a process", |event| match &event.kind {
        Some(pb::event::Kind::Exit(_)) => Some(()),
        _ => None,
    });
}

#[test]
fn a_call_that_signals_interrupt_is_asked_about_once_and_its_answer_is_used_once() {
    for allowed in [true, false] {
        let world = World::without(INTERRUPTIBLE, move |_| if allowed { allow() } else { deny() });
        world.asker.keep_open();
        let actor = storm(&world);
        let question = world.take_hold();
        // Many times the call ends and is made again.
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!((world.questions(), world.count("ran")), (1, 0), "{:?}", world.execs());
        question.answer(if allowed { allow() } else { deny() });
        std::thread::sleep(Duration::from_millis(500));
        calm(&world);
        let (said, ran) =
            if allowed { ("exit 0\n".into(), 1) } else { (format!("exit {}\n", libc::EACCES), 0) };
        assert_eq!((actor.wait().stdout, world.count("ran")), (said, ran));
        assert_eq!(world.questions(), 1, "a storm of signals asks once");
    }
}

#[test]
fn an_interrupted_call_that_comes_again_with_other_arguments_is_another_question_with_its_own_answer() {
    for (first, second, newer_first) in
        [(true, false, false), (false, true, false), (true, false, true), (false, true, true)]
    {
        let world = World::without(INTERRUPTIBLE, |_| deny());
        world.asker.keep_open();
        let actor =
            world.start(&args([&"storm-changed", &programs().effect, &world.folder.path(), &"ran", &"run"]));
        let of_ran = world.take_hold();
        std::fs::write(world.path("change"), "").unwrap();
        let of_run = world.take_hold();
        let names: Vec<String> = world.execs().into_iter().map(|exec| exec.argv[2].clone()).collect();
        assert_eq!(names, ["ran", "run"]);
        let said = |allowed| if allowed { allow() } else { deny() };
        // What was said about the call as it was must not be said about the call as it is, in whichever order it comes.
        if newer_first {
            of_run.answer(said(second));
            std::thread::sleep(Duration::from_millis(300));
            of_ran.try_answer(said(first));
        } else {
            of_ran.try_answer(said(first));
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!((world.count("ran"), world.count("run")), (0, 0));
            of_run.answer(said(second));
        }
        std::thread::sleep(Duration::from_millis(300));
        calm(&world);
        let (ended, ran) =
            if second { ("exit 0\n".into(), 1) } else { (format!("exit {}\n", libc::EACCES), 0) };
        assert_eq!((actor.wait().stdout, world.count("run"), world.count("ran")), (ended, ran, 0));
        assert_eq!(world.questions(), 2);
    }
}

#[test]
fn a_call_that_signals_interrupt_is_held_under_one_question() {
    for allowed in [true, false] {
        let world = World::without(INTERRUPTIBLE, |_| hold());
        let actor = storm(&world);
        let mut held = world.take_hold();
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!((world.questions(), world.count("ran")), (1, 0));
        // A storm without an end can keep the call from ever being held.
        calm(&world);
        held.wait_held();
        assert_eq!(world.count("ran"), 0);
        held.decide(if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny });
        let (said, ran) = if allowed { ("exit 0\n", 1) } else { ("signal 9\n", 0) };
        assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), (said, ran));
        assert_eq!(world.questions(), 1, "a storm of signals asks once");
    }
}
