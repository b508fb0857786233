//! Verdicts on files that may be used again.

use clawsec_core::pb;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Entries kept per sandbox. Beyond it the cache starts anew: asking again is always right.
const CAPACITY: usize = 8192;

/// What a cached verdict was about. A change of the file changes the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    subject: String,
    device: u64,
    inode: u64,
    changed: (i64, i64),
    modified: (i64, i64),
    size: u64,
    path: String,
}

impl Key {
    pub(crate) fn new(subject: &str, path: &str, file: &Metadata) -> Self {
        Self {
            subject: subject.to_owned(),
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
            modified: (file.mtime(), file.mtime_nsec()),
            size: file.len(),
            path: path.to_owned(),
        }
    }
}

/// Decisions under one epoch.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    epoch: u64,
    decisions: HashMap<Key, pb::Decision>,
}

impl Cache {
    /// The decision for `key`, if one was made under `epoch`.
    pub(crate) fn get(&mut self, epoch: u64, key: &Key) -> Option<pb::Decision> {
        self.forget_other(epoch);
        self.decisions.get(key).cloned()
    }

    /// Keeps a final decision as far as its cache scope allows.
    pub(crate) fn put(&mut self, epoch: u64, key: Key, decision: &pb::Decision) {
        let reusable = matches!(decision.cache_scope(), pb::CacheScope::File | pb::CacheScope::FileArgv);
        if !reusable || decision.epoch != epoch {
            return;
        }
        self.forget_other(epoch);
        if self.decisions.len() >= CAPACITY {
            self.decisions.clear();
        }
        self.decisions.insert(key, decision.clone());
    }

    fn forget_other(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.decisions.clear();
            self.epoch = epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(scope: pb::CacheScope, epoch: u64) -> pb::Decision {
        pb::Decision {
            verdict: pb::Verdict::Allow.into(),
            cache_scope: scope.into(),
            epoch,
            ..Default::default()
        }
    }

    #[test]
    fn a_verdict_is_used_again_under_its_epoch_only() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let key = Key::new("tool", "/a", &file.as_file().metadata().expect("metadata"));
        let mut cache = Cache::default();
        cache.put(3, key.clone(), &decision(pb::CacheScope::File, 3));
        assert!(cache.get(3, &key).is_some());
        assert!(cache.get(4, &key).is_none());
        assert!(cache.get(3, &key).is_none(), "an old epoch never comes back");
    }

    #[test]
    fn a_verdict_for_one_question_is_not_kept() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let key = Key::new("tool", "/a", &file.as_file().metadata().expect("metadata"));
        let mut cache = Cache::default();
        cache.put(1, key.clone(), &decision(pb::CacheScope::None, 1));
        assert!(cache.get(1, &key).is_none());
        cache.put(1, key.clone(), &decision(pb::CacheScope::Unspecified, 1));
        assert!(cache.get(1, &key).is_none());
    }

    #[test]
    fn a_changed_file_is_another_question() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let before = Key::new("tool", "/a", &file.as_file().metadata().expect("metadata"));
        file.as_file().set_len(10).expect("grow");
        let after = Key::new("tool", "/a", &file.as_file().metadata().expect("metadata"));
        assert_ne!(before, after);
    }
}
