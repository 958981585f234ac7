//! Writing frames.
//!
//! A frame is `HWF`, the version, flags, the codec, two zero bytes, the body's length before compression and a CRC-32
//! over all but itself, then the body: tables, then events as variable-length integers. Integers in the head are
//! little-endian. LZ4 was chosen over zstd for its speed; the dictionary coding has taken most redundancy already.

use super::dimensions::Dimensions;
use super::frame::{FrameAccount, OwnedValue};
use super::{DimensionValue, Reduction, UsageEvent};
use crate::domain::id::{AccountId, Epoch, MetricName, Mode, ProjectId, Tenant};
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use hashbrown::{Equivalent, HashMap};

pub(super) const MAGIC: &[u8; 3] = b"HWF";
pub(super) const FRAME_VERSION: u8 = 1;
pub(super) const FLAG_BACKFILL: u8 = 1;
pub(super) const CODEC_LZ4: u8 = 1;
pub(super) const HEAD_BYTES: usize = 16;

/// Gathers accepted events into a frame.
#[derive(Debug)]
pub struct FrameBuilder {
    backfill: bool,
    accounts: HashMap<FrameAccount, AccountPlace>,
    metrics: HashMap<MetricName, u64>,
    sources: HashMap<Box<str>, u64>,
    projects: HashMap<ProjectId, u64>,
    dimension_sets: HashMap<Vec<u8>, u64>,
    tables: [Vec<u8>; 5],
    events: Vec<u8>,
    event_count: usize,
    accepted_before: Timestamp,
    /// Room to encode dimensions in before they are looked up.
    encoding: Vec<u8>,
    /// The dimensions of the event before, encoded, with their place: senders repeat themselves.
    dimensions_before: (Vec<u8>, u64),
}

/// Where an account stands in the table of one frame; it means nothing to another.
#[derive(Clone, Copy, Debug)]
pub struct AccountPlace(u64);

/// A [`FrameAccount`] that is only looked up. It hashes as that one does: the same fields in the same order.
#[derive(Hash)]
struct Named<'a> {
    tenant: Tenant,
    epoch: Epoch,
    account: &'a str,
}

impl Equivalent<FrameAccount> for Named<'_> {
    fn equivalent(&self, key: &FrameAccount) -> bool {
        self.account == key.account.as_str() && self.epoch == key.epoch && self.tenant == key.tenant
    }
}

const ACCOUNTS: usize = 0;
const METRICS: usize = 1;
const SOURCES: usize = 2;
const PROJECTS: usize = 3;
const DIMENSIONS: usize = 4;

impl FrameBuilder {
    /// Begins a frame.
    pub fn new(backfill: bool) -> Self {
        Self {
            backfill,
            accounts: HashMap::new(),
            metrics: HashMap::new(),
            sources: HashMap::new(),
            projects: HashMap::new(),
            dimension_sets: HashMap::new(),
            tables: Default::default(),
            events: Vec::new(),
            event_count: 0,
            accepted_before: Timestamp(0),
            encoding: Vec::new(),
            dimensions_before: (Vec::new(), 0),
        }
    }

    /// Adds an event that was parsed and decided on, of the account at a place. One whose metric's name is not valid is
    /// left out, which parsing excludes.
    pub fn push(
        &mut self,
        account: AccountPlace,
        event: &UsageEvent<'_>,
        id: &str,
        timestamp: Timestamp,
        accepted_at: Timestamp,
    ) {
        let Some(metric) = self.metric(&event.metric) else { return };
        let source = event.source.as_deref().map_or(0, |source| self.source(source));
        let project = event.project_id.map_or(0, |project| self.project(project));
        let is_bare = event.dimensions.is_empty() && event.reduction.is_none();
        let dimensions = if is_bare { 0 } else { self.dimensions(&event.dimensions, event.reduction.as_deref()) };
        let out = &mut self.events;
        short(out, account.0);
        short(out, metric);
        let given = u64::from(event.timestamp.is_some());
        short(out, dimensions.wrapping_shl(1) | given);
        short(out, source);
        short(out, project);
        signed(out, i128::from(accepted_at.since(self.accepted_before).0));
        signed(out, i128::from(timestamp.since(accepted_at).0));
        amount(out, event.value);
        text(out, id);
        self.accepted_before = accepted_at;
        self.event_count = self.event_count.saturating_add(1);
    }

    /// How many events it holds.
    pub const fn len(&self) -> usize {
        self.event_count
    }

    /// Tells whether it holds no event.
    pub const fn is_empty(&self) -> bool {
        self.event_count == 0
    }

    /// About how many bytes it has before compression.
    pub fn bytes(&self) -> usize {
        self.tables.iter().fold(self.events.len(), |sum, table| sum.saturating_add(table.len()))
    }

    /// Encodes the frame.
    pub fn finish(self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.bytes().saturating_add(64));
        let counts = [
            self.accounts.len(),
            self.metrics.len(),
            self.sources.len(),
            self.projects.len(),
            self.dimension_sets.len(),
        ];
        for (table, count) in self.tables.iter().zip(counts) {
            length(&mut body, count);
            body.extend_from_slice(table);
        }
        length(&mut body, self.event_count);
        body.extend_from_slice(&self.events);
        seal(&body, if self.backfill { FLAG_BACKFILL } else { 0 })
    }

    /// Finds an account's place, or gives it one.
    pub fn account(&mut self, tenant: Tenant, epoch: Epoch, account: &AccountId) -> AccountPlace {
        if let Some(known) = self.accounts.get(&Named { tenant, epoch, account: account.as_str() }) {
            return *known;
        }
        let next = AccountPlace(place(self.accounts.len()));
        if let Some(table) = self.tables.get_mut(ACCOUNTS) {
            table.extend_from_slice(&tenant.workspace.0.to_le_bytes());
            table.push(u8::from(tenant.mode == Mode::Sandbox));
            short(table, epoch.0);
            text(table, account.as_str());
        }
        self.accounts.insert(FrameAccount { tenant, epoch, account: account.clone() }, next);
        next
    }

    fn metric(&mut self, metric: &str) -> Option<u64> {
        if let Some(known) = self.metrics.get(metric) {
            return Some(*known);
        }
        let name = MetricName::new(metric).ok()?;
        let next = place(self.metrics.len());
        text(self.tables.get_mut(METRICS)?, metric);
        self.metrics.insert(name, next);
        Some(next)
    }

    fn source(&mut self, source: &str) -> u64 {
        if let Some(known) = self.sources.get(source) {
            return *known;
        }
        let next = place(self.sources.len()).saturating_add(1);
        if let Some(table) = self.tables.get_mut(SOURCES) {
            text(table, source);
        }
        self.sources.insert(source.into(), next);
        next
    }

    fn project(&mut self, project: ProjectId) -> u64 {
        let next = place(self.projects.len()).saturating_add(1);
        *self.projects.entry(project).or_insert_with(|| {
            if let Some(table) = self.tables.get_mut(PROJECTS) {
                table.extend_from_slice(&project.0.to_le_bytes());
            }
            next
        })
    }

    fn dimensions(&mut self, dimensions: &Dimensions<'_>, reduction: Option<&Reduction>) -> u64 {
        let mut encoded = std::mem::take(&mut self.encoding);
        encoded.clear();
        length(&mut encoded, dimensions.len().saturating_add(usize::from(reduction.is_some())));
        if let Some(Reduction { sent, .. }) = reduction {
            text(&mut encoded, "");
            encoded.push(0);
            text(&mut encoded, &format!("{:032x}", u128::from_be_bytes(*sent)));
        }
        for (name, value) in dimensions {
            text(&mut encoded, name);
            match value {
                DimensionValue::Text(content) => {
                    encoded.push(0);
                    text(&mut encoded, content);
                }
                DimensionValue::Number(number) => {
                    encoded.push(1);
                    amount(&mut encoded, *number);
                }
                DimensionValue::Flag(flag) => encoded.push(if *flag { 3 } else { 2 }),
            }
        }
        if encoded == self.dimensions_before.0 {
            self.encoding = encoded;
            return self.dimensions_before.1;
        }
        let known = self.dimension_sets.get(&encoded).copied();
        let found = known.unwrap_or_else(|| {
            let next = place(self.dimension_sets.len()).saturating_add(1);
            if let Some(table) = self.tables.get_mut(DIMENSIONS) {
                table.extend_from_slice(&encoded);
            }
            self.dimension_sets.insert(encoded.clone(), next);
            next
        });
        self.encoding = std::mem::replace(&mut self.dimensions_before, (encoded, found)).0;
        found
    }
}

/// Puts the head before the compressed body.
fn seal(body: &[u8], flags: u8) -> Vec<u8> {
    let packed = lz4_flex::block::compress(body);
    let mut frame = Vec::with_capacity(HEAD_BYTES.saturating_add(packed.len()));
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&[FRAME_VERSION, flags, CODEC_LZ4, 0, 0]);
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = checksum(&frame, &packed);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(&packed);
    frame
}

pub(super) fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(packed);
    crc.finalize()
}

fn place(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn length(out: &mut Vec<u8>, count: usize) {
    short(out, place(count));
}

fn varint(out: &mut Vec<u8>, value: u128) {
    match u64::try_from(value) {
        Ok(value) => short(out, value),
        Err(_) => long(out, value),
    }
}

/// Nearly every number has 64 bits at most, and shifting those is much quicker.
fn short(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn long(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn signed(out: &mut Vec<u8>, value: i128) {
    if let Ok(value) = i64::try_from(value)
        && let Some(doubled) = value.checked_shl(1).filter(|doubled| doubled >> 1 == value)
    {
        return short(out, (doubled ^ (value >> 63)).cast_unsigned());
    }
    varint(out, (value.wrapping_shl(1) ^ (value >> 127)).cast_unsigned());
}

/// Whole amounts are written without their nine zeros.
fn amount(out: &mut Vec<u8>, value: Quantity) {
    let (whole, rest) = value.whole_and_rest();
    let (number, fraction) = if rest == 0 { (whole, 0) } else { (value.0, 1) };
    signed(out, number.wrapping_shl(1) | fraction);
}

fn text(out: &mut Vec<u8>, content: &str) {
    length(out, content.len());
    out.extend_from_slice(content.as_bytes());
}

/// The canonical bytes of a set of dimensions, for hashing.
pub(super) fn canonical_dimensions(dimensions: &[(Box<str>, OwnedValue)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for (name, value) in dimensions {
        text(&mut bytes, name);
        match value {
            OwnedValue::Text(content) => {
                bytes.push(0);
                text(&mut bytes, content);
            }
            OwnedValue::Number(number) => {
                bytes.push(1);
                amount(&mut bytes, *number);
            }
            OwnedValue::Flag(flag) => bytes.push(if *flag { 3 } else { 2 }),
        }
    }
    bytes
}
