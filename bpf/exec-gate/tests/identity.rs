//! What a file is to the policy, by whatever name or way it is executed.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{World, allow, args, deny, programs};

fn look_at_contents(world: &World) {
    let tables =
        pb::PolicyTables { epoch: 1, facts: Some(pb::FactsNeeded { sha256: true }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// The last exec that was asked about.
fn asked(world: &World) -> pb::ExecAction {
    world.execs().pop().unwrap()
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(at: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success(), "{arguments:?}");
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_program_has_one_content_under_every_name_and_no_other_name_than_its_own() {
    let good = sha256(&programs().good);
    let world = World::new(move |question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.executable_sha256 == good => allow(),
        _ => deny(),
    });
    look_at_contents(&world);
    let (first, copy, hard, soft, renamed) = (
        world.path("first"),
        world.path("copy"),
        world.path("hard"),
        world.path("soft"),
        world.path("renamed"),
    );
    fs::copy(&programs().good, &first).unwrap();
    fs::copy(&programs().good, &copy).unwrap();
    fs::hard_link(&first, &hard).unwrap();
    std::os::unix::fs::symlink(&first, &soft).unwrap();
    let mut ran = 0;
    for (called, is) in [(&first, &first), (&copy, &copy), (&hard, &hard), (&soft, &first)] {
        assert_eq!(world.run(&args([&"run", called, &world.folder.path()])).stdout, "exit 0\n");
        assert_eq!(asked(&world).executable, is.to_str().unwrap());
        ran += 1;
    }
    fs::rename(&first, &renamed).unwrap();
    assert_eq!(world.run(&args([&"run", &renamed, &world.folder.path()])).stdout, "exit 0\n");
    assert_eq!(asked(&world).executable, renamed.to_str().unwrap());
    assert_eq!(world.count("good"), ran + 1);
    // Another content under the same name is another program.
    fs::remove_file(&copy).unwrap();
    fs::copy(&programs().evil, &copy).unwrap();
    let denied = format!("exit {}\n", libc::EACCES);
    assert_eq!(world.run(&args([&"run", &copy, &world.folder.path()])).stdout, denied);
    assert_eq!(world.count("evil"), 0);
}

#[test]
fn a_copy_does_not_have_the_trust_of_the_name_that_it_was_copied_from() {
    let trusted = programs().good.to_str().unwrap().to_owned();
    let world = World::new(move |question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.executable == trusted => allow(),
        _ => deny(),
    });
    // A folder that is called like the trusted one, and a name that ends like it.
    let copy = world.path("good");
    fs::copy(&programs().evil, &copy).unwrap();
    let denied = format!("exit {}\n", libc::EACCES);
    assert_eq!(world.run(&args([&"run", &copy, &world.folder.path()])).stdout, denied);
    assert_eq!(world.run(&args([&"run", &programs().good, &world.folder.path()])).stdout, "exit 0\n");
    assert_eq!(world.count("evil"), 0);
}

#[test]
fn a_program_on_an_overlay_of_several_file_systems_is_verified_as_what_it_is() {
    let world = World::new(|_| allow());
    let lower = Mounted::new(&world.path("lower"), &["-t", "tmpfs", "none"]);
    let upper = Mounted::new(&world.path("upper"), &["-t", "tmpfs", "none"]);
    fs::copy(&programs().good, lower.0.join("below")).unwrap();
    for name in ["files", "work"] {
        fs::create_dir(upper.0.join(name)).unwrap();
    }
    let options =
        format!("lowerdir={0},upperdir={1}/files,workdir={1}/work", lower.0.display(), upper.0.display());
    let merged = Mounted::new(&world.path("merged"), &["-t", "overlay", "overlay", "-o", &options]);
    fs::copy(&programs().good, merged.0.join("above")).unwrap();
    for name in ["below", "above"] {
        let program = merged.0.join(name);
        let ended = world.run(&args([&"run", &program, &world.folder.path()]));
        assert_eq!(ended.stdout, "exit 0\n", "{name}: {ended:?}");
        assert_eq!(asked(&world).executable, program.to_str().unwrap());
    }
    assert_eq!(world.count("good"), 2);
    assert_eq!(world.gate().counters().killed, 0);
}

#[test]
fn a_file_that_lost_its_name_is_a_deleted_one_and_keeps_its_content() {
    let good = sha256(&programs().good);
    let world = World::new(|_| allow());
    look_at_contents(&world);
    let program = world.path("program");
    fs::copy(&programs().good, &program).unwrap();
    let gone = format!("gone:{}", program.display());
    let ended = world.run(&args([&"fexec", &gone, &world.folder.path()]));
    assert_eq!((ended.code, world.count("good")), (Some(0), 1), "{ended:?}");
    let exec = asked(&world);
    assert_eq!((exec.kind(), exec.executable_sha256), (pb::ExecutableKind::Deleted, good));
    assert!(!program.exists());
}

// Whether this kernel has AT_EXECVE_CHECK (6.14).
fn kernel_checks() -> bool {
    let empty = [std::ptr::null::<libc::c_char>()];
    // SAFETY: a path and two empty lists that live longer than the call, which executes nothing: a kernel that does not
    // know the flag refuses it.
    let result = unsafe {
        let (path, lists) = (c"/bin/sh".as_ptr(), empty.as_ptr());
        libc::syscall(libc::SYS_execveat, libc::AT_FDCWD, path, lists, lists, 0x1_0000)
    };
    result == 0
}

fn is_check(question: &pb::Question) -> bool {
    matches!(&question.action, Some(pb::question::Action::Exec(exec)) if exec.check)
}

// What the actor says of its check.
fn said(errno: i32) -> String {
    let errno = if errno == 0 && !kernel_checks() { libc::EINVAL } else { errno };
    format!("check {errno}\nwaiting\n")
}

#[test]
fn a_check_whether_a_file_could_be_executed_is_decided_like_its_exec_and_approves_nothing() {
    let check = |world: &World| world.run(&args([&"check", &programs().good, &world.folder.path()]));
    for (of_check, of_exec, errno) in
        [(allow(), allow(), 0), (allow(), deny(), 0), (deny(), allow(), libc::EACCES)]
    {
        let (first, second) = (of_check.clone(), of_exec.clone());
        let world =
            World::new(move |question| if is_check(question) { first.clone() } else { second.clone() });
        let ended = check(&world);
        let runs = of_exec.verdict() == pb::Verdict::Allow;
        assert_eq!(ended.stdout, said(errno), "{ended:?}");
        assert_eq!((ended.code, world.count("good")), (Some(if runs { 0 } else { 100 }), u64::from(runs)));
        assert_eq!((world.questions(), world.gate().waiting_approvals()), (2, 0));
        world.gate().settle();
        let events = world.sink.events.lock().unwrap();
        let decisions: Vec<_> = events.iter().filter_map(common::decided).collect();
        let exec = |at: usize| match &decisions[at].action {
            Some(pb::decision_event::Action::Exec(exec)) => exec.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(decisions.len(), 2, "{decisions:?}");
        assert_eq!(decisions[0].verdict(), of_check.verdict());
        assert!(exec(0).check && exec(0).exec_id.is_empty() && !decisions[0].exec_unseen);
        assert!(!exec(1).check && !exec(1).exec_id.is_empty());
    }
}

#[test]
fn a_check_waits_for_a_person_and_gets_the_answer() {
    for (verdict, errno) in [(pb::Verdict::Allow, 0), (pb::Verdict::Deny, libc::EACCES)] {
        let world = World::new(|question| if is_check(question) { common::hold() } else { allow() });
        let actor = world.start(&args([&"check", &programs().good, &world.folder.path()]));
        let mut hold = world.take_hold();
        assert!(hold.wait_held().check);
        assert_eq!(world.count("good"), 0);
        hold.decide(verdict);
        let ended = actor.wait();
        assert_eq!((ended.stdout, ended.code), (said(errno), Some(0)), "{}", ended.stderr);
        assert_eq!((world.count("good"), world.gate().waiting_approvals()), (1, 0));
    }
}
