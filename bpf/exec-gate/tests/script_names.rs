//! Whatever the name of a script leads to when its interpreter opens it, and whatever else the interpreter opens: what was
//! decided about is what runs. And who may not read a script gets nothing of it.

mod common;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clawsec_core::pb;
use common::script::{by_script, interpreters, node, text, write};
use common::{World, allow, args, hold};
use nix::sys::stat::Mode;

fn exec(question: &pb::Question) -> &pb::ExecAction {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

fn holds_scripts() -> World {
    World::new(|question| if exec(question).script.is_empty() { allow() } else { hold() })
}

/// Holds what an actor does, lets `change` happen meanwhile, allows it, and gives what was written.
fn after_a_change(world: &World, command: &[OsString], change: impl FnOnce()) -> String {
    let actor = world.start(command);
    let mut held = world.take_hold();
    if held.held_or_gone().is_none() {
        panic!("it was not held: {:?}", actor.wait());
    }
    change();
    held.decide(pb::Verdict::Allow);
    let ended = actor.wait();
    assert!(!ended.stdout.contains("evil"), "{ended:?}");
    let is_told = ended.stderr.contains("clawsec: ") && ended.stderr.contains("its interpreter was killed");
    assert_eq!(ended.stdout == "signal 9\n", is_told, "{ended:?}");
    ended.stdout
}

// `fails`: which interpreter ends how, since it misses what it looks for besides.
fn for_each_interpreter(fails: impl Fn(&str) -> Option<u32>, change: impl Fn(&World, &Path, &str)) {
    for (name, first, line) in interpreters() {
        let world = holds_scripts();
        let script = world.path(name);
        write(&script, &text(&first, line, "good"));
        let evil = text(&first, line, "evil");
        let said = after_a_change(&world, &args([&"run", &script]), || {
            fs::rename(&script, world.path("before")).unwrap();
            change(&world, &script, &evil);
        });
        match fails(name) {
            Some(code) => assert_eq!(said, format!("exit {code}\n"), "{name}"),
            None => assert_eq!(said, "good\nexit 0\n", "{name}"),
        }
    }
}

fn is_node(name: &str) -> bool {
    name.starts_with("node") || name == "module" || name == "env-node"
}

#[test]
fn a_script_whose_name_leads_to_nothing_under_its_hold_runs_as_it_was() {
    // Node looks for links on the way.
    for_each_interpreter(|name| is_node(name).then_some(1), |_, _, _| {});
}

#[test]
fn a_script_whose_name_becomes_a_pipe_under_its_hold_runs_as_it_was() {
    for_each_interpreter(
        |_| None,
        |_, script, evil| {
            nix::unistd::mkfifo(script, Mode::from_bits_truncate(0o777)).unwrap();
            let mut pipe = fs::File::options();
            let mut pipe = pipe.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(script).unwrap();
            pipe.write_all(evil.as_bytes()).unwrap();
            // It must have what was written for longer than the interpreter needs.
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_secs(5));
                drop(pipe);
            });
        },
    );
}

#[test]
fn a_script_whose_name_becomes_a_folder_under_its_hold_runs_as_it_was() {
    // Bash looks again when it has opened it, and runs no folder. Node that env executes is given another script now: the one
    // in the folder.
    let fails = |name: &str| ["bash", "env-node"].contains(&name).then_some(126);
    for_each_interpreter(fails, |_, script, evil| {
        fs::create_dir(script).unwrap();
        for name in ["__main__.py", "index.js", "main.js"] {
            write(&script.join(name), evil);
        }
        write(&script.join("package.json"), r#"{ "main": "main.js" }"#);
    });
}

#[test]
fn byte_code_that_is_exchanged_under_its_hold_runs_as_it_was() {
    let compiled = |world: &World, word: &str| {
        let (text, code) = (world.path(&format!("{word}.py")), world.path(&format!("{word}.pyc")));
        write(&text, &format!("print('{word}')\n"));
        let compile = "import sys, py_compile; py_compile.compile(sys.argv[1], sys.argv[2])";
        let done = Command::new("/usr/bin/python3").args(["-c", compile]).args([&text, &code]).status();
        assert!(done.unwrap().success());
        code
    };
    for name in ["script.pyc", "script"] {
        // One for each: byte code contains the second of its making, and all holds of a world have one id.
        let world = holds_scripts();
        let script = world.path(name);
        fs::rename(compiled(&world, "good"), &script).unwrap();
        let evil = compiled(&world, "evil");
        let said = after_a_change(&world, &args([&"run", &"/usr/bin/python3", &script]), || {
            fs::rename(evil, &script).unwrap();
        });
        assert_eq!(said, "good\nexit 0\n", "{name}");
    }
}

#[test]
fn bash_does_not_look_for_its_script_elsewhere() {
    let world = holds_scripts();
    let elsewhere = world.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    write(&elsewhere.join("script"), "echo evil\n");
    write(&world.path("script"), "echo good\n");
    let path = format!("PATH={}", elsewhere.display());
    let command = args([&"run", &"/usr/bin/env", &path, &"/bin/bash", &"script"]);
    let said = after_a_change(&world, &command, || {
        fs::rename(world.path("script"), world.path("before")).unwrap();
    });
    assert_eq!(said, "good\nexit 0\n");
}

/// Writes a script, prepares, lets it run under a hold under which it is replaced, and gives what was written.
fn after_a_replacement(
    good: &str,
    evil: &str,
    prepare: impl FnOnce(&World, &Path) -> Vec<OsString>,
) -> String {
    let world = holds_scripts();
    let script = world.path("script");
    write(&script, good);
    let command = prepare(&world, &script);
    after_a_change(&world, &command, || {
        write(&world.path("evil"), evil);
        fs::rename(world.path("evil"), &script).unwrap();
    })
}

// It has a second name each time, by which its interpreter opens it before it opens its script.
#[test]
fn another_name_of_the_script_that_the_interpreter_opens_first_is_not_its_script() {
    let said = after_a_replacement("print('good')\n", "print('evil')\n", |world, script| {
        let python = world.path("venv/bin/python");
        fs::create_dir_all(python.parent().unwrap()).unwrap();
        symlink("/usr/bin/python3", &python).unwrap();
        fs::hard_link(script, world.path("venv/pyvenv.cfg")).unwrap();
        args([&"run", &python, &script])
    });
    assert_eq!(said, "good\nexit 0\n");

    let said = after_a_replacement("{}", "console.log('evil')", |world, script| {
        fs::hard_link(script, world.path("package.json")).unwrap();
        args([&"run", &node(), &script])
    });
    assert_eq!(said, "exit 0\n");

    let said = after_a_replacement("echo good\n", "echo evil\n", |world, script| {
        let locale = world.path("locale/xx");
        fs::create_dir_all(&locale).unwrap();
        fs::hard_link(script, locale.join("LC_IDENTIFICATION")).unwrap();
        let place = format!("LOCPATH={}", world.path("locale").display());
        args([&"run", &"/usr/bin/env", &place, &"LC_ALL=xx", &"/bin/bash", &script])
    });
    assert_eq!(said, "good\nexit 0\n");
}

#[test]
fn node_runs_nothing_that_is_where_its_own_files_are() {
    let own = |name: &str| format!("/dev/shm/clawsec-{}-{name}", std::process::id());
    // What it is called runs as JavaScript.
    let mut sleeps = Command::new("/bin/sleep").arg0("console.log('evil')//").arg("60").spawn().unwrap();
    let other = format!("/proc/{}/cmdline", sleeps.id());
    for target in [own("e.js"), "openssl.cnf".into(), "evil.so".into(), other] {
        let world = holds_scripts();
        let script = world.path("script.js");
        write(&script, "console.log('good')");
        let target = world.folder.path().join(target);
        let said = after_a_change(&world, &args([&"run", &node(), &script]), || {
            if !target.starts_with("/proc") {
                write(&target, "console.log('evil')");
            }
            fs::remove_file(&script).unwrap();
            symlink(&target, &script).unwrap();
        });
        assert_eq!(said, "signal 9\n", "{}", target.display());
        let opened = format!("it opened {} where its script was expected", target.display());
        world.event("why it was killed", |event| match &event.kind {
            Some(pb::event::Kind::Decision(decision)) if decision.message.ends_with(&opened) => {
                assert_eq!((decision.verdict(), decision.layer.as_str()), (pb::Verdict::Deny, "gate"));
                Some(())
            }
            _ => None,
        });
        if !target.starts_with("/proc") {
            fs::remove_file(&target).unwrap();
        }
    }
    sleeps.kill().unwrap();
    sleeps.wait().unwrap();
}

// With a process beside it that has the same descriptors and sets the position of the copy, it lets dash run a script.
const MOVE: &str = r#"
import ctypes, os, sys, time
CLONE_FILES, SIGCHLD, SYS_CLONE = 0x400, 17, 56
if ctypes.CDLL(None).syscall(SYS_CLONE, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) == 0:
    end = time.monotonic() + 3
    mine = None
    while time.monotonic() < end:
        if mine is None:
            for number in range(3, 40):
                try:
                    if "memfd:script" in os.readlink(f"/proc/self/fd/{number}"):
                        mine = os.dup(number)
                except OSError:
                    pass
        else:
            os.lseek(mine, 23, 0)
    os._exit(0)
time.sleep(0.2)
os.execv("/bin/dash", ["dash", sys.argv[1]])
"#;

#[test]
fn a_script_is_read_from_its_beginning_whoever_has_its_descriptors() {
    let world = holds_scripts();
    let script = world.path("script");
    let content = "echo good; exit # log: echo evil\n";
    assert_eq!(&content[23..], "echo evil\n");
    write(&script, content);
    let command = args([&"run", &"/usr/bin/python3", &"-c", &MOVE, &script]);
    let said = after_a_change(&world, &command, || std::thread::sleep(std::time::Duration::from_millis(500)));
    assert_eq!(said, "good\nexit 0\n");
}

// As a user, with a process beside it that has the same descriptors, it lets bash show a script.
const SHOW: &str = r#"
import ctypes, os, sys, time
secret = sys.argv[1]
os.setgid(1000)
os.setuid(1000)
CLONE_FILES, SIGCHLD, SYS_CLONE = 0x400, 17, 56
if ctypes.CDLL(None).syscall(SYS_CLONE, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) == 0:
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for number in range(3, 40):
            try:
                text = os.pread(number, 100, 0)
            except OSError:
                continue
            if b"word" in text:
                os.write(1, b"leaked\n")
                os._exit(0)
    os._exit(0)
time.sleep(0.2)
os.execv("/bin/bash", ["bash", "-v", secret])
"#;

#[test]
fn who_may_not_read_a_script_gets_nothing_of_it() {
    let world = World::new(|_| by_script(allow()));
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(world.path("closed")).unwrap();
    for (name, mode) in [("open", 0o644), ("secret", 0o600), ("closed/open", 0o644)] {
        let script = world.path(name);
        fs::write(&script, "echo \"the word\"\n").unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(world.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let show = |name: &str| world.run(&args([&"run", &"/usr/bin/python3", &"-c", &SHOW, &world.path(name)]));

    let ended = show("open");
    assert!(ended.stdout.contains("the word\n") && ended.stdout.contains("exit 0\n"), "{ended:?}");
    assert!(ended.stderr.contains("echo \"the word\""), "{ended:?}");
    for name in ["secret", "closed/open"] {
        let ended = show(name);
        assert_eq!(ended.stdout, "exit 126\n", "{name}: {ended:?}");
        assert!(ended.stderr.contains("Permission denied") && !ended.stderr.contains("word"), "{ended:?}");
    }
}
