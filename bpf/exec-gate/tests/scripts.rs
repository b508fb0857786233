//! The script that was decided about is the script that its interpreter reads, whoever can write it.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use clawsec_core::pb;
use common::script::{by_script, edit, interpreters, text, write};
use common::{World, allow, args, hold};

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
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
    // Not through a pipe, whose ends the shell itself has open while it starts the second command.
    write(&script, "#!/bin/sh -e\necho $0 $*\nls /proc/$$/fd > list\ngrep -v '^[0-2]$' list\n");
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
    let (bound, middle) =
        (world.path("bound").display().to_string(), world.path("middle").display().to_string());
    let said = format!("{bound} is interpreted by the script {middle}, and the sandbox can change {bound} ");
    assert!(ended.stderr.contains(&said), "{ended:?}");
    assert_eq!(world.run(&args([&"run", &world.path("free")])).stdout, "good\nexit 0\n");
}

#[test]
fn two_files_that_one_interpreter_reads_are_refused_where_their_content_is_decided_about() {
    let world = World::new(|question| {
        let bound = exec(question).script.ends_with("/bound");
        if bound { by_script(allow()) } else { allow() }
    });
    write(&world.path("start"), "");
    let start = world.path("start");
    for name in ["bound", "free"] {
        write(&world.path(name), "echo good\n");
    }
    let run = |name: &str| {
        let file = world.path(name);
        world.run(&args([&"run", &"/bin/bash", &"--rcfile", &start, &"-i", &file]))
    };
    let ended = run("bound");
    assert_eq!(ended.stdout, format!("exit {}\n", libc::EACCES), "{ended:?}");
    assert!(ended.stderr.contains(" is read together with "), "{ended:?}");
    let ended = run("free");
    assert!(ended.stdout.ends_with("good\nexit 0\n"), "{ended:?}");
    // Twice the same: after the first time the copy is not given any more.
    let bound = world.path("bound");
    let ended = world.run(&args([&"run", &"/bin/bash", &"--rcfile", &bound, &"-i", &bound]));
    assert_eq!(ended.stdout, format!("exit {}\n", libc::EACCES), "{ended:?}");
    let ended = world.run(&args([&"run", &"/bin/bash", &world.path("bound")]));
    assert_eq!(ended.stdout, "good\nexit 0\n", "one alone is given as its copy: {ended:?}");
}

#[test]
fn what_joins_a_hold_reads_what_is_held_or_nothing() {
    for changed in [false, true] {
        let world = World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() });
        let script = world.path("script");
        write(&script, "#!/bin/sh\necho good\n");
        let file = fs::File::options().read(true).write(true).open(&script).unwrap();
        // SAFETY: the file stays open and as long as it is, and nothing else of this process uses the mapping.
        let mut memory = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
        // The page is dirty from here on, and later stores into it are seen by nobody.
        memory.copy_from_slice(b"#!/bin/sh\necho good\n");
        std::thread::sleep(Duration::from_millis(200));
        let first = world.start(&args([&"run", &"/bin/sh", &script]));
        let mut held = world.take_hold();
        held.wait_held();
        let before = fs::metadata(&script).unwrap();
        if changed {
            memory.copy_from_slice(b"#!/bin/sh\necho evil\n");
        }
        let after = fs::metadata(&script).unwrap();
        assert_eq!(
            (before.ctime(), before.ctime_nsec(), before.mtime_nsec()),
            (after.ctime(), after.ctime_nsec(), after.mtime_nsec())
        );
        let second = world.start(&args([&"run", &"/bin/sh", &script]));
        let mut joined = world.take_hold();
        if changed {
            assert!(joined.held_or_gone().is_none());
            let ended = second.wait();
            assert_eq!(ended.stdout, "exit 13\n", "{ended:?}");
            assert!(ended.stderr.contains("was changed since the hold"), "{ended:?}");
        } else {
            joined.wait_held();
            joined.decide(pb::Verdict::Allow);
            assert_eq!(second.wait().stdout, "good\nexit 0\n");
        }
        held.decide(pb::Verdict::Allow);
        assert_eq!(first.wait().stdout, "good\nexit 0\n");
    }
}

#[test]
fn a_question_tells_one_version_of_a_script_from_another() {
    let world = World::new(|_| allow());
    let script = world.path("script");
    write(&script, "#!/bin/sh\necho good\n");
    let settle = || std::thread::sleep(Duration::from_millis(200));
    let versions = |times: usize| {
        for _ in 0..times {
            world.run(&args([&"run", &script]));
        }
        let all = world.execs().into_iter().filter(|exec| !exec.script.is_empty());
        all.map(|exec| exec.context_hash).collect::<Vec<_>>()
    };
    settle();
    let first = versions(2);
    edit(&script, "#!/bin/sh\necho evil\n");
    settle();
    let all = versions(2);
    let [same, again, edited, edited_again] = &all[..] else { panic!("{first:?} {all:?}") };
    assert_eq!((same, edited), (again, edited_again));
    assert_ne!(same, edited);
    // Of what changed just now it cannot be told.
    write(&script, "#!/bin/sh\necho evil\n");
    let all = versions(2);
    assert_ne!(all[all.len() - 1], all[all.len() - 2]);
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
