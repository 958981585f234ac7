//! The in-memory form: one hash map, and the identities of each 5-minute base for dropping them together.

use crate::domain::event::Fingerprint;
use crate::domain::partition::Seen;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The identities that one partition remembers.
#[derive(Debug)]
pub struct Index {
    known: HashMap<Identity, Known, BuildHasherDefault<Folded>>,
    /// What was remembered under each base, in windows since the epoch.
    by_base: BTreeMap<u32, Vec<Identity>>,
    horizon: Millis,
}

/// A fingerprint's identity in halves: a `u128` would pad every entry to its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity(u64, u64);

impl Identity {
    const fn of(identity: u128) -> Self {
        Self((identity >> 64) as u64, identity as u64)
    }

    const fn whole(self) -> u128 {
        (self.0 as u128) << 64 | self.1 as u128
    }
}

/// Fingerprints are keyed hashes already, so half of one is as good a hash as any.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    payload: u32,
    base: u32,
}

/// Why bytes are not an index.
#[derive(Debug, thiserror::Error)]
#[error("damaged dedup index: {bytes} bytes, not a whole number of entries")]
pub struct RestoreError {
    /// How many bytes there are.
    pub bytes: usize,
}

/// Hands a hash on as it is.
#[derive(Debug, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(32) ^ u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

const ENTRY_BYTES: usize = 24;

impl Index {
    /// Makes an index that remembers for `horizon`.
    pub fn new(horizon: Millis) -> Self {
        Self { known: HashMap::default(), by_base: BTreeMap::new(), horizon }
    }

    /// Changes the horizon; what is forgotten already stays so.
    pub fn set_horizon(&mut self, horizon: Millis) {
        self.horizon = horizon;
    }

    /// How many identities are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Tells whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Classifies the events of one record and remembers the first of each identity.
    ///
    /// `bases` holds each event's dedup base, `None` for one that is too old to be looked up; `clock` is the fold's clock
    /// behind the record. `seen` is cleared and filled in the events' order.
    pub fn classify(
        &mut self,
        fingerprints: &[Fingerprint],
        bases: &[Option<Timestamp>],
        clock: Timestamp,
        seen: &mut Vec<Seen>,
    ) {
        self.expire(clock);
        seen.clear();
        seen.reserve(fingerprints.len());
        self.known.reserve(fingerprints.len());
        // Neighbours nearly always share their base: what they add to it is added at once.
        let (mut run_base, mut run) = (0, Vec::new());
        for (fingerprint, base) in fingerprints.iter().zip(bases) {
            let Some(base) = base else {
                seen.push(Seen::TooOld);
                continue;
            };
            let entry = Known { payload: fingerprint.payload, base: window_index(*base) };
            let identity = Identity::of(fingerprint.identity);
            match self.known.entry(identity) {
                Entry::Occupied(known) => {
                    let same = known.get().payload == fingerprint.payload;
                    seen.push(if same { Seen::Duplicate } else { Seen::Conflict });
                }
                Entry::Vacant(place) => {
                    place.insert(entry);
                    if run_base != entry.base {
                        if !run.is_empty() {
                            self.by_base.entry(run_base).or_default().append(&mut run);
                        }
                        run_base = entry.base;
                    }
                    run.push(identity);
                    seen.push(Seen::First);
                }
            }
        }
        if !run.is_empty() {
            self.by_base.entry(run_base).or_default().append(&mut run);
        }
    }

    /// Drops whole bases whose horizon the clock has passed.
    fn expire(&mut self, clock: Timestamp) {
        while let Some(oldest) = self.by_base.first_entry() {
            let base = Timestamp(i64::from(*oldest.key()) * WINDOW.0);
            if base.plus(self.horizon) >= clock {
                return;
            }
            for identity in oldest.remove() {
                self.known.remove(&identity);
            }
        }
    }

    /// Writes the entries in order, so that equal indexes give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.known.len() * ENTRY_BYTES);
        for (base, identities) in &self.by_base {
            let mut sorted = identities.clone();
            sorted.sort_unstable();
            for identity in sorted {
                let payload = self.known.get(&identity).map_or(0, |known| known.payload);
                bytes.extend_from_slice(&identity.whole().to_le_bytes());
                bytes.extend_from_slice(&payload.to_le_bytes());
                bytes.extend_from_slice(&base.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Index::snapshot`] wrote.
    ///
    /// # Errors
    /// Where the bytes are not a whole number of entries.
    pub fn restore(horizon: Millis, bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut index = Self::new(horizon);
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(RestoreError { bytes: bytes.len() });
        }
        index.known.reserve(entries.len());
        for entry in entries {
            let (identity, tail) = entry.split_at(16);
            let (payload, base) = tail.split_at(4);
            let identity = Identity::of(u128::from_le_bytes(identity.try_into().unwrap_or_default()));
            let payload = u32::from_le_bytes(payload.try_into().unwrap_or_default());
            let base = u32::from_le_bytes(base.try_into().unwrap_or_default());
            index.known.insert(identity, Known { payload, base });
            index.by_base.entry(base).or_default().push(identity);
        }
        Ok(index)
    }
}

/// The number of the window that begins at a base; bases outside of u32 (year 42,795) are clamped.
fn window_index(base: Timestamp) -> u32 {
    u32::try_from(base.0.max(0) / WINDOW.0).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classify(index: &mut Index, clock: i64, events: &[(u128, u32)]) -> Vec<Seen> {
        let fingerprints: Vec<_> =
            events.iter().map(|(identity, payload)| Fingerprint { identity: *identity, payload: *payload }).collect();
        let bases = vec![Some(Timestamp(clock).round_up(WINDOW)); events.len()];
        let mut seen = Vec::new();
        index.classify(&fingerprints, &bases, Timestamp(clock), &mut seen);
        seen
    }

    #[test]
    fn an_identity_counts_once_until_its_horizon_has_passed() {
        let mut index = Index::new(Millis::hours(1));
        assert_eq!(classify(&mut index, 0, &[(1, 7), (1, 7), (1, 8)]), [Seen::First, Seen::Duplicate, Seen::Conflict]);
        assert_eq!(classify(&mut index, Millis::hours(1).0, &[(1, 7)]), [Seen::Duplicate]);
        assert_eq!(classify(&mut index, Millis::hours(1).0 + 1, &[(1, 7)]), [Seen::First]);
        assert_eq!(index.len(), 1);
    }

    proptest! {
        #[test]
        fn restoring_at_any_point_changes_no_answer(
            steps in prop::collection::vec((0_i64..900_000, prop::collection::vec((0_u128..40, 0_u32..2), 1..8)), 1..30),
            cut in 0_usize..30,
        ) {
            let mut whole = Index::new(Millis::hours(1));
            let mut restarted = Index::new(Millis::hours(1));
            let mut clock = 0;
            for (number, (pause, events)) in steps.iter().enumerate() {
                clock += pause;
                if number == cut {
                    let bytes = restarted.snapshot();
                    restarted = Index::restore(Millis::hours(1), &bytes).unwrap();
                    prop_assert_eq!(restarted.snapshot(), bytes);
                }
                prop_assert_eq!(classify(&mut whole, clock, events), classify(&mut restarted, clock, events));
            }
            prop_assert_eq!(whole.snapshot(), restarted.snapshot());
        }
    }
}
