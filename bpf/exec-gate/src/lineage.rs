//! Which exec made which image.
//!
//! Each exec that may happen gets a number. BPF keeps, for each process, the number of the image it runs, and hands it
//! on at fork. So the ancestors of an exec are the execs whose images led to it, also when processes in between are
//! long gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clawsec_core::pb;

/// Ancestors that are kept of an exec, and distinct executables of these.
const DEPTH: usize = 64;
/// Bytes of an image's and its ancestors' executables that are kept.
const TEXT_MAX: usize = 16 * 1024;
/// Records between two looks at which are still needed.
const COLLECT_EVERY: usize = 4096;

/// Executable and ancestors of an image.
#[derive(Debug, Clone)]
pub struct Record {
    /// Numbers, nearest first.
    pub ancestors: Arc<[u64]>,
    // Its own executable, then each other one that led to it, once, nearest first.
    executables: Arc<[Arc<str>]>,
    // There were more of them, or they are not known.
    truncated: bool,
}

impl Record {
    fn first(executable: &str) -> Self {
        Self { ancestors: Arc::default(), executables: Arc::new([executable.into()]), truncated: false }
    }

    // An image of whose parent no more than the number is known, if that.
    fn stray(parent: u64, executable: &str) -> Self {
        let ancestors = (parent != 0).then_some(parent).into_iter().collect();
        Self { ancestors, truncated: true, ..Self::first(executable) }
    }

    fn child(&self, number: u64, executable: &str) -> Self {
        let ancestors = [number].into_iter().chain(self.ancestors.iter().copied().take(DEPTH - 1)).collect();
        if self.executable() == executable {
            return Self { ancestors, ..self.clone() };
        }
        let known = self.executables.iter().find(|known| ***known == *executable);
        let own = known.map_or_else(|| executable.into(), Arc::clone);
        let others = self.executables.iter().filter(|other| ***other != *executable);
        let mut left = TEXT_MAX.saturating_sub(own.len());
        let mut kept = vec![own];
        let mut truncated = self.truncated;
        for other in others {
            if kept.len() > DEPTH || other.len() > left {
                truncated = true;
                break;
            }
            left -= other.len();
            kept.push(Arc::clone(other));
        }
        Self { ancestors, executables: kept.into(), truncated }
    }

    /// Path as the sandbox sees it.
    pub fn executable(&self) -> &str {
        &self.executables[0]
    }
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

    /// Says of a process what it runs and which execs led to it.
    pub fn describe(&self, number: u64, process: &mut pb::Process) {
        process.exec_id = self.id(number);
        if let Some(record) = self.record(number) {
            process.ancestors = record.ancestors.iter().map(|ancestor| self.id(*ancestor)).collect();
            process.executable = record.executable().to_owned();
        }
    }

    /// Says of a process which executables led to the image it runs. Of an image that is not known, that they are not.
    pub fn describe_ancestors(&self, number: u64, process: &mut pb::Process) {
        let record = self.record(number);
        process.ancestors_truncated = record.as_ref().is_none_or(|record| record.truncated);
        process.ancestor_executables =
            record.iter().flat_map(|record| &record.executables[1..]).map(ToString::to_string).collect();
    }

    /// Notes the first exec of a sandbox, which the loader itself starts. `live` as of [`Lineage::insert`].
    pub fn insert_first(&self, number: u64, executable: &str, live: impl FnOnce() -> HashSet<u64>) {
        self.put(number, live, |_| Record::first(executable));
    }

    /// Notes an exec that is about to happen, from the image `parent`. `live` names the images that run; it is asked
    /// now and then, to forget the others.
    pub fn insert(&self, number: u64, parent: u64, executable: &str, live: impl FnOnce() -> HashSet<u64>) {
        self.put(number, live, |records| match records.get(&parent) {
            Some(record) => record.child(parent, executable),
            None => Record::stray(parent, executable),
        });
    }

    fn put(
        &self,
        number: u64,
        live: impl FnOnce() -> HashSet<u64>,
        make: impl FnOnce(&HashMap<u64, Record>) -> Record,
    ) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = make(&records.by_number);
        records.by_number.insert(number, record);
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
#[path = "lineage_tests.rs"]
mod tests;
