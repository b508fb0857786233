//! The script that was decided about is the script that its interpreter reads, whoever can write it.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clawsec_core::pb;
use clawsec_exec_gate::ExecPolicy;
use common::{World, allow, args, deny, hold};

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

fn node() -> PathBuf {
    let linked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules/.bin/node");
    fs::canonicalize(linked).expect("node_modules has Node")
}

/// Name of the script, its first line, and a line that writes a word.
fn interpreters() -> Vec<(&'static str, String, &'static str)> {
    let node = node().display().to_string();
    vec![
        ("sh", "#!/bin/sh".into(), "echo WORD"),
        ("sh-option", "#!/bin/sh -e".into(), "echo WORD"),
        ("bash", "#!/bin/bash".into(), "echo WORD"),
        ("perl", "#!/usr/bin/perl -w".into(), "print \"WORD\\n\";"),
        ("python", "#!/usr/bin/python3".into(), "print('WORD')"),
        ("python-option", "#!/usr/bin/python3 -I".into(), "print('WORD')"),
        ("node", format!("#!{node}"), "console.log('WORD')"),
        ("node.cjs", format!("#!{node}"), "console.log('WORD') // import export await"),
        ("node.mjs", format!("#!{node}"), "import fs from 'node:fs'; fs.writeSync(1, 'WORD\\n')"),
        ("module", format!("#!{node}"), "import fs from 'node:fs'; fs.writeSync(1, 'WORD\\n')"),
        ("env", "#!/usr/bin/env sh".into(), "echo WORD"),
        ("env-python", "#!/usr/bin/env -S /usr/bin/python3 -I".into(), "print('WORD')"),
        ("env-node", format!("#!/usr/bin/env -S {node} --no-warnings"), "console.log('WORD')"),
    ]
}

/// Another content in the same file, at the same place.
fn edit(path: &Path, text: &str) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn text(first: &str, line: &str, word: &str) -> String {
    format!("{first}\n{}\n", line.replace("WORD", word))
}

// Holds the exec of a script, lets `change` happen while its image stands, and gives what it wrote then.
fn changed_under_the_hold(change: impl Fn(&World, &Path, &str)) {
    for (name, first, line) in interpreters() {
        let world = World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() });
        let folder = world.path("scripts");
        fs::create_dir(&folder).unwrap();
        let script = folder.join(name);
        write(&script, &text(&first, line, "good"));
        let actor = world.start(&args([&"run", &script]));
        let mut held = world.take_hold();
        held.wait_held();
        change(&world, &script, &text(&first, line, "evil"));
        held.decide(pb::Verdict::Allow);
        let ended = actor.wait();
        assert_eq!(ended.stdout, "good\nexit 0\n", "{name}: {ended:?}");
    }
}

#[test]
fn a_script_that_is_edited_in_place_under_its_hold_runs_as_it_was() {
    changed_under_the_hold(|_, script, evil| edit(script, evil));
}

#[test]
fn a_script_that_is_replaced_under_its_hold_runs_as_it_was() {
    changed_under_the_hold(|world, script, evil| {
        let other = world.path("other");
        write(&other, evil);
        fs::rename(other, script).unwrap();
    });
}

#[test]
fn a_script_whose_folder_is_replaced_under_its_hold_runs_as_it_was() {
    changed_under_the_hold(|world, script, evil| {
        let folder = script.parent().unwrap();
        fs::rename(folder, world.path("away")).unwrap();
        fs::create_dir(folder).unwrap();
        write(script, evil);
    });
}

#[test]
fn a_script_that_becomes_a_link_to_another_under_its_hold_never_runs_as_that() {
    for (name, first, line) in interpreters() {
        let world = World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() });
        let (script, evil) = (world.path(name), world.path(&format!("evil-{name}")));
        write(&script, &text(&first, line, "good"));
        write(&evil, &text(&first, line, "evil"));
        let actor = world.start(&args([&"run", &script]));
        let mut held = world.take_hold();
        held.wait_held();
        fs::remove_file(&script).unwrap();
        symlink(&evil, &script).unwrap();
        held.decide(pb::Verdict::Allow);
        let ended = actor.wait();
        // Node asks for the link's target by itself, and is killed when it opens that.
        assert!(["good\nexit 0\n", "signal 9\n"].contains(&ended.stdout.as_str()), "{name}: {ended:?}");
    }
}

#[test]
fn a_script_behind_links_runs_as_what_they_led_to() {
    for (name, first, line) in interpreters() {
        let world = World::new(|_| by_script(allow()));
        let (script, link) = (world.path(&format!("real-{name}")), world.path(name));
        write(&script, &text(&first, line, "good"));
        symlink(&script, &link).unwrap();
        let ended = world.run(&args([&"run", &link]));
        assert_eq!(ended.stdout, "good\nexit 0\n", "{name}: {ended:?}");
    }
}

#[test]
fn a_script_sees_its_name_its_arguments_and_no_descriptor_that_it_was_not_given() {
    let world = World::new(|_| by_script(allow()));
    let script = world.path("script");
    write(&script, "#!/bin/sh -e\necho $0 $*\nls /proc/$$/fd | grep -v '^[0-2]$' | wc -l\n");
    let without = World::new(|_| allow()).run(&args([&"run", &script, &"a", &"b"]));
    let ended = world.run(&args([&"run", &script, &"a", &"b"]));
    assert_eq!(ended.stdout, without.stdout);
    assert!(ended.stdout.starts_with(&format!("{} a b\n", script.display())), "{ended:?}");
}

#[test]
fn a_script_that_is_asked_for_by_descriptor_or_relative_name_runs() {
    let world = World::new(|_| by_script(allow()));
    write(&world.path("script"), "#!/bin/sh\necho good\n");
    assert_eq!(world.run(&args([&"run", &"./script"])).stdout, "good\nexit 0\n");
    write(&world.path("python"), "#!/usr/bin/python3\nprint('good')\n");
    assert_eq!(world.run(&args([&"run", &"python"])).stdout, "good\nexit 0\n");
}

#[test]
fn a_script_whose_interpreter_is_a_script_is_refused_where_its_content_is_decided_about() {
    let world = World::new(|question| {
        let nested = exec(question).script.ends_with("/bound");
        if nested { by_script(allow()) } else { allow() }
    });
    write(&world.path("middle"), "#!/bin/sh\necho good\n");
    for name in ["bound", "free"] {
        write(&world.path(name), &format!("#!{}\n", world.path("middle").display()));
    }
    let ended = world.run(&args([&"run", &world.path("bound")]));
    assert_eq!(ended.stdout, format!("exit {}\n", libc::EACCES));
    assert!(ended.stderr.contains("interpreted by another script"), "{ended:?}");
    assert_eq!(world.run(&args([&"run", &world.path("free")])).stdout, "good\nexit 0\n");
}

#[test]
fn an_interpreter_that_clawsec_does_not_know_reads_the_copy_too() {
    let world = World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() });
    let script = world.path("script");
    write(&script, "#!/usr/bin/awk -f\nBEGIN { print \"good\" }\n");
    let actor = world.start(&args([&"run", &script]));
    let mut held = world.take_hold();
    held.wait_held();
    edit(&script, "#!/usr/bin/awk -f\nBEGIN { print \"evil\" }\n");
    held.decide(pb::Verdict::Allow);
    assert_eq!(actor.wait().stdout, "good\nexit 0\n");
}

#[test]
fn a_held_script_that_is_denied_or_killed_runs_nothing() {
    for denied in [true, false] {
        let world = World::new(|_| hold());
        let script = world.path("script");
        write(&script, "#!/bin/sh\necho good\n");
        let actor = world.start(&args([&"run", &script]));
        let mut held = world.take_hold();
        held.wait_held();
        if denied {
            held.decide(pb::Verdict::Deny);
        } else {
            let pid = held.question.process.as_ref().unwrap().pid as i32;
            // SAFETY: a signal to a process of this test, which is held.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        assert_eq!(actor.wait().stdout, "signal 9\n");
    }
}

// A script that is decided about by its content, while somebody else changes it all the time. Gives how often the other
// content ran.
fn race(first: &str, line: &str, racer: impl Fn(&Path, &Path) + Send + 'static, bound: bool) -> u64 {
    let world = World::new(|_| allow());
    let tables =
        pb::PolicyTables { epoch: 1, facts: Some(pb::FactsNeeded { sha256: true }), ..Default::default() };
    world.gate().apply(&world.scope.sandbox, ExecPolicy::compile(&tables).unwrap()).unwrap();
    let folder = world.folder.path().display().to_string();
    let (script, other) = (world.path("script"), world.path("other"));
    let content = |word: &str| text(first, &line.replace("FOLDER", &folder), word);
    write(&script, &content("good"));
    write(&other, &content("evil"));
    let good = sha256(&script);
    let by_content = move |question: &pb::Question| {
        let answer = if exec(question).script_sha256 == good { allow() } else { deny() };
        if bound { by_script(answer) } else { answer }
    };
    world.asker.answer_with(by_content);
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
    let ended = world.run(&args([&"repeat", &tries().to_string(), &script]));
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    println!("{}", ended.stdout.trim());
    assert!(world.count("good") > 0, "{}", ended.stdout);
    let counters = world.gate().counters();
    assert_eq!((counters.kill_failed, counters.missed), (0, 0));
    world.count("evil")
}

fn sha256(path: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
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
    assert_eq!(race(SHELL.0, SHELL.1, exchange, true), 0, "the race was won");
}

#[test]
fn a_shell_script_that_is_edited_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(SHELL.0, SHELL.1, rewrite, true), 0, "the race was won");
}

#[test]
fn a_python_script_that_is_exchanged_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(PYTHON.0, PYTHON.1, exchange, true), 0, "the race was won");
}

#[test]
fn a_python_script_that_is_edited_all_the_time_never_runs_as_the_other() {
    assert_eq!(race(PYTHON.0, PYTHON.1, rewrite, true), 0, "the race was won");
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
    assert_eq!(race(SHELL.0, SHELL.1, racer, true), 0, "the race was won");
}

#[test]
fn a_script_that_the_answer_does_not_go_by_can_be_another_one() {
    // The control: without the binding the race is won now and then.
    let won = race(SHELL.0, SHELL.1, exchange, false) + race(PYTHON.0, PYTHON.1, rewrite, false);
    println!("won {won}");
    assert!(won > 0);
}
