//! Facts of questions that are found out with some effort: what files contain, and which images led to a process.

mod common;

use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{World, allow, args, decided, deny, hold, programs, sha256};

fn look_at_contents(world: &World, epoch: u64, sha256: bool) {
    let tables = pb::PolicyTables { epoch, facts: Some(pb::FactsNeeded { sha256 }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

/// Writes other bytes into the same inode.
fn overwrite(path: &Path, with: &Path) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.set_len(0).unwrap();
    file.write_all(&fs::read(with).unwrap()).unwrap();
}

#[test]
fn questions_show_what_the_image_and_the_script_contain_when_the_policy_looks_at_it() {
    let world = World::new(|_| allow());
    let run = |program: &Path| world.run(&args([&"run", &program, &world.folder.path(), &"ran"])).stdout;
    assert_eq!(run(&programs().effect), "exit 0\n");
    let exec = world.execs().pop().unwrap();
    assert_eq!((exec.executable_sha256.as_str(), exec.script_sha256.as_str()), ("", ""));

    look_at_contents(&world, 1, true);
    assert_eq!(run(&programs().effect), "exit 0\n");
    let exec = world.execs().pop().unwrap();
    assert_eq!((exec.executable_sha256, exec.script_sha256), (sha256(&programs().effect), String::new()));

    let script = world.path("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    executable(&script);
    assert_eq!(run(&script), "exit 0\n");
    let exec = world.execs().pop().unwrap();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    assert_eq!((exec.executable_sha256, exec.script_sha256), (sha256(&shell), sha256(&script)));
    // Known, now: the same again.
    assert_eq!(run(&programs().effect), "exit 0\n");
    assert_eq!(world.execs().pop().unwrap().executable_sha256, sha256(&programs().effect));
}

#[test]
fn a_held_image_and_a_memfd_show_their_content_too() {
    let world = World::new(|question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.kind() == pb::ExecutableKind::File => hold(),
        _ => allow(),
    });
    look_at_contents(&world, 1, true);
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let mut held = world.take_hold();
    assert_eq!(held.wait_held().executable_sha256, sha256(&programs().effect));
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "exit 0\n");
    let memory = format!("mem:{}", programs().effect.display());
    let ended = world.run(&args([&"fexec", &memory, &world.folder.path(), &"memory"]));
    assert_eq!((ended.code, world.count("memory")), (Some(0), 1), "{ended:?}");
    assert_eq!(world.execs().pop().unwrap().executable_sha256, sha256(&programs().effect));
}

#[test]
fn another_content_of_the_same_file_is_asked_about_again_also_when_its_time_was_set_back() {
    let good = sha256(&programs().good);
    let world = World::new(move |question| {
        let Some(pb::question::Action::Exec(exec)) = &question.action else { return deny() };
        let answer = if exec.executable_sha256 == good { allow() } else { deny() };
        pb::Decision { cache_scope: pb::CacheScope::File.into(), ..answer }
    });
    look_at_contents(&world, 1, true);
    let program = world.path("program");
    fs::copy(&programs().good, &program).unwrap();
    settle();
    let run = || world.run(&args([&"run", &program, &world.folder.path()])).stdout;
    let denied = format!("exit {}\n", libc::EACCES);
    for _ in 0..2 {
        assert_eq!(run(), "exit 0\n");
    }
    assert_eq!((world.questions(), world.count("good")), (1, 2));

    let before = fs::metadata(&program).unwrap();
    for (round, times) in [None, Some(before.modified().unwrap())].into_iter().enumerate() {
        overwrite(&program, &programs().evil);
        if let Some(modified) = times {
            // Size and modification time are as they were; nobody can set the change time.
            let file = File::options().write(true).open(&program).unwrap();
            file.set_times(FileTimes::new().set_modified(modified)).unwrap();
            let now = fs::metadata(&program).unwrap();
            assert_eq!((now.ino(), now.modified().unwrap()), (before.ino(), modified));
        }
        // At once, and later: neither the verdict nor the hash of the old content is used.
        assert_eq!(run(), denied, "round {round}");
        assert_eq!(world.execs().pop().unwrap().executable_sha256, sha256(&programs().evil));
        settle();
        assert_eq!(run(), denied, "round {round}");
        assert_eq!(world.count("evil"), 0);
        overwrite(&program, &programs().good);
        settle();
        let asked = world.questions();
        assert_eq!(run(), "exit 0\n", "round {round}");
        assert_eq!(world.questions(), asked + 1);
    }
}

#[test]
fn a_file_that_is_too_large_to_look_at_is_denied_and_allowed_when_nobody_looks() {
    let world = World::new(|_| allow());
    look_at_contents(&world, 1, true);
    let program = world.path("large");
    fs::copy(&programs().effect, &program).unwrap();
    let run = |name: &str| world.run(&args([&"run", &program, &world.folder.path(), &name]));
    assert_eq!((run("small").stdout.as_str(), world.questions()), ("exit 0\n", 1));
    // Sparse: an ELF file may have anything behind it.
    File::options().write(true).open(&program).unwrap().set_len((512 << 20) + 1).unwrap();
    let ended = run("large-ran");
    assert_eq!(ended.stdout, format!("exit {}\n", libc::EACCES));
    assert!(ended.stderr.contains("larger than 512 MiB"), "{ended:?}");
    assert_eq!((world.questions(), world.count("large-ran")), (1, 0));
    world.asker.epoch.store(2, Ordering::Relaxed);
    look_at_contents(&world, 2, false);
    assert_eq!((run("large-ran").stdout.as_str(), world.count("large-ran")), ("exit 0\n", 1));
}

#[test]
fn a_question_that_is_open_when_the_policy_begins_to_look_is_asked_again_with_the_content() {
    let world = World::new(|_| hold());
    world.asker.keep_open();
    let actor = world.start(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let first = world.take_hold();
    let Some(pb::question::Action::Exec(exec)) = &first.question.action else { panic!("not an exec") };
    assert_eq!(exec.executable_sha256, "");
    look_at_contents(&world, 2, true);
    first.decide(pb::Verdict::Allow);
    let second = world.take_hold();
    let Some(pb::question::Action::Exec(exec)) = &second.question.action else { panic!("not an exec") };
    assert_eq!(exec.executable_sha256, sha256(&programs().effect));
    assert_eq!(world.count("ran"), 0);
    second.decide(pb::Verdict::Allow);
    assert_eq!((actor.wait().stdout.as_str(), world.count("ran")), ("exit 0\n", 1));
}

#[test]
fn reading_a_large_file_does_not_keep_others_waiting() {
    let world = World::new(|_| allow());
    look_at_contents(&world, 1, true);
    let large = world.path("large");
    fs::copy(&programs().effect, &large).unwrap();
    // As large as is read at all: the hash is compiled with optimization, also for tests.
    File::options().write(true).open(&large).unwrap().set_len(512 << 20).unwrap();
    settle();
    // Known before: only the large one is read.
    world.run(&args([&"run", &programs().effect, &world.folder.path(), &"small"]));
    let slow: Vec<_> =
        (0..4).map(|_| world.start(&args([&"run", &large, &world.folder.path(), &"large-ran"]))).collect();
    std::thread::sleep(Duration::from_millis(50));
    let since = Instant::now();
    world.run(&args([&"run", &programs().effect, &world.folder.path(), &"small"]));
    let took = since.elapsed();
    assert_eq!((world.count("small"), world.count("large-ran")), (2, 0), "after {took:?}");
    for actor in slow {
        assert_eq!(actor.wait().stdout, "exit 0\n");
    }
    println!("{took:?} beside four readers");
    assert_eq!(world.count("large-ran"), 4);
}

/// The process of the last question.
fn process(world: &World) -> pb::Process {
    world.asker.questions.lock().unwrap().last().unwrap().process.clone().unwrap()
}

#[test]
fn the_executables_that_led_to_a_process_are_told_nearest_first() {
    let world = World::new(|_| allow());
    let shell = fs::canonicalize("/bin/sh").unwrap().to_str().unwrap().to_owned();
    let env = fs::canonicalize("/usr/bin/env").unwrap().to_str().unwrap().to_owned();
    let actor = programs().actor.to_str().unwrap().to_owned();
    let folder = world.folder.path().to_str().unwrap();
    let effect = programs().effect.to_str().unwrap();
    // The parent in between is dead, and its child was forked twice, when the program at last runs.
    let line = format!("(({effect} {folder} ran; : >{folder}/done) &) ; exit 0");
    let ended = world.run_first(&args([&"run", &"/usr/bin/env", &"/bin/sh", &"-c", &line]));
    assert_eq!(ended.stdout, "exit 0\n", "{ended:?}");
    let until = Instant::now() + common::PATIENCE;
    while !world.path("done").exists() {
        assert!(Instant::now() < until, "the orphan did not run");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(world.count("ran"), 1);
    let process = process(&world);
    assert_eq!(process.executable, shell);
    assert_eq!(process.ancestor_executables, [env, actor]);
    assert!(!process.ancestors_truncated);
}

#[test]
fn a_hundred_execs_of_a_shell_do_not_push_the_first_ancestor_out() {
    let world = World::new(|_| allow());
    let folder = world.folder.path().to_str().unwrap();
    let effect = programs().effect.to_str().unwrap();
    let again =
        "if [ $1 -gt 0 ]; then exec /bin/sh -c \"$0\" \"$0\" $(($1 - 1)) $2 $3; else exec $2 $3 ran; fi";
    let ended = world.run_first(&args([&"run", &"/bin/sh", &"-c", &again, &again, &"100", &effect, &folder]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exit 0\n", 1), "{ended:?}");
    let process = process(&world);
    assert_eq!(process.ancestors.len(), 64);
    assert_eq!(process.ancestor_executables, [programs().actor.to_str().unwrap()]);
    assert!(!process.ancestors_truncated);
}

#[test]
fn more_than_sixty_four_executables_are_said_to_be_cut_and_sixty_four_are_not() {
    let world = World::new(|_| allow());
    for (count, truncated) in [(63, false), (65, true)] {
        // Each is a shell of its own that executes the next.
        for number in 0..=count {
            fs::copy("/bin/sh", world.path(&format!("sh{number}"))).unwrap();
        }
        let again = format!(
            "if [ $1 -lt {count} ]; then exec $2/sh$(($1 + 1)) -c \"$0\" \"$0\" $(($1 + 1)) $2 $3; else exec $3 $2 ran; fi"
        );
        let first = world.path("sh0");
        let folder = world.folder.path();
        let effect = &programs().effect;
        let ended = world.run_first(&args([&"run", &first, &"-c", &again, &again, &"0", &folder, effect]));
        assert_eq!(ended.stdout, "exit 0\n", "{ended:?}");
        let process = process(&world);
        assert_eq!(process.executable, world.path(&format!("sh{count}")).to_str().unwrap());
        assert_eq!((process.ancestor_executables.len(), process.ancestors_truncated), (64, truncated));
        assert_eq!(
            process.ancestor_executables[0],
            world.path(&format!("sh{}", count - 1)).to_str().unwrap()
        );
    }
}

#[test]
fn a_process_of_unknown_origin_has_ancestors_that_cannot_be_decided_about() {
    let world = World::new(|_| allow());
    world.run(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    let process = process(&world);
    assert!(process.ancestors_truncated && process.ancestor_executables.is_empty(), "{process:?}");
}

#[test]
fn what_was_observed_is_in_the_events_of_allowed_cached_and_held_execs() {
    let observed = |decision: pb::Decision| pb::Decision {
        observed: pb::Verdict::Deny.into(),
        observed_rule: "exec/strict".into(),
        ..decision
    };
    let world = World::new(move |question| {
        let Some(pb::question::Action::Exec(exec)) = &question.action else { return deny() };
        match exec.argv[2].as_str() {
            "held" => observed(hold()),
            "plain" => allow(),
            _ => observed(pb::Decision { cache_scope: pb::CacheScope::FileArgv.into(), ..allow() }),
        }
    });
    settle();
    let run = |name: &str| world.start(&args([&"run", &programs().effect, &world.folder.path(), &name]));
    for name in ["ran", "ran", "plain"] {
        assert_eq!(run(name).wait().stdout, "exit 0\n");
    }
    let actor = run("held");
    let mut held = world.take_hold();
    held.wait_held();
    // The person's answer says nothing of it.
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "exit 0\n");
    held.next();
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let seen: Vec<_> = events
        .iter()
        .filter_map(|event| decided(event))
        .map(|seen| (seen.layer.as_str(), seen.verdict(), seen.observed(), seen.observed_rule.as_str()))
        .collect();
    let (none, no) = (pb::Verdict::Unspecified, pb::Verdict::Deny);
    assert_eq!(
        seen,
        [
            ("test", pb::Verdict::Allow, no, "exec/strict"),
            ("cache", pb::Verdict::Allow, no, "exec/strict"),
            ("test", pb::Verdict::Allow, none, ""),
            ("test", pb::Verdict::Hold, no, "exec/strict"),
            ("test", pb::Verdict::Allow, no, "exec/strict"),
        ]
    );
}

#[test]
fn a_question_tells_apart_what_nobody_is_shown() {
    let world = World::new(|_| allow());
    let folder = world.path("folder");
    let run = |value: &str| {
        fs::create_dir_all(&folder).unwrap();
        let line = format!("cd {} && X={value} exec /bin/true x", folder.display());
        assert_eq!(world.run(&args([&"run", &"/bin/sh", &"-c", &line])).stdout, "exit 0\n");
        let exec =
            world.execs().into_iter().rfind(|exec| exec.argv.len() == 2 && exec.argv[1] == "x").unwrap();
        (exec.context_hash, exec.argv_hash, exec.environment_names, exec.cwd)
    };
    let (first, other, again) = (run("1"), run("2"), run("1"));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    fs::rename(&folder, world.path("away")).unwrap();
    let elsewhere = run("1");
    assert_ne!(first.0, elsewhere.0);
    // What is shown is the same each time.
    for run in [&other, &elsewhere] {
        assert_eq!((&run.1, &run.2, &run.3), (&first.1, &first.2, &first.3));
    }
}
