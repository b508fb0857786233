//! The life of real sandboxes: starts, ends, signals, streams, kills. Needs root and runc.

mod support;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clawsec_proto as pb;
use clawsec_sandbox::Error;
use support::{World, drain, request, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_init_keeps_is_open_until_the_end_and_not_in_the_sandbox() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let world = World::new().await;
    *world.hooks.kept.lock().unwrap() = Some(writer.into());
    // Field 19 is the nice value: the init comes first, what it starts is ordinary.
    let open = "echo /proc/self/fd/*; head -c1 /proc/1/fd/3 || echo refused; cut -d' ' -f19 /proc/1/stat /proc/self/stat; \
        (while :; do :; done) & exit 3";
    let (info, output, _) = world.run(request("kept", &["sh", "-c", open])).await;
    assert_eq!(info.exit.unwrap().code, 3);
    println!("{output}");
    assert!(!output.contains("/fd/4") && output.ends_with("refused\n-20\n0\n"), "{output}");
    // Nobody has a copy left.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_commands_exit_code_is_the_sandboxs() {
    let world = World::new().await;
    for (args, code, signal) in [
        (vec!["/bin/true"], 0, 0),
        (vec!["sh", "-c", "exit 7"], 7, 0),
        (vec!["sh", "-c", "kill -9 $$"], 137, 9),
        (vec!["sh", "-c", "exit 137"], 137, 0),
        (vec!["no-such-command"], 127, 0),
        (vec!["/usr"], 126, 0),
    ] {
        let (info, _, stderr) = world.run(request("exit", &args)).await;
        assert_eq!(info.exit, Some(pb::ExitStatus { code, signal }), "{args:?}: {stderr}");
        assert_eq!(info.state(), pb::SandboxState::Exited, "{args:?}");
        assert!(info.started_us >= info.created_us && info.ended_us >= info.started_us);
    }
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hooks_come_in_the_documented_order() {
    let world = World::new().await;
    world.run(request("order", &["/bin/true"])).await;
    assert_eq!(world.calls(), ["prepare", "created", "approve_shim", "network_cut", "gone"]);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_as_the_user_with_the_environment_and_nothing_but_its_streams_open() {
    let world = World::new().await;
    let script = "id -u; echo $GREETING; ls /proc/self/fd; hostname; cat /proc/self/status | grep -E 'NoNewPrivs|CapBnd'";
    let (_, stdout, stderr) = world.run(request("who", &["sh", "-c", script])).await;
    // 3 is what ls opened to read the folder.
    assert_eq!(
        stdout, "1000\nhello\n0\n1\n2\n3\nsandbox\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n",
        "{stderr}"
    );
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_gives_the_main_command_its_time_and_then_kills_it() {
    let world = World::new().await;
    let polite = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.02; done";
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
    for (script, code) in [(polite, 5), (stubborn, 137)] {
        world.sandboxes.create(request("stop", &["sh", "-c", script])).await.unwrap();
        let mut attachment = world.sandboxes.get("stop").unwrap().io().attach().unwrap();
        world.sandboxes.start("stop").await.unwrap();
        until(&mut attachment, "ready").await;
        let report = world.sandboxes.stop("stop", Duration::from_millis(700)).await.unwrap();
        assert!(report.processes >= 2, "{report:?}");
        assert_eq!(report.survivors, 0);
        let info = world.sandboxes.wait("stop").await.unwrap();
        assert_eq!(info.exit.unwrap().code, code);
        assert_eq!(info.state(), pb::SandboxState::Killed);
    }
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_main_commands_process_group() {
    let world = World::new().await;
    let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.02; done";
    world.sandboxes.create(request("signal", &["sh", "-c", script])).await.unwrap();
    let sandbox = world.sandboxes.get("signal").unwrap();
    assert!(sandbox.signal(libc::SIGUSR1).await.is_err(), "it is not running yet");
    let mut attachment = sandbox.io().attach().unwrap();
    world.sandboxes.start("signal").await.unwrap();
    until(&mut attachment, "ready").await;
    sandbox.signal(libc::SIGUSR1).await.unwrap();
    assert_eq!(world.sandboxes.wait("signal").await.unwrap().exit.unwrap().code, 3);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_reaped() {
    let world = World::new().await;
    let script = "for i in 1 2 3 4 5; do (true & exec true) ; (sleep 0.05 & ) ; done; sleep 0.4; \
                  cat /proc/[0-9]*/stat | grep -c ') Z '; ls -d /proc/[0-9]* | wc -l";
    let (_, stdout, _) = world.run(request("zombies", &["sh", "-c", script])).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "0", "zombies: {stdout}");
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_200_processes_is_killed_without_survivors() {
    let world = World::new().await;
    world.sandboxes.create(request("tree", &["/act", "tree", "134"])).await.unwrap();
    let mut attachment = world.sandboxes.get("tree").unwrap().io().attach().unwrap();
    world.sandboxes.start("tree").await.unwrap();
    until(&mut attachment, "forked").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let report = world.sandboxes.kill("tree", "the test").await.unwrap();
    println!("{report:?}");
    assert!(report.processes >= 200, "{report:?}");
    assert_eq!(report.survivors, 0);
    assert!(report.network_cut_us <= report.secrets_empty_us);
    assert!(report.secrets_empty_us <= report.signalled_us && report.signalled_us <= report.gone_us);
    assert_eq!(world.sandboxes.info("tree").unwrap().state(), pb::SandboxState::Killed);
    let again = world.sandboxes.kill("tree", "again").await.unwrap();
    assert_eq!((again.processes, again.survivors), (0, 0));
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_never_started_can_be_killed_and_cannot_be_started_then() {
    let world = World::new().await;
    let (info, _) = world.sandboxes.create(request("unstarted", &["/bin/true"])).await.unwrap();
    assert_eq!(info.state(), pb::SandboxState::Created);
    assert!(info.init_pid > 0 && info.processes == 1);
    let reports = world.sandboxes.kill_all("the test").await;
    assert_eq!(
        reports.iter().map(|report| (report.processes, report.survivors)).collect::<Vec<_>>(),
        [(1, 0)]
    );
    assert!(world.sandboxes.start("unstarted").await.is_err());
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_of_the_same_name_is_refused_until_the_first_has_ended() {
    let world = World::new().await;
    world.sandboxes.create(request("twice", &["sleep", "100"])).await.unwrap();
    let second = world.sandboxes.create(request("twice", &["/bin/true"])).await;
    assert!(matches!(second, Err(Error::Exists(_))), "{second:?}");
    world.sandboxes.start("twice").await.unwrap();
    assert!(matches!(world.sandboxes.start("twice").await, Err(Error::Precondition(_))));
    assert!(world.sandboxes.create(request("other", &["/bin/true"])).await.is_ok());
    world.sandboxes.kill_all("the test").await;
    let (info, ..) = world.run(request("twice", &["sh", "-c", "exit 4"])).await;
    assert_eq!(info.exit.unwrap().code, 4);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_a_reader_blocks_only_one_that_is_not_detached() {
    let world = World::new().await;
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; echo the end";
    let mut detached = request("detached", &["sh", "-c", script]);
    detached.detached = true;
    world.sandboxes.create(detached).await.unwrap();
    world.sandboxes.start("detached").await.unwrap();
    assert_eq!(world.sandboxes.wait("detached").await.unwrap().exit.unwrap().code, 0);
    let (tail, _) = drain(world.sandboxes.get("detached").unwrap().io().attach().unwrap()).await;
    assert_eq!(tail.len(), clawsec_sandbox::TAIL);
    assert!(tail.ends_with("xthe end\n"));

    world.sandboxes.create(request("foreground", &["sh", "-c", script])).await.unwrap();
    world.sandboxes.start("foreground").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(500), world.sandboxes.wait("foreground")).await;
    assert!(early.is_err(), "it waits for its reader");
    let sandbox = world.sandboxes.get("foreground").unwrap();
    let attachment = sandbox.io().attach().unwrap();
    assert!(matches!(sandbox.io().attach(), Err(Error::Precondition(_))), "one reader at a time");
    let (all, _) = drain(attachment).await;
    assert_eq!(all.len(), 1_000_000 + "the end\n".len());
    world.sandboxes.wait("foreground").await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_the_main_command_up_to_its_end() {
    let world = World::new().await;
    world.sandboxes.create(request("cat", &["sh", "-c", "cat; echo done >&2"])).await.unwrap();
    let sandbox = world.sandboxes.get("cat").unwrap();
    let attachment = sandbox.io().attach().unwrap();
    world.sandboxes.start("cat").await.unwrap();
    sandbox.io().write(b"some bytes").await.unwrap();
    sandbox.io().close_input().await.unwrap();
    assert!(sandbox.io().write(b"more").await.is_err());
    assert_eq!(drain(attachment).await, ("some bytes".into(), "done\n".into()));
    world.sandboxes.wait("cat").await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_job_control_and_an_end_of_input() {
    let world = World::new().await;
    let script = "trap 'stty size; echo resized' WINCH; tty; ps -o stat= -p $$ | grep -c +; \
                  while read -r line; do echo \"<$line>\"; done; echo the end";
    let mut request = request("terminal", &["bash", "-c", script]);
    request.terminal = true;
    world.sandboxes.create(request).await.unwrap();
    let sandbox = world.sandboxes.get("terminal").unwrap();
    let mut attachment = sandbox.io().attach().unwrap();
    world.sandboxes.start("terminal").await.unwrap();
    let begin = until(&mut attachment, "1\r\n").await;
    assert!(begin.contains("/dev/pts/0"), "{begin}");
    sandbox.io().resize(33, 111).unwrap();
    sandbox.io().write(b"one\n").await.unwrap();
    let middle = until(&mut attachment, "<one>").await;
    assert!(middle.contains("33 111"), "{middle}");
    sandbox.io().close_input().await.unwrap();
    until(&mut attachment, "the end").await;
    assert_eq!(world.sandboxes.wait("terminal").await.unwrap().exit.unwrap().code, 0);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_costs_less_than_three_times_raw_runc() {
    let world = World::new().await;
    // The same bundle, without what is ours: for plain `runc run`.
    let raw = tempfile::tempdir().unwrap();
    world.sandboxes.create(request("time", &["/act", "clock"])).await.unwrap();
    let folder = world.place.path().join("sandboxes/time");
    assert!(
        Command::new("cp").arg("-a").arg(folder.join("rootfs")).arg(raw.path()).status().unwrap().success()
    );
    world.sandboxes.kill("time", "only its bundle is wanted").await.unwrap();
    let mut config = support::oci();
    config["root"]["path"] = "rootfs".into();
    config["process"]["args"] = serde_json::json!(["/act", "clock"]);
    config["process"]["rlimits"] = serde_json::json!([]);
    let name = format!("raw-{}", world.instance);
    config["linux"]["cgroupsPath"] = format!("/clawsec-{}/{name}", world.instance).into();
    std::fs::write(raw.path().join("config.json"), config.to_string()).unwrap();

    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let begin = now();
        let (_, stdout, _) = world.run(request("time", &["/act", "clock"])).await;
        ours.push(stdout.trim().parse::<i64>().unwrap() - begin);
        let begin = now();
        let output = Command::new("runc")
            .arg("--root")
            .arg(raw.path().join("state"))
            .args(["run", "--bundle"])
            .arg(raw.path())
            .arg(&name)
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        theirs.push(stdout.trim().parse::<i64>().unwrap_or_else(|_| panic!("{output:?}")) - begin);
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    println!(
        "to the first user instruction, us, n 10: ours p50 {} max {}, runc p50 {} max {}, ratio {:.2}",
        ours[5],
        ours[9],
        theirs[5],
        theirs[9],
        ours[5] as f64 / theirs[5] as f64
    );
    assert!(ours[5] < 3 * theirs[5]);
    // runc leaves the empty v1 parents behind; the next end of a sandbox takes them along.
    world.run(request("time", &["/bin/true"])).await;
    world.assert_nothing_left();
}
