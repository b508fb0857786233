//! Which exec made which image.
//!
//! Each exec that may happen gets a number: the time since the boot in nanoseconds, made unique. With the boot's own id it
//! is the exec's id, which no other exec of this machine has. BPF keeps, for each process, the number of the image it
//! runs, and hands it on at fork. So the ancestors of an exec are the execs whose images led to it, also when processes
//! in between are long gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clawsec_core::pb;

use crate::sys;

/// Ancestors that are kept of an exec, and distinct executables of these.
const DEPTH: usize = 64;
/// Bytes of an image's and its ancestors' executables that are kept.
const TEXT_MAX: usize = 16 * 1024;
/// Characters of the boot's id that are part of each exec's id.
const BOOT_DIGITS: usize = 8;
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
    // Names the boot of the machine.
    boot: String,
    last: AtomicU64,
    records: Mutex<Records>,
}

#[derive(Debug)]
struct Records {
    // With how many there were before it.
    by_number: HashMap<u64, (u64, Record)>,
    count: u64,
    collect_at: usize,
}

impl Lineage {
    /// An empty table; `boot_id` is that of this boot (`/proc/sys/kernel/random/boot_id`).
    pub fn new(boot_id: &str) -> Self {
        let records = Records { by_number: HashMap::new(), count: 0, collect_at: COLLECT_EVERY };
        let boot = boot_id.chars().take(BOOT_DIGITS).collect();
        Self { boot, last: AtomicU64::new(0), records: Mutex::new(records) }
    }

    /// A number for an exec that may happen. Larger than every one before it, and even: those that BPF gives are odd.
    pub fn number(&self) -> u64 {
        let now = sys::boot_ns() & !1;
        let next = |last: u64| (last + 2).max(now);
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }

    /// The id of a number, for events; empty for 0.
    pub fn id(&self, number: u64) -> String {
        if number == 0 { String::new() } else { format!("{}-{number:x}", self.boot) }
    }

    /// What is known of an image.
    pub fn record(&self, number: u64) -> Option<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.by_number.get(&number).map(|(_, record)| record.clone())
    }

    /// Says of a process what it runs and which execs led to it.
    pub fn describe(&self, number: u64, process: &mut pb::Process) {
        self.describe_as(number, self.record(number).as_ref(), process);
    }

    /// The same, where its record is known.
    pub fn describe_as(&self, number: u64, record: Option<&Record>, process: &mut pb::Process) {
        process.exec_id = self.id(number);
        if let Some(record) = record {
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
            Some((_, record)) => record.child(parent, executable),
            None => Record::stray(parent, executable),
        });
    }

    fn put(
        &self,
        number: u64,
        live: impl FnOnce() -> HashSet<u64>,
        make: impl FnOnce(&HashMap<u64, (u64, Record)>) -> Record,
    ) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = make(&records.by_number);
        records.count += 1;
        let count = records.count;
        records.by_number.insert(number, (count, record));
        if records.by_number.len() >= records.collect_at {
            let live = live();
            // The newest may not be in the kernel's table yet.
            let recent = count.saturating_sub(COLLECT_EVERY as u64 / 2);
            records.by_number.retain(|number, (count, _)| *count >= recent || live.contains(number));
            records.collect_at = records.by_number.len() + COLLECT_EVERY;
        }
    }
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
