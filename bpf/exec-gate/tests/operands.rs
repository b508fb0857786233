//! A script that an interpreter is given as its argument is one like that with a `#!` line, and a program that the
//! dynamic loader is given counts as what is executed.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clawsec_core::pb;
use common::{World, allow, args, deny, hold};

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

fn node() -> String {
    let linked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules/.bin/node");
    fs::canonicalize(linked).expect("node_modules has Node").display().to_string()
}

const ECHO: &str = "echo WORD";
const PRINT: &str = "print('WORD')";
const LOG: &str = "console.log('WORD')";

/// Command lines with a script in the place of SCRIPT, and a line of their language that writes a word.
fn commands() -> Vec<(Vec<String>, &'static str)> {
    let lines = [
        ("/bin/sh SCRIPT".to_owned(), ECHO),
        ("/bin/sh -eo nounset -- SCRIPT".into(), ECHO),
        ("/bin/bash SCRIPT".into(), ECHO),
        ("/bin/bash --norc -O extglob SCRIPT -c x".into(), ECHO),
        ("/usr/bin/env X=1 /bin/bash SCRIPT".into(), ECHO),
        ("/usr/bin/perl -w -T SCRIPT".into(), "print \"WORD\\n\";"),
        ("/usr/bin/python3 SCRIPT".into(), PRINT),
        ("/usr/bin/python3 -I -W ignore SCRIPT".into(), PRINT),
        (format!("{} SCRIPT", node()), LOG),
        (format!("{} --no-warnings --title x SCRIPT", node()), LOG),
        (format!("{} -p --no-warnings SCRIPT", node()), LOG),
    ];
    lines.map(|(line, text)| (line.split(' ').map(str::to_owned).collect(), text)).into()
}

fn with(command: &[String], script: &Path) -> Vec<std::ffi::OsString> {
    let fill = |word: &String| word.replace("SCRIPT", script.to_str().unwrap()).into();
    std::iter::once("run".into()).chain(command.iter().map(fill)).collect()
}

fn write(path: &Path, text: &str, word: &str) {
    fs::write(path, format!("{}\n", text.replace("WORD", word))).unwrap();
}

#[test]
fn a_script_that_an_interpreter_is_given_is_the_script_of_its_exec_and_can_be_denied() {
    let by_name = |question: &pb::Question| {
        if exec(question).script.ends_with("/denied") { deny() } else { allow() }
    };
    for (command, text) in commands() {
        let world = World::new(by_name);
        let (denied, free) = (world.path("denied"), world.path("free"));
        write(&denied, text, "ran");
        write(&free, text, "ran");
        let ended = world.run(&with(&command, &denied));
        assert!(!ended.stdout.contains("ran"), "{command:?}: {ended:?}");
        let ended = world.run(&with(&command, &free));
        assert_eq!(ended.stdout, "ran\nexit 0\n", "{command:?}: {ended:?}");
        let given = world.execs().into_iter().find(|exec| exec.script == free.to_str().unwrap());
        let given = given.unwrap_or_else(|| panic!("{command:?}"));
        assert_eq!(given.code(), pb::ExecCode::File, "{command:?}");
        assert!(!given.script_file_id.is_empty() && given.script_unknown.is_empty(), "{given:?}");
    }
}

#[test]
fn a_denied_script_is_denied_by_whatever_name_it_is_given() {
    let world =
        World::new(|question| if exec(question).script.ends_with("/denied") { deny() } else { allow() });
    write(&world.path("denied"), ECHO, "ran");
    write(&world.path("free"), ECHO, "ran");
    for name in ["denied", "free"] {
        let link = world.path(&format!("to-{name}"));
        symlink(world.path(name), &link).unwrap();
        let expected = if name == "free" { "ran\nexit 0\n" } else { "exit 13\n" };
        for given in [
            name.to_owned(),
            format!("./{name}"),
            format!("to-{name}"),
            format!("/proc/self/cwd/{name}"),
            format!("/proc/self/root{}", link.display()),
        ] {
            assert_eq!(world.run(&args([&"run", &"/bin/sh", &given])).stdout, expected, "{given}");
        }
    }
}

#[test]
fn a_script_that_an_interpreter_is_given_and_that_is_edited_under_its_hold_runs_as_it_was() {
    for (command, text) in commands() {
        let world = World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() });
        let script = world.path("script");
        write(&script, text, "good");
        let actor = world.start(&with(&command, &script));
        let mut held = world.take_hold();
        held.wait_held();
        let file = fs::File::options().write(true).open(&script).unwrap();
        file.write_all_at(text.replace("WORD", "evil").as_bytes(), 0).unwrap();
        held.decide(pb::Verdict::Allow);
        let ended = actor.wait();
        assert_eq!(ended.stdout, "good\nexit 0\n", "{command:?}: {ended:?}");
    }
}

#[test]
fn what_is_no_file_is_told_apart_and_an_option_that_is_not_known_leaves_the_script_open() {
    use pb::ExecCode::{File, Inline, Module, Stream, Unknown, Unspecified};
    let world = World::new(|_| allow());
    write(&world.path("script"), "exit 0", "");
    fs::create_dir(world.path("folder")).unwrap();
    write(&world.path("folder/index.js"), "", "");
    write(&world.path("folder/__main__.py"), "", "");
    let node = node();
    for (line, code, unknown) in [
        ("/bin/sh -c true", Inline, false),
        ("/bin/sh -s", Stream, false),
        ("/usr/bin/python3 -c 1", Inline, false),
        ("/usr/bin/python3 -m this", Module, false),
        ("/bin/sh script", File, false),
        ("/bin/sh missing", File, true),
        ("/bin/bash --new-option script", Unknown, true),
        ("/bin/true script", Unspecified, false),
        ("/bin/bash --rcfile /dev/null script", File, false),
        ("/bin/bash --rcfile script /dev/null", Stream, true),
        ("/bin/bash --rcfile script", Unknown, true),
        // Its byte code comes before its text.
        ("/usr/bin/python3 folder", File, true),
        (&format!("{node} ./folder"), File, false),
        (&format!("{node} ./folder/index"), File, false),
        (&format!("{node} -r ./folder/index.js -e 1"), Unknown, true),
    ] {
        let before = world.questions();
        let command: Vec<&str> = std::iter::once("run").chain(line.split(' ')).collect();
        world.run(&command);
        let asked = world.execs().swap_remove(before);
        assert_eq!((asked.code(), !asked.script_unknown.is_empty()), (code, unknown), "{line}: {asked:?}");
    }
}

fn dynamic_loader() -> PathBuf {
    let names = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    names.iter().find_map(|name| fs::canonicalize(name).ok()).expect("glibc is there")
}

#[test]
fn the_dynamic_loader_counts_as_the_program_that_it_is_given() {
    let world =
        World::new(|question| if exec(question).executable.ends_with("/echo") { deny() } else { allow() });
    let loader = dynamic_loader();
    for options in [&[][..], &["--argv0", "x", "--inhibit-cache"], &["--preload", "/nowhere"]] {
        let line = |program: &'static str| {
            let words = ["run", loader.to_str().unwrap()].into_iter().chain(options.iter().copied());
            words.chain([program, "ran"]).map(str::to_owned).collect::<Vec<String>>()
        };
        assert_eq!(world.run_read_only(&line("/usr/bin/echo")).stdout, "exit 13\n", "{options:?}");
        let denied = world.execs().pop().unwrap();
        assert_eq!(denied.loader, loader.to_str().unwrap());
        let preloaded = denied.environment_names.contains(&"LD_PRELOAD".to_owned());
        assert_eq!(preloaded, options.contains(&"--preload"));
        // The control: another program runs so.
        assert_eq!(world.run_read_only(&line("/usr/bin/printf")).stdout, "ranexit 0\n", "{options:?}");
    }
}

#[test]
fn the_dynamic_loader_is_refused_a_program_that_can_be_changed_before_it_is_opened() {
    let world = World::new(|_| allow());
    let program = world.path("program");
    fs::copy("/usr/bin/echo", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = world.run(&args([&"run", &dynamic_loader(), &program, &"ran"]));
    assert_eq!(ended.stdout, "exit 13\n");
    assert!(ended.stderr.contains("start it by its own name"), "{ended:?}");
    assert_eq!(world.run(&args([&"run", &program, &"ran"])).stdout, "ran\nexit 0\n");
}
