//! One more command in a running sandbox: what holds for the main command holds for it, and it ends with whoever asked.
//! Run as root, with runc.

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawsec_proto as pb;
use common::Loader;
use common::commands::{
    HELD, begin, child_of, comm, exec, finish, ran, sandbox, sandbox_that, shell, start, supervisor, until,
};
use common::supervisor::{answer, request};
use pb::attach_output::Output;
use pb::loader_message::Message;

fn status_of(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line[field.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_main_commands_limits_and_each_of_its_execs_is_decided() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;

    let waiting = exec(&mut client, "box", shell("echo ready; read end")).await.unwrap();
    waiting.says("ready").await;
    let init: u32 =
        client.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes[0].init_pid;
    let child = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    let other: u32 =
        child.split_whitespace().map(|pid| pid.parse().unwrap()).find(|pid| *pid != waiting.pid).unwrap();
    for field in
        ["Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "CapEff:", "CapBnd:"]
    {
        assert_eq!(status_of(waiting.pid, field), status_of(other, field), "{field}");
    }
    assert_eq!(status_of(waiting.pid, "Seccomp:"), "2");
    assert_eq!(status_of(waiting.pid, "NoNewPrivs:"), "1");
    let own = status_of(waiting.pid, "NSpid:");
    assert_eq!(own.split(' ').next_back().unwrap(), waiting.sandbox_pid.to_string());
    for link in ["cgroup", "mnt", "net", "pid", "ipc", "uts"] {
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{link}")).unwrap();
        assert_eq!(of(waiting.pid), of(other), "{link}");
    }
    let cgroup = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup(waiting.pid), cgroup(other));
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", waiting.pid)).unwrap().count();
    assert_eq!(descriptors, 3, "its streams and nothing of the init's");
    waiting.send(pb::AttachInput { stdin: b"end\n".into(), ..Default::default() }).await;
    assert_eq!(waiting.end().await.unwrap().code, Some(0));

    let out = ran(&mut client, "box", start(&["env"])).await;
    let variables: HashSet<&str> = out.stdout.lines().collect();
    assert!(variables.contains("MARK=of the policy") && variables.contains("PATH=/usr/bin:/bin"), "{out:?}");
    let out = ran(&mut client, "box", shell("id -u; pwd; exit 7")).await;
    assert_eq!((out.stdout.as_str(), out.code), ("1000\n/tmp\n", Some(7)), "{out:?}");
    // Landlock of the main command: the root is not writable, /tmp is.
    let out = ran(&mut client, "box", shell("echo x >/dev/shm-x && echo W; echo x >/etc-x || echo R")).await;
    assert!(out.stdout.ends_with("R\n"), "{out:?}");

    let out = ran(&mut client, "box", start(&["mkdir", "/tmp/made"])).await;
    assert_eq!(out.code, Some(126), "{out:?}");
    assert!(out.stderr.contains("denied by rule test/rule"), "{out:?}");
    assert!(!Path::new(&format!("/proc/{other}/root/tmp/made")).exists());
    let out = ran(&mut client, "box", shell("mkdir /tmp/made; echo $?")).await;
    assert_eq!(out.stdout, "126\n", "what a command starts is decided too: {out:?}");
    let out = ran(&mut client, "box", start(&["no-such-program"])).await;
    assert_eq!(out.code, Some(127), "{out:?}");
    assert!(out.stderr.contains("\"no-such-program\" was not started"), "{out:?}");

    for (verdict, code, there) in [(pb::Verdict::Deny, 137, false), (pb::Verdict::Allow, 0, true)] {
        supervisor.heard.lock().unwrap().clear();
        let held = exec(&mut client, "box", start(&[HELD, "/tmp/touched"])).await.unwrap();
        let (question, id, epoch) = supervisor
            .hears(|message| match message {
                Message::Held(held) => Some((held.question_id, held.hold_id.clone(), 1)),
                _ => None,
            })
            .await;
        let touched = format!("/proc/{other}/root/tmp/touched");
        assert!(!Path::new(&touched).exists(), "it stands still");
        let decision = pb::Decision { question_id: question, hold_id: id, epoch, ..answer(verdict) };
        supervisor.decide(decision).await;
        assert_eq!(held.end().await.unwrap().code, Some(code), "{verdict:?}");
        assert_eq!(Path::new(&touched).exists(), there, "{verdict:?}");
    }
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_subject_has_that_subjects_cgroup_layer_and_environment() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;
    let script = "echo x >/tmp/of-$0 && echo W || echo R; echo ${BASH_ENV-unset}; cat /proc/self/cgroup";
    for (subject, first) in [("main", "W\n/tmp/none\n"), ("tool", "R\nunset\n")] {
        supervisor.heard.lock().unwrap().clear();
        let exec = pb::ExecStart { subject: subject.into(), ..start(&["sh", "-c", script, subject]) };
        let out = ran(&mut client, "box", exec).await;
        assert!(out.stdout.starts_with(first), "{subject}: {out:?}");
        let of = supervisor.hears(|message| match message {
            Message::Question(question) => Some(question.subject.clone()),
            _ => None,
        });
        assert_eq!(of.await, subject, "its first exec is decided as the subject's");
    }
    let exec = pb::ExecStart { subject: "nobody".into(), ..start(&["id"]) };
    let error = begin(&mut client, "box", exec).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("has no subject \"nobody\"; it has main, tool"), "{error}");
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_killed_at_any_moment_end_or_never_begin_and_no_stranger_is_in_their_cgroup() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    // Kills all but itself and the init, which is none of its own; many numbers are used again meanwhile.
    let script = "echo ready; read go; while :; do kill -9 -1; done";
    let main = sandbox_that(&mut client, "storm", script).await;
    let of_tool = || pb::ExecStart { subject: "tool".into(), ..start(&["sh", "-c", "sleep 60"]) };
    let calm = pb::ExecStart { subject: "tool".into(), ..start(&["echo", "calm"]) };
    assert_eq!(ran(&mut client, "storm", calm).await.stdout, "calm\n");
    main.input.send(pb::AttachInput { stdin: b"go\n".to_vec(), ..Default::default() }).await.unwrap();
    let (mut begun, mut never) = (0, 0);
    for _ in 0..60 {
        match exec(&mut client, "storm", of_tool()).await {
            Ok(command) => {
                let code = command.end().await.unwrap().code;
                assert_eq!(code, Some(137), "it was killed");
                begun += 1;
            }
            Err(status) => {
                assert!(status.message().contains("killed before it began"), "{status}");
                never += 1;
            }
        }
    }
    println!("{begun} began, {never} never did");
    let info = client.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap().into_inner();
    let init = info.sandboxes[0].init_pid;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = table.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
    let instance = clawsec_loader::process::instance(loader.dir());
    let procs = Path::new(mount).join(format!("clawsec-{instance}/storm/tool/cgroup.procs"));
    for pid in std::fs::read_to_string(procs).unwrap().lines() {
        let own = namespace(pid);
        assert!(own.is_none() || own == namespace(&init.to_string()), "{pid} is a stranger");
    }
    let kill = pb::KillSandboxRequest { name: "storm".into(), reason: "the test".into() };
    client.kill_sandbox(kill).await.unwrap();
    assert_eq!(main.end().await.code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_with_its_size_and_its_keys_are_signals() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;
    let terminal = |start: pb::ExecStart| pb::ExecStart { terminal: true, term: "vt100".into(), ..start };

    let out = ran(&mut client, "box", shell("test -t 0 || echo none; echo ${TERM-unset}")).await;
    assert_eq!(out.stdout, "none\nunset\n");
    let out =
        ran(&mut client, "box", terminal(shell("tty; stty size; echo $TERM; test -t 2 && echo err"))).await;
    assert_eq!(out.stdout, "/dev/pts/0\r\n33 111\r\nvt100\r\nerr\r\n", "{out:?}");

    let shell = exec(
        &mut client,
        "box",
        terminal(shell("trap 'stty size' WINCH; echo ready; sleep 60; read a; sleep 60")),
    )
    .await
    .unwrap();
    shell.says("ready").await;
    // dash forgets a SIGINT that comes between its vfork and the exec of the child ("vforked" in its onsig).
    until("its child runs", || child_of(shell.pid).is_some_and(|child| comm(&child) == "sleep")).await;
    let resize = Some(pb::TerminalSize { rows: 5, columns: 40 });
    shell.send(pb::AttachInput { resize, ..Default::default() }).await;
    // The shell runs its trap when its child has ended: Ctrl-C ends the whole foreground group, so a signal alone does.
    shell.send(pb::AttachInput { stdin: b"\x03".into(), ..Default::default() }).await;
    let out = shell.end().await.unwrap();
    assert_eq!(out.code, Some(130), "{out:?}");
    let end = exec(&mut client, "box", terminal(start(&["cat"]))).await.unwrap();
    end.send(pb::AttachInput { stdin: b"typed\n".into(), ..Default::default() }).await;
    end.says("typed\r\ntyped").await;
    end.send(pb::AttachInput { stdin_eof: true, ..Default::default() }).await;
    assert_eq!(end.end().await.unwrap().code, Some(0));
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_a_commands_group_and_its_status_says_which_ended_it() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130), (libc::SIGKILL, 137)] {
        let command = exec(&mut client, "box", shell("sleep 60 & echo ready; wait")).await.unwrap();
        command.says("ready").await;
        let child = child_of(command.pid).unwrap();
        command.send(pb::AttachInput { signal, ..Default::default() }).await;
        assert_eq!(command.end().await.unwrap().code, Some(code));
        let gone = || !Path::new(&format!("/proc/{child}")).exists();
        // A shell without job control has its background jobs ignore SIGINT.
        if signal != libc::SIGINT {
            until("its child is gone", gone).await;
        }
    }
    let command =
        exec(&mut client, "box", shell("trap 'echo caught; exit 3' TERM; echo ready; sleep 60 & wait"))
            .await
            .unwrap();
    command.says("ready").await;
    // Behind more input than the command's pipe takes.
    let stdin = vec![b'x'; 150 << 10];
    command.send(pb::AttachInput { stdin, ..Default::default() }).await;
    command.send(pb::AttachInput { signal: libc::SIGTERM, ..Default::default() }).await;
    let out = command.end().await.unwrap();
    assert_eq!((out.stdout.as_str(), out.code), ("ready\ncaught\n", Some(3)), "{out:?}");
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_go_both_ways_and_a_reader_that_waits_stops_the_writer() {
    const SIZE: usize = 8 << 20;
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;

    let cat = exec(&mut client, "box", start(&["cat"])).await.unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at * 7 % 251) as u8).collect();
    for chunk in bytes.chunks(32 << 10) {
        cat.send(pb::AttachInput { stdin: chunk.into(), ..Default::default() }).await;
    }
    cat.send(pb::AttachInput { stdin_eof: true, ..Default::default() }).await;
    let stdout = Arc::clone(&cat.stdout);
    assert_eq!(cat.end().await.unwrap().code, Some(0));
    assert!(*stdout.lock().unwrap() == bytes, "every byte, in its order");

    let (pid, _, _input, mut outputs) =
        begin(&mut client, "box", start(&["head", "-c", "64M", "/dev/zero"])).await.unwrap();
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse::<u64>().unwrap()
    };
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = written();
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    assert!(before < 16 << 20, "{before} bytes were taken that nobody reads");
    let mut read = 0;
    let mut code = None;
    while let Some(message) = outputs.message().await.unwrap() {
        match message.output.unwrap() {
            Output::Stdout(bytes) => read += bytes.len(),
            Output::Exit(exit) => code = Some(exit.code),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((read, code), (64 << 20, Some(0)));

    // Who keeps the streams open does not keep the answer back, and what was written before the end is all there.
    let out =
        ran(&mut client, "box", shell("sleep 60 & head -c 60000 /dev/zero | tr '\\0' x; echo end")).await;
    assert_eq!((out.stdout.len(), out.code), (60_004, Some(0)));
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_whoever_asked_and_its_sandbox_goes_on() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;
    for (terminal, script) in
        [(false, "sleep 60"), (true, "sleep 60"), (false, "trap '' TERM; sleep 60; sleep 60")]
    {
        let exec = pb::ExecStart { terminal, ..shell(&format!("echo ready; {script}; true")) };
        let (pid, _, input, mut outputs) = begin(&mut client, "box", exec).await.unwrap();
        assert!(matches!(outputs.message().await.unwrap().unwrap().output, Some(Output::Stdout(_))));
        drop((input, outputs));
        until(&format!("{script} is gone"), || !Path::new(&format!("/proc/{pid}")).exists()).await;
    }
    assert_eq!(ran(&mut client, "box", start(&["true"])).await.code, Some(0));
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_each_have_their_own_streams_and_status() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let main = sandbox(&mut client, "box").await;
    let mut commands = Vec::new();
    for number in 0..20 {
        let mut client = client.clone();
        commands.push(tokio::spawn(async move {
            let command = exec(&mut client, "box", shell("read number; echo $number; exit $number")).await;
            let command = command.unwrap();
            let stdin = format!("{number}\n").into_bytes();
            command.send(pb::AttachInput { stdin, ..Default::default() }).await;
            (number, command.end().await.unwrap())
        }));
    }
    for command in commands {
        let (number, out) = command.await.unwrap();
        assert_eq!((out.stdout, out.code), (format!("{number}\n"), Some(number)));
    }
    finish(&mut client, &loader, "box", main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_runs_nothing_is_started_and_a_kill_ends_commands_with_a_sentence() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = supervisor(&mut client).await;
    let error = begin(&mut client, "box", start(&["id"])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    client.create_sandbox(request("created", &["/usr/bin/true"])).await.unwrap();
    let error = begin(&mut client, "created", start(&["id"])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    assert!(error.message().contains("is not running"), "{error}");

    let main = sandbox(&mut client, "box").await;
    let error = begin(&mut client, "box", start(&[])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let sleeping = exec(&mut client, "box", start(&["sleep", "60"])).await.unwrap();
    let held = exec(&mut client, "box", start(&[HELD, "/tmp/x"])).await.unwrap();
    supervisor.hears(|message| matches!(message, Message::Held(_)).then_some(())).await;
    let kill = pb::KillSandboxRequest { name: "box".into(), reason: "the test says so".into() };
    let report = client.kill_sandbox(kill).await.unwrap().into_inner();
    assert_eq!(report.sandboxes[0].survivors, 0);
    for command in [sleeping, held] {
        let error = command.end().await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Aborted);
        assert!(
            error.message().contains("the sandbox box was killed meanwhile: the test says so"),
            "{error}"
        );
    }
    // The hold is over as well, as nobody's or as a denial, by which of the two the gate sees first.
    let denied = |settled: &pb::Settled| settled.verdict() == pb::Verdict::Deny;
    let over = supervisor.hears(|message| match message {
        Message::RequesterGone(_) => Some(()),
        Message::Settled(settled) => denied(settled).then_some(()),
        _ => None,
    });
    over.await;
    main.end().await;
    let error = begin(&mut client, "box", start(&["id"])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
}
