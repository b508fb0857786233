//! What comes into a sandbox from outside, on the real kernel: without an approval it runs nothing.

mod common;

use std::process::{Command, Stdio};

use common::{World, allow, programs};

#[test]
fn who_joins_the_mount_namespace_from_outside_is_killed_at_its_exec_and_no_other_namespace_is_touched() {
    let world = World::new(|_| allow());
    let mut stays = Command::new("unshare")
        .args(["--mount", "sh", "-c", "echo there; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(stays.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = stays.id() as i32;
    let enter = |name: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("--").arg(&programs().effect);
        command.arg(world.folder.path()).arg(name).status().unwrap()
    };
    assert!(enter("before").success());
    let guarded = world.gate().guard_namespace(&world.scope.sandbox, pid).unwrap();
    if guarded {
        let status = enter("during");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        assert_eq!(world.count("during"), 0);
        assert!(world.killed_because().contains("nothing was approved"), "{}", world.killed_because());
    } else {
        println!("skipped: this kernel has no ids for mount namespaces");
    }
    // The loader's own namespace is never guarded.
    assert!(!world.gate().guard_namespace(&world.scope.sandbox, std::process::id() as i32).unwrap());
    let here = Command::new(&programs().effect).arg(world.folder.path()).arg("here").status().unwrap();
    assert!(here.success());
    world.gate().remove_scope(&world.scope.sandbox);
    assert!(enter("after").success());
    stays.kill().unwrap();
    stays.wait().unwrap();
    assert_eq!(["before", "here", "after"].map(|name| world.count(name)), [1, 1, 1]);
}
