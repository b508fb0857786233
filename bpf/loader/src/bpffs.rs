//! The file system that BPF pins live in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where it belongs, by convention.
const MOUNT: &str = "/sys/fs/bpf";

/// The folder for the pins of one loader. Mounts the file system where it is missing; the folder is made by whoever
/// pins.
pub fn pin_dir(instance: &str) -> io::Result<PathBuf> {
    let folder = Path::new(MOUNT);
    if statfs(folder)?.filesystem_type() != BPF_FS_MAGIC {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), folder, Some("bpf"), flags, Some("mode=0700"))?;
        tracing::info!("a bpf file system was mounted at {MOUNT}");
    }
    fs::metadata(folder)?;
    Ok(folder.join(format!("clawsec-{instance}")))
}
