//! Who holds how many connections, and who has to leave where there is no place for another one.
//!
//! No address takes more than its share: so many as are given to one, and no more than half of what is left for everybody
//! else, so that a few addresses never take all. A connection that has shown no valid credential counts as left: it gives way, the oldest
//! of the address that holds the most of them first. Requests of HTTP/2 beyond a connection's first count as connections.

use super::gate::network;
use super::refusals::UnderWay;
use crate::domain::limits::{CONNECTIONS_LEAVING_MAX, LEAVERS_LOOKED_AT_MAX};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// In all.
    pub(super) all: usize,
    /// Of one address; proxies that are trusted speak for many, and are not counted.
    pub(super) per_address: usize,
}

/// The connections that are open, by address.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    places: Places,
    trusted: Arc<[IpNet]>,
    open: Arc<Mutex<Open>>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    taken: usize,
    strangers: usize,
    /// Connections that were told to leave, and are not gone.
    leaving: usize,
    holders: HashMap<IpAddr, Holder>,
    /// Addresses by how many strangers, and by how many others, there are of them.
    ranks: [BTreeSet<(usize, IpAddr)>; 2],
}

/// What one address holds.
#[derive(Debug, Default)]
struct Holder {
    taken: usize,
    /// Its connections by age: strangers, then those that have shown a credential.
    members: [BTreeMap<u64, Arc<Member>>; 2],
}

/// A connection.
#[derive(Debug)]
struct Member {
    number: u64,
    /// Absent where it is not counted.
    address: Option<IpAddr>,
    is_known: AtomicBool,
    under_way: UnderWay,
    leave: Notify,
}

/// A connection, as its requests know it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    crowd: Crowd,
    member: Arc<Member>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(pub(super) Connection);

/// The place of one more request on a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(Connection);

/// Marks a request for which there was no place: it is answered, and nothing is done for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPlace;

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its address holds its share.
    Share,
    /// All are taken, and nobody can leave at once.
    Full,
}

const STRANGERS: usize = 0;
const KNOWN: usize = 1;

impl Crowd {
    pub(super) fn new(places: Places, trusted: &[IpNet]) -> Self {
        Self { places, trusted: trusted.into(), open: Arc::default(), freed: Arc::default() }
    }

    /// A place for a connection, for which another one may have to leave.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Refusal> {
        let home = self.home(address);
        let mut open = self.lock();
        if let Some(home) = home
            && open.taken_by(home) >= self.share(&open, home)
        {
            // Who asks for more than its share makes room itself.
            let leaver = open.idle(STRANGERS, home).filter(|_| open.leaving < CONNECTIONS_LEAVING_MAX);
            open.send_away(&*leaver.ok_or(Refusal::Share)?);
        }
        if open.taken >= self.places.all {
            if open.leaving >= CONNECTIONS_LEAVING_MAX {
                return Err(Refusal::Full);
            }
            let leaver = open.leaver().ok_or(Refusal::Full)?;
            open.send_away(&leaver);
        }
        let member = Arc::new(Member {
            number: open.next,
            address: home,
            is_known: AtomicBool::new(false),
            under_way: UnderWay::default(),
            leave: Notify::new(),
        });
        open.next += 1;
        open.take(home);
        open.add(STRANGERS, &member);
        Ok(Place(Connection { crowd: self.clone(), member }))
    }

    /// Returns once a place may be free.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// How many places an address may have: everybody may have one.
    fn share(&self, open: &Open, home: IpAddr) -> usize {
        let own = open.holders.get(&home).map_or(0, |holder| holder.members[STRANGERS].len());
        let left = self.places.all.saturating_sub(open.taken) + open.strangers.saturating_sub(own);
        self.places.per_address.min(left / 2).max(1)
    }

    /// Whose share a connection takes of; nobody's for proxies that are trusted.
    fn home(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        (!self.trusted.iter().any(|network| network.contains(&address))).then(|| network(address))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// How many of its requests are under way.
    pub(super) fn under_way(&self) -> &UnderWay {
        &self.member.under_way
    }

    /// Notes that a valid credential was shown.
    pub(super) fn vouch(&self) {
        if !self.member.is_known.swap(true, Ordering::AcqRel) {
            let mut open = self.crowd.lock();
            if open.remove(STRANGERS, &self.member) {
                open.add(KNOWN, &self.member);
            }
        }
    }

    /// Returns once the connection has to leave.
    pub(super) async fn told_to_leave(&self) {
        self.member.leave.notified().await;
    }

    /// A place for one more request; nobody leaves for it.
    pub(super) fn seat(&self) -> Option<Seat> {
        let mut open = self.crowd.lock();
        let home = self.member.address;
        let is_over = home.is_some_and(|home| open.taken_by(home) >= self.crowd.share(&open, home));
        if is_over || open.taken >= self.crowd.places.all {
            return None;
        }
        open.take(home);
        Some(Seat(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Connection { crowd, member } = &self.0;
        let mut open = crowd.lock();
        if open.remove(STRANGERS, member) || open.remove(KNOWN, member) {
            open.give_back(member.address);
        } else {
            open.leaving = open.leaving.saturating_sub(1);
        }
        crowd.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Connection { crowd, member } = &self.0;
        crowd.lock().give_back(member.address);
        crowd.freed.notify_one();
    }
}

impl Open {
    fn taken_by(&self, home: IpAddr) -> usize {
        self.holders.get(&home).map_or(0, |holder| holder.taken)
    }

    fn take(&mut self, home: Option<IpAddr>) {
        self.taken += 1;
        if let Some(home) = home {
            self.holders.entry(home).or_default().taken += 1;
        }
    }

    fn give_back(&mut self, home: Option<IpAddr>) {
        self.taken = self.taken.saturating_sub(1);
        let Some(home) = home else { return };
        if let Some(holder) = self.holders.get_mut(&home) {
            holder.taken = holder.taken.saturating_sub(1);
            if holder.taken == 0 {
                self.holders.remove(&home);
            }
        }
    }

    fn add(&mut self, kind: usize, member: &Arc<Member>) {
        let Some(home) = member.address else {
            // A trusted proxy's never leave, so that nobody looks for them.
            return;
        };
        let members = &mut self.holders.entry(home).or_default().members[kind];
        self.ranks[kind].remove(&(members.len(), home));
        members.insert(member.number, Arc::clone(member));
        self.ranks[kind].insert((members.len(), home));
        self.strangers += usize::from(kind == STRANGERS);
    }

    /// Takes a connection out; false where it is not one of these.
    fn remove(&mut self, kind: usize, member: &Member) -> bool {
        let Some(home) = member.address else { return kind == KNOWN };
        let Some(holder) = self.holders.get_mut(&home) else { return false };
        let members = &mut holder.members[kind];
        let count = members.len();
        if members.remove(&member.number).is_none() {
            return false;
        }
        self.ranks[kind].remove(&(count, home));
        if count > 1 {
            self.ranks[kind].insert((count - 1, home));
        }
        self.strangers -= usize::from(kind == STRANGERS);
        true
    }

    /// Who leaves where all places are taken: a stranger of the address that has the most of them, and where there is none
    /// an idle connection of the address that has the most of the others.
    fn leaver(&self) -> Option<Arc<Member>> {
        if let Some((_, home)) = self.ranks[STRANGERS].last() {
            return self.idle(STRANGERS, *home).or_else(|| self.oldest(STRANGERS, *home).next().cloned());
        }
        self.ranks[KNOWN].last().and_then(|(_, home)| self.idle(KNOWN, *home))
    }

    fn idle(&self, kind: usize, home: IpAddr) -> Option<Arc<Member>> {
        self.oldest(kind, home).find(|member| member.under_way.is_settled()).cloned()
    }

    fn oldest(&self, kind: usize, home: IpAddr) -> impl Iterator<Item = &Arc<Member>> {
        let members = self.holders.get(&home).into_iter().flat_map(move |holder| holder.members[kind].values());
        members.take(LEAVERS_LOOKED_AT_MAX)
    }

    fn send_away(&mut self, member: &Member) {
        let kind = if member.is_known.load(Ordering::Acquire) { KNOWN } else { STRANGERS };
        // Who is vouched for at this moment may be among either.
        if self.remove(kind, member) || self.remove(STRANGERS, member) {
            self.give_back(member.address);
            self.leaving += 1;
        }
        member.leave.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crowd(all: usize, per_address: usize) -> Crowd {
        Crowd::new(Places { all, per_address }, &["10.0.0.0/8".parse().unwrap()])
    }

    fn busy(crowd: &Crowd, address: &str) -> Result<(Place, super::super::refusals::Counted), Refusal> {
        let place = crowd.enter(address.parse().unwrap())?;
        let request = place.0.under_way().begin();
        Ok((place, request))
    }

    fn must_leave(place: &Place) -> bool {
        futures::FutureExt::now_or_never(place.0.told_to_leave()).is_some()
    }

    #[test]
    fn each_address_has_its_places_and_gives_them_back() {
        let crowd = crowd(100, 2);
        let join = |address: &str| busy(&crowd, address);
        let first = join("192.0.2.1").unwrap();
        let second = join("::ffff:192.0.2.1").unwrap();
        assert_eq!(join("192.0.2.1").unwrap_err(), Refusal::Share);
        assert!(second.0.0.seat().is_none() && join("192.0.2.2").is_ok());
        drop(first);
        let seat = second.0.0.seat().unwrap();
        assert!(join("192.0.2.1").is_err(), "a request beyond the first counts as well");
        drop(seat);
        assert!(join("192.0.2.1").is_ok(), "and it is given back at once");
        drop(second);
        assert!(crowd.lock().holders.is_empty());
        let neighbours = (join("2001:db8::1").unwrap(), join("2001:db8::2").unwrap());
        assert!(join("2001:db8::3").is_err() && join("2001:db8:0:1::3").is_ok());
        let proxied: Vec<_> = (0..10).map(|_| join("10.1.2.3").unwrap()).collect();
        drop((neighbours, proxied));
        let open = crowd.lock();
        assert!(open.holders.is_empty() && open.ranks.iter().all(BTreeSet::is_empty));
        assert_eq!((open.taken, open.strangers, open.leaving), (0, 0, 0));
    }

    #[test]
    fn who_has_shown_nothing_gives_way_to_who_comes() {
        let crowd = crowd(10, 8);
        let enter = |address: &str| crowd.enter(address.parse().unwrap()).unwrap();
        let honest: Vec<Place> = (10..16).map(|last| enter(&format!("192.0.2.{last}"))).collect();
        let crowded: Vec<Place> = (0..3).map(|_| enter("192.0.2.1")).collect();
        let known = enter("192.0.2.2");
        known.0.vouch();
        let newcomer = enter("192.0.2.3");
        assert!(must_leave(&crowded[0]), "the oldest of who holds the most");
        assert!(!honest.iter().any(must_leave) && !must_leave(&known) && !must_leave(&crowded[1]));
        let request = crowded[1].0.under_way().begin();
        let another = enter("192.0.2.4");
        assert!(must_leave(&crowded[2]) && !must_leave(&crowded[1]), "an idle one before one that is answered");
        drop((request, newcomer, another, crowded, honest, known));
        assert_eq!(crowd.lock().leaving, 0);
        // One's own make room for one's next.
        let own: Vec<Place> = (0..3).map(|_| enter("192.0.2.1")).collect();
        let next = enter("192.0.2.1");
        assert!(must_leave(&own[0]) && !must_leave(&own[1]) && !must_leave(&next));
    }

    #[test]
    fn where_all_are_known_the_idle_ones_of_the_largest_give_way() {
        let crowd = crowd(6, 6);
        let known = |address: &str| {
            let place = crowd.enter(address.parse().unwrap()).unwrap();
            place.0.vouch();
            place
        };
        let one: Vec<Place> = (0..2).map(|_| known("192.0.2.1")).collect();
        assert_eq!(crowd.enter("192.0.2.1".parse().unwrap()).unwrap_err(), Refusal::Share, "half of what is left");
        let two: Vec<Place> = (2..6).map(|n| known(&format!("192.0.2.{n}"))).collect();
        let request = one[0].0.under_way().begin();
        let next = known("192.0.2.9");
        assert!(must_leave(&one[1]) && !must_leave(&one[0]));
        drop((request, next, two));
    }

    proptest! {
        /// However few addresses take what they can get, and whatever they do with it, the next one finds a place.
        #[test]
        fn a_few_addresses_never_take_all(
            attempts in prop::collection::vec((0_u8..5, any::<bool>(), any::<bool>()), 0..400),
            all in 32_usize..128, per_address in 1_usize..128,
        ) {
            let crowd = crowd(all, per_address);
            let mut held = Vec::new();
            for (address, vouches, asks) in attempts {
                let Ok(place) = crowd.enter(IpAddr::from([192, 0, 2, address])) else { continue };
                let request = asks.then(|| place.0.under_way().begin());
                if vouches {
                    place.0.vouch();
                }
                held.push((place, request));
                held.retain(|(place, _)| !must_leave(place));
                let open = crowd.lock();
                prop_assert!(open.taken <= all);
                prop_assert_eq!(open.taken, held.len());
            }
            prop_assert!(crowd.enter(IpAddr::from([198, 51, 100, 1])).is_ok());
        }
    }
}
