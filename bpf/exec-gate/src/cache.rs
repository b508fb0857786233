//! A bounded cache that forgets what was not used lately.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::FileId;

/// A file that changed less than this ago may change again without its times showing it: file systems stamp with the
/// timer tick (at most 10 ms), and this leaves room for a clock that is set back a little.
const UNSETTLED: Duration = Duration::from_millis(100);

/// Two generations: new and used entries go to the young one; when that is full, the old one is dropped and the young
/// one becomes old. So at most `2 * limit` entries, each access in constant time.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// An empty cache.
    pub fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), limit }
    }

    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    /// Adds or replaces a value.
    pub fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

/// Whether a later change of the file would show in its times.
pub fn is_settled(file: &FileId) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
    let Ok(seconds) = u64::try_from(file.changed.0) else { return false };
    now.checked_sub(Duration::new(seconds, file.changed.1)).is_some_and(|age| age > UNSETTLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(10);
        cache.put(0, "kept");
        for number in 1..1000 {
            cache.put(number, "x");
            assert_eq!(cache.get(&0), Some("kept"));
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn a_file_is_settled_only_when_its_change_is_some_time_ago() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let file = |changed: Duration| FileId {
            device: 0,
            inode: 0,
            changed: (changed.as_secs() as i64, changed.subsec_nanos()),
            modified: (0, 0),
            size: 0,
        };
        assert!(!is_settled(&file(now)));
        assert!(!is_settled(&file(now + Duration::from_secs(60))));
        assert!(is_settled(&file(now - Duration::from_secs(1))));
    }
}
