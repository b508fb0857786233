//! What BPF-LSM adds: an exec that was not approved is refused before the image is replaced. On a kernel without it the
//! same attempts end at the verification, which is what the tests then ask for. `CLAWSEC_TEST_LSM` says that this kernel
//! must have it: the virtual machine's (test/vm).

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use clawsec_core::pb;
use clawsec_exec_gate::Layers;
use common::{World, allow, args, deny, programs};

fn layers() -> Layers {
    static LAYERS: OnceLock<Layers> = OnceLock::new();
    *LAYERS.get_or_init(|| {
        let layers = clawsec_exec_gate::layers(clawsec_core::Without::default());
        let must = std::env::var_os("CLAWSEC_TEST_LSM").is_some();
        assert!(!must || layers == Layers::LsmAndVerify, "this kernel was said to have BPF-LSM");
        layers
    })
}

fn has_lsm() -> bool {
    layers() == Layers::LsmAndVerify
}

fn world(script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) -> World {
    World::with(layers(), script)
}

/// What an actor's `run` says of a child whose exec was stopped by the first layer that is there.
fn stopped() -> String {
    if has_lsm() { format!("exit {}\n", libc::EACCES) } else { "signal 9\n".into() }
}

fn check_counts(world: &World, stopped: u64, killed: u64) {
    let counters = world.gate().counters();
    let (refused, more) = if has_lsm() { (stopped, 0) } else { (0, stopped) };
    assert_eq!((counters.refused, counters.killed), (refused, more + killed), "{counters:?}");
    assert_eq!((counters.kill_failed, counters.missed), (0, 0));
}

/// The reason in the event of the layer that is there. BPF-LSM says what was called, too.
fn why_stopped(event: &pb::Event, called: &str) -> Option<String> {
    match &event.kind {
        Some(pb::event::Kind::Exec(exec)) if !exec.verified && !has_lsm() => Some(exec.why.clone()),
        Some(pb::event::Kind::Decision(decision)) if decision.layer == "bpf-lsm" => {
            assert!(has_lsm() && decision.verdict() == pb::Verdict::Deny);
            let Some(pb::decision_event::Action::Exec(exec)) = &decision.action else { panic!("no exec") };
            assert_eq!(exec.requested_path, called);
            assert!(exec.file_id.split(':').count() == 3 && event.process.is_some());
            let why = decision.message.strip_prefix("the kernel refused it before it was loaded: ");
            Some(why.unwrap().to_owned())
        }
        _ => None,
    }
}

#[test]
fn an_exec_that_nobody_approved_is_refused_and_its_caller_lives() {
    let world = world(|_| allow());
    // No filter, so no question.
    let ended = world.run(&args([&"-", &"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout, ended.code), (stopped(), Some(0)));
    assert_eq!(world.count("ran"), 0);
    let why = world.event("a stopped exec", |event| why_stopped(event, programs().effect.to_str().unwrap()));
    assert_eq!(why, "nothing was approved for this thread");
    check_counts(&world, 1, 0);
    let ended = world.run(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exit 0\n", 1));
    check_counts(&world, 1, 0);
}

#[test]
fn a_cgroup_below_a_scope_is_in_it_and_one_beside_it_is_not() {
    let world = world(|_| allow());
    let run = |folder: &Path| {
        fs::create_dir(folder).unwrap();
        let actor = Command::new(&programs().actor)
            .args(args([
                &folder.join("cgroup.procs"),
                &"-",
                &"run",
                &programs().effect,
                &world.folder.path(),
                &"ran",
            ]))
            .output();
        while fs::remove_dir(folder).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        String::from_utf8(actor.unwrap().stdout).unwrap()
    };
    let main = &world.scope.subjects[0].cgroup;
    assert_eq!((run(&main.join("below")), world.count("ran")), (stopped(), 0));
    assert_eq!((run(&main.with_file_name("beside")), world.count("ran")), ("exit 0\n".into(), 1));
}

#[test]
fn a_file_that_is_swapped_after_its_approval_is_refused() {
    let folder = tempfile::TempDir::with_prefix("clawsec-test-").unwrap();
    let (name, other) = (folder.path().join("program"), folder.path().join("other"));
    fs::copy(&programs().good, &name).unwrap();
    fs::copy(&programs().evil, &other).unwrap();
    let swap = (name.clone(), other);
    // The question comes when the file was found, and the answer lets the kernel look for itself.
    let world = world(move |_| {
        let _ = fs::rename(&swap.1, &swap.0);
        allow()
    });
    let command = args([&"run", &name, &world.folder.path()]);
    assert_eq!(world.run(&command).stdout, stopped());
    assert_eq!((world.count("good"), world.count("evil")), (0, 0));
    let why = world.event("a stopped exec", |event| why_stopped(event, name.to_str().unwrap()));
    assert_eq!(why, "the kernel loaded another file than the approved one");
    // The next time the other file is what is asked about.
    assert_eq!((world.run(&command).stdout.as_str(), world.count("evil")), ("exit 0\n", 1));
    check_counts(&world, 1, 0);
    // What was refused had an approval, which is gone and is not missed.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(world.gate().waiting_approvals(), 0);
    assert!(world.sink.losses.lock().unwrap().is_empty());
}

fn script(path: &Path, first: &str, rest: &str) {
    fs::write(path, format!("{first}\n{rest}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn nested_scripts_run_when_allowed_and_are_refused_at_the_first_of_them() {
    let world = world(|_| allow());
    let (outer, inner) = (world.path("outer"), world.path("inner"));
    script(&inner, "#!/bin/sh", &format!("echo x >>{}", world.path("ran").display()));
    script(&outer, &format!("#!{} option", inner.display()), "");
    let ended = world.run(&args([&"run", &outer, &"argument"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exit 0\n", 2));
    check_counts(&world, 0, 0);
    let ended = world.run(&args([&"-", &"run", &outer, &"argument"]));
    assert_eq!((ended.stdout, world.count("ran")), (stopped(), 2));
    check_counts(&world, 1, 0);
}

#[test]
fn a_script_that_is_replaced_after_its_approval_is_refused_where_there_is_bpf_lsm() {
    let folder = tempfile::TempDir::with_prefix("clawsec-test-").unwrap();
    let (name, other) = (folder.path().join("script"), folder.path().join("other"));
    script(&name, "#!/bin/sh", "exit 21");
    script(&other, "#!/bin/sh", "exit 22");
    let swap = (name.clone(), other);
    let world = world(move |question| {
        let Some(pb::question::Action::Exec(exec)) = &question.action else { return deny() };
        if exec.argv.last().is_some_and(|last| last == "swap") {
            fs::rename(&swap.1, &swap.0).unwrap();
        }
        allow()
    });
    assert_eq!(world.run(&args([&"run", &name, &"as it is"])).stdout, "exit 21\n");
    // The interpreter and its arguments are the approved ones, so nothing but the script tells them apart.
    let ended = world.run(&args([&"run", &name, &"swap"]));
    if has_lsm() {
        assert_eq!(ended.stdout, stopped());
        check_counts(&world, 1, 0);
    } else {
        assert_ne!(ended.stdout, "exit 21\n", "nothing was swapped");
    }
}

#[test]
fn descriptors_memfds_and_threads_run_when_allowed_and_are_refused_when_not() {
    let world = world(|_| allow());
    let effect = &programs().effect;
    let memory = format!("mem:{}", effect.display());
    let folder = world.folder.path();
    let commands = [
        ("descriptor", args([&"fexec", effect, &folder, &"descriptor"])),
        ("memory", args([&"fexec", &memory, &folder, &"memory"])),
        ("thread", args([&"exec-thread", effect, &folder, &"thread"])),
    ];
    for (name, command) in commands {
        let mut unfiltered = args([&"-"]).to_vec();
        unfiltered.extend(command.clone());
        let ended = world.run(&unfiltered);
        // 100: the actor lives on and says so.
        let expected = if has_lsm() { (Some(100), None) } else { (None, Some(9)) };
        assert_eq!((ended.code, ended.signal), expected, "{name}");
        assert_eq!(world.count(name), 0);
        let ended = world.run(&command);
        assert_eq!((ended.code, world.count(name)), (Some(0), 1), "{name}: {ended:?}");
    }
    check_counts(&world, 3, 0);
}

// A shell of the host stops itself, is moved into the sandbox's cgroup, perhaps with an approval, and execs the effect.
fn exec_after_move(world: &World, approved: Option<&[&str]>, executed: &[&str]) -> ExitStatus {
    let effect = programs().effect.to_str().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\"", effect]).args(executed);
    let mut child = shell.spawn().unwrap();
    let pid = child.id() as i32;
    while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::write(world.scope.subjects[0].cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
    if let Some(approved) = approved {
        let file = fs::File::open(effect).unwrap();
        let argv: Vec<Vec<u8>> =
            [effect].iter().chain(approved).map(|text| text.as_bytes().to_vec()).collect();
        world.gate().approve_once(pid, file.as_fd(), &argv).unwrap();
    }
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    child.wait().unwrap()
}

#[test]
fn other_arguments_than_the_approved_ones_never_run() {
    let world = world(|_| allow());
    let folder = std::str::from_utf8(world.folder.path().as_os_str().as_bytes()).unwrap().to_owned();
    let ended = exec_after_move(&world, Some(&[&folder, "right"]), &[&folder, "right"]);
    assert_eq!((ended.code(), world.count("right")), (Some(0), 1));
    // As many of them: only the image's memory tells, so it is killed on each kernel.
    let ended = exec_after_move(&world, Some(&[&folder, "right"]), &[&folder, "wrong"]);
    assert_eq!((ended.signal(), world.count("wrong")), (Some(9), 0));
    check_counts(&world, 0, 1);
    // Another number of them: the shell lives and says 126.
    let ended = exec_after_move(&world, Some(&[&folder, "right"]), &[&folder, "wrong", "more"]);
    assert_eq!(ended.code().or(ended.signal()), Some(if has_lsm() { 126 } else { 9 }));
    assert_eq!(world.count("wrong"), 0);
    check_counts(&world, 1, 1);
}

#[test]
fn a_process_that_is_moved_in_without_a_filter_cannot_exec_with_and_without_the_gate() {
    let mut world = world(|_| allow());
    let folder = world.folder.path().to_str().unwrap().to_owned();
    let ended = exec_after_move(&world, None, &[&folder, "ran"]);
    assert_eq!(ended.code().or(ended.signal()), Some(if has_lsm() { 126 } else { 9 }));
    check_counts(&world, 1, 0);
    assert_eq!(exec_after_move(&world, Some(&[&folder, "ran"]), &[&folder, "ran"]).code(), Some(0));
    assert_eq!(world.count("ran"), 1);
    // An approval is for one exec.
    let ended = exec_after_move(&world, None, &[&folder, "ran"]);
    assert_eq!(ended.code().or(ended.signal()), Some(if has_lsm() { 126 } else { 9 }));

    // What is pinned stays when the gate is gone.
    let mut actor = world.start(&args([&"exec-stay", &world.path("missing")]));
    world.end_gate(&mut actor);
    drop(actor);
    let ended = exec_after_move(&world, None, &[&folder, "ran"]);
    assert_eq!(ended.code().or(ended.signal()), Some(if has_lsm() { 126 } else { 9 }));
    assert_eq!(world.count("ran"), 1);
    assert!(fs::read_dir(&world.pins).unwrap().count() > 0);
}
