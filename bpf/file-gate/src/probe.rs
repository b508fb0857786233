//! Whether this host can ask before opens: tried on a file of our own.

use crate::group::Group;
use clawsec_core::pb;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Opens a file on a scratch tmpfs twice, denying the first open and allowing the second.
pub fn probe() -> pb::Capability {
    let tried =
        std::thread::spawn(attempt).join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")));
    let (state, detail) = match tried {
        Ok(()) => (pb::CapabilityState::Present, "an open was denied and the next one allowed".to_owned()),
        Err(error) => (pb::CapabilityState::Missing, format!("asking before an open failed: {error}")),
    };
    pb::Capability {
        name: "fanotify.perm".into(),
        state: state.into(),
        detail,
        remedy: if state == pb::CapabilityState::Present {
            String::new()
        } else {
            "use a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y, or a policy without file rules that hold or log".into()
        },
        level: String::new(),
        required: false,
    }
}

/// Runs in a thread with a mount namespace of its own, so that nothing of the probe is seen outside or left behind.
fn attempt() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("clawsec-probe"), "/tmp", Some("tmpfs"), MsFlags::MS_NOSUID, none)?;
    let path = Path::new("/tmp/guarded");
    File::create(path)?;
    let group = Group::new()?;
    group.guard_mount(Path::new("/tmp"))?;
    let denied = open_with_answer(&group, path, false)?;
    let allowed = open_with_answer(&group, path, true)?;
    match (denied, allowed) {
        (Err(_), Ok(())) => Ok(()),
        (Ok(()), _) => Err(io::Error::other("a denied open went through")),
        (_, Err(error)) => Err(io::Error::other(format!("an allowed open failed: {error}"))),
    }
}

/// Opens `path` in a second thread of this mount namespace, and answers it here.
fn open_with_answer(group: &Group, path: &Path, allowed: bool) -> io::Result<io::Result<()>> {
    let opener = {
        let path = path.to_owned();
        std::thread::spawn(move || File::open(path).map(drop))
    };
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        for event in group.read()? {
            if let Some(fd) = event.fd() {
                group.answer(fd.as_fd(), allowed)?;
                return opener.join().map_err(|_| io::Error::other("the opener panicked"));
            }
        }
        if Instant::now() > until {
            return Err(io::Error::other("no event came for an open of a guarded file"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
