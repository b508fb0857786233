use super::*;

fn base() -> Value {
    let namespaces = NAMESPACES.map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": { "noNewPrivileges": true, "user": { "uid": 1000, "gid": 1000 }, "cwd": "/",
                     "args": ["theirs"], "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 1u64 << 40 }] },
        "root": { "readonly": true },
        "linux": { "namespaces": namespaces },
        "mounts": [ { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] } ],
    })
}

fn request(config: &Value) -> pb::CreateSandboxRequest {
    pb::CreateSandboxRequest {
        oci_config: config.to_string().into_bytes(),
        subjects: vec![
            pb::Subject { name: "gateway".into(), ..Default::default() },
            pb::Subject {
                name: "tool".into(),
                entry_path: "/.clawsec/bash".into(),
                entry_exec: "/bin/bash".into(),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

fn configure(config: &Value) -> Result<Value> {
    let protected = [PathBuf::from("/run/clawsec")];
    let ours = Ours {
        rootfs: Path::new("/r"),
        cgroups_path: "/clawsec-x/a".into(),
        netns: Path::new("/n"),
        shim: Path::new("/s"),
        shim_folder: Path::new("/f"),
        protected: &protected,
    };
    configuration(&request(config), &ours)
}

#[test]
fn the_loaders_parts_replace_what_the_request_says() {
    let config = configure(&base()).unwrap();
    assert_eq!(config["process"]["args"], json!(["/.clawsec/init"]));
    assert_eq!(config["root"], json!({ "path": "/r", "readonly": true }));
    assert_eq!(config["linux"]["cgroupsPath"], "/clawsec-x/a");
    assert_eq!(config["linux"]["namespaces"][5], json!({ "type": "network", "path": "/n" }));
    let targets: Vec<_> =
        config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone()).collect();
    assert_eq!(targets, ["/usr", "/.clawsec", "/.clawsec/init", "/.clawsec/bash"]);
}

#[test]
fn a_limit_above_the_hosts_is_lowered_to_it() {
    let config = configure(&base()).unwrap();
    let limit = &config["process"]["rlimits"][0];
    assert_eq!(limit["soft"], 64);
    assert_eq!(limit["hard"].as_u64(), sys::hard_limit("RLIMIT_NOFILE"));
}

#[test]
fn what_would_undo_every_policy_is_refused() {
    assert!(configure(&base()).is_ok());
    let cases: &[(&str, Value)] = &[
        ("/process/noNewPrivileges", json!(false)),
        ("/process/user/uid", json!(0)),
        ("/process/capabilities", json!({ "bounding": ["CAP_CHOWN"] })),
        ("/process/capabilities", json!({ "ambient": ["CAP_NET_RAW"] })),
        ("/hooks", json!({ "prestart": [{ "path": "/bin/true" }] })),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" })),
        ("/linux/devices", json!([{ "path": "/dev/kvm", "type": "c", "major": 10, "minor": 232 }])),
        ("/linux/resources", json!({ "devices": [{ "allow": true, "access": "rwm" }] })),
        ("/linux/rootfsPropagation", json!("shared")),
        ("/linux/namespaces/0", json!({ "type": "mount" })),
        ("/linux/namespaces/0", json!({ "type": "pid", "path": "/proc/1/ns/pid" })),
        ("/linux/namespaces/0", json!({ "type": "user" })),
        ("/mounts/0/source", json!("/")),
        ("/mounts/0/source", json!("/run/none")),
        ("/mounts/0/source", json!("usr")),
        ("/mounts/0/destination", json!("/.clawsec/init")),
        ("/mounts/0/destination", json!("/a/../b")),
        ("/mounts/0/options", json!(["rbind", "rshared"])),
        (
            "/mounts/0",
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["rw"] }),
        ),
        ("/mounts/0", json!({ "destination": "/o", "type": "overlay", "source": "overlay" })),
    ];
    for (pointer, value) in cases {
        let mut config = base();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap();
        match field.parse::<usize>() {
            Ok(index) => parent[index] = value.clone(),
            Err(_) => parent[field] = value.clone(),
        }
        assert!(matches!(configure(&config), Err(Error::Invalid(_))), "{pointer} = {value}");
    }
}

#[test]
fn entries_are_only_directly_in_the_shims_folder_and_only_once() {
    let place = tempfile::tempdir().unwrap();
    let entry = |name: &str, path: &str| pb::Subject {
        name: name.into(),
        entry_path: path.into(),
        entry_exec: "/bin/sh".into(),
        ..Default::default()
    };
    shim_folder(&place.path().join("good"), &[entry("a", "/.clawsec/sh"), entry("b", "")]).unwrap();
    assert!(place.path().join("good/entry/sh").is_file());
    for bad in [
        vec![],
        vec![entry("a", "/.clawsec/init")],
        vec![entry("a", "/.clawsec/entry")],
        vec![entry("a", "/.clawsec/entry/x")],
        vec![entry("a", "/bin/sh")],
        vec![entry("a", "/.clawsec/sh"), entry("b", "/.clawsec/sh")],
        vec![entry("a", ""), entry("a", "")],
        vec![entry("A", "")],
    ] {
        assert!(matches!(shim_folder(&place.path().join("bad"), &bad), Err(Error::Invalid(_))), "{bad:?}");
    }
}
