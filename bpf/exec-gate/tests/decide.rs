//! Allow, deny, cache and errors, on the real kernel.

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clawsec_core::pb;
use common::{World, allow, args, decided, decision, deny, programs};

#[test]
fn an_allowed_exec_runs_and_the_question_says_what_it_is() {
    let world = World::new(|_| allow());
    let ended = world.run(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("exit 0\n", ""));
    assert_eq!(world.count("ran"), 1);
    let question = world.asker.questions.lock().unwrap()[0].clone();
    let Some(pb::question::Action::Exec(exec)) = question.action else { panic!("not an exec") };
    let effect = programs().effect.to_str().unwrap();
    assert_eq!((exec.requested_path.as_str(), exec.executable.as_str()), (effect, effect));
    assert_eq!(exec.argv, [effect, world.folder.path().to_str().unwrap(), "ran"]);
    assert_eq!(exec.environment_names, ["TEST_SECRET"]);
    assert_eq!(exec.cwd, world.folder.path().to_str().unwrap());
    assert_eq!(exec.kind(), pb::ExecutableKind::File);
    assert_eq!(question.subject, "main");
    let process = question.process.unwrap();
    assert_eq!((process.comm.as_str(), process.uid), ("actor", 0));
    assert!(process.sandbox_pid > 0);

    // The events tell the same story: decided, verified, ended.
    let exec_id = world.event("verified", |event| match &event.kind {
        Some(pb::event::Kind::Exec(seen)) if seen.verified => Some(seen.exec_id.clone()),
        _ => None,
    });
    assert_eq!(exec_id, exec.exec_id);
    let status = world.event("exit", |event| match &event.kind {
        Some(pb::event::Kind::Exit(exit)) if exit.exec_id == exec_id => exit.exit,
        _ => None,
    });
    assert_eq!(status, pb::ExitStatus { code: 0, signal: 0 });
}

#[test]
fn a_denied_exec_fails_with_eacces_and_says_why() {
    let world = World::new(|question| {
        let Some(pb::question::Action::Exec(exec)) = &question.action else { return deny() };
        if exec.argv.last().is_some_and(|last| last == "denied") { deny() } else { allow() }
    });
    let ended = world.run(&args([&"exec", &programs().effect, &world.folder.path(), &"denied"]));
    assert_eq!(ended.stdout, format!("errno {}\n", libc::EACCES));
    let effect = programs().effect.display();
    assert_eq!(
        ended.stderr,
        format!("clawsec: {effect} denied by rule exec/deny (test): because of the test\n")
    );
    assert_eq!(world.count("denied"), 0);
    let ended = world.run(&args([&"exec", &programs().effect, &world.folder.path(), &"allowed"]));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(world.count("allowed"), 1);
}

#[test]
fn without_an_approval_an_image_is_killed_before_its_first_instruction() {
    let world = World::new(|_| allow());
    // No filter, so no question.
    let ended = world.run(&args([&"-", &"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!(ended.stdout, "signal 9\n");
    assert_eq!(world.count("ran"), 0);
    assert_eq!(world.killed_because(), "nothing was approved for this thread");
    let ended = world.run(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exit 0\n", 1));
}

#[test]
fn a_cgroup_below_a_scope_is_in_it() {
    let world = World::new(|_| allow());
    let below = world.scope.subjects[0].cgroup.join("below");
    fs::create_dir(&below).unwrap();
    let status = std::process::Command::new(&programs().actor)
        .args(args([
            &below.join("cgroup.procs"),
            &"-",
            &"run",
            &programs().effect,
            &world.folder.path(),
            &"ran",
        ]))
        .output();
    assert_eq!(status.unwrap().stdout, b"signal 9\n");
    fs::remove_dir(&below).unwrap();
    assert_eq!(world.count("ran"), 0);
}

#[test]
fn approve_once_allows_exactly_one_exec_of_exactly_that() {
    let world = World::new(|_| allow());
    let effect = &programs().effect;
    let file = fs::File::open(effect).unwrap();
    let folder = world.folder.path().to_str().unwrap();
    let run = |approved: &str| {
        // The child stops itself before its exec, and so waits for the approval.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "kill -STOP $$; exec \"$0\" \"$1\" \"$2\"", effect.to_str().unwrap(), folder, "ran"])
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let stat = format!("/proc/{pid}/stat");
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::write(world.scope.subjects[0].cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
        let argv = [effect.to_str().unwrap(), folder, approved].map(|text| text.as_bytes().to_vec());
        world.gate().approve_once(pid, std::os::fd::AsFd::as_fd(&file), &argv).unwrap();
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(pid, libc::SIGCONT) };
        child.wait().unwrap()
    };
    assert!(run("ran").success());
    assert_eq!(world.count("ran"), 1);
    assert!(!run("other").success());
    assert_eq!(world.count("ran"), 1);
    assert_eq!(world.killed_because(), "its arguments are not the approved ones");
}

#[test]
fn a_verdict_is_asked_once_and_again_under_a_new_epoch_or_for_a_changed_file() {
    let world = World::new(|_| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..allow() });
    let copy = world.path("program");
    fs::copy(&programs().effect, &copy).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let run = |name: &str| {
        let ended = world.run(&args([&"run", &copy, &world.folder.path(), &name]));
        assert_eq!(ended.stdout, "exit 0\n");
    };
    run("a");
    run("b");
    assert_eq!(world.questions(), 1);
    let layer = world.event("a cached decision", |event| {
        decided(event).filter(|decision| decision.layer == "cache").map(|decision| decision.rule.clone())
    });
    assert_eq!(layer, "exec/allow");
    world.asker.epoch.store(2, Ordering::Relaxed);
    run("c");
    run("d");
    assert_eq!(world.questions(), 2);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o711)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    run("e");
    assert_eq!(world.questions(), 3);
    // The same inode under another name is another executable to a rule.
    let link = world.path("hardlink");
    fs::hard_link(&copy, &link).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    world.run(&args([&"run", &link, &world.folder.path(), &"f"]));
    assert_eq!(world.questions(), 4);
}

#[test]
fn a_verdict_for_arguments_is_not_used_for_others() {
    let world = World::new(|question| {
        let Some(pb::question::Action::Exec(exec)) = &question.action else { return deny() };
        let answer = if exec.argv[2] == "good" { allow() } else { deny() };
        pb::Decision { cache_scope: pb::CacheScope::FileArgv.into(), ..answer }
    });
    std::thread::sleep(Duration::from_millis(200));
    let run = |name: &str| world.run(&args([&"run", &programs().effect, &world.folder.path(), &name])).stdout;
    for _ in 0..2 {
        assert_eq!(run("good"), "exit 0\n");
        assert_eq!(run("evil"), format!("exit {}\n", libc::EACCES));
    }
    assert_eq!((world.questions(), world.count("good"), world.count("evil")), (2, 2, 0));
}

#[test]
fn errors_of_the_path_are_answered_without_a_question() {
    let world = World::new(|_| allow());
    fs::write(world.path("plain"), "text").unwrap();
    symlink("loop", world.path("loop")).unwrap();
    for (path, errno) in [
        ("missing", libc::ENOENT),
        ("plain", libc::EACCES),
        ("plain/x", libc::ENOTDIR),
        ("loop", libc::ELOOP),
        ("bpffs", libc::EACCES),
        ("", libc::ENOENT),
        ("../../../../../../../../nowhere", libc::ENOENT),
    ] {
        let ended = world.run(&args([&"exec", &path]));
        assert_eq!(ended.stdout, format!("errno {errno}\n"), "{path:?}");
    }
    assert_eq!(world.questions(), 0);
    let ended = world.run(&args([&"exec", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.code, world.questions()), (Some(0), 1));
}

// A shell reads what the kernel does not load by itself, so the answer to the exec decides about that.
#[test]
fn a_text_without_an_interpreter_is_decided_as_a_script_and_never_loaded() {
    let written = |world: &World, name: &str, text: &str| {
        fs::write(world.path(name), text).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        world.path(name).to_str().unwrap().to_owned()
    };
    for (decision, errno) in [(allow(), libc::ENOEXEC), (deny(), libc::EACCES)] {
        let answer = decision.clone();
        let world = World::new(move |_| answer.clone());
        let plain = written(&world, "plain", "echo ran");
        let other = written(&world, "other", "no program");
        let named = written(&world, "named", &format!("#!{other}\necho ran"));
        for (path, executable) in [(&plain, &plain), (&named, &other)] {
            let ended = world.run(&args([&"exec", path]));
            assert_eq!(ended.stdout, format!("errno {errno}\n"), "{path}");
            let question = world.asker.questions.lock().unwrap().pop().unwrap();
            let Some(pb::question::Action::Exec(exec)) = question.action else { panic!("not an exec") };
            assert_eq!((&exec.script, &exec.executable), (path, executable));
            assert!(exec.check && exec.exec_id.is_empty() && exec.code() == pb::ExecCode::File, "{exec:?}");
        }
        assert_eq!(world.gate().waiting_approvals(), 0);
    }
}

#[test]
fn a_shell_reads_a_text_by_itself_where_its_exec_is_allowed_and_not_where_it_is_denied() {
    for (decision, ran) in [(allow(), "ran\n"), (deny(), "")] {
        let answer = decision.clone();
        let world = World::new(move |question| match &question.action {
            Some(pb::question::Action::Exec(exec)) if exec.script.ends_with("/text.sh") => answer.clone(),
            _ => allow(),
        });
        let text = world.path("text.sh");
        fs::write(&text, "echo ran").unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        let line = format!("{}; true", text.display());
        for shell in ["/bin/dash", "/bin/bash"] {
            let ended = world.run(&args([&"exec", &shell, &"-c", &line]));
            assert_eq!((ended.stdout.as_str(), ended.code), (ran, Some(0)), "{shell}: {ended:?}");
        }
    }
}

#[test]
fn links_relative_paths_and_descriptors_lead_to_the_file_that_runs() {
    let world = World::new(|_| allow());
    let effect = fs::canonicalize(&programs().effect).unwrap();
    fs::create_dir(world.path("dir")).unwrap();
    symlink(&effect, world.path("dir/link")).unwrap();
    symlink("dir/link", world.path("second")).unwrap();
    symlink("/proc/self/exe", world.path("self")).unwrap();
    let folder = world.folder.path().to_str().unwrap();
    let up = format!("../{}/second", world.folder.path().file_name().unwrap().display());
    let paths = ["second", "./second", "dir/../second", "dir/./link", "dir//link", &up];
    for (number, path) in paths.into_iter().enumerate() {
        let ended = world.run(&args([&"run", &path, &folder, &"ran"]));
        assert_eq!(ended.stdout, "exit 0\n", "{path}: {}", ended.stderr);
        assert_eq!(world.count("ran"), number as u64 + 1);
        let question = world.asker.questions.lock().unwrap()[number].clone();
        let Some(pb::question::Action::Exec(exec)) = question.action else { panic!("not an exec") };
        assert_eq!(exec.executable, effect.to_str().unwrap());
    }
    // The caller's own image, not the gate's: it starts, and complains about its arguments.
    let ended = world.run(&args([&"run", &"self"]));
    assert_eq!(ended.stdout, "exit 98\n");
    let ended = world.run(&args([&"fexec", &effect, &folder, &"fexec"]));
    assert_eq!((ended.code, world.count("fexec")), (Some(0), 1), "{ended:?}");
}

#[test]
fn memfd_and_no_argv_and_a_thread_that_is_not_the_leader_run_as_what_they_are() {
    let world = World::new(|_| allow());
    let effect = &programs().effect;
    let source = format!("mem:{}", effect.display());
    let ended = world.run(&args([&"fexec", &source, &world.folder.path(), &"memfd"]));
    assert_eq!((ended.code, world.count("memfd")), (Some(0), 1), "{ended:?}");
    let question = world.asker.questions.lock().unwrap().pop().unwrap();
    let Some(pb::question::Action::Exec(exec)) = question.action else { panic!("not an exec") };
    assert_eq!(exec.kind(), pb::ExecutableKind::Anonymous);
    // It complains about its missing arguments: so it ran.
    let ended = world.run(&args([&"exec-noargv", effect]));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let ended = world.run(&args([&"exec-thread", effect, &world.folder.path(), &"thread"]));
    assert_eq!((ended.code, world.count("thread")), (Some(0), 1), "{ended:?}");
}

#[test]
fn scripts_are_asked_about_with_their_interpreter_and_run() {
    let world = World::new(|_| allow());
    let script = |name: &str, text: String| {
        fs::write(world.path(name), text).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        world.path(name)
    };
    let one = script("one", "#!/bin/sh -e\necho \"$0|$1\"\n".into());
    let two = script("two", format!("#! {} x\n", one.display()));
    let ended = world.run(&args([&"exec", &one, &"a b"]));
    assert_eq!(ended.stdout, format!("{}|a b\n", one.display()), "{ended:?}");
    let ended = world.run(&args([&"exec", &two]));
    assert_eq!(ended.stdout, format!("{}|x\n", one.display()), "{ended:?}");
    let question = world.asker.questions.lock().unwrap()[1].clone();
    let Some(pb::question::Action::Exec(exec)) = question.action else { panic!("not an exec") };
    assert_eq!(exec.script, two.to_str().unwrap());
    assert_eq!(exec.executable, fs::canonicalize("/bin/sh").unwrap().to_str().unwrap());
    assert_eq!(exec.argv, [two.to_str().unwrap()]);

    // Each is the interpreter of the next; the kernel follows five.
    let mut last = script("n0", "#!/bin/sh\necho ran\n".into());
    for depth in 1..=5 {
        last = script(&format!("n{depth}"), format!("#!{}\n", last.display()));
        let ended = world.run(&args([&"exec", &last]));
        let expected = if depth < 5 { "ran\n".into() } else { format!("errno {}\n", libc::ELOOP) };
        assert_eq!(ended.stdout, expected, "depth {depth}");
    }
}

#[test]
fn too_many_arguments_are_refused_and_the_limit_itself_runs() {
    let world = World::new(|_| allow());
    let effect = &programs().effect;
    let fixed = effect.as_os_str().len() + world.folder.path().as_os_str().len() + "ran".len() + 4;
    let fits = "x".repeat(128 * 1024 - fixed);
    // One argument of the kernel is 128 KiB at most, so it is cut in two.
    let run = |text: &str| {
        let (one, two) = text.split_at(text.len() / 2);
        world.run(&args([&"exec", effect, &world.folder.path(), &"ran", &one, &two]))
    };
    let ended = run(&fits[1..]);
    assert_eq!((ended.code, world.count("ran")), (Some(0), 1), "{ended:?}");
    let ended = run(&fits);
    assert_eq!(ended.stdout, format!("errno {}\n", libc::EACCES));
    assert!(ended.stderr.contains("128 KiB"), "{ended:?}");
    assert_eq!(world.count("ran"), 1);
}

#[test]
fn verification_goes_on_when_the_gate_is_gone_and_a_new_gate_takes_over() {
    let mut world = World::new(|_| allow());
    world.gate = None;
    let run = |world: &World| {
        world.run(&args([&"-", &"run", &programs().effect, &world.folder.path(), &"ran"])).stdout
    };
    assert_eq!(run(&world), "signal 9\n");
    let generations = |world: &World| fs::read_dir(&world.pins).unwrap().count();
    assert_eq!(generations(&world), 1);
    world.load();
    assert_eq!(generations(&world), 1);
    assert_eq!(run(&world), "signal 9\n");
    let ended = world.run(&args([&"run", &programs().effect, &world.folder.path(), &"ran"]));
    assert_eq!((ended.stdout.as_str(), world.count("ran")), ("exit 0\n", 1));
}

#[test]
fn an_approval_whose_exec_failed_is_taken_back() {
    let world = World::new(|_| allow());
    // An ELF file that no kernel loads.
    fs::write(world.path("broken"), [b"\x7fELF".as_slice(), &[0; 100]].concat()).unwrap();
    fs::set_permissions(world.path("broken"), fs::Permissions::from_mode(0o755)).unwrap();
    let ended = world.run(&args([&"exec", &world.path("broken")]));
    assert_eq!(ended.stdout, format!("errno {}\n", libc::ENOEXEC));
    let rule = decision(pb::Verdict::Allow, "exec/allow").rule;
    let unseen = world.event("the decision", |event| match &event.kind {
        Some(pb::event::Kind::Decision(decision)) if decision.rule == rule => Some(decision.exec_unseen),
        _ => None,
    });
    assert!(unseen, "the audit must say that nothing came of it");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(world.gate().waiting_approvals(), 0);
}

#[test]
fn links_of_proc_mean_the_caller_also_in_a_pid_namespace_of_its_own() {
    let world = World::new(|_| allow());
    let effect = &programs().effect;
    for (number, path) in
        ["/proc/self/fd/9", "/dev/fd/9", "/proc/thread-self/fd/9", "/proc/1/fd/9"].iter().enumerate()
    {
        let ended = world.run(&args([&"pidns", effect, path, &world.folder.path(), &"ran"]));
        assert_eq!(ended.stdout, "exit 0\n", "{path}: {}", ended.stderr);
        assert_eq!(world.count("ran"), number as u64 + 1);
        let process = world.asker.questions.lock().unwrap()[number].process.clone().unwrap();
        assert_eq!(process.sandbox_pid, 1);
    }
    // The caller's own image: it starts, and complains about its arguments.
    let ended = world.run(&args([&"pidns", effect, &"/proc/self/exe"]));
    assert_eq!(ended.stdout, "exit 98\n");
    let ended = world.run(&args([&"pidns", effect, &"/proc/2/exe"]));
    assert_eq!(ended.stdout, format!("exit {}\n", libc::ENOENT));
}

#[test]
fn a_denial_does_not_wait_for_a_full_standard_error() {
    let world = World::new(|_| deny());
    let ended = world.run(&args([&"exec-fullerr", &programs().effect, &world.folder.path(), &"ran"]));
    let rest = ended.stdout.strip_prefix(&format!("errno {} after ", libc::EACCES)).unwrap().trim();
    assert!(rest.parse::<f64>().unwrap() < 2000.0, "{ended:?}");
    assert_eq!(world.count("ran"), 0);
}

#[test]
fn arguments_are_shown_all_however_many_they_are() {
    let world = World::new(|_| allow());
    let run = |count: usize| {
        let count = count.to_string();
        let folder = world.folder.path();
        world.run(&args([&"exec-count", &"arguments", &count, &programs().effect, &folder, &"ran"]))
    };
    for (done, count) in [4096, 4097, 20_000].into_iter().enumerate() {
        let ended = run(count);
        assert_eq!((ended.code, world.count("ran")), (Some(0), done as u64 + 1), "{ended:?}");
        let exec = world.execs().pop().unwrap();
        assert_eq!((exec.argv.len(), exec.argv_truncated), (count, false));
        assert_eq!((exec.argv[2].as_str(), exec.argv[count - 1].as_str()), ("ran", "end"));
    }
    let ended = run(70_000);
    assert_eq!(ended.stdout, format!("errno {}\n", libc::EACCES));
    assert!(ended.stderr.contains("128 KiB"), "{ended:?}");
    assert_eq!((world.count("ran"), world.questions()), (3, 3));
}

#[test]
fn no_name_of_the_environment_is_hidden_behind_others() {
    let world = World::new(|_| allow());
    let run = |count: usize| {
        let count = count.to_string();
        let folder = world.folder.path();
        world.run(&args([&"exec-count", &"names", &count, &programs().effect, &folder, &"ran"]))
    };
    for (done, count) in [1, 1024, 9000].into_iter().enumerate() {
        let ended = run(count);
        assert_eq!((ended.code, world.count("ran")), (Some(0), done as u64 + 1), "{ended:?}");
        let names = world.execs().pop().unwrap().environment_names;
        assert_eq!((names.len(), names.last().unwrap().as_str()), (count + 1, "LD_PRELOAD"));
    }
    let ended = run(30_000);
    assert_eq!(ended.stdout, format!("errno {}\n", libc::EACCES));
    assert!(ended.stderr.contains("environment"), "{ended:?}");
    assert_eq!((world.count("ran"), world.questions()), (3, 3));
}

#[test]
fn commands_that_are_the_same_text_and_other_bytes_have_other_hashes() {
    let world = World::new(|_| deny());
    for name in [b"\xff", b"\xfe", b"\xff"] {
        let name = std::ffi::OsStr::from_bytes(name);
        world.run(&args([&"exec", &programs().effect, &world.folder.path(), &name]));
    }
    let [one, other, again] = world.execs().try_into().unwrap();
    assert_eq!(one.argv, other.argv);
    assert_ne!(one.argv_hash, other.argv_hash);
    assert_eq!(one.argv_hash, again.argv_hash);
}
