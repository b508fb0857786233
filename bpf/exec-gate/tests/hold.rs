//! Holds on the real kernel: nothing of a held image runs, and nobody waits for it.

mod common;

use std::time::{Duration, Instant};

use clawsec_core::ask::Progress;
use clawsec_core::pb;
use common::{World, allow, args, decided, deny, hold, programs};

#[test]
fn a_held_exec_runs_when_it_is_allowed_and_not_before() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    let facts = held.wait_held();
    assert_eq!(facts.executable, programs().effect.to_str().unwrap());
    assert_eq!(
        facts.argv,
        [programs().effect.to_str().unwrap(), world.folder.path().to_str().unwrap(), "ran"]
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.count("ran"), 0);
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "exit 0\n");
    assert_eq!(world.count("ran"), 1);
    match held.next() {
        Progress::Settled(pb::Verdict::Allow, resumed_us) => println!("resumed after {resumed_us} us"),
        other => panic!("{other:?}"),
    }
    // Held first, allowed later: both are on record, under the same hold.
    for verdict in [pb::Verdict::Hold, pb::Verdict::Allow] {
        world.event("a decision", |event| {
            decided(event).filter(|seen| seen.verdict() == verdict && seen.hold_id == "h1").map(drop)
        });
    }
}

#[test]
fn a_held_exec_that_is_denied_runs_nothing() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    held.decide(pb::Verdict::Deny);
    assert_eq!(actor.wait().stdout, "signal 9\n");
    assert_eq!(world.count("ran"), 0);
    assert!(matches!(held.next(), Progress::Settled(pb::Verdict::Deny, _)));
}

#[test]
fn a_hold_whose_asker_goes_away_is_denied() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    drop(held);
    assert_eq!(actor.wait().stdout, "signal 9\n");
    assert_eq!(world.count("ran"), 0);
}

#[test]
fn a_held_exec_does_not_stall_the_parent_that_vforked() {
    let world = World::new(|_| hold());
    let mut actor = world.start(&args([&"vfork", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    // The parent goes on while the child is held.
    let line = actor.line();
    let gap: f64 = line.strip_prefix("gap ").unwrap().parse().unwrap();
    println!("the parent stood still for {gap} ms");
    assert!(gap < 500.0, "{line}");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(world.count("ran"), 0);
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "exit 0\n");
    assert_eq!(world.count("ran"), 1);
}

#[test]
fn a_held_process_that_is_killed_ends_the_hold() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    let pid = held.question.process.as_ref().unwrap().pid as i32;
    // SAFETY: a signal to a process of this test, which is held.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    assert!(matches!(held.next(), Progress::Gone(_)));
    assert_eq!(actor.wait().stdout, "signal 9\n");
    assert_eq!(world.count("ran"), 0);
}

#[test]
fn a_held_exec_survives_other_signals() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"exec", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    for signal in [libc::SIGCONT, libc::SIGCHLD, libc::SIGWINCH] {
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(actor.id(), signal) };
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.count("ran"), 0);
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().code, Some(0));
    assert_eq!(world.count("ran"), 1);
}

#[test]
fn a_hold_of_an_exec_that_fails_in_the_kernel_ends() {
    let world = World::new(|_| hold());
    std::fs::write(world.path("broken"), [b"\x7fELF".as_slice(), &[0; 100]].concat()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("broken"), mode).unwrap();
    let actor = world.start(&args([&"exec-stay", &world.path("broken")]));
    let mut held = world.take_hold();
    match held.next() {
        Progress::Gone(why) => assert_eq!(why, "the exec failed in the kernel"),
        other => panic!("{other:?}"),
    }
    assert_eq!(actor.wait().stdout, format!("errno {}\n", libc::ENOEXEC));
    assert_eq!(world.gate().waiting_approvals(), 0);
}

#[test]
fn a_held_exec_of_another_thread_than_the_leader_is_held_too() {
    let world = World::new(|_| hold());
    let actor = world.start(&args([&"exec-thread", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    let facts = held.wait_held();
    assert_eq!(facts.executable, programs().effect.to_str().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.count("ran"), 0);
    held.decide(pb::Verdict::Allow);
    assert_eq!((actor.wait().code, world.count("ran")), (Some(0), 1));
}

#[test]
fn a_held_script_shows_its_arguments_as_they_were_written() {
    let world = World::new(|_| hold());
    let script = world.path("script");
    std::fs::write(&script, "#!/bin/sh -e\necho ran\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // The image is traced until it has read its script, so it must be no child of this process: see the crate.
    let actor = world.start(&args([&"forked", &"exec", &script, &"a"]));
    let mut held = world.take_hold();
    let facts = held.wait_held();
    assert_eq!(facts.argv, [script.to_str().unwrap(), "a"]);
    assert_eq!(facts.script, script.to_str().unwrap());
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "ran\nexit 0\n");
}

#[test]
fn a_held_image_enters_its_subject_when_it_is_allowed() {
    let world = World::new(|question| {
        if question.subject == "main" {
            pb::Decision { enter_subject: "tool".into(), ..hold() }
        } else {
            allow()
        }
    });
    let actor = world.start(&args([&"run", &"/bin/sh", &"-c", &"grep ^0:: /proc/self/cgroup"]));
    let mut held = world.take_hold();
    held.wait_held();
    held.decide(pb::Verdict::Allow);
    assert!(actor.wait().stdout.contains("/tool\n"));
}

// CLAWSEC_HOLDS=10000 holds as many as a sandbox may have; the figures are printed.
#[test]
fn hundreds_of_holds_at_once_are_held_and_settled() {
    let count = std::env::var("CLAWSEC_HOLDS").map_or(200, |count| count.parse::<usize>().unwrap() / 2 * 2);
    let world = World::new(|_| hold());
    let started = Instant::now();
    let actor =
        world.start(&args([&"many", &count.to_string(), &programs().effect, &world.folder.path(), &"ran"]));
    let mut holds: Vec<_> = (0..count).map(|_| world.take_hold()).collect();
    for held in &mut holds {
        held.wait_held();
    }
    println!("{count} were held after {:?}; {}", started.elapsed(), usage());
    assert_eq!(world.count("ran"), 0);
    // The thread that holds has time for others.
    let before = cpu();
    std::thread::sleep(Duration::from_secs(1));
    println!("one second of holding takes {:?} of processor time", cpu() - before);
    let decided = Instant::now();
    for (number, held) in holds.iter().enumerate() {
        held.decide(if number % 2 == 0 { pb::Verdict::Allow } else { pb::Verdict::Deny });
    }
    let half = count / 2;
    assert_eq!(actor.wait().stdout, format!("exited {half} signalled {half} refused 0\n"));
    println!("all were settled after {:?}; {}", decided.elapsed(), usage());
    assert_eq!(world.count("ran"), half as u64);
    let mut resumed: Vec<u64> = holds
        .iter_mut()
        .map(|held| match held.next() {
            Progress::Settled(_, resumed_us) => resumed_us,
            other => panic!("{other:?}"),
        })
        .collect();
    resumed.sort_unstable();
    println!("answer to resumed: p50 {} us, p99 {} us", resumed[count / 2], resumed[count * 99 / 100]);
}

// Memory, threads and descriptors of this process, which is loader and test in one.
fn usage() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("Threads"));
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let lines: Vec<String> =
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    format!("{}, {fds} descriptors", lines.join(", "))
}

fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

#[test]
fn when_the_gate_ends_held_images_die() {
    let mut world = World::new(|_| hold());
    let mut actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    held.wait_held();
    world.end_gate(&mut actor);
    assert_eq!(actor.wait().stdout, "signal 9\n");
    assert_eq!(world.count("ran"), 0);
    // Nobody decided: the asker still could.
    assert!(matches!(held.next(), Progress::Gone(_)));
}

#[test]
fn a_requester_that_dies_while_it_is_asked_about_is_gone() {
    // Neither an answer nor a hold: the question stays open.
    let world =
        World::new(|_| pb::Decision { verdict: pb::Verdict::Hold.into(), hold_id: "late".into(), ..deny() });
    world.asker.keep_open();
    let actor = world.start(&args([&"exec", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(actor.id(), libc::SIGKILL) };
    assert!(matches!(held.next(), Progress::Gone(_)));
    assert_eq!(actor.wait().signal, Some(libc::SIGKILL));
}
