//! Which exec made which image.
//!
//! Each exec that may happen gets a number. BPF keeps, for each process, the number of the image it runs, and hands it
//! on at fork. So the ancestors of an exec are the execs whose images led to it, also when processes in between are
//! long gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Ancestors that are kept of an exec.
const DEPTH: usize = 64;
/// Records between two looks at which are still needed.
const COLLECT_EVERY: usize = 4096;

/// Executable and ancestors of an image.
#[derive(Debug, Clone)]
pub struct Record {
    /// Path as the sandbox sees it.
    pub executable: Arc<str>,
    /// Numbers, nearest first.
    pub ancestors: Arc<[u64]>,
}

/// The execs of all sandboxes since the gate was loaded.
#[derive(Debug)]
pub struct Lineage {
    // Makes the ids unique over the gate's lives.
    prefix: String,
    next: AtomicU64,
    records: Mutex<Records>,
}

#[derive(Debug)]
struct Records {
    by_number: HashMap<u64, Record>,
    collect_at: usize,
}

impl Lineage {
    /// An empty table; `start` differs from that of every other on this machine.
    pub fn new(start: u64) -> Self {
        let records = Records { by_number: HashMap::new(), collect_at: COLLECT_EVERY };
        Self { prefix: format!("{start:x}"), next: AtomicU64::new(1), records: Mutex::new(records) }
    }

    /// A number for an exec that may happen.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The id of a number, for events; empty for 0.
    pub fn id(&self, number: u64) -> String {
        if number == 0 { String::new() } else { format!("{}-{number}", self.prefix) }
    }

    /// What is known of an image.
    pub fn record(&self, number: u64) -> Option<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).by_number.get(&number).cloned()
    }

    /// Notes an exec that is about to happen, from the image `parent`. `live` names the images that run; it is asked
    /// now and then, to forget the others.
    pub fn insert(&self, number: u64, parent: u64, executable: &str, live: impl FnOnce() -> HashSet<u64>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ancestors = Vec::new();
        if parent != 0 {
            ancestors.push(parent);
            if let Some(record) = records.by_number.get(&parent) {
                ancestors.extend(record.ancestors.iter().take(DEPTH - 1));
            }
        }
        records
            .by_number
            .insert(number, Record { executable: executable.into(), ancestors: ancestors.into() });
        if records.by_number.len() >= records.collect_at {
            let live = live();
            // The newest may not be in the kernel's table yet.
            let recent = number.saturating_sub(COLLECT_EVERY as u64 / 2);
            records.by_number.retain(|number, _| *number >= recent || live.contains(number));
            records.collect_at = records.by_number.len() + COLLECT_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_nearest_first_and_bounded() {
        let lineage = Lineage::new(0xabc);
        for number in 1..=200 {
            lineage.insert(number, number - 1, "/bin/x", HashSet::new);
        }
        assert_eq!(lineage.record(3).unwrap().ancestors[..], [2, 1]);
        let last = lineage.record(200).unwrap();
        assert_eq!((last.ancestors.len(), last.ancestors[0]), (DEPTH, 199));
        assert_eq!((lineage.id(0), lineage.id(7)), (String::new(), "abc-7".into()));
    }

    #[test]
    fn what_no_process_runs_is_forgotten() {
        let lineage = Lineage::new(1);
        let count = 10 * COLLECT_EVERY as u64;
        for number in 1..=count {
            lineage.insert(number, 0, "/bin/x", || HashSet::from([5]));
        }
        assert!(lineage.record(5).is_some());
        assert!(lineage.record(6).is_none());
        assert!(lineage.record(count).is_some());
        assert!(lineage.records.lock().unwrap().by_number.len() < 3 * COLLECT_EVERY);
    }
}
