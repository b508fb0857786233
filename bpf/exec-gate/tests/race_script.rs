//! Scripts that are changed all the time, while they are decided about and run. See scripts.rs for the changes one by one.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{Ended, World, allow, args, deny, sha256};

/// Tries of each race; `make races` takes more.
fn tries() -> u64 {
    std::env::var("CLAWSEC_RACE_TRIES").map_or(300, |number| number.parse().unwrap())
}

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

fn by_script(decision: pb::Decision) -> pb::Decision {
    pb::Decision { depends_on: vec![pb::ExecFact::Script.into()], ..decision }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(first: &str, line: &str, word: &str) -> String {
    format!("{first}\n{}\n", line.replace("WORD", word))
}

// A world that decides about a script by its content, with the script and another one in it.
fn contents((first, line): (&str, &str), bound: bool) -> World {
    let world = World::new(|_| allow());
    let tables =
        pb::PolicyTables { epoch: 1, facts: Some(pb::FactsNeeded { sha256: true }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
    let folder = world.folder.path().display().to_string();
    let content = |word: &str| text(first, &line.replace("FOLDER", &folder), word);
    write(&world.path("script"), &content("good"));
    write(&world.path("other"), &content("evil"));
    let good = sha256(&world.path("script"));
    world.asker.answer_with(move |question: &pb::Question| {
        let answer = if exec(question).script_sha256 == good { allow() } else { deny() };
        if bound { by_script(answer) } else { answer }
    });
    world
}

// How often the other content ran.
fn won(world: &World, ended: &Ended) -> u64 {
    println!("{}", ended.stdout.trim());
    assert!(world.count("good") > 0, "{}", ended.stdout);
    let counters = world.gate().counters();
    assert_eq!((counters.kill_failed, counters.missed), (0, 0));
    world.count("evil")
}

// While somebody else changes it all the time.
fn race(words: (&str, &str), racer: impl Fn(&Path, &Path) + Send + 'static, bound: bool) -> u64 {
    let world = contents(words, bound);
    let (script, other) = (world.path("script"), world.path("other"));
    let over = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let (over, script) = (Arc::clone(&over), script.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                racer(&script, &other);
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        }
    });
    let ended = world.run_tries(&args([&"repeat", &tries().to_string(), &script]), tries());
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    won(&world, &ended)
}

// While a thread of the process that executes it changes it, by "exchange" or "rewrite", until the exec ends the thread.
fn race_by_thread(how: &str, bound: bool) -> u64 {
    let world = contents(SHELL, bound);
    let (script, other) = (world.path("script"), world.path("other"));
    let ended =
        world.run_tries(&args([&"race-script", &how, &tries().to_string(), &other, &script]), tries());
    won(&world, &ended)
}

const SHELL: (&str, &str) = ("#!/bin/sh", "printf x >> FOLDER/WORD");
const PYTHON: (&str, &str) = ("#!/usr/bin/python3 -IS", "open('FOLDER/WORD', 'a').write('x')");

fn exchange(script: &Path, other: &Path) {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, script, rustix::fs::CWD, other, flags).unwrap();
}

fn rewrite(script: &Path, other: &Path) {
    let (good, evil) = (fs::read(script).unwrap(), fs::read(other).unwrap());
    // While it is being executed it cannot be opened.
    let Ok(file) = fs::File::options().write(true).open(script) else { return };
    file.write_all_at(&evil, 0).unwrap();
    std::thread::sleep(std::time::Duration::from_micros(300));
    file.write_all_at(&good, 0).unwrap();
    drop(file);
    std::thread::sleep(std::time::Duration::from_micros(300));
}

#[test]
fn a_shell_script_that_is_exchanged_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(SHELL, exchange, true), 0, "the race was won");
}

#[test]
fn a_shell_script_that_is_edited_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(SHELL, rewrite, true), 0, "the race was won");
}

#[test]
fn a_python_script_that_is_exchanged_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(PYTHON, exchange, true), 0, "the race was won");
}

#[test]
fn a_python_script_that_is_edited_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(PYTHON, rewrite, true), 0, "the race was won");
}

#[test]
fn a_link_to_a_script_that_is_exchanged_all_the_time_never_leads_to_the_other() {
    let racer = |script: &Path, other: &Path| {
        if fs::symlink_metadata(script).unwrap().is_symlink() {
            exchange(script, other);
            return;
        }
        for (path, name) in [(script, "good-file"), (other, "evil-file")] {
            let file = path.with_file_name(name);
            fs::rename(path, &file).unwrap();
            symlink(file, path).unwrap();
        }
    };
    assert_eq!(race(SHELL, racer, true), 0, "the race was won");
}

#[test]
fn a_thread_that_exchanges_the_script_that_its_process_executes_never_wins() {
    assert_eq!(race_by_thread("exchange", true), 0, "the race was won");
}

#[test]
fn a_thread_that_edits_the_script_that_its_process_executes_never_wins() {
    assert_eq!(race_by_thread("rewrite", true), 0, "the race was won");
}

#[test]
fn a_script_that_the_answer_does_not_go_by_can_be_another_one() {
    // The control: without the binding the race is won now and then.
    let won = race(SHELL, exchange, false) + race(PYTHON, rewrite, false);
    println!("won {won}");
    assert!(won > 0);
}

#[test]
fn a_thread_wins_where_the_answer_does_not_go_by_the_script() {
    let won = race_by_thread("exchange", false) + race_by_thread("rewrite", false);
    println!("won {won}");
    assert!(won > 0);
}
