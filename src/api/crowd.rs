//! How many connections each address holds, so that one cannot take those of all others. Requests of HTTP/2 beyond a
//! connection's first count as connections.

use super::gate::network;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that are open, by address. Trusted proxies speak for many, and are not counted.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    most: usize,
    trusted: Arc<[IpNet]>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Marks a request for which there was no place: it is answered, and nothing is done for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPlace;

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    /// Absent where it is not counted.
    address: Option<IpAddr>,
}

impl Crowd {
    /// At most `most` connections of each address.
    pub(super) fn new(most: usize, trusted: &[IpNet]) -> Self {
        Self { most, trusted: trusted.into(), open: Arc::default() }
    }

    /// A place for a connection; `None` where its address holds as many as it may.
    pub(super) fn join(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if self.trusted.iter().any(|network| network.contains(&address)) {
            return Some(Place { crowd: self.clone(), address: None });
        }
        let address = network(address);
        let mut open = self.lock();
        let held = open.entry(address).or_default();
        // An entry that was just made is of somebody who may have one at least.
        if *held >= self.most.max(1) {
            return None;
        }
        *held += 1;
        Some(Place { crowd: self.clone(), address: Some(address) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.crowd.lock();
        if let Some(held) = open.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_places_and_gives_them_back() {
        let crowd = Crowd::new(2, &["10.0.0.0/8".parse().unwrap()]);
        let join = |address: &str| crowd.join(address.parse().unwrap());
        let first = join("192.0.2.1").unwrap();
        let second = join("::ffff:192.0.2.1").unwrap();
        assert!(join("192.0.2.1").is_none() && join("192.0.2.2").is_some());
        drop(first);
        assert!(join("192.0.2.1").is_some(), "and it is given back at once");
        drop(second);
        assert!(crowd.lock().is_empty());
        let neighbours = (join("2001:db8::1").unwrap(), join("2001:db8::2").unwrap());
        assert!(join("2001:db8::3").is_none() && join("2001:db8:0:1::3").is_some());
        let proxied: Vec<_> = (0..10).map(|_| join("10.1.2.3").unwrap()).collect();
        drop((neighbours, proxied));
        assert!(crowd.lock().is_empty());
    }
}
