//! Asks `bpf/exec_caller.bpf.c` about a thread that waits in a system call.
//!
//! Only speed depends on it: a kernel that cannot run it (`bpf_task_from_pid` for programs of this kind) is asked by pidfd
//! or by `/proc` ([`crate::tracee::inspect`]).

use std::ffi::OsStr;
use std::os::fd::AsFd;

use libbpf_rs::{MapHandle, Object, ObjectBuilder, ProgramInput};

use super::lsm::quietly;
use crate::error::Error;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec_caller.bpf.o"));
/// Size of `struct clawsec_caller`.
const SIZE: usize = 64;

/// A root directory as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootId {
    /// Number of the mount that it is reached by.
    pub mount: i32,
    /// Device of its superblock, as the kernel encodes it.
    pub device: u32,
    /// Inode.
    pub inode: u64,
}

/// What is known of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its process.
    pub process: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Id of its cgroup (v2).
    pub cgroup: u64,
    /// Number of the exec whose image its process runs; 0 when it is not known, or is an image that was killed.
    pub image: u64,
    /// Its root directory.
    pub root: RootId,
    /// Name of the thread.
    pub comm: String,
}

impl Caller {
    fn parse(bytes: &[u8; SIZE]) -> Self {
        let word = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        let long = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        let comm = bytes[48..].split(|&byte| byte == 0).next().unwrap_or_default();
        Self {
            process: word(4),
            uid: word(8),
            gid: word(12),
            cgroup: long(16),
            image: long(24),
            root: RootId { inode: long(32), device: word(40), mount: word(44).cast_signed() },
            comm: String::from_utf8_lossy(comm).into_owned(),
        }
    }
}

/// The loaded program.
#[derive(Debug)]
pub struct Callers {
    object: Object,
}

impl Callers {
    /// Loads it, to look into this map of images.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(images: &MapHandle) -> Result<Self, Error> {
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(Error::bpf("opened"))?;
        let mut map =
            open.maps_mut().find(|map| map.name() == OsStr::new("images")).ok_or(Error::Abi("images"))?;
        map.reuse_fd(images.as_fd()).map_err(Error::bpf("joined with the question for a caller"))?;
        let object = quietly(|| open.load()).map_err(Error::bpf("asked about a caller"))?;
        Ok(Self { object })
    }

    /// What there is to know of a thread, as the initial pid namespace numbers it. `None`: it is gone, or ending.
    pub fn read(&self, tid: i32) -> Option<Caller> {
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&tid.to_ne_bytes());
        let program = self.object.progs_mut().next()?;
        let input = ProgramInput { context_in: Some(&mut bytes), ..Default::default() };
        match program.test_run(input) {
            Ok(output) if output.return_value == 0 => Some(Caller::parse(&bytes)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "BPF cannot be asked about a caller");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::abi::IMAGE_SIZE;
    use crate::file::{Mounts, status};
    use crate::tracee;
    use libbpf_rs::libbpf_sys::bpf_map_create_opts;
    use libbpf_rs::{MapCore as _, MapFlags, MapType};

    fn images() -> MapHandle {
        let options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as _,
            map_flags: libbpf_rs::libbpf_sys::BPF_F_NO_PREALLOC,
            ..Default::default()
        };
        MapHandle::create(MapType::Hash, Some("images"), 4, IMAGE_SIZE as u32, 65536, &options).unwrap()
    }

    // This test runs as root, on a kernel that can do it.
    #[test]
    fn bpf_says_of_a_thread_what_pidfd_and_proc_say() {
        let images = images();
        let callers = Callers::load(&images).unwrap();
        let (says, heard) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("a-caller".into()).spawn(move || {
            says.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = ends.recv();
        });
        let tid = heard.recv().unwrap();
        let (quick, image) = tracee::inspect(tid, Some(&callers), |_| unreachable!()).unwrap();
        let slow = tracee::inspect_without_bpf(tid).unwrap();
        let facts =
            |task: &tracee::Task| (task.tid, task.pid, task.uid, task.gid, task.cgroup, task.comm.clone());
        assert_eq!(facts(&quick), facts(&slow));
        assert_eq!((quick.comm.as_str(), image), ("a-caller", 0));
        assert!(quick.pidfd.is_none());

        let root = std::fs::File::open("/").unwrap();
        let (id, _, _) = Mounts::default().identify(root.as_fd(), tid).unwrap();
        let mount = i32::try_from(status(root.as_fd()).unwrap().stx_mnt_id).unwrap();
        assert_eq!(quick.root, Some(RootId { mount, device: id.device, inode: id.inode }));

        // What its process runs; nothing, when that image was killed.
        for (result, number) in [(1u32, 77), (3, 0)] {
            let mut value = [0u8; IMAGE_SIZE];
            value[..8].copy_from_slice(&77u64.to_ne_bytes());
            value[16..20].copy_from_slice(&result.to_ne_bytes());
            images.update(&std::process::id().to_ne_bytes(), &value, MapFlags::ANY).unwrap();
            assert_eq!(callers.read(tid).unwrap().image, number);
        }
        end.send(()).unwrap();
        thread.unwrap().join().unwrap();
        assert_eq!(callers.read(tid), None);
    }
}
