//! The exec gate's part of a policy, under the real loader: its table, and the facts that questions show.

mod common;

use std::os::unix::fs::PermissionsExt;

use clawsec_proto as pb;
use common::supervisor::{Supervisor, answer, attach, exec_action, request, run, tables};
use common::{Client, Loader};
use pb::loader_message::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn row(rule: &str, executable: &str, verdict: pb::Verdict) -> pb::ExecRow {
    pb::ExecRow {
        rule: rule.into(),
        executable: executable.into(),
        verdict: verdict.into(),
        message: "the table says so".into(),
        ..Default::default()
    }
}

/// Tables of an epoch with these exec rows.
fn with_rows(epoch: u64, rows: Vec<pb::ExecRow>) -> pb::PolicyTables {
    pb::PolicyTables { exec: Some(pb::ExecTable { rows }), ..tables(epoch, pb::Verdict::Deny) }
}

async fn apply(client: &mut Client, tables: pb::PolicyTables) -> Result<u64, tonic::Status> {
    let request = pb::ApplyPolicyRequest { name: "box".into(), tables: Some(tables) };
    client.apply_policy(request).await.map(|answer| answer.into_inner().epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_decides_before_the_supervisor_and_changes_with_its_epoch() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = Supervisor::allowing(&mut client).await;
    let script = "/usr/bin/echo one; /usr/bin/env echo two; read go; /usr/bin/echo three; read go; /usr/bin/echo four; :";
    let mut request = request("box", &["/usr/bin/sh", "-c", script]);
    request.tables = Some(with_rows(
        1,
        vec![
            row("exec/echo", "^(?:/usr/bin/echo)$", pb::Verdict::Allow),
            row("exec/env", "^(?:/usr/bin/e[n]v)$", pb::Verdict::Deny),
        ],
    ));
    client.create_sandbox(request).await.unwrap();
    let attached = attach(&mut client, "box").await;
    client.start_sandbox(pb::StartSandboxRequest { name: "box".into() }).await.unwrap();
    attached.says("one").await;
    let shell = std::fs::canonicalize("/usr/bin/sh").unwrap().to_str().unwrap().to_owned();
    assert_eq!(supervisor.asked_execs(), std::slice::from_ref(&shell));

    // What is refused leaves the old table and epoch in force.
    for (rows, why) in [
        (vec![row("exec/bad", "^(?:/usr/bin/(echo)$", pb::Verdict::Deny)], "exec/bad"),
        (vec![row("exec/held", "^(?:/usr/bin/echo)$", pb::Verdict::Hold)], "exec/held"),
        (vec![row("exec/none", "^(?:/usr/bin/echo)$", pb::Verdict::Unspecified)], "exec/none"),
        (
            vec![pb::ExecRow { subjects: vec!["nobody".into()], ..row("exec/who", "", pb::Verdict::Deny) }],
            "nobody",
        ),
    ] {
        let refused = apply(&mut client, with_rows(2, rows)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(why), "{refused}");
    }
    let go = || pb::AttachInput { stdin: b"go\n".to_vec(), ..Default::default() };
    attached.input.send(go()).await.unwrap();
    attached.says("three").await;
    assert_eq!(supervisor.asked_execs().len(), 1);

    // Another policy, without a table: asked.
    assert_eq!(apply(&mut client, tables(2, pb::Verdict::Deny)).await.unwrap(), 2);
    attached.input.send(go()).await.unwrap();
    let ran = attached.end().await;
    assert_eq!(ran.stdout, "one\nthree\nfour\n", "{}", ran.stderr);
    assert!(ran.stderr.contains("denied by rule exec/env (table): the table says so"), "{}", ran.stderr);
    assert_eq!(supervisor.asked_execs(), [shell, "/usr/bin/echo".into()]);

    let (_acks, requests) = mpsc::channel(8);
    let mut events = client.events(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut decided = Vec::new();
    while decided.len() < 5 {
        for event in events.message().await.unwrap().unwrap().events {
            let decision = match event.kind {
                Some(pb::event::Kind::Decision(decision)) => Some(decision),
                Some(pb::event::Kind::Exec(exec)) => exec.decision,
                _ => None,
            };
            if let Some(decision) = decision {
                decided.push((decision.layer.clone(), decision.rule.clone(), decision.verdict()));
            }
        }
    }
    let by = |layer: &str, rule: &str, verdict| (layer.to_owned(), rule.to_owned(), verdict);
    assert_eq!(
        decided,
        [
            by("supervisor", "test/rule", pb::Verdict::Allow),
            by("table", "exec/echo", pb::Verdict::Allow),
            by("table", "exec/env", pb::Verdict::Deny),
            by("table", "exec/echo", pb::Verdict::Allow),
            by("supervisor", "test/rule", pb::Verdict::Allow),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_table_has_a_bad_row_is_not_made_and_with_a_good_one_it_is() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let with = |executable: &str| {
        let mut request = request("box", &["/usr/bin/echo", "ok"]);
        request.tables = Some(with_rows(1, vec![row("exec/row", executable, pb::Verdict::Allow)]));
        request
    };
    let refused = client.create_sandbox(with("^(?:[a&&b])$")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("\"exec/row\""), "{refused}");
    assert_eq!(run(&mut client, with("^(?:/usr/bin/echo)$")).await.stdout, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_execs_and_files_tell_what_led_to_them_and_execs_what_they_contain() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(place.path().join("key"), "words\n").unwrap();
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = Supervisor::attach(&mut client, |_| Some(answer(pb::Verdict::Allow))).await;
    let mut request = request("box", &["/usr/bin/sh", "-c", "/usr/bin/env /usr/bin/cat /guarded/key; :"]);
    let mut oci: serde_json::Value = serde_json::from_slice(&request.oci_config).unwrap();
    oci["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": "/guarded", "type": "bind", "source": place.path(), "options": ["rbind", "ro", "nosuid", "nodev"],
    }));
    request.oci_config = oci.to_string().into_bytes();
    request.rootfs.push(pb::RootfsEntry {
        path: "/guarded".into(),
        kind: Some(pb::rootfs_entry::Kind::Directory(pb::rootfs_entry::Directory {})),
    });
    let tables = request.tables.as_mut().unwrap();
    tables.file_guards = vec![pb::FileGuard { path: "/guarded".into(), open: true, names: false }];
    tables.facts = Some(pb::FactsNeeded { sha256: true });
    let ran = run(&mut client, request).await;
    assert_eq!(ran.stdout, "words\n", "{}", ran.stderr);

    let heard = supervisor.heard.lock().unwrap().clone();
    let questions: Vec<pb::Question> = heard
        .into_iter()
        .filter_map(|message| match message {
            Message::Question(question) => Some(question),
            _ => None,
        })
        .collect();
    let led = |wanted: fn(&pb::Question) -> bool| {
        let question = questions.iter().find(|question| wanted(question)).unwrap();
        let process = question.process.clone().unwrap();
        assert!(!process.ancestors_truncated, "{process:?}");
        (process.executable, process.ancestor_executables)
    };
    let shell = std::fs::canonicalize("/usr/bin/sh").unwrap().to_str().unwrap().to_owned();
    // The first image of all is the shim.
    let (shim, none) =
        led(|question| exec_action(question).is_some_and(|exec| exec.argv[0] == "/usr/bin/sh"));
    assert_eq!(none, Vec::<String>::new());
    let (executable, ancestors) =
        led(|question| exec_action(question).is_some_and(|exec| exec.executable == "/usr/bin/cat"));
    assert_eq!((executable.as_str(), ancestors), ("/usr/bin/env", vec![shell.clone(), shim.clone()]));
    let (executable, ancestors) = led(
        |question| matches!(&question.action, Some(pb::question::Action::File(file)) if file.path == "/guarded/key"),
    );
    assert_eq!(executable, "/usr/bin/cat");
    assert_eq!(ancestors, ["/usr/bin/env".to_owned(), shell, shim]);

    let cat =
        questions.iter().filter_map(exec_action).find(|exec| exec.executable == "/usr/bin/cat").unwrap();
    let sum = std::process::Command::new("sha256sum").arg("/usr/bin/cat").output().unwrap().stdout;
    assert_eq!(cat.executable_sha256, String::from_utf8(sum).unwrap()[..64]);
}
