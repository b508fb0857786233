//! The second layer, for kernels with BPF-LSM: refuses an exec before the image is replaced (`bpf/exec_lsm.bpf.c`).
//!
//! It is never there alone: it uses the scopes, approvals and events of the verification. Where it is loaded, an
//! approval counts only with its [`Chain`].

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Once;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, ObjectBuilder, PrintLevel};

use crate::error::Error;
use crate::file::FileId;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec_lsm.bpf.o"));
/// `CLAWSEC_CHAIN_MAX`.
const CHAIN_MAX: usize = 6;
const FILE_SIZE: usize = 16;
const CHAIN_SIZE: usize = 16 + CHAIN_MAX * FILE_SIZE;

/// The files that the kernel comes to during one exec: scripts, outermost first, and at last the one that it maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The approval that it belongs to.
    pub exec: u64,
    /// Device and inode of each.
    pub files: Vec<(u32, u64)>,
}

impl Chain {
    /// The chain of an exec that loads these files.
    pub fn new<'a>(exec: u64, files: impl IntoIterator<Item = &'a FileId>) -> Self {
        Self { exec, files: files.into_iter().map(|id| (id.device, id.inode)).collect() }
    }

    // None: the kernel follows fewer.
    fn to_bytes(&self) -> Option<[u8; CHAIN_SIZE]> {
        let mut bytes = [0; CHAIN_SIZE];
        bytes[..8].copy_from_slice(&self.exec.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(self.files.len() as u32).to_ne_bytes());
        if self.files.len() > CHAIN_MAX {
            return None;
        }
        for (place, (device, inode)) in bytes[16..].chunks_exact_mut(FILE_SIZE).zip(&self.files) {
            place[..8].copy_from_slice(&inode.to_ne_bytes());
            place[8..12].copy_from_slice(&device.to_ne_bytes());
        }
        Some(bytes)
    }
}

/// What the program counted since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Execs that were refused.
    pub refused: u64,
    /// Of these, whose event found the ring buffer full.
    pub ring_full: u64,
}

/// The loaded program, for as long as its links live or are pinned.
#[derive(Debug)]
pub struct ExecLsm {
    chains: MapHandle,
    refusals: MapHandle,
}

impl ExecLsm {
    /// Loads and attaches it beside a verification, whose maps these are, by name.
    ///
    /// # Errors
    /// The kernel has no BPF-LSM, or refuses it. That it attaches does not mean that the kernel calls it: a kernel with
    /// `bpf` missing in its list of security modules never does, so try it ([`crate::probe`]).
    pub fn load<const N: usize>(shared: [(&'static str, &MapHandle); N]) -> Result<(Self, Vec<Link>), Error> {
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(Error::bpf("opened"))?;
        let mut replaced = 0;
        for mut map in open.maps_mut() {
            if let Some((_, handle)) = shared.iter().find(|(name, _)| map.name() == OsStr::new(name)) {
                map.reuse_fd(handle.as_fd()).map_err(Error::bpf("joined with BPF-LSM"))?;
                replaced += 1;
            }
        }
        if replaced != shared.len() {
            return Err(Error::Abi("of the verification"));
        }
        let object = quietly(|| open.load()).map_err(Error::bpf("joined with BPF-LSM"))?;
        let handle = |name: &'static str, key_size: u32, value_size: usize| {
            let map = object.maps().find(|map| map.name() == OsStr::new(name)).ok_or(Error::Abi(name))?;
            if map.key_size() != key_size || map.value_size() as usize != value_size {
                return Err(Error::Abi(name));
            }
            MapHandle::try_from(&map).map_err(Error::bpf("opened"))
        };
        let lsm = Self { chains: handle("chains", 4, CHAIN_SIZE)?, refusals: handle("refusals", 4, 8)? };
        let links = object
            .progs_mut()
            .map(|program| program.attach().map_err(Error::bpf("attached to BPF-LSM")))
            .collect::<Result<_, _>>()?;
        Ok((lsm, links))
    }

    /// Says which files belong to the next approval of a thread. To be called before that is given: without its chain
    /// it allows nothing.
    pub fn tell(&self, tid: i32, chain: &Chain) -> Result<(), Error> {
        let bytes = chain.to_bytes();
        let bytes =
            bytes.ok_or_else(|| Error::Refused("more interpreters than the kernel follows".into()))?;
        self.chains
            .update(&tid.to_ne_bytes(), &bytes, MapFlags::ANY)
            .map_err(Error::bpf("told of the files of an approval"))
    }

    /// Forgets the chain of a thread: its exec is over.
    pub fn forget(&self, tid: i32) {
        // It fails when there is none, which is what is wanted.
        let _ = self.chains.delete(&tid.to_ne_bytes());
    }

    /// What was counted since the load.
    pub fn refusals(&self) -> Refusals {
        let value = |index: u32| match self.refusals.lookup(&index.to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(bytes)) => bytes.try_into().map_or(0, u64::from_ne_bytes),
            _ => 0,
        };
        Refusals { refused: value(0), ring_full: value(1) }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

// libbpf writes to standard error what a kernel refuses. Here it is tried whether it does.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| {
            let text = text.trim_end();
            if QUIET.get() { tracing::debug!("{text}") } else { tracing::warn!("{text}") }
        })));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_lies_as_the_program_reads_it_and_a_longer_one_than_the_kernels_is_none() {
        let chain = Chain { exec: 7, files: vec![(8 << 20 | 1, 42), (9, u64::MAX)] };
        let bytes = chain.to_bytes().unwrap();
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((u64_at(0), u32_at(8), u32_at(12)), (7, 2, 0));
        assert_eq!((u64_at(16), u32_at(24), u64_at(32), u32_at(40)), (42, 8 << 20 | 1, u64::MAX, 9));
        let full = Chain { exec: 7, files: vec![(1, 1); CHAIN_MAX] };
        assert!(full.to_bytes().is_some());
        assert!(Chain { exec: 7, files: vec![(1, 1); CHAIN_MAX + 1] }.to_bytes().is_none());
    }
}
