//! One made-up address for each name that a sandbox looks up.
//!
//! A connection to the address is then a connection to the name, whatever the protocol. The addresses come from
//! 198.18.0.0/15 (benchmarking, RFC 2544), which no real host may have, and stay the same for the sandbox's life.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// First address of the range.
const BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Size of the range.
const RANGE: u32 = 1 << 17;
/// The first 256 are not given out: the gate itself listens on one of them.
const FIRST: u32 = 256;
/// Names that one sandbox may look up in its life: bounds the memory to about 20 MB.
pub(crate) const CAPACITY: usize = 65_536;

/// Where the gate's listener is bound. Nothing dials it.
pub(crate) const LISTENER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Whether an address is of the range, assigned or not.
pub(crate) fn is_synthetic(address: Ipv4Addr) -> bool {
    (BASE..BASE + RANGE).contains(&u32::from(address))
}

/// The names of one sandbox.
#[derive(Debug)]
pub(crate) struct Pool {
    names: Mutex<Names>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Arc<str>, u32>,
    by_index: Vec<Arc<str>>,
}

/// All addresses are given out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Pool {
    /// A pool for this many names, at most [`CAPACITY`].
    pub(crate) fn new(capacity: usize) -> Self {
        Self { names: Mutex::default(), capacity: capacity.min(CAPACITY) }
    }

    /// The address that stands for a normalised name.
    pub(crate) fn assign(&self, name: &str) -> Result<Ipv4Addr, Exhausted> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.by_name.get(name) {
            return Ok(address_of(*index));
        }
        if names.by_index.len() >= self.capacity {
            return Err(Exhausted);
        }
        let index = u32::try_from(names.by_index.len()).map_err(|_| Exhausted)?;
        let name: Arc<str> = name.into();
        names.by_index.push(name.clone());
        names.by_name.insert(name, index);
        Ok(address_of(index))
    }

    /// The name that an address stands for.
    pub(crate) fn name_of(&self, address: Ipv4Addr) -> Option<Arc<str>> {
        let index = u32::from(address).checked_sub(BASE + FIRST)?;
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.by_index.get(usize::try_from(index).ok()?).cloned()
    }
}

fn address_of(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(BASE + FIRST + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let pool = Pool::new(10);
        let first = pool.assign("a.com").expect("room");
        let second = pool.assign("b.com").expect("room");
        assert_ne!(first, second);
        assert_eq!(pool.assign("a.com"), Ok(first));
        assert_eq!(pool.name_of(first).as_deref(), Some("a.com"));
        assert_eq!(pool.name_of(second).as_deref(), Some("b.com"));
        assert!(is_synthetic(first) && is_synthetic(LISTENER) && !is_synthetic(Ipv4Addr::new(198, 20, 0, 0)));
    }

    #[test]
    fn addresses_that_stand_for_nothing_have_no_name() {
        let pool = Pool::new(10);
        for address in
            [LISTENER, Ipv4Addr::new(198, 18, 1, 0), Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::BROADCAST]
        {
            assert_eq!(pool.name_of(address), None);
        }
    }

    #[test]
    fn a_full_pool_gives_nothing_new_and_keeps_what_it_gave() {
        let pool = Pool::new(CAPACITY);
        let mut last = None;
        for index in 0..CAPACITY {
            last = Some(pool.assign(&format!("n{index}.com")).expect("room"));
        }
        assert!(is_synthetic(last.expect("an address")));
        assert_eq!(pool.assign("more.com"), Err(Exhausted));
        assert!(pool.assign("n0.com").is_ok());
    }
}
