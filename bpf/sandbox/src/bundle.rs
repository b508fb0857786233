//! The OCI bundle: the supervisor's configuration, checked for what no sandbox may have, and made ours.
//!
//! The loader knows no policy, but there are things that would undo every policy. They are refused here, each with a
//! sentence: privileges, shared namespaces, host devices, OCI hooks (which run as root on the host), a mount of the
//! loader's own folders, or a mount source that a symbolic link of another user could point elsewhere.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clawsec_init::walk::open_owned_by_root_links;
use clawsec_init::wire::{self, EntrySpec};
use clawsec_proto as pb;
use serde_json::{Map, Value, json};

use crate::convert::ruleset;
use crate::error::{Context, Error, Result, invalid};
use crate::layout::{check_path, check_subject_name, overlap};
use crate::sys;

/// Namespaces that every sandbox has for itself.
const NAMESPACES: [&str; 6] = ["pid", "mount", "ipc", "uts", "cgroup", "network"];
const CAPABILITY_SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// What the loader puts into a configuration.
#[derive(Debug)]
pub struct Ours<'a> {
    /// Root file system on the host.
    pub rootfs: &'a Path,
    /// OCI `cgroupsPath`.
    pub cgroups_path: String,
    /// File of the network namespace.
    pub netns: &'a Path,
    /// The shim's program on the host.
    pub shim: &'a Path,
    /// Folder to be mounted on `/.clawsec`, of [`shim_folder`].
    pub shim_folder: &'a Path,
    /// Folders of the host that no mount may show.
    pub protected: &'a [PathBuf],
}

/// The configuration to write into the bundle.
///
/// # Errors
/// [`Error::Invalid`] for what no sandbox may have.
pub fn configuration(request: &pb::CreateSandboxRequest, ours: &Ours<'_>) -> Result<Value> {
    let mut config: Value = serde_json::from_slice(&request.oci_config)
        .map_err(|error| Error::Invalid(format!("the OCI configuration: {error}")))?;
    if !config.is_object() {
        return invalid("the OCI configuration is not an object");
    }
    if config.get("hooks").is_some_and(|hooks| !is_empty(hooks)) {
        return invalid("the OCI configuration has hooks, which would run as root on the host");
    }
    process(object(&mut config, "process")?, request)?;
    linux(object(&mut config, "linux")?, ours)?;
    mounts(&mut config, request, ours)?;
    object(&mut config, "root")?.insert("path".into(), json!(ours.rootfs));
    Ok(config)
}

/// Fills the folder that is mounted on `/.clawsec`: mount points for the shim's copies, and the entries' specifications.
///
/// # Errors
/// [`Error::Invalid`] for a bad or doubled subject or entry.
pub fn shim_folder(folder: &Path, subjects: &[pb::Subject]) -> Result<()> {
    if subjects.is_empty() {
        return invalid("a sandbox needs at least one subject, for its main command");
    }
    let mut names = HashSet::new();
    let mut entries = HashSet::new();
    let made = |error: std::io::Error| Error::Failed(format!("the shim's folder: {error}"));
    let entry_folder = folder.join("entry");
    fs::create_dir_all(&entry_folder).map_err(made)?;
    for open in [folder, &entry_folder] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).map_err(made)?;
    }
    fs::write(folder.join("init"), "").map_err(made)?;
    for subject in subjects {
        check_subject_name(&subject.name)?;
        if !names.insert(&subject.name) {
            return invalid(format!("there are two subjects {:?}", subject.name));
        }
        let Some(name) = entry_name(subject)? else { continue };
        if !entries.insert(name) {
            return invalid(format!("two subjects have the entry {:?}", subject.entry_path));
        }
        check_path("the program of an entry", &subject.entry_exec)?;
        let spec = EntrySpec {
            landlock: ruleset(subject.entry_landlock.as_ref()),
            exec: subject.entry_exec.clone(),
        };
        fs::write(folder.join(name), "").map_err(made)?;
        let file = entry_folder.join(name);
        fs::write(&file, serde_json::to_vec(&spec).context("an entry's specification")?).map_err(made)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).map_err(made)?;
    }
    Ok(())
}

/// Last part of a subject's entry path; `None` without an entry.
fn entry_name(subject: &pb::Subject) -> Result<Option<&str>> {
    let path = subject.entry_path.as_str();
    if path.is_empty() {
        return Ok(None);
    }
    check_path("an entry's path", path)?;
    match path.strip_prefix(wire::DIR).and_then(|rest| rest.strip_prefix('/')) {
        Some(name) if !name.contains('/') && !matches!(name, "init" | "entry") => Ok(Some(name)),
        _ => invalid(format!("the entry {path:?} of subject {:?} is not {}/NAME", subject.name, wire::DIR)),
    }
}

fn process(process: &mut Map<String, Value>, request: &pb::CreateSandboxRequest) -> Result<()> {
    if process.get("noNewPrivileges") != Some(&Value::Bool(true)) {
        return invalid("the OCI configuration does not set process.noNewPrivileges");
    }
    if process.get("user").and_then(|user| user.get("uid")).and_then(Value::as_u64).unwrap_or(0) == 0 {
        return invalid("the OCI configuration runs the sandbox as root (process.user.uid)");
    }
    let named = process.get("apparmorProfile").and_then(Value::as_str).unwrap_or_default();
    let loaded = request.apparmor.as_ref().map_or("", |profile| &profile.name);
    if named != loaded {
        return invalid(format!(
            "the OCI configuration names the AppArmor profile {named:?}, and the one that comes with it is {loaded:?}"
        ));
    }
    let capabilities = process.entry("capabilities").or_insert_with(|| json!({}));
    for set in CAPABILITY_SETS {
        if capabilities.get(set).is_some_and(|set| !is_empty(set)) {
            return invalid(format!("the OCI configuration grants {set} capabilities"));
        }
    }
    // runc raises the limits after it gave up root's means to do so; above our own hard limit that fails late.
    for limit in process.get_mut("rlimits").and_then(Value::as_array_mut).into_iter().flatten() {
        let kind = limit.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(most) = sys::hard_limit(&kind) else {
            return invalid(format!("the OCI configuration limits {kind:?}, which is not known"));
        };
        for bound in ["soft", "hard"] {
            let asked = limit.get(bound).and_then(Value::as_u64).unwrap_or(0);
            limit[bound] = json!(asked.min(most));
        }
    }
    process.insert("args".into(), json!([wire::INIT_PATH]));
    process.insert("terminal".into(), json!(request.terminal));
    Ok(())
}

fn linux(linux: &mut Map<String, Value>, ours: &Ours<'_>) -> Result<()> {
    if linux.get("seccomp").is_some_and(|seccomp| !is_empty(seccomp)) {
        return invalid(
            "the OCI configuration has linux.seccomp; the shim applies the request's own profile",
        );
    }
    if linux.get("devices").is_some_and(|devices| !is_empty(devices)) {
        return invalid("the OCI configuration has devices of the host");
    }
    let rules =
        linux.get("resources").and_then(|resources| resources.get("devices")).and_then(Value::as_array);
    if rules.into_iter().flatten().any(|rule| rule.get("allow") != Some(&Value::Bool(false))) {
        return invalid("the OCI configuration allows devices of the host");
    }
    if !matches!(
        linux.get("rootfsPropagation").and_then(Value::as_str),
        None | Some("" | "private" | "rprivate")
    ) {
        return invalid("the OCI configuration shares mounts with the host (linux.rootfsPropagation)");
    }
    let mut seen = HashSet::new();
    let namespaces = linux.get_mut("namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten() {
        let kind = namespace.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !NAMESPACES.contains(&kind.as_str()) || !seen.insert(kind.clone()) {
            return invalid(format!(
                "the OCI configuration has a {kind:?} namespace twice or of no supported kind"
            ));
        }
        if kind == "network" {
            namespace["path"] = json!(ours.netns);
        } else if namespace.get("path").is_some_and(|path| !is_empty(path)) {
            return invalid(format!("the OCI configuration joins another {kind} namespace"));
        }
    }
    if let Some(missing) = NAMESPACES.iter().find(|kind| !seen.contains(**kind)) {
        return invalid(format!("the OCI configuration has no {missing} namespace of its own"));
    }
    linux.insert("cgroupsPath".into(), json!(ours.cgroups_path));
    Ok(())
}

fn mounts(config: &mut Value, request: &pb::CreateSandboxRequest, ours: &Ours<'_>) -> Result<()> {
    let mut mounts = match config.get_mut("mounts").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(mounts)) => mounts,
        Some(_) => return invalid("the OCI configuration's mounts are no list"),
    };
    for mount in &mut mounts {
        check_mount(mount, ours)?;
    }
    let shim = |source: &Path, target: &str| {
        json!({ "destination": target, "type": "bind", "source": source,
                "options": ["bind", "ro", "nosuid", "nodev"] })
    };
    mounts.push(shim(ours.shim_folder, wire::DIR));
    mounts.push(shim(ours.shim, wire::INIT_PATH));
    for subject in &request.subjects {
        if entry_name(subject)?.is_some() {
            mounts.push(shim(ours.shim, &subject.entry_path));
        }
    }
    config["mounts"] = Value::Array(mounts);
    Ok(())
}

fn check_mount(mount: &mut Value, ours: &Ours<'_>) -> Result<()> {
    let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (target, kind, source) = (text("destination"), text("type"), text("source"));
    check_path("the target of a mount", &target)?;
    if overlap(Path::new(&target), Path::new(wire::DIR)) {
        return invalid(format!("a mount on {target:?} would cover the shim's folder"));
    }
    let options: Vec<&str> = mount
        .get("options")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let has = |option: &str| options.contains(&option);
    if let Some(option) = options.iter().find(|option| option.ends_with("shared")) {
        return invalid(format!("the mount on {target:?} would share mounts with the host ({option})"));
    }
    if has("bind") || has("rbind") || kind == "bind" {
        let resolved = bind_source(&source, &target, ours.protected)?;
        // What was checked is what is mounted.
        mount["source"] = json!(resolved);
        return Ok(());
    }
    match kind.as_str() {
        "proc" | "tmpfs" | "devpts" | "mqueue" => Ok(()),
        "sysfs" | "cgroup" | "cgroup2" if has("ro") => Ok(()),
        "sysfs" | "cgroup" | "cgroup2" => invalid(format!("the {kind} on {target:?} is not read-only")),
        other => invalid(format!("the mount on {target:?} is of the type {other:?}, which is not supported")),
    }
}

fn bind_source(source: &str, target: &str, protected: &[PathBuf]) -> Result<PathBuf> {
    let refused =
        |why: &dyn std::fmt::Display| Error::Invalid(format!("the source {source:?} of {target:?}: {why}"));
    open_owned_by_root_links(Path::new(source)).map_err(|walk| refused(&walk))?;
    let resolved = fs::canonicalize(source).map_err(|error| refused(&error))?;
    if let Some(ours) = protected.iter().find(|folder| overlap(folder, &resolved)) {
        return Err(refused(&format_args!("it would show the loader's own {ours:?}")));
    }
    Ok(resolved)
}

fn object<'a>(config: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    config
        .as_object_mut()
        .and_then(|config| config.entry(name).or_insert_with(|| json!({})).as_object_mut())
        .ok_or_else(|| Error::Invalid(format!("the OCI configuration's {name} is not an object")))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
