//! What the loader needs of its own process.

use std::fs;
use std::io;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// True when the process may do what a loader does.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes the process the parent of what its children leave behind (exit codes of sandboxes need it), and raises the
/// limits a loader runs into: descriptors (each connection takes four) and locked memory (BPF maps before 5.11).
pub fn prepare() -> io::Result<()> {
    set_child_subreaper(true)?;
    raise_open_files()?;
    let unlimited = nix::libc::RLIM_INFINITY;
    // Newer kernels charge BPF memory to the cgroup; a refusal shows when a program is loaded.
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited) {
        tracing::debug!(%error, "the limit of locked memory stays");
    }
    Ok(())
}

// A held exec takes one descriptor and one that is asked about five, a sandbox can have 10,240 of them, and all share this
// process's: with what a shell gives here and there, the holds of a few sandboxes would deny the execs of the others.
fn raise_open_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // No process can have more (proc_sys_fs(5)), and only CAP_SYS_RESOURCE goes beyond the hard limit.
    let most = fs::read_to_string("/proc/sys/fs/nr_open")?.trim().parse().unwrap_or(hard).max(hard);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        tracing::warn!(%error, hard, "the limit of open files stays, which all held execs share");
    }
    Ok(())
}

/// Kernel release, as uname(2) gives it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

/// A new id of this run, 128 random bits from the kernel.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Tells the loaders of one host apart, in cgroups and BPF pins: the first 8 hex digits of the SHA-256 of the runtime
/// directory.
pub fn instance(runtime_dir: &std::path::Path) -> String {
    use sha2::{Digest as _, Sha256};
    use std::os::unix::ffi::OsStrExt as _;
    let digest = Sha256::digest(runtime_dir.as_os_str().as_bytes());
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_instance_is_made_of_the_runtime_directory() {
        // printf %s /run/clawsec | sha256sum | head -c 8
        assert_eq!(super::instance(std::path::Path::new("/run/clawsec")), "ec722a4b");
    }
}
