//! What the shim applies, seen from inside real sandboxes: each denial with its allow beside it. Needs root and runc.

mod support;

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::sync::atomic::Ordering;

use clawsec_proto as pb;
use clawsec_sandbox::Error;
use serde_json::{Value, json};
use support::{ALL, READ, World, landlock, request, rule, until};

#[tokio::test(flavor = "multi_thread")]
async fn landlock_denies_a_write_beside_an_allowed_one() {
    let world = World::new().await;
    // Both are writable by mode and mount; only Landlock tells them apart.
    let script = "/act write /tmp/a; /act write /home/agent/a; /act read /etc/none; /act read /usr/bin/env";
    let (_, stdout, stderr) = world.run(request("landlock", &["sh", "-c", script])).await;
    assert_eq!(stdout, "ok\nerrno 13\nerrno 2\nok\n", "{stderr}");
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_refuses_what_it_lists_and_kills_foreign_calls() {
    let world = World::new().await;
    let script = "/act symlink /tmp/link; /act mkdir /tmp/folder; /act int80; echo $?; /act x32; echo $?";
    let (_, stdout, stderr) = world.run(request("seccomp", &["sh", "-c", script])).await;
    // 159 = 128 + SIGSYS.
    assert_eq!(stdout, "errno 1\nok\n159\n159\n", "{stderr}");
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_is_served_before_the_main_commands_exec() {
    let world = World::new().await;
    let mut asked = request("listener", &["sh", "-c", "/bin/true; /bin/true; echo fine"]);
    asked.seccomp = br#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["execve", "execveat"], "action": "SCMP_ACT_NOTIFY" } ] }"#
        .to_vec();
    let (info, stdout, stderr) = world.run(asked).await;
    assert_eq!((info.exit.unwrap().code, stdout.as_str()), (0, "fine\n"), "{stderr}");
    assert_eq!(world.hooks.notified.load(Ordering::SeqCst), 3, "the shell and two commands");
    assert_eq!(world.calls()[3], "listener_ready");
    world.assert_nothing_left();
}

fn tool(allowed: &str) -> pb::Subject {
    pb::Subject {
        name: "tool".into(),
        entry_path: "/.clawsec/sh".into(),
        entry_exec: "/bin/sh".into(),
        entry_landlock: Some(pb::LandlockRuleset {
            abi: 3,
            handled_access_fs: ALL,
            paths: vec![rule("/", READ), rule(allowed, ALL)],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_narrows_and_drops_what_loads_code() {
    let world = World::new().await;
    let script = "mkdir /tmp/mine; /act write /tmp/before; \
        export LD_PRELOAD=/usr/lib/none.so BASH_ENV=/tmp/x KEPT=yes; \
        /.clawsec/sh -c '/act write /tmp/after; /act write /tmp/mine/after; echo \"$LD_PRELOAD|$BASH_ENV|$KEPT\"' \
            2>/dev/null; unset LD_PRELOAD; \
        ln -s /.clawsec/sh /tmp/init 2>/dev/null || python3 -c 'import os; os.execv(\"/.clawsec/sh\", \
            [\"/.clawsec/init\", \"-c\", \"/act write /tmp/lied\"])'";
    let mut narrowed = request("entry", &["sh", "-c", script]);
    narrowed.subjects.push(tool("/tmp/mine"));
    let (_, stdout, stderr) = world.run(narrowed).await;
    assert_eq!(stdout, "ok\nerrno 13\nok\n||yes\nerrno 13\n", "{stderr}");
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_is_of_no_use_inside() {
    let world = World::new().await;
    let script = "/.clawsec/init; echo $?; exec -a /.clawsec/sh /.clawsec/init -c 'echo ran'";
    let mut inside = request(
        "inside",
        &[
            "bash",
            "-c",
            &format!(
                "({script}); echo $?; echo x > /.clawsec/init; \
        cat /proc/1/environ; ls /proc/1/fd; kill -9 1; echo still here"
            ),
        ],
    );
    inside.subjects.push(tool("/tmp"));
    let (info, stdout, stderr) = world.run(inside).await;
    assert_eq!(stdout, "126\n126\nstill here\n", "{stderr}");
    assert_eq!(stderr.matches("is not a subject's entry").count(), 2, "{stderr}");
    assert_eq!(
        stderr.matches("Permission denied").count() + stderr.matches("Read-only").count(),
        3,
        "{stderr}"
    );
    assert_eq!(info.state(), pb::SandboxState::Exited);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_refuses_to_start_with_a_sentence() {
    let world = World::new().await;
    let home = world.place.path().join("home");
    fs::create_dir(&home).unwrap();
    symlink("/tmp", home.join("link")).unwrap();
    std::os::unix::fs::lchown(home.join("link"), Some(1000), Some(1000)).unwrap();
    let broken = |change: &dyn Fn(&mut pb::LandlockRuleset)| {
        let mut ruleset = landlock();
        change(&mut ruleset);
        ruleset
    };
    for (ruleset, sentence) in [
        (broken(&|ruleset| ruleset.paths.push(rule("/none", READ))), "\"/none\""),
        (broken(&|ruleset| ruleset.abi = 99), "ABI 99 is needed"),
        (broken(&|ruleset| ruleset.handled_access_fs = 1 << 60), "refused the Landlock rights"),
        (broken(&|ruleset| ruleset.paths.push(rule("/tmp", 1 << 20))), "refused the Landlock rule"),
    ] {
        let mut request = request("refused", &["sh", "-c", "echo ran"]);
        request.landlock = Some(ruleset);
        world.sandboxes.create(request).await.unwrap();
        let error = world.sandboxes.start("refused").await.unwrap_err();
        assert!(error.to_string().contains(sentence), "{error}");
        let info = world.sandboxes.info("refused").unwrap();
        assert_eq!((info.state(), info.exit.unwrap().code), (pb::SandboxState::Killed, 70));
    }
    let mut optional = request("optional", &["sh", "-c", "echo ran"]);
    let mut missing = rule("/none", READ);
    missing.optional = true;
    optional.landlock.as_mut().unwrap().paths.push(missing);
    assert_eq!(world.run(optional).await.1, "ran\n");
    fs::remove_dir_all(home).unwrap();
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_source_behind_a_users_link_is_refused_and_the_folder_itself_is_not() {
    let world = World::new().await;
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("real")).unwrap();
    symlink("/etc", home.path().join("link")).unwrap();
    std::os::unix::fs::lchown(home.path().join("link"), Some(1000), Some(1000)).unwrap();
    chown(home.path(), Some(1000), Some(1000)).unwrap();
    let with_source = |source: &str| {
        let mut request = request("source", &["/bin/true"]);
        let mut config: Value = serde_json::from_slice(&request.oci_config).unwrap();
        let source = home.path().join(source);
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/home/agent", "type": "bind", "source": source, "options": ["bind", "rw"] }));
        request.oci_config = config.to_string().into_bytes();
        request
    };
    let refused = world.sandboxes.create(with_source("link")).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid(why) if why.contains("symbolic link that uid 1000 owns")),
        "{refused}"
    );
    world.assert_nothing_left();
    let (info, ..) = world.run(with_source("real")).await;
    assert_eq!(info.exit.unwrap().code, 0);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_create_leaves_nothing() {
    let hooks = support::TestHooks { fail_prepare: true, ..Default::default() };
    let world = World::at(tempfile::tempdir().unwrap(), support::fresh_instance(), hooks).await;
    assert!(world.sandboxes.create(request("fails", &["/bin/true"])).await.is_err());
    assert_eq!(world.calls(), ["prepare", "gone"]);
    assert!(world.sandboxes.get("fails").is_err());
    world.assert_nothing_left();

    let world = World::new().await;
    let mut config = request("fails", &["/bin/true"]);
    let mut json: Value = serde_json::from_slice(&config.oci_config).unwrap();
    json["process"]["cwd"] = json!("/does/not/exist");
    json["mounts"][0]["source"] = json!("nonsense");
    json["linux"]["sysctl"] = json!({ "kernel.panic": "1" });
    config.oci_config = json.to_string().into_bytes();
    let error = world.sandboxes.create(config).await.unwrap_err();
    assert!(error.to_string().contains("runc create"), "{error}");
    world.assert_nothing_left();
}

fn with_secret(name: &str, args: &[&str]) -> pb::CreateSandboxRequest {
    let mut request = request(name, args);
    request.secrets_mount =
        Some(pb::SecretsMount { path: "/run/secrets/clawsec".into(), uid: 1000, gid: 1000, may_swap: false });
    request.secrets = vec![pb::Secret { name: "token".into(), value: b"canary-4711".to_vec() }];
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_inside_rotated_in_place_and_gone_after_revoke() {
    let world = World::new().await;
    let file = "/run/secrets/clawsec/token";
    let script = format!("stat -c '%a %u' {file}; chmod 600 {file} || echo fixed; exec /act hold {file}");
    world.sandboxes.create(with_secret("secret", &["sh", "-c", &script])).await.unwrap();
    let sandbox = world.sandboxes.get("secret").unwrap();
    let mut attachment = sandbox.io().attach().unwrap();
    world.sandboxes.start("secret").await.unwrap();
    let seen = until(&mut attachment, "canary-4711").await;
    assert!(seen.contains("400 1000") && seen.contains("fixed"), "{seen}");

    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/run/secrets/clawsec"), "a mount of the host");
    for pid in fs::read_to_string(sandbox.scope().subjects[0].cgroup.join("cgroup.procs")).unwrap().lines() {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environ).contains("canary"), "in an environment");
    }
    let bundle = fs::read_to_string(world.place.path().join("sandboxes/secret/bundle/config.json")).unwrap();
    assert!(!bundle.contains("canary"), "in the bundle");

    // A rotation: what was open is empty, a new open has the new value.
    sandbox.put_secrets(vec![pb::Secret { name: "token".into(), value: b"fresh".to_vec() }]).unwrap();
    sandbox.io().write(b"\n").await.unwrap();
    until(&mut attachment, "0:").await;
    let inside = format!("/proc/{}/root{file}", sandbox.init_pid());
    assert_eq!(fs::read(&inside).unwrap(), b"fresh");
    let open = fs::File::open(&inside).unwrap();
    assert_eq!(sandbox.revoke_secrets().unwrap(), 1);
    assert_eq!(std::io::read_to_string(&open).unwrap(), "");
    assert!(sandbox.put_secrets(vec![pb::Secret { name: "../x".into(), value: vec![] }]).is_err());
    drop(open);
    world.sandboxes.kill("secret", "the test").await.unwrap();
    assert!(sandbox.put_secrets(vec![]).is_err());
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_swapped_unless_the_policy_waives_it() {
    for (name, may_swap) in [("kept", false), ("swapped", true)] {
        let world = World::new().await;
        let mut request = with_secret(name, &["sleep", "100"]);
        request.secrets_mount.as_mut().unwrap().may_swap = may_swap;
        world.sandboxes.create(request).await.unwrap();
        world.sandboxes.start(name).await.unwrap();
        let pid = world.sandboxes.get(name).unwrap().init_pid();
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let mount = mounts.lines().find(|line| line.contains(" /run/secrets/clawsec ")).unwrap();
        let options: Vec<&str> = mount.rsplit(' ').next().unwrap().split(',').collect();
        assert_eq!(options.contains(&"noswap"), !may_swap, "{mount}");
        assert!(mount.contains(" - tmpfs ") && options.contains(&"size=8192k"), "{mount}");
        let value = fs::read(format!("/proc/{pid}/root/run/secrets/clawsec/token")).unwrap();
        assert_eq!(value, b"canary-4711");
        world.sandboxes.kill(name, "the test").await.unwrap();
        world.assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_empties_a_secret_that_the_host_still_has_open() {
    let world = World::new().await;
    world.sandboxes.create(with_secret("emptied", &["sleep", "100"])).await.unwrap();
    world.sandboxes.start("emptied").await.unwrap();
    let pid = world.sandboxes.get("emptied").unwrap().init_pid();
    let open = fs::File::open(format!("/proc/{pid}/root/run/secrets/clawsec/token")).unwrap();
    assert_eq!(std::io::read_to_string(&open).unwrap(), "canary-4711");
    world.sandboxes.kill("emptied", "the test").await.unwrap();
    assert_eq!(open.metadata().unwrap().len(), 0);
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_is_proven_here() {
    let instance = support::fresh_instance();
    let capabilities = clawsec_sandbox::probe(&instance, clawsec_core::Without::default());
    // The limits of cgroups have a test of their own, too, and AppArmor: not every kernel has it.
    let has_a_test_of_its_own =
        |name: &str| name == "apparmor" || name.starts_with("cgroup.") && name != "cgroup.kill";
    for capability in capabilities.iter().filter(|found| !has_a_test_of_its_own(&found.name)) {
        println!("{}: {} {:?}", capability.name, capability.detail, capability.level);
        assert_eq!(capability.state(), pb::CapabilityState::Present, "{capability:?}");
    }
    // What a policy can waive.
    let optional: Vec<&str> =
        capabilities.iter().filter(|found| !found.required).map(|found| found.name.as_str()).collect();
    assert_eq!(
        optional,
        ["landlock", "tmpfs.noswap", "apparmor", "cgroup.memory", "cgroup.pids", "cgroup.cpu"]
    );
    assert_eq!(capabilities.len(), 9);
    let apparmor = capabilities.iter().find(|capability| capability.name == "apparmor").unwrap();
    let enabled =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    assert_eq!(apparmor.state() == pb::CapabilityState::Present, enabled, "{apparmor:?}");
    assert_eq!(apparmor.remedy.is_empty(), enabled, "{apparmor:?}");
    assert!(fs::write("/proc/self/comm", "still").is_ok(), "the probing restricted nobody else");
}

/// With AppArmor in the kernel, the machine of `test/vm` runs this, and the profile really holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_holds_where_the_kernel_has_apparmor_and_is_a_refusal_elsewhere() {
    let world = World::new().await;
    let enabled =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    // Unique on the host: profiles have no namespace here.
    let name = format!("confined-{}", std::process::id());
    let profile = |text: &str| {
        let mut request = request(
            &name,
            &["sh", "-c", "cat /usr/lib/os-release >/tmp/x && echo read; cat /proc/version || echo denied"],
        );
        let text = format!("profile clawsec-{name} flags=(attach_disconnected) {{ {text} }}");
        request.apparmor = Some(pb::AppArmorProfile { name: format!("clawsec-{name}"), text });
        // The kernel of the machine has no Landlock.
        request.landlock = None;
        let mut config = support::oci();
        config["process"]["apparmorProfile"] = format!("clawsec-{name}").into();
        request.oci_config = config.to_string().into_bytes();
        request
    };
    let rules = "file, signal, unix, ptrace, capability, mount, umount, pivot_root, deny /proc/version r,";
    if enabled {
        assert_eq!(world.run(profile(rules)).await.1, "read\ndenied\n");
        let error = world.sandboxes.create(profile("bogus")).await.unwrap_err().to_string();
        assert!(error.contains("apparmor_parser"), "{error}");
        // As a loader leaves it that dies between the two.
        let left = format!("echo 'profile clawsec-{name} {{}}' | apparmor_parser --replace --skip-cache");
        assert!(std::process::Command::new("sh").args(["-c", &left]).status().unwrap().success());
        let removed = format!("the AppArmor profile of {name} was removed");
        let next = World::new().await;
        assert!(next.recovered.contains(&removed), "{:?}", next.recovered);
    } else {
        let error = world.sandboxes.create(profile(rules)).await.unwrap_err();
        assert!(matches!(error, clawsec_sandbox::Error::Precondition(_)), "{error}");
        assert!(
            error.to_string().contains("the policy needs the AppArmor profile clawsec-confined-"),
            "{error}"
        );
        assert!(error.to_string().contains("the kernel has no AppArmor"), "{error}");
    }
    let mut unnamed = profile(rules);
    unnamed.oci_config = support::oci().to_string().into_bytes();
    assert!(world.sandboxes.create(unnamed).await.is_err(), "the profile must be the one that runc is told");
    let mut unloaded = profile(rules);
    unloaded.apparmor = None;
    let error = world.sandboxes.create(unloaded).await.unwrap_err().to_string();
    assert!(error.contains("names the AppArmor profile"), "{error}");
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    assert!(!loaded.contains(&name), "{loaded}");
    let waived = pb::CreateSandboxRequest { landlock: None, ..request(&name, &["sh", "-c", "echo ran"]) };
    assert_eq!(world.run(waived).await.1, "ran\n");
    world.assert_nothing_left();
}
