//! Requests that cannot be meant are refused before anything is made.
//!
//! Only form is looked at: what a policy means is the supervisor's. Each error is one sentence for the caller.

use std::collections::HashSet;
use std::net::IpAddr;

use clawsec_proto as pb;

/// Largest value of one secret in bytes.
const SECRET_BYTES: usize = 64 << 10;
/// Longest command in bytes; an exec with longer arguments is denied anyway.
const COMMAND_BYTES: usize = 128 << 10;
/// Most subjects of one sandbox; each is a cgroup.
const SUBJECTS: usize = 64;

/// What is wrong with a request, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

type Valid = Result<(), Invalid>;

macro_rules! ensure {
    ($holds:expr, $($sentence:tt)*) => {
        if !$holds {
            return Err(Invalid(format!($($sentence)*)));
        }
    };
}

/// `^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$`
pub fn sandbox_name(name: &str) -> Valid {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = (1..=40).contains(&bytes.len())
        && bytes.iter().all(|&b| inner(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    ensure!(good, "{name:?} is not a sandbox name: 1 to 40 lower-case letters, digits and inner hyphens are");
    Ok(())
}

/// `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`, at most 64 KiB each, each name once.
pub fn secrets(secrets: &[pb::Secret]) -> Valid {
    let mut names = HashSet::new();
    for secret in secrets {
        let name = &secret.name;
        let good = (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && name.as_bytes()[0].is_ascii_alphanumeric();
        ensure!(
            good,
            "{name:?} is not a secret's name: a letter or digit, then up to 127 letters, digits, dots, hyphens and underscores are"
        );
        ensure!(names.insert(name), "the secret {name:?} is there twice");
        ensure!(
            secret.value.len() <= SECRET_BYTES,
            "the secret {name:?} has {} bytes; {SECRET_BYTES} are the most",
            secret.value.len()
        );
    }
    Ok(())
}

/// A whole creation.
pub fn create(request: &pb::CreateSandboxRequest) -> Valid {
    sandbox_name(&request.name)?;
    json_object("the OCI configuration", &request.oci_config)?;
    json_object("the seccomp profile", &request.seccomp)?;
    if !request.nftables.is_empty() {
        json_object("the nftables ruleset", &request.nftables)?;
    }
    ensure!(request.args.first().is_some_and(|program| !program.is_empty()), "the main command is empty");
    ensure!(request.args.iter().all(|arg| !arg.contains('\0')), "the main command has a NUL byte in it");
    rootfs(&request.rootfs)?;
    subjects(&request.subjects)?;
    if let Some(landlock) = &request.landlock {
        landlock_ruleset(landlock)?;
    }
    let Some(tables) = &request.tables else {
        return Err(Invalid("the policy tables are missing".into()));
    };
    policy_tables(tables, &subject_names(&request.subjects))?;
    for port in &request.publish {
        published(port)?;
    }
    secrets(&request.secrets)?;
    match &request.secrets_mount {
        Some(mount) => path("the mount point of the secrets", &mount.path)?,
        None => ensure!(request.secrets.is_empty(), "there are secrets, but no mount for them"),
    }
    Ok(())
}

/// A command in a running sandbox.
pub fn exec(start: &pb::ExecStart) -> Valid {
    ensure!(start.args.first().is_some_and(|program| !program.is_empty()), "the command is empty");
    ensure!(start.args.iter().all(|arg| !arg.contains('\0')), "the command has a NUL byte in it");
    let bytes: usize = start.args.iter().map(|arg| arg.len() + 1).sum();
    ensure!(bytes <= COMMAND_BYTES, "the command has {bytes} bytes; {COMMAND_BYTES} are the most");
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    ensure!(
        start.term.len() <= 64 && start.term.bytes().all(good),
        "{:?} is not the type of a terminal",
        start.term
    );
    Ok(())
}

/// Names of the subjects, for [`policy_tables`].
pub fn subject_names(subjects: &[pb::Subject]) -> Vec<String> {
    subjects.iter().map(|subject| subject.name.clone()).collect()
}

/// The tables of a policy for a sandbox with these subjects.
pub fn policy_tables(tables: &pb::PolicyTables, subjects: &[String]) -> Valid {
    ensure!(tables.epoch >= 1, "epochs start at 1");
    ensure!(
        tables.policy_hash.len() == 64 && tables.policy_hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "the hash of the policy is not a SHA-256 in hex"
    );
    for guard in &tables.file_guards {
        path("a file guard", &guard.path)?;
        ensure!(guard.open || guard.names, "the file guard of {:?} guards nothing", guard.path);
    }
    for row in tables.exec.iter().flat_map(|exec| &exec.rows) {
        exec_row(row, subjects)?;
    }
    let Some(network) = &tables.network else {
        return Err(Invalid("the network table is missing".into()));
    };
    verdict(&network.default_rule, network.default_verdict, false)?;
    for row in &network.rows {
        let rule = &row.rule;
        verdict(rule, row.verdict, row.observe)?;
        ensure!(
            row.host.is_empty() != row.cidr.is_empty(),
            "the network row {rule:?} must have a host or a range of addresses, and not both"
        );
        for subject in &row.subjects {
            ensure!(subjects.contains(subject), "the network row {rule:?} names no subject: {subject:?}");
        }
        for ports in &row.ports {
            ensure!(
                ports.first >= 1 && ports.first <= ports.last && ports.last <= 65_535,
                "the network row {rule:?} has a range of ports that is none: {} to {}",
                ports.first,
                ports.last
            );
        }
    }
    Ok(())
}

// What its expression means is seen when the exec gate compiles it.
fn exec_row(row: &pb::ExecRow, subjects: &[String]) -> Valid {
    let rule = &row.rule;
    let known = pb::Verdict::try_from(row.verdict).is_ok_and(|verdict| {
        matches!(verdict, pb::Verdict::Allow | pb::Verdict::Deny | pb::Verdict::Log | pb::Verdict::Ask)
    });
    ensure!(known, "the verdict {} of exec row {rule:?} cannot stand in a table", row.verdict);
    for subject in &row.subjects {
        ensure!(subjects.contains(subject), "the exec row {rule:?} names no subject: {subject:?}");
    }
    Ok(())
}

// `observe`: the row decides nothing, so it may name the hold that would have been.
fn verdict(rule: &str, value: i32, observe: bool) -> Valid {
    let known = match pb::Verdict::try_from(value) {
        // UNSPECIFIED reads as deny. A hold needs an id and a deadline, which only an answer has.
        Ok(
            pb::Verdict::Unspecified
            | pb::Verdict::Allow
            | pb::Verdict::Deny
            | pb::Verdict::Log
            | pb::Verdict::Ask,
        ) => true,
        Ok(pb::Verdict::Hold) => observe,
        Err(_) => false,
    };
    ensure!(known, "the verdict {value} of network rule {rule:?} cannot stand in a table");
    Ok(())
}

fn subjects(subjects: &[pb::Subject]) -> Valid {
    ensure!(!subjects.is_empty(), "a sandbox needs at least one subject, that of its main command");
    ensure!(subjects.len() <= SUBJECTS, "{} subjects are more than {SUBJECTS}", subjects.len());
    let mut names = HashSet::new();
    let mut entries = HashSet::new();
    for subject in subjects {
        let name = &subject.name;
        let good = (1..=32).contains(&name.len())
            && name.as_bytes()[0].is_ascii_lowercase()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        ensure!(
            good,
            "{name:?} is not a subject's name: a lower-case letter, then up to 31 lower-case letters, digits and hyphens are"
        );
        ensure!(names.insert(name), "the subject {name:?} is there twice");
        ensure!(
            subject.entry_path.is_empty() == subject.entry_exec.is_empty(),
            "the subject {name:?} needs both an entry path and a program for it, or neither"
        );
        if !subject.entry_path.is_empty() {
            path("an entry path", &subject.entry_path)?;
            path("an entry's program", &subject.entry_exec)?;
            ensure!(
                entries.insert(&subject.entry_path),
                "two subjects have the entry path {:?}",
                subject.entry_path
            );
        }
        if let Some(landlock) = &subject.entry_landlock {
            landlock_ruleset(landlock)?;
        }
        for port in &subject.loopback_ports {
            ensure!((1..=65_535).contains(port), "{port}, of the subject {name:?}, is not a port");
        }
    }
    Ok(())
}

fn rootfs(entries: &[pb::RootfsEntry]) -> Valid {
    let mut paths = HashSet::new();
    for entry in entries {
        path("an entry of the root file system", &entry.path)?;
        ensure!(paths.insert(&entry.path), "{:?} is twice in the root file system", entry.path);
        match &entry.kind {
            None => {
                return Err(Invalid(format!(
                    "{:?}, in the root file system, is neither folder, link nor file",
                    entry.path
                )));
            }
            Some(pb::rootfs_entry::Kind::Symlink(target)) => ensure!(
                !target.is_empty() && !target.contains('\0'),
                "the symbolic link {:?} has no target",
                entry.path
            ),
            Some(pb::rootfs_entry::Kind::Directory(_) | pb::rootfs_entry::Kind::File(_)) => {}
        }
    }
    Ok(())
}

fn landlock_ruleset(ruleset: &pb::LandlockRuleset) -> Valid {
    for rule in &ruleset.paths {
        path("a Landlock rule", &rule.path)?;
    }
    Ok(())
}

fn published(port: &pb::PublishedPort) -> Valid {
    ensure!(
        port.host_ip.parse::<IpAddr>().is_ok(),
        "{:?} is not an address on which a port could be published",
        port.host_ip
    );
    ensure!(port.host_port <= 65_535, "{} is not a port of the host", port.host_port);
    ensure!((1..=65_535).contains(&port.sandbox_port), "{} is not a port of the sandbox", port.sandbox_port);
    Ok(())
}

/// Absolute, without `..`, empty or `.` components and NUL bytes: one way to write each path.
fn path(what: &str, path: &str) -> Valid {
    let good = path == "/"
        || (path.len() <= 4096
            && path.starts_with('/')
            && !path.contains('\0')
            && path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
    ensure!(good, "{what} has a path that is not absolute and plain: {path:?}");
    Ok(())
}

fn json_object(what: &str, bytes: &[u8]) -> Valid {
    let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(bytes);
    parsed.map(drop).map_err(|error| Invalid(format!("{what} is not a JSON object: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> pb::CreateSandboxRequest {
        pb::CreateSandboxRequest {
            name: "box".into(),
            oci_config: b"{}".into(),
            seccomp: b"{}".into(),
            args: vec!["/bin/true".into()],
            subjects: vec![pb::Subject { name: "main".into(), ..Default::default() }],
            tables: Some(pb::PolicyTables {
                epoch: 1,
                policy_hash: "0".repeat(64),
                network: Some(pb::NetworkTable::default()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn row() -> pb::NetworkRow {
        pb::NetworkRow { host: "a.test".into(), verdict: pb::Verdict::Allow.into(), ..Default::default() }
    }

    #[test]
    fn sandbox_names_follow_the_grammar() {
        for name in ["a", "0", "a-b", "openclaw-1", &"a".repeat(40)] {
            assert_eq!(sandbox_name(name), Ok(()), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a b", "é", "a\n", &"a".repeat(41)] {
            assert!(sandbox_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in ["/", "/a", "/a/b.c", "/..a"] {
            assert_eq!(path("it", good), Ok(()), "{good}");
        }
        for bad in ["", "a", "/a/", "//a", "/a/../b", "/..", "/./a", "/a\0"] {
            assert!(path("it", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_good_request_passes_and_each_flaw_is_named() {
        assert_eq!(create(&good()), Ok(()));
        type Flaw = fn(&mut pb::CreateSandboxRequest);
        let flawed: [(&str, Flaw); 15] = [
            ("nftables ruleset", |r| r.nftables = b"add table x".into()),
            ("OCI configuration", |r| r.oci_config = b"[]".into()),
            ("seccomp profile", |r| r.seccomp = b"nonsense".into()),
            ("main command is empty", |r| r.args.clear()),
            ("NUL byte", |r| r.args.push("a\0b".into())),
            ("at least one subject", |r| r.subjects.clear()),
            ("\"main\" is there twice", |r| r.subjects.push(r.subjects[0].clone())),
            ("entry path and a program", |r| r.subjects[0].entry_path = "/x".into()),
            ("70000", |r| r.subjects[0].loopback_ports.push(70_000)),
            ("policy tables are missing", |r| r.tables = None),
            ("epochs start at 1", |r| r.tables.as_mut().unwrap().epoch = 0),
            ("SHA-256", |r| r.tables.as_mut().unwrap().policy_hash = "abc".into()),
            ("no mount", |r| r.secrets.push(pb::Secret { name: "k".into(), value: b"v".to_vec() })),
            ("neither folder", |r| r.rootfs.push(pb::RootfsEntry { path: "/a".into(), kind: None })),
            ("not an address", |r| {
                r.publish.push(pb::PublishedPort { host_ip: "home".into(), host_port: 0, sandbox_port: 80 })
            }),
        ];
        for (sentence, flaw) in flawed {
            let mut request = good();
            flaw(&mut request);
            let error = create(&request).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn an_exec_row_has_a_verdict_that_can_stand_in_a_table_and_names_subjects() {
        let check = |row: pb::ExecRow| {
            let mut tables = good().tables.unwrap();
            tables.exec = Some(pb::ExecTable { rows: vec![row] });
            policy_tables(&tables, &["main".into()])
        };
        let row = |verdict: i32| pb::ExecRow { rule: "exec/row".into(), verdict, ..Default::default() };
        for verdict in [pb::Verdict::Allow, pb::Verdict::Deny, pb::Verdict::Log, pb::Verdict::Ask] {
            assert_eq!(check(pb::ExecRow { subjects: vec!["main".into()], ..row(verdict.into()) }), Ok(()));
        }
        for verdict in [pb::Verdict::Unspecified.into(), pb::Verdict::Hold.into(), 77] {
            let refused = check(row(verdict)).unwrap_err();
            assert!(refused.0.contains("\"exec/row\""), "{refused}");
        }
        let stranger = pb::ExecRow { subjects: vec!["other".into()], ..row(pb::Verdict::Allow.into()) };
        assert!(check(stranger).unwrap_err().0.contains("\"other\""));
    }

    #[test]
    fn a_network_row_is_about_names_or_addresses_and_its_verdict_can_stand_in_a_table() {
        let check = |row: pb::NetworkRow| {
            let mut tables = good().tables.unwrap();
            tables.network.as_mut().unwrap().rows.push(row);
            policy_tables(&tables, &["main".into()])
        };
        assert_eq!(check(row()), Ok(()));
        assert_eq!(check(pb::NetworkRow { subjects: vec!["main".into()], ..row() }), Ok(()));
        assert!(check(pb::NetworkRow { subjects: vec!["other".into()], ..row() }).is_err());
        assert!(check(pb::NetworkRow { cidr: "10.0.0.0/8".into(), ..row() }).is_err());
        assert!(check(pb::NetworkRow { host: String::new(), ..row() }).is_err());
        assert!(check(pb::NetworkRow { verdict: pb::Verdict::Hold.into(), ..row() }).is_err());
        // A row of observe mode decides nothing, so it can name the hold that would have been.
        let observed = pb::NetworkRow { verdict: pb::Verdict::Hold.into(), observe: true, ..row() };
        assert_eq!(check(observed), Ok(()));
        assert!(check(pb::NetworkRow { verdict: 99, ..row() }).is_err());
        for (first, last, good) in [(1, 65_535, true), (0, 1, false), (2, 1, false), (1, 65_536, false)] {
            let ports = vec![pb::PortRange { first, last }];
            assert_eq!(check(pb::NetworkRow { ports, ..row() }).is_ok(), good, "{first} {last}");
        }
    }

    #[test]
    fn a_command_has_a_program_and_a_length_that_an_exec_can_have() {
        let start = |args: &[&str], term: &str| pb::ExecStart {
            args: args.iter().map(ToString::to_string).collect(),
            term: term.into(),
            ..Default::default()
        };
        assert_eq!(exec(&start(&["id", "-u"], "xterm-256color")), Ok(()));
        let long = "a".repeat(COMMAND_BYTES);
        let bad: [(&[&str], &str); 5] =
            [(&[], ""), (&[""], ""), (&["a\0b"], ""), (&["a", &long], ""), (&["id"], "x\n")];
        for (args, term) in bad {
            assert!(exec(&start(args, term)).is_err(), "{term:?}");
        }
    }

    #[test]
    fn secrets_have_plain_names_and_bounded_values() {
        let one =
            |name: &str, size: usize| secrets(&[pb::Secret { name: name.into(), value: vec![0; size] }]);
        assert_eq!(one("model-key_1.txt", SECRET_BYTES), Ok(()));
        assert!(one("k", SECRET_BYTES + 1).is_err());
        for name in ["", ".hidden", "../x", "a/b", "a b", &"a".repeat(129)] {
            assert!(one(name, 1).is_err(), "{name}");
        }
    }
}
