//! What the loader knows about each sandbox's policy: its epoch and its hash, never its meaning.
//!
//! The broker (epochs of answers) and the spool (hash in every event) read the same record, so that a policy is
//! swapped for both in one step.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

/// The policy record of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Epoch of the tables in force.
    pub epoch: u64,
    /// SHA-256 of the effective policy, hex.
    pub hash: String,
    /// How long a question waits for a supervisor that is away, in milliseconds.
    pub supervisor_grace_ms: u32,
}

/// The policy records of all sandboxes that exist.
#[derive(Debug, Default)]
pub struct Tables {
    records: RwLock<HashMap<String, PolicyRecord>>,
    swapping: Mutex<()>,
}

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SwapError {
    /// The sandbox does not exist (any more).
    #[error("there is no sandbox \"{0}\"")]
    Unknown(String),
    /// Epochs only grow.
    #[error("epoch {offered} was refused: sandbox \"{sandbox}\" is at epoch {current}, and epochs only grow")]
    Stale {
        /// Name of the sandbox.
        sandbox: String,
        /// Epoch of the request.
        offered: u64,
        /// Epoch in force.
        current: u64,
    },
}

impl Tables {
    /// Adds or replaces the record of a sandbox.
    pub fn insert(&self, sandbox: &str, record: PolicyRecord) {
        self.write().insert(sandbox.to_owned(), record);
    }

    /// Forgets a sandbox. Its questions are denied from then on.
    pub fn remove(&self, sandbox: &str) {
        self.write().remove(sandbox);
    }

    /// The record of a sandbox.
    pub fn get(&self, sandbox: &str) -> Option<PolicyRecord> {
        self.read().get(sandbox).cloned()
    }

    /// Epoch of a sandbox; 0, which is never an epoch in force, when there is no such sandbox.
    pub fn epoch(&self, sandbox: &str) -> u64 {
        self.read().get(sandbox).map_or(0, |record| record.epoch)
    }

    /// Hash of a sandbox's policy, empty when there is no such sandbox.
    pub fn hash(&self, sandbox: &str) -> String {
        self.read().get(sandbox).map_or_else(String::new, |record| record.hash.clone())
    }

    /// Raises the epoch of a sandbox after `swap` has replaced what the gates hold. Swaps come one after another.
    ///
    /// From the raise on, cached verdicts and answers of older epochs are void. When `swap` fails, the old epoch
    /// stays; `swap` must then have changed nothing.
    pub fn swap<E: From<SwapError>>(
        &self,
        sandbox: &str,
        epoch: u64,
        hash: &str,
        swap: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let _one_at_a_time = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || SwapError::Unknown(sandbox.to_owned());
        let current = self.get(sandbox).ok_or_else(unknown)?.epoch;
        if epoch <= current {
            return Err(SwapError::Stale { sandbox: sandbox.to_owned(), offered: epoch, current }.into());
        }
        // Not under the lock of the records: a gate that swaps may report, and a report reads them.
        swap()?;
        let mut records = self.write();
        let record = records.get_mut(sandbox).ok_or_else(unknown)?;
        record.epoch = epoch;
        hash.clone_into(&mut record.hash);
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, PolicyRecord>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, PolicyRecord>> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let tables = Tables::default();
        tables.insert("a", PolicyRecord { epoch: 3, hash: "h3".into(), supervisor_grace_ms: 10 });
        tables
    }

    #[test]
    fn an_epoch_only_grows() {
        let tables = tables();
        for epoch in [0, 2, 3] {
            let refused = tables.swap::<SwapError>("a", epoch, "x", || panic!("must not swap"));
            assert!(matches!(refused, Err(SwapError::Stale { current: 3, .. })));
        }
        assert_eq!(tables.epoch("a"), 3);
        tables.swap::<SwapError>("a", 4, "h4", || Ok(())).unwrap();
        assert_eq!((tables.epoch("a"), tables.hash("a")), (4, "h4".to_owned()));
    }

    #[test]
    fn a_swap_that_fails_leaves_the_old_epoch() {
        let tables = tables();
        let failed = tables.swap("a", 4, "h4", || Err(SwapError::Unknown("gate".into())));
        assert_eq!(failed, Err(SwapError::Unknown("gate".into())));
        assert_eq!((tables.epoch("a"), tables.hash("a")), (3, "h3".to_owned()));
    }

    #[test]
    fn a_sandbox_that_does_not_exist_has_epoch_0_and_takes_no_policy() {
        let tables = tables();
        assert_eq!(tables.epoch("b"), 0);
        let refused = tables.swap::<SwapError>("b", 1, "x", || Ok(()));
        assert_eq!(refused, Err(SwapError::Unknown("b".into())));
    }
}
