//! What the audit is told of every exec and of its end, on the real kernel.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawsec_core::pb;
use clawsec_core::pb::event::Kind;
use common::{World, allow, args, deny, programs};

/// An exec as it was reported, and the end of its process.
struct Story {
    event: pb::Event,
    exec: pb::ExecEvent,
    exit: pb::ExitEvent,
    end: pb::Event,
}

impl Story {
    fn process(&self) -> &pb::Process {
        self.event.process.as_ref().unwrap()
    }

    fn status(&self) -> (i32, i32) {
        let exit = self.exit.exit.unwrap();
        (exit.code, exit.signal)
    }
}

fn execs(world: &World) -> Vec<(pb::Event, pb::ExecEvent)> {
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let exec = |event: &pb::Event| match &event.kind {
        Some(Kind::Exec(exec)) => Some((event.clone(), exec.clone())),
        _ => None,
    };
    events.iter().filter_map(exec).collect()
}

fn exits(world: &World) -> Vec<(pb::Event, pb::ExitEvent)> {
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let exit = |event: &pb::Event| match &event.kind {
        Some(Kind::Exit(exit)) => Some((event.clone(), exit.clone())),
        _ => None,
    };
    events.iter().filter_map(exit).collect()
}

/// The one exec with this last argument, and its one end. Of programs that hand their arguments on, the last: it has the
/// fewest. Waits for the end.
fn story(world: &World, mark: &str) -> Story {
    let until = Instant::now() + common::PATIENCE;
    loop {
        let mut own = execs(world);
        own.retain(|(_, exec)| exec.argv.last().is_some_and(|last| last == mark));
        let fewest = own.iter().map(|(_, exec)| exec.argc).min();
        own.retain(|(_, exec)| Some(exec.argc) == fewest);
        let mut ends = exits(world);
        ends.retain(|(_, exit)| !exit.forked && own.iter().any(|(_, exec)| exec.exec_id == exit.exec_id));
        if !ends.is_empty() {
            assert_eq!((own.len(), ends.len()), (1, 1), "{mark}: {own:?} {ends:?}");
            let ((event, exec), (end, exit)) = (own.remove(0), ends.remove(0));
            return Story { event, exec, exit, end };
        }
        assert!(Instant::now() < until, "{mark} has not begun and ended: {own:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Executables from an exec up to the sandbox's first, by the parents that the events name.
fn chain(world: &World, exec: &pb::ExecEvent) -> Vec<String> {
    let known: HashMap<String, pb::ExecEvent> =
        execs(world).into_iter().map(|(_, exec)| (exec.exec_id.clone(), exec)).collect();
    let mut next = Some(exec);
    let mut names = Vec::new();
    while let Some(exec) = next {
        names.push(Path::new(&exec.executable).file_name().unwrap().to_str().unwrap().to_owned());
        next = known.get(&exec.parent_exec_id);
    }
    names
}

#[test]
fn each_way_to_start_a_program_is_one_exec_and_one_end_with_its_parents_and_status() {
    let world = World::new(|_| allow());
    let family = &programs().family;
    let effect = &programs().effect;
    let folder = world.folder.path();
    for (way, said) in [
        ("fork", "exit 0\n"),
        ("vfork", "exit 0\n"),
        ("spawn", "exit 0\n"),
        ("orphan", "exit 0\n"),
        ("thread", ""),
    ] {
        let ended = world.run_first(&args([&"exec", family, &way, effect, &folder, &way]));
        assert_eq!((ended.stdout.as_str(), ended.code), (said, Some(0)), "{way}: {ended:?}");
        let story = story(&world, way);
        let process = story.process();
        assert_eq!(story.status(), (0, 0), "{way}");
        assert_eq!(chain(&world, &story.exec), ["effect", "family", "actor"], "{way}");
        assert_eq!(process.exec_id, story.exec.exec_id);
        assert_eq!(process.ancestors.len(), 2, "{way}: {process:?}");
        assert_eq!(process.ancestors[0], story.exec.parent_exec_id);
        assert!(story.exec.verified && story.exec.why.is_empty());
        let decision = story.exec.decision.as_ref().unwrap();
        assert_eq!((decision.verdict(), decision.rule.as_str()), (pb::Verdict::Allow, "exec/allow"));
        assert!(decision.latency_us > 0 && decision.layer == "test");
        assert_eq!((story.event.subject.as_str(), story.end.subject.as_str()), ("main", "main"));
        assert!(story.exit.started_us >= story.event.time_us - 1000, "{way}");
        assert!(story.exit.ended_us >= story.exit.started_us, "{way}");
        assert_eq!(world.count(way), 1);
    }
    // Nothing of what an exec told is told again by itself.
    let events = world.sink.events.lock().unwrap();
    assert!(!events.iter().any(|event| matches!(event.kind, Some(Kind::Decision(_)))));
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(Kind::Exec(exec)) => Some(exec.exec_id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 5 * 3);
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len(), "{ids:?}");
    assert!(world.sink.losses.lock().unwrap().is_empty());
}

#[test]
fn the_status_is_that_of_the_process_and_a_fork_that_executes_nothing_is_told_apart() {
    let world = World::new(|_| allow());
    let family = &programs().family;
    for (mode, number, status) in [("exit", "0", (0, 0)), ("exit", "7", (7, 0)), ("kill", "9", (137, 9))] {
        world.run_first(&args([&"run", family, &mode, &number]));
        let story = story(&world, number);
        assert_eq!(story.status(), status);
        world.sink.events.lock().unwrap().clear();
    }
    let ended = world.run_first(&args([&"exec", family, &"fork-only"]));
    assert_eq!(ended.stdout, "exit 5\n");
    let own = story(&world, "fork-only");
    assert_eq!(own.status(), (0, 0));
    let mut forks = exits(&world);
    forks.retain(|(_, exit)| exit.forked && exit.exec_id == own.exec.exec_id);
    assert_eq!(forks.len(), 1, "{forks:?}");
    assert_eq!(forks[0].1.exit.unwrap().code, 5);
    assert_ne!(forks[0].0.process.as_ref().unwrap().pid, own.process().pid);
}

#[test]
fn a_process_that_was_moved_into_the_cgroup_is_killed_at_its_exec_and_on_record_and_one_outside_is_not() {
    let world = World::new(|_| allow());
    let start = || {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "read go; exec /bin/echo was-moved"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        shell.spawn().unwrap()
    };
    let (mut moved, mut outside) = (start(), start());
    let procs = world.scope.subjects[0].cgroup.join("cgroup.procs");
    fs::write(procs, moved.id().to_string()).unwrap();
    for shell in [&mut moved, &mut outside] {
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let pid = moved.id();
    let (moved, outside) = (moved.wait_with_output().unwrap(), outside.wait_with_output().unwrap());
    assert_eq!((moved.stdout.as_slice(), outside.stdout.as_slice()), (&b""[..], &b"was-moved\n"[..]));

    let story = story(&world, "was-moved");
    assert_eq!((story.process().pid, story.status()), (pid, (137, 9)));
    assert!(!story.exec.verified && story.exec.decision.is_none());
    assert_eq!(story.exec.why, "nothing was approved for this thread");
    // Whence it came is not known, and that is what is said.
    assert_eq!((story.exec.parent_exec_id.as_str(), story.process().ancestors.len()), ("", 0));
    assert!(!story.exec.exec_id.is_empty());
    assert_eq!(story.exec.argv, ["/bin/echo", "was-moved"]);
    assert_eq!(story.exec.executable, fs::canonicalize("/bin/echo").unwrap().to_str().unwrap());
    assert_eq!(execs(&world).len(), 1, "the process outside is on record");
}

#[test]
fn a_tool_entry_begins_in_the_old_subject_and_ends_in_the_new_one() {
    let world = World::new(|question| {
        let mark = match &question.action {
            Some(pb::question::Action::Exec(exec)) => exec.argv.last().cloned(),
            _ => None,
        };
        let enter_subject = if mark.as_deref() == Some("entry") { "tool".into() } else { String::new() };
        pb::Decision { enter_subject, ..allow() }
    });
    let run = |mark: &str| {
        let ended = world.run_first(&args([&"run", &programs().effect, &world.folder.path(), &mark]));
        assert_eq!(ended.stdout, "exit 0\n", "{ended:?}");
        story(&world, mark)
    };
    let subjects = |story: &Story| (story.event.subject.clone(), story.end.subject.clone());
    let entered = |story: &Story| story.exec.decision.as_ref().unwrap().enter_subject.clone();
    let (entry, plain) = (run("entry"), run("plain"));
    assert_eq!((subjects(&entry), entered(&entry)), (("main".into(), "tool".into()), "tool".into()));
    assert_eq!((subjects(&plain), entered(&plain)), (("main".into(), "main".into()), String::new()));
}

#[test]
fn what_is_denied_is_a_decision_of_its_own_and_no_exec() {
    let world = World::new(|question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.argv.last().unwrap() == "no" => deny(),
        _ => allow(),
    });
    for mark in ["no", "yes"] {
        world.run_first(&args([&"run", &programs().effect, &world.folder.path(), &mark]));
    }
    assert_eq!(story(&world, "yes").status(), (0, 0));
    // The actor hands the word on; the program itself has fewer arguments.
    let refused = |exec: &pb::ExecEvent| exec.argc == 3 && exec.argv[2] == "no";
    assert!(!execs(&world).iter().any(|(_, exec)| refused(exec)));
    let events = world.sink.events.lock().unwrap();
    let denied: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(Kind::Decision(decision)) => Some((decision.verdict(), decision.exec_unseen)),
            _ => None,
        })
        .collect();
    assert_eq!(denied, [(pb::Verdict::Deny, false)]);
}

#[test]
fn the_facts_are_those_of_the_image_as_it_was_loaded() {
    let world = World::new(|_| allow());
    let (family, effect) = (&programs().family, &programs().effect);
    let folder = fs::canonicalize(world.folder.path()).unwrap();
    let run = |parts: &[&dyn AsRef<std::ffi::OsStr>]| {
        let parts: Vec<_> = parts.iter().map(|part| part.as_ref().to_owned()).collect();
        world.run_first(&parts)
    };
    // A script: its interpreter is loaded, with its arguments as the kernel writes them, and it is named.
    let script = folder.join("script");
    fs::write(&script, "#!/bin/sh -u\nexit 3\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    run(&[&"exec", family, &"at", &"/usr", &script, &"of-a-script"]);
    let seen = story(&world, "of-a-script");
    let (exec, script) = (&seen.exec, script.to_str().unwrap());
    assert_eq!(exec.executable, fs::canonicalize("/bin/sh").unwrap().to_str().unwrap());
    assert_eq!((exec.script.as_str(), exec.cwd.as_str(), seen.status()), (script, "/usr", (3, 0)));
    assert_eq!(exec.argv, ["/bin/sh", "-u", script, "of-a-script"]);
    assert_eq!((exec.argc, exec.argv_truncated), (4, false));
    let meta = fs::metadata("/bin/sh").unwrap();
    assert!(exec.file_id.ends_with(&format!(":{}", std::os::unix::fs::MetadataExt::ino(&meta))));
    assert_eq!(exec.environment_names, ["PWD", "TEST_SECRET"]);
    assert!(!exec.environment_truncated);
    assert!(!format!("{:?}", seen.event).contains("value"), "a value of the environment is on record");
    assert_eq!(seen.process().uid, 0);
    // The caller as it was, with the image before.
    assert_eq!(exec.caller.as_ref().unwrap().exec_id, exec.parent_exec_id);

    // The root as working directory, and a program behind a mount.
    let (here, there) = (folder.join("here"), folder.join("there"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    fs::copy(effect, here.join("effect")).unwrap();
    assert!(Command::new("mount").arg("--bind").args([&here, &there]).status().unwrap().success());
    let program = there.join("effect");
    run(&[&"exec", family, &"at", &"/", &program, &folder, &"bound"]);
    let exec = story(&world, "bound").exec;
    assert!(Command::new("umount").arg("-l").arg(&there).status().unwrap().success());
    assert_eq!((exec.executable.as_str(), exec.cwd.as_str()), (program.to_str().unwrap(), "/"));
    assert_eq!((exec.script.as_str(), exec.executable_deleted), ("", false));
    assert!(!exec.executable_partial && !exec.cwd_partial);

    // A file without a place.
    let memory = format!("mem:{}", effect.display());
    run(&[&"fexec", &memory, &folder, &"memory"]);
    let exec = story(&world, "memory").exec;
    assert_eq!(exec.executable, "memfd:copy");
    assert!(exec.executable_partial && exec.executable_deleted);
}

#[test]
fn arguments_longer_than_the_bound_are_cut_and_marked_and_those_within_are_not() {
    let world = World::new(|_| allow());
    let family = programs().family.to_str().unwrap();
    for (length, cut) in [(8192, false), (8193, true), (60_000, true)] {
        // PATH exit 0 FILLER, each with a zero.
        let filler = "x".repeat(length - family.len() - "exit".len() - "0".len() - 4);
        world.run_first(&args([&"run", &family, &"exit", &"0", &filler]));
        let seen: Vec<_> = execs(&world).into_iter().filter(|(_, exec)| exec.argv[0] == family).collect();
        assert_eq!(seen.len(), 1);
        let exec = &seen[0].1;
        assert_eq!((exec.argv_truncated, exec.argc, exec.argv.len()), (cut, 4, 4), "{length}");
        assert_eq!(exec.argv[3].len(), if cut { 8192 - (length - filler.len() - 1) } else { filler.len() });
        // What was decided about is all there.
        let Some(pb::decision_event::Action::Exec(action)) = &exec.decision.as_ref().unwrap().action else {
            panic!()
        };
        assert_eq!(action.argv[3], filler);
        world.sink.events.lock().unwrap().clear();
    }
}

fn burst(world: &World, count: u64, argument: &str) -> (u64, u64, u64, u64) {
    let family = &programs().family;
    let ended = world.run_first(&args([
        &"exec",
        family,
        &"burst",
        &count.to_string(),
        family,
        &"exit",
        &"0",
        &argument,
        &"of-the-burst",
    ]));
    let counters = world.gate().counters();
    assert_eq!(ended.stdout, format!("made {count}\n"), "{ended:?} {counters:?}");
    // Longer than a missing event is waited for.
    std::thread::sleep(Duration::from_millis(2500));
    world.gate().settle();
    let of_burst = |exec: &pb::ExecEvent| exec.argv.last().is_some_and(|last| last == "of-the-burst");
    // The actor, and the program that makes them, are seen or lost as well.
    let seen = execs(world).iter().filter(|(_, exec)| exec.argc == 5 && of_burst(exec)).count() as u64;
    let others = execs(world).len() as u64 - seen;
    let ends = exits(world).iter().filter(|(_, exit)| !exit.forked).count() as u64;
    let losses = world.sink.losses.lock().unwrap();
    assert!(!losses.contains_key("exec-event-missing"), "a lost event was counted twice: {losses:?}");
    let lost = |way| losses.get(way).copied().unwrap_or(0);
    (seen + others, lost("exec-ring-full"), ends, lost("exit-ring-full"))
}

#[test]
fn twenty_thousand_execs_in_a_burst_are_all_seen_or_counted() {
    let world = World::new(|_| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..allow() });
    std::thread::sleep(Duration::from_millis(200));
    let (seen, lost, ends, ends_lost) = burst(&world, 20_000, "x");
    println!("{seen} seen, {lost} lost; {ends} ends seen, {ends_lost} lost");
    // And the two before them, in the one process that made them.
    assert_eq!(seen + lost, 20_002);
    assert_eq!(ends + ends_lost, 20_001);
    assert!(seen > 0);
}

#[test]
fn a_ring_that_is_too_small_loses_events_and_says_how_many_and_when() {
    let world =
        World::with_ring(4096, |_| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..allow() });
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let (seen, lost, ends, ends_lost) = burst(&world, 300, &"x".repeat(3000));
    println!("{seen} seen, {lost} lost; {ends} ends seen, {ends_lost} lost");
    assert!(lost > 0, "a ring of 4 KiB held 300 events of 3 KiB");
    assert_eq!((seen + lost, ends + ends_lost), (302, 301));
    for (since, until) in world.sink.spans.lock().unwrap().iter() {
        assert!(before <= *until && since < until, "{since} {until}");
    }
    assert!(!world.sink.spans.lock().unwrap().is_empty());
}

#[test]
fn what_is_allowed_refused_and_ended_is_told_in_the_order_in_which_it_happened() {
    let programs = programs();
    let evil = programs.evil.to_str().unwrap();
    let world = World::new(move |question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if exec.executable == evil => deny(),
        _ => allow(),
    });
    let folder = world.folder.path();
    let command = args([&"run", &programs.effect, &folder, &"ran", &"run", &programs.evil, &folder, &"no"]);
    let (ran, refused) = command.split_at(4);
    for _ in 0..40 {
        // Three at once, and each calls what is refused right after what is allowed.
        let actors: Vec<_> = (0..3).map(|_| world.start(ran)).collect();
        for actor in actors {
            assert_eq!(actor.wait().stdout, "exit 0\n");
            assert_eq!(world.run(refused).stdout, format!("exit {}\n", libc::EACCES));
        }
    }
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let kinds = |wanted: fn(&Kind) -> bool| {
        events.iter().filter_map(|event| event.kind.as_ref()).filter(|kind| wanted(kind)).count()
    };
    assert_eq!(kinds(|kind| matches!(kind, Kind::Decision(_))), 120);
    assert_eq!(kinds(|kind| matches!(kind, Kind::Exec(exec) if exec.verified)), 120);
    for pair in events.windows(2) {
        assert!(pair[0].time_us <= pair[1].time_us, "{pair:#?}");
    }
    // An exec comes before its end.
    let mut running = std::collections::HashSet::new();
    for event in events.iter() {
        match event.kind.as_ref().unwrap() {
            Kind::Exec(exec) => assert!(running.insert(exec.exec_id.clone())),
            Kind::Exit(exit) if !exit.forked => assert!(running.remove(&exit.exec_id), "{exit:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_storm_of_long_calls_is_told_whole_until_the_allowance_of_its_sandbox_is_used_up() {
    let is_long = |argv: &[String]| argv.iter().any(|argument| argument.len() > 100_000);
    let world = World::new(move |question| match &question.action {
        Some(pb::question::Action::Exec(exec)) if is_long(&exec.argv) => deny(),
        _ => allow(),
    });
    let long = "x".repeat(100_001);
    let count = 80;
    for _ in 0..count {
        assert_eq!(world.run(&args([&"run", &"/bin/true", &long])).stdout, "exit 13\n");
    }
    assert_eq!(world.run(&args([&"run", &"/bin/true", &"short"])).stdout, "exit 0\n");
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let told = events.iter().filter_map(common::decided).filter_map(|decision| match &decision.action {
        Some(pb::decision_event::Action::Exec(exec)) => Some((exec.clone(), decision.cut)),
        _ => None,
    });
    let (long, short): (Vec<_>, Vec<_>) = told
        .filter(|(exec, _)| exec.executable.ends_with("/true"))
        .partition(|(exec, _)| exec.argv[1].len() > 5);
    let (cut, whole): (Vec<_>, Vec<_>) = long.into_iter().partition(|(_, cut)| *cut);
    // Each is told; the first 40 or so whole.
    assert_eq!((cut.len() + whole.len(), short.len()), (count, 1));
    assert!(whole.len() >= 30 && cut.len() >= 10, "{} {}", whole.len(), cut.len());
    assert!(whole.iter().all(|(exec, _)| is_long(&exec.argv)));
    assert!(cut.iter().all(|(exec, _)| exec.argv[1].len() < 8192 && exec.argv_hash == whole[0].0.argv_hash));
    assert!(short.iter().all(|(exec, cut)| exec.argv[1] == "short" && !cut));
}
