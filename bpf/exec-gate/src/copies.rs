//! Which processes are followed with a copy of which script. What such a process executes with that script as its argument
//! (`#!/usr/bin/env node`) reads the same copy.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::fs::Statx;

use crate::cache::Cache;
use crate::file::status;
use crate::handover::{Script, absolute};
use crate::resolve::Found;

#[derive(Clone)]
struct Copied {
    original: Statx,
    name: Vec<u8>,
    names: Vec<Vec<u8>>,
    by_person: bool,
}

static COPIES: LazyLock<Mutex<HashMap<i32, Copied>>> = LazyLock::new(Mutex::default);

fn copies() -> MutexGuard<'static, HashMap<i32, Copied>> {
    COPIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Contents that are kept in mind for one sandbox (twice this at most).
const HELD_MAX: usize = 8192;

/// The content of the script that each hold of a sandbox is about. Calls that look the same to a person join one hold, and
/// one answer lets all of them run: what they read is the same, too. That the file's times are the same does not say so,
/// since a store into a mapping of it need not change them.
#[derive(Debug)]
pub struct Held(Mutex<Cache<String, String>>);

impl Default for Held {
    fn default() -> Self {
        Self(Mutex::new(Cache::new(HELD_MAX)))
    }
}

impl Held {
    /// Whether a hold is about this content: the first one that is held under its id, or the same again. `hold`: "" for an
    /// exec that is not held.
    pub fn is_as_held(&self, hold: &str, digest: String) -> bool {
        if hold.is_empty() {
            return true;
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = held.get(hold);
        let is_same = first.as_ref().is_none_or(|first| *first == digest);
        if first.is_none() {
            held.put(hold.to_owned(), digest);
        }
        is_same
    }
}

/// A process that is followed, until this is dropped.
pub struct Entry(i32);

impl Entry {
    /// `by_person`: a person decided about the script.
    pub fn new(pid: i32, script: &Script, by_person: bool) -> Self {
        let Script { original, name, names, .. } = script;
        let copied = Copied { original: *original, name: name.clone(), names: names.clone(), by_person };
        copies().insert(pid, copied);
        Self(pid)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        remove(self.0);
    }
}

/// The process is followed no longer. Comes before it runs on.
pub fn remove(pid: i32) {
    copies().remove(&pid);
}

/// Whether a process is followed with a copy that a person decided about.
pub fn is_followed_for_person(pid: i32) -> bool {
    copies().get(&pid).is_some_and(|copied| copied.by_person)
}

/// Whether a process is followed with a copy that a person decided about, and reads it where this name is opened.
pub fn is_decided_by_person(pid: i32, name: &[u8], cwd: &[u8]) -> bool {
    let copies = copies();
    let Some(copied) = copies.get(&pid).filter(|copied| copied.by_person) else { return false };
    name == copied.name || copied.names.contains(&absolute(cwd, name))
}

/// Whether a process is followed with a copy of this one script, which has not changed since.
pub fn has(pid: i32, scripts: &[Found]) -> bool {
    let [script] = scripts else { return false };
    let Some(copied) = copies().get(&pid).cloned() else { return false };
    let Ok(now) = status(script.fd.as_fd()) else { return false };
    let state = |stat: &Statx| {
        let times = [stat.stx_ctime, stat.stx_mtime].map(|time| (time.tv_sec, time.tv_nsec));
        (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino, stat.stx_size, times)
    };
    state(&now) == state(&copied.original)
}
