use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;

use super::*;
use crate::bpf::caller::RootId;

// This thread, as BPF would know it.
fn me(view: &View) -> Who {
    let tid = nix::unistd::gettid().as_raw();
    let root = fs::File::open("/").unwrap();
    let (id, _, stat) = view.mounts.identify(root.as_fd(), tid).unwrap();
    let mount = i32::try_from(stat.stx_mnt_id).unwrap();
    Who { tid, root: Some(RootId { mount, device: id.device, inode: id.inode }) }
}

type Seen = Result<(Vec<u8>, FileId, Kind, u32), Failure>;

fn seen(found: Result<Found, Failure>) -> Seen {
    found.map(|found| (found.path, found.id, found.kind, found.mode))
}

#[test]
fn the_kernels_walk_and_ours_find_the_same_file_under_the_same_name() {
    let folder = std::env::temp_dir().join(format!("clawsec-resolve-{}", std::process::id()));
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/b/program"), "x").unwrap();
    fs::write(folder.join("a/ends (deleted)"), "x").unwrap();
    for (to, at) in [
        ("b/program", "a/beside"),
        ("../a/b/program", "a/up"),
        ("a", "folder"),
        ("loop2", "loop1"),
        ("loop1", "loop2"),
        ("missing", "dangling"),
        ("/proc/self/exe", "through-proc"),
        ("/usr/bin/env", "away"),
        ("a/b/program/", "must-be-a-folder"),
    ] {
        symlink(to, folder.join(at)).unwrap();
    }
    let view = View::default();
    let who = me(&view);
    let own = |name: &str| format!("{}/{name}", folder.display());
    let mut quick = 0;
    let names: Vec<String> = [
        "a/b/program",
        "a/beside",
        "a/up",
        "folder/b/program",
        "folder/../a//b/./program",
        "loop1",
        "dangling",
        "through-proc",
        "away",
        "must-be-a-folder",
        "a/b/program/",
        "a/b",
        "a/b/program/x",
        "a/ends (deleted)",
        "none",
    ]
    .iter()
    .map(|name| own(name))
    .chain(
        [
            "/bin/sh",
            "/usr/bin/env",
            "/usr/bin/../bin/env",
            "/../../usr/bin/env",
            "/proc/self/exe",
            "/proc/thread-self/exe",
            "/proc/self/root/usr/bin/env",
            "/proc/self/cwd",
            "/dev/null",
            "/dev/fd/0",
            "/",
            "/.",
            "/proc/self",
        ]
        .map(str::to_owned),
    )
    .collect();
    for name in &names {
        let name = name.as_bytes();
        let slow = seen(view.find(who, Start::Cwd, name, true));
        let found = view.find_quickly(who, Start::Cwd, name, true);
        quick += u32::from(found.as_ref().is_ok_and(|found| found.mounts.is_empty()));
        assert_eq!(seen(found), slow, "{}", String::from_utf8_lossy(name));
    }
    assert!(quick >= 10, "only {quick} of {} were found quickly", names.len());

    // A file without a name is said to have none, whichever way it is found.
    let deleted = folder.join("a/b/gone");
    fs::write(&deleted, "x").unwrap();
    let held = fs::File::open(&deleted).unwrap();
    fs::remove_file(&deleted).unwrap();
    let name = format!("/proc/self/fd/{}", held.as_raw_fd());
    let found = view.find_quickly(who, Start::Cwd, name.as_bytes(), true).unwrap();
    assert_eq!(found.kind, Kind::Deleted);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_root_is_known_again_by_what_it_is_to_the_kernel_and_another_one_is_not_taken_for_it() {
    let view = View::default();
    let who = me(&view);
    let first = view.root_of(who).unwrap();
    assert_eq!(first.id, who.root);
    assert!(Arc::ptr_eq(&first, &view.root_of(who).unwrap()));
    // What BPF read a moment ago and the thread has left since is not kept as the root that is there now.
    let another = who.root.map(|id| RootId { inode: id.inode + 1, ..id });
    let view = View::default();
    let found = view.root_of(Who { root: another, ..who }).unwrap();
    assert_eq!(found.id, None);
    assert_eq!(view.root_of(who).unwrap().id, who.root);
}
