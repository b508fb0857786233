//! Execs that the policy's table answers, on the real kernel.

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::Ordering;

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{World, allow, args, decided, decision, deny, programs};

fn row(rule: &str, executable: &str, verdict: pb::Verdict) -> pb::ExecRow {
    pb::ExecRow {
        rule: rule.into(),
        executable: executable.into(),
        verdict: verdict.into(),
        message: format!("because of {rule}"),
        ..Default::default()
    }
}

fn path(path: &std::path::Path) -> String {
    format!("^(?:{})$", regex_escape(path.to_str().unwrap()))
}

fn regex_escape(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_alphanumeric() || c == '/' { vec![c] } else { vec!['\\', c] }).collect()
}

fn apply(world: &World, epoch: u64, rows: Vec<pb::ExecRow>) {
    let tables = pb::PolicyTables { epoch, exec: Some(pb::ExecTable { rows }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
}

/// The decision events so far.
fn decisions(world: &World) -> Vec<(pb::Event, pb::DecisionEvent)> {
    world.gate().settle();
    let events = world.sink.events.lock().unwrap();
    let decision = |event: &pb::Event| decided(event).map(|decision| (event.clone(), decision.clone()));
    events.iter().filter_map(decision).collect()
}

fn effect(world: &World, program: &std::path::Path, name: &str) -> common::Ended {
    world.run(&args([&"run", &program, &world.folder.path(), &name]))
}

#[test]
fn a_row_allows_denies_and_logs_without_a_question_and_is_in_the_audit() {
    let world = World::new(|_| deny());
    let programs = programs();
    apply(
        &world,
        1,
        vec![
            row("exec/effect", &path(&programs.effect), pb::Verdict::Allow),
            row("exec/good", &path(&programs.good), pb::Verdict::Log),
            row("exec/evil", &path(&programs.evil), pb::Verdict::Deny),
        ],
    );
    assert_eq!(effect(&world, &programs.effect, "ran").stdout, "exit 0\n");
    assert_eq!(effect(&world, &programs.good, "").stdout, "exit 0\n");
    let denied = effect(&world, &programs.evil, "");
    assert_eq!(denied.stdout, format!("exit {}\n", libc::EACCES));
    assert_eq!(
        denied.stderr,
        format!(
            "clawsec: {} denied by rule exec/evil (table): because of exec/evil\n",
            programs.evil.display()
        )
    );
    assert_eq!((world.count("ran"), world.count("good"), world.count("evil")), (1, 1, 0));
    assert_eq!(world.questions(), 0);
    let seen = decisions(&world);
    let expected = [
        (pb::Verdict::Allow, "exec/effect", &programs.effect),
        (pb::Verdict::Log, "exec/good", &programs.good),
        (pb::Verdict::Deny, "exec/evil", &programs.evil),
    ];
    assert_eq!(seen.len(), expected.len());
    for ((event, decision), (verdict, rule, program)) in seen.iter().zip(expected) {
        assert_eq!((decision.verdict(), decision.rule.as_str()), (verdict, rule));
        assert_eq!((decision.layer.as_str(), decision.question_id), ("table", 0));
        assert_eq!(decision.message, format!("because of {rule}"));
        assert_eq!((event.subject.as_str(), event.sandbox.as_str()), ("main", world.scope.sandbox.as_str()));
        assert!(event.process.as_ref().unwrap().pid > 0 && event.time_us > 0);
        let Some(pb::decision_event::Action::Exec(exec)) = &decision.action else { panic!("not an exec") };
        assert_eq!(exec.executable, program.to_str().unwrap());
        assert_eq!(exec.argv.len(), 3);
    }
}

#[test]
fn what_has_no_row_or_an_asking_one_is_asked_about() {
    let world = World::new(|_| deny());
    let programs = programs();
    apply(
        &world,
        1,
        vec![
            row("exec/ask", &path(&programs.good), pb::Verdict::Ask),
            row("exec/good", &path(&programs.good), pb::Verdict::Allow),
            row("exec/effect", &path(&programs.effect), pb::Verdict::Allow),
        ],
    );
    effect(&world, &programs.good, "");
    effect(&world, &programs.evil, "");
    assert_eq!((world.questions(), world.count("good"), world.count("evil")), (2, 0, 0));
    effect(&world, &programs.effect, "ran");
    assert_eq!((world.questions(), world.count("ran")), (2, 1));
}

#[test]
fn a_row_for_another_subject_does_not_answer() {
    let world = World::new(|_| deny());
    let of = |subject: &str, row: pb::ExecRow| pb::ExecRow { subjects: vec![subject.into()], ..row };
    let effect_path = path(&programs().effect);
    apply(&world, 1, vec![of("tool", row("exec/tool", &effect_path, pb::Verdict::Allow))]);
    effect(&world, &programs().effect, "ran");
    assert_eq!((world.questions(), world.count("ran")), (1, 0));
    world.asker.epoch.store(2, Ordering::Relaxed);
    apply(&world, 2, vec![of("main", row("exec/main", &effect_path, pb::Verdict::Allow))]);
    effect(&world, &programs().effect, "ran");
    assert_eq!((world.questions(), world.count("ran")), (1, 1));
}

#[test]
fn the_table_comes_before_cached_answers_and_is_void_outside_of_its_epoch() {
    let world = World::new(|_| pb::Decision { cache_scope: pb::CacheScope::File.into(), ..allow() });
    std::thread::sleep(std::time::Duration::from_millis(200));
    let run = || effect(&world, &programs().effect, "ran").stdout;
    assert_eq!((run().as_str(), world.questions()), ("exit 0\n", 1));
    // Swapped in, and not in force: the cached answer is.
    apply(&world, 2, vec![row("exec/no", &path(&programs().effect), pb::Verdict::Deny)]);
    assert_eq!((run().as_str(), world.questions()), ("exit 0\n", 1));
    world.asker.epoch.store(2, Ordering::Relaxed);
    assert_eq!((run(), world.questions()), (format!("exit {}\n", libc::EACCES), 1));
    // An epoch without a table of its own yet: nothing is answered here.
    world.asker.epoch.store(3, Ordering::Relaxed);
    assert_eq!((run().as_str(), world.questions()), ("exit 0\n", 2));
    apply(&world, 3, vec![row("exec/no", "", pb::Verdict::Deny)]);
    assert_eq!((run(), world.questions()), (format!("exit {}\n", libc::EACCES), 2));
}

#[test]
fn the_row_is_that_of_the_file_that_is_loaded_whatever_leads_to_it() {
    let world = World::new(|_| deny());
    let link = world.path("link");
    symlink(&programs().effect, &link).unwrap();
    apply(&world, 1, vec![row("exec/link", &path(&link), pb::Verdict::Allow)]);
    effect(&world, &link, "ran");
    assert_eq!((world.questions(), world.count("ran")), (1, 0));
    let real = fs::canonicalize(&programs().effect).unwrap();
    world.asker.epoch.store(2, Ordering::Relaxed);
    apply(&world, 2, vec![row("exec/real", &path(&real), pb::Verdict::Allow)]);
    effect(&world, &link, "ran");
    assert_eq!((world.questions(), world.count("ran")), (1, 1));
}

#[test]
fn scripts_memfds_deleted_files_and_names_that_are_no_text_are_asked_about() {
    let world = World::new(|_| decision(pb::Verdict::Deny, "exec/asked"));
    apply(
        &world,
        1,
        vec![row("exec/all", "", pb::Verdict::Allow), row("exec/too", "^(?:.*)$", pb::Verdict::Allow)],
    );
    let folder = world.folder.path();
    let script = world.path("script");
    fs::write(&script, "#!/bin/sh\n:\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    world.run(&args([&"run", &script]));
    assert_eq!(world.questions(), 1);
    let memory = format!("mem:{}", programs().effect.display());
    world.run(&args([&"fexec", &memory, &folder, &"memory"]));
    assert_eq!(world.questions(), 2);
    let nameless = folder.join(std::ffi::OsStr::from_bytes(b"name\xff"));
    fs::copy(&programs().effect, &nameless).unwrap();
    effect(&world, &nameless, "nameless");
    assert_eq!(world.questions(), 3);
    let gone = world.path("gone");
    fs::copy(&programs().effect, &gone).unwrap();
    let held = fs::File::open(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    let through = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
    world.run(&args([&"run", &through, &folder, &"deleted"]));
    assert_eq!(world.questions(), 4);
    assert_eq!((world.count("memory"), world.count("nameless"), world.count("deleted")), (0, 0, 0));
    // Beside them: what the row is for.
    effect(&world, &programs().effect, "ran");
    assert_eq!((world.questions(), world.count("ran")), (4, 1));
}

#[test]
fn a_row_that_looks_at_the_environment_decides_by_its_names_and_binds_what_it_lets_through() {
    // The actor's commands have one variable, TEST_SECRET.
    let by_name =
        |rule: &str, name: &str| pb::ExecRow { environment: name.into(), ..row(rule, "", pb::Verdict::Deny) };
    let effect_row = || row("exec/effect", &path(&programs().effect), pb::Verdict::Allow);
    let world = World::new(|_| deny());
    apply(&world, 1, vec![by_name("exec/other", "^LD_[^\\x00]*$"), effect_row()]);
    assert_eq!(effect(&world, &programs().effect, "ran").stdout, "exit 0\n");
    world.asker.epoch.store(2, Ordering::Relaxed);
    apply(&world, 2, vec![by_name("exec/loader", "^(?:LD_PRELOAD|TEST_[^\\x00]*)$"), effect_row()]);
    let denied = effect(&world, &programs().effect, "denied");
    assert_eq!(denied.stdout, format!("exit {}\n", libc::EACCES));
    assert!(denied.stderr.contains("exec/loader"), "{denied:?}");
    assert_eq!((world.count("ran"), world.count("denied"), world.questions()), (1, 0, 0));

    // Whoever changes it after the row was passed by does not run.
    world.asker.epoch.store(3, Ordering::Relaxed);
    let program = &programs().by_environment;
    let rows =
        vec![by_name("exec/loader", "^food$"), row("exec/program", &path(program), pb::Verdict::Allow)];
    apply(&world, 3, rows);
    let folder = world.folder.path();
    let ended =
        world.run(&args([&"race-environment", &"thread", &"1000", &"good=1", &"f", program, &folder]));
    println!("{}", ended.stdout.trim());
    assert_eq!((world.count("food"), world.questions()), (0, 0), "the race was won");
    assert!(world.count("good") > 0);
}

#[test]
fn an_environment_that_is_too_long_to_be_bound_is_denied_where_a_row_looks_at_it() {
    let world = World::new(|question| {
        let Some(pb::question::Action::Exec(_)) = &question.action else { return deny() };
        pb::Decision { depends_on: vec![pb::ExecFact::Environment.into()], ..allow() }
    });
    let names = pb::ExecRow { environment: "^A9$".into(), ..row("exec/names", "", pb::Verdict::Deny) };
    apply(&world, 1, vec![names, row("exec/all", "", pb::Verdict::Allow)]);
    let folder = world.folder.path();
    let long = world.run(&args([&"exec-count", &"names", &"19000", &programs().effect, &folder, &"long"]));
    assert_eq!(long.stdout, format!("errno {}\n", libc::EACCES), "{long:?}");
    world.run(&args([&"exec-count", &"names", &"100", &programs().effect, &folder, &"short"]));
    assert_eq!((world.count("long"), world.count("short")), (0, 1));
}
