//! The identity of events, for telling the first from its copies.

use super::frame::{Frame, FrameEvent, NamedValue, split_sent};
use super::frame_write::canonical_dimensions;
use crate::domain::id::{Epoch, MetricName};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// What an event is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// A keyed hash of (workspace, mode, epoch, account, source, id), each with its length.
    pub identity: u128,
    /// A hash of what it says: metric, value, dimensions as they were sent, project, and the time where the sender gave it.
    pub payload: u32,
}

/// Returns the fingerprints of a frame's events, in order.
///
/// `epochs` are those that the fold uses for the frame's accounts. An event's fingerprint does not depend on the others
/// in its frame.
pub fn fingerprints(frame: &Frame, key: &[u8; 16], epochs: &[Epoch]) -> Vec<Fingerprint> {
    let accounts: Vec<SipHasher13> = frame
        .accounts
        .iter()
        .zip(epochs)
        .map(|(named, epoch)| {
            let mut hasher = SipHasher13::new_with_key(key);
            hasher.write(&named.tenant.workspace.0.to_le_bytes());
            hasher.write(named.tenant.mode.name().as_bytes());
            hasher.write(&epoch.0.to_le_bytes());
            let mut account = Vec::new();
            sized(&mut account, named.account.as_str().as_bytes());
            hasher.write(&account);
            hasher
        })
        .collect();
    let metrics: Vec<u64> = frame.metrics.iter().map(|metric| hash(key, metric.as_str().as_bytes())).collect();
    // Of dimensions that could not all be kept, those that were sent count: which are kept depends on the metric.
    let of_set = |set: &Vec<NamedValue>| {
        let (sent, kept) = split_sent(set);
        hash(key, &canonical_dimensions(sent.map_or(kept, std::slice::from_ref)))
    };
    let dimensions: Vec<u64> = frame.dimension_sets.iter().map(of_set).collect();
    // One write of many bytes costs the hasher less than many of few.
    let mut bytes = Vec::new();
    let of = |event: &FrameEvent| {
        let mut identity = match super::frame::place(&accounts, event.account) {
            Some(prefix) => *prefix,
            None => SipHasher13::new_with_key(key),
        };
        bytes.clear();
        sized(&mut bytes, frame.source(event).unwrap_or("").as_bytes());
        sized(&mut bytes, frame.id(event).as_bytes());
        identity.write(&bytes);
        bytes.clear();
        bytes.extend_from_slice(&super::frame::place(&metrics, event.metric).copied().unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&event.value.0.to_le_bytes());
        let dimensions = super::frame::optional(&dimensions, event.dimensions).copied().unwrap_or(0);
        bytes.extend_from_slice(&dimensions.to_le_bytes());
        bytes.extend_from_slice(&frame.project(event).map_or(0, |project| project.0).to_le_bytes());
        if event.timestamp_given {
            bytes.extend_from_slice(&event.timestamp.0.to_le_bytes());
        }
        let [p0, p1, p2, p3, ..] = hash(key, &bytes).to_le_bytes();
        Fingerprint { identity: identity.finish128().as_u128(), payload: u32::from_le_bytes([p0, p1, p2, p3]) }
    };
    frame.events.iter().map(of).collect()
}

/// Returns a hash of an event's identity and of what it says, which needs no key: the same parts as of its
/// [`Fingerprint`], each with its length.
pub fn content_digest(frame: &Frame, event: &FrameEvent, epoch: Epoch) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(256);
    if let Some(named) = super::frame::place(&frame.accounts, event.account) {
        bytes.extend_from_slice(&named.tenant.workspace.0.to_le_bytes());
        sized(&mut bytes, named.tenant.mode.name().as_bytes());
        sized(&mut bytes, named.account.as_str().as_bytes());
    }
    bytes.extend_from_slice(&epoch.0.to_le_bytes());
    sized(&mut bytes, frame.source(event).unwrap_or("").as_bytes());
    sized(&mut bytes, frame.id(event).as_bytes());
    sized(&mut bytes, super::frame::place(&frame.metrics, event.metric).map_or("", MetricName::as_str).as_bytes());
    bytes.extend_from_slice(&event.value.0.to_le_bytes());
    let set = super::frame::optional(&frame.dimension_sets, event.dimensions).map_or(&[][..], Vec::as_slice);
    let (sent, kept) = split_sent(set);
    sized(&mut bytes, &canonical_dimensions(sent.map_or(kept, std::slice::from_ref)));
    bytes.extend_from_slice(&frame.project(event).map_or(0, |project| project.0).to_le_bytes());
    if event.timestamp_given {
        bytes.extend_from_slice(&event.timestamp.0.to_le_bytes());
    }
    Sha256::digest(&bytes).into()
}

fn sized(all: &mut Vec<u8>, bytes: &[u8]) {
    all.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    all.extend_from_slice(bytes);
}

fn hash(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(bytes);
    hasher.finish()
}
