//! A process enters another subject at its exec event, on the real kernel: not before, and not if the exec fails.

mod common;

use std::fs;
use std::time::Duration;

use clawsec_core::pb;
use common::{World, allow, args, cgroup_mount, programs};

fn enter(question: &pb::Question) -> pb::Decision {
    if question.subject == "main" {
        pb::Decision { enter_subject: "tool".into(), ..allow() }
    } else {
        allow()
    }
}

fn subjects(world: &World) -> Vec<String> {
    world.asker.questions.lock().unwrap().iter().map(|question| question.subject.clone()).collect()
}

#[test]
fn a_decision_can_move_the_process_to_a_subject_for_good() {
    let world = World::new(|question| {
        if question.subject == "main" {
            pb::Decision { enter_subject: "tool".into(), ..allow() }
        } else {
            allow()
        }
    });
    let ended = world.run(&args([&"run", &"/bin/sh", &"-c", &"/bin/sh -c 'grep ^0:: /proc/self/cgroup'"]));
    assert!(ended.stdout.contains("/tool\n"), "{ended:?}");
    let subjects: Vec<String> =
        world.asker.questions.lock().unwrap().iter().map(|question| question.subject.clone()).collect();
    assert_eq!(subjects[0], "main");
    assert!(subjects[1..].iter().all(|subject| subject == "tool"), "{subjects:?}");
    // The lineage: grep was run by the image of a shell, which was run by the image of one.
    let process = world.asker.questions.lock().unwrap().last().unwrap().process.clone().unwrap();
    assert!(!process.exec_id.is_empty() && process.executable.ends_with("sh"), "{process:?}");
}

#[test]
fn a_subject_that_does_not_exist_is_a_denial() {
    let world = World::new(|_| pb::Decision { enter_subject: "nobody".into(), ..allow() });
    let ended = world.run(&args([&"forked", &"exec", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!(ended.stdout, format!("errno {}\nexit 100\n", libc::EACCES));
    assert_eq!(world.count("ran"), 0);
}

#[test]
fn an_entry_runs_in_its_subject_from_the_beginning_and_no_other_thread_ever_does() {
    let world = World::new(enter);
    for _ in 0..20 {
        // The program of the entry itself says where it is.
        let ended = world.run(&args([&"forked", &"watched", &"small", &"/bin/cat", &"/proc/self/cgroup"]));
        assert!(ended.stdout.ends_with("/tool\nexit 0\n"), "{ended:?}");
        assert!(!world.path("leaked").exists(), "another thread was in the new subject");
    }
    assert!(subjects(&world).iter().all(|subject| subject == "main"));
    assert_eq!(world.gate().waiting_approvals(), 0);
}

#[test]
fn an_entry_that_fails_in_the_kernel_moves_nobody() {
    let world = World::new(enter);
    let ended = world.run(&args([&"forked", &"watched", &"big", &"/bin/cat", &"/proc/self/cgroup"]));
    let rest = ended.stdout.strip_prefix(&format!("errno {}\nmain\n", libc::E2BIG));
    // The next exec is judged as the subject that the process is still in, and a good one enters.
    assert!(rest.is_some_and(|rest| rest.ends_with("/tool\nexit 0\n")), "{ended:?}");
    assert_eq!(subjects(&world), ["main", "main"]);
    assert!(!world.path("leaked").exists(), "another thread was in the new subject");
}

#[test]
fn a_cached_entry_enters_at_its_exec_event_too() {
    let world =
        World::new(|question| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..enter(question) });
    for size in ["small", "small", "big", "small"] {
        let ended = world.run(&args([&"forked", &"watched", &size, &"/bin/cat", &"/proc/self/cgroup"]));
        assert!(ended.stdout.ends_with("/tool\nexit 0\n"), "{ended:?}");
        assert_eq!(ended.stdout.contains("\nmain\n"), size == "big", "{ended:?}");
        assert!(!world.path("leaked").exists(), "another thread was in the new subject");
    }
    assert_eq!(world.questions(), 1);
}

#[test]
fn an_entry_by_another_thread_than_the_leader_and_one_after_vfork_enter() {
    let world = World::new(enter);
    let ended = world.run(&args([&"forked", &"exec-thread", &"/bin/cat", &"/proc/self/cgroup"]));
    assert!(ended.stdout.ends_with("/tool\nexit 0\n"), "{ended:?}");
    let ended = world.run(&args([&"vfork", &"/bin/cat", &"/proc/self/cgroup"]));
    assert!(ended.stdout.contains("/tool\n") && ended.stdout.ends_with("exit 0\n"), "{ended:?}");
    let ended = world.run(&args([&"many", &"100", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exited 100 signalled 0 refused 0\n", 100));
}

#[test]
fn an_entry_is_approved_for_the_subject_that_it_was_asked_in() {
    let world = World::new(|question| {
        let pid = question.process.as_ref().unwrap().pid;
        let path = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let path = path.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
        let tool = cgroup_mount().join(path).with_file_name("tool/cgroup.procs");
        fs::write(tool, pid.to_string()).unwrap();
        enter(question)
    });
    let ended = world.run(&args([&"forked", &"exec", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("signal 9\n", 0), "{ended:?}");
    assert!(world.killed_because().contains("not in the subject that was decided about"));
}

#[test]
fn an_image_that_cannot_enter_its_subject_is_killed() {
    let world = World::new(enter);
    let tool = &world.scope.subjects[1].cgroup;
    fs::remove_dir(tool).unwrap();
    let ended = world.run(&args([&"forked", &"exec", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("signal 9\n", 0), "{ended:?}");
    let message = world.event("the denial", |event| match &event.kind {
        Some(pb::event::Kind::Decision(seen)) if seen.verdict() == pb::Verdict::Deny => {
            Some(seen.message.clone())
        }
        _ => None,
    });
    assert!(message.starts_with("the process cannot enter the subject tool"), "{message}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.gate().waiting_approvals(), 0);
}
