//! Reading frames: strict, bounded, never a panic.

use super::frame::{Frame, FrameAccount, FrameEvent, OwnedValue};
use super::frame_write::{CODEC_LZ4, FLAG_BACKFILL, FRAME_VERSION, HEAD_BYTES, MAGIC, checksum};
use crate::domain::id::{AccountId, Epoch, MetricName, Mode, ProjectId, Tenant, WorkspaceId};
use crate::domain::limits::{FRAME_EVENTS_MAX, RECORD_BYTES_MAX};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp};

/// Why bytes are not a frame that this release reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// They do not begin like a frame.
    #[error("not a frame: expected it to begin with HWF")]
    NotAFrame,
    /// A later release wrote them.
    #[error("frame version {found}, this release reads up to {FRAME_VERSION}")]
    TooNew {
        /// The version found.
        found: u8,
    },
    /// They were changed since they were written.
    #[error("checksum {found:08x}, the frame says {expected:08x}")]
    Checksum {
        /// What the bytes give.
        found: u32,
        /// What the frame says.
        expected: u32,
    },
    /// They do not decompress.
    #[error("the frame does not decompress: {0}")]
    Compression(String),
    /// They decompress to something that is no body of a frame.
    #[error("the frame's body is damaged: {0}")]
    Body(&'static str),
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    /// Where the bytes are damaged or of a later release.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (head, packed) = bytes.split_at_checked(HEAD_BYTES).ok_or(FrameError::NotAFrame)?;
        let [m0, m1, m2, version, flags, codec, _, _, l0, l1, l2, l3, c0, c1, c2, c3] =
            *head.as_array::<HEAD_BYTES>().ok_or(FrameError::NotAFrame)?;
        if [m0, m1, m2] != *MAGIC {
            return Err(FrameError::NotAFrame);
        }
        if version > FRAME_VERSION {
            return Err(FrameError::TooNew { found: version });
        }
        let expected = u32::from_le_bytes([c0, c1, c2, c3]);
        let found = checksum(head.get(..12).unwrap_or_default(), packed);
        if found != expected {
            return Err(FrameError::Checksum { found, expected });
        }
        let size = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if codec != CODEC_LZ4 || size > RECORD_BYTES_MAX {
            return Err(FrameError::Body("unknown codec, or too large"));
        }
        let body =
            lz4_flex::block::decompress(packed, size).map_err(|error| FrameError::Compression(error.to_string()))?;
        Reader { rest: &body }.frame(flags & FLAG_BACKFILL != 0)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn frame(&mut self, backfill: bool) -> Result<Frame, FrameError> {
        let mut frame = Frame {
            backfill,
            accounts: self.table(Self::account)?,
            metrics: self.table(|r| MetricName::new(r.text()?).map_err(|_| FrameError::Body("a metric's name")))?,
            sources: self.table(|r| r.text().map(Into::into))?,
            projects: self.table(|r| Ok(ProjectId(u128::from_le_bytes(*r.array()?))))?,
            dimension_sets: self.table(|r| r.table(Self::dimension))?,
            events: Vec::new(),
            ids: String::new(),
        };
        let event_count = self.count()?;
        if event_count > FRAME_EVENTS_MAX.saturating_add(1) {
            return Err(FrameError::Body("too many events"));
        }
        frame.events.reserve(event_count);
        frame.ids.reserve(event_count.saturating_mul(26));
        let mut accepted_at = Timestamp(0);
        for _ in 0..event_count {
            let event = self.event(&mut frame, &mut accepted_at)?;
            frame.events.push(event);
        }
        if self.rest.is_empty() { Ok(frame) } else { Err(FrameError::Body("bytes behind the last event")) }
    }

    fn event(&mut self, frame: &mut Frame, accepted_at: &mut Timestamp) -> Result<FrameEvent, FrameError> {
        let account = self.place(frame.accounts.len(), "an account's place")?;
        let metric = self.place(frame.metrics.len(), "a metric's place")?;
        let packed = self.small()?;
        let dimensions = u32::try_from(packed >> 1).map_err(|_| FrameError::Body("a place among the dimensions"))?;
        bounded(dimensions, frame.dimension_sets.len(), "a place among the dimensions")?;
        let source = self.optional(frame.sources.len(), "a sender's place")?;
        let project = self.optional(frame.projects.len(), "a project's place")?;
        *accepted_at = accepted_at.plus(self.span()?);
        let timestamp = accepted_at.plus(self.span()?);
        let value = self.amount()?;
        let id = self.text()?;
        let start = frame.ids.len();
        frame.ids.push_str(id);
        let range = (u32::try_from(start), u32::try_from(frame.ids.len()));
        let (Ok(start), Ok(end)) = range else { return Err(FrameError::Body("ids past 4 GiB")) };
        Ok(FrameEvent {
            account,
            metric,
            dimensions,
            source,
            project,
            timestamp_given: packed & 1 == 1,
            timestamp,
            accepted_at: *accepted_at,
            value,
            id: (start, end),
        })
    }

    fn account(&mut self) -> Result<FrameAccount, FrameError> {
        let workspace = WorkspaceId(u128::from_le_bytes(*self.array()?));
        let mode = match self.byte()? {
            0 => Mode::Live,
            1 => Mode::Sandbox,
            _ => return Err(FrameError::Body("a mode")),
        };
        let epoch = Epoch(self.small()?);
        let account = AccountId::new(self.text()?).map_err(|_| FrameError::Body("an account's name"))?;
        Ok(FrameAccount { tenant: Tenant { workspace, mode }, epoch, account })
    }

    fn dimension(&mut self) -> Result<(Box<str>, OwnedValue), FrameError> {
        let name = self.text()?.into();
        let value = match self.byte()? {
            0 => OwnedValue::Text(self.text()?.into()),
            1 => OwnedValue::Number(self.amount()?),
            2 => OwnedValue::Flag(false),
            3 => OwnedValue::Flag(true),
            _ => return Err(FrameError::Body("a dimension's kind")),
        };
        Ok((name, value))
    }

    fn table<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, FrameError>) -> Result<Vec<T>, FrameError> {
        let count = self.count()?;
        // Every entry has at least a byte, so a count past the rest is a lie that must not allocate.
        let mut table = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            table.push(read(self)?);
        }
        Ok(table)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let (first, rest) = self.rest.split_first().ok_or(FrameError::Body("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], FrameError> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(FrameError::Body("it ends too early"))?;
        self.rest = rest;
        Ok(first)
    }

    fn small(&mut self) -> Result<u64, FrameError> {
        match self.short() {
            Some(value) => Ok(value),
            None => u64::try_from(self.long()?).map_err(|_| FrameError::Body("a number past 64 bits")),
        }
    }

    /// Nearly every number has 63 bits at most, and shifting those is much quicker; `None` where this one has more.
    fn short(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut shift = 0_u32;
        for (at, byte) in self.rest.iter().take(9).enumerate() {
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if *byte < 0x80 {
                self.rest = self.rest.get(at.wrapping_add(1)..)?;
                return Some(value);
            }
            shift = shift.wrapping_add(7);
        }
        None
    }

    fn long(&mut self) -> Result<u128, FrameError> {
        let mut value = 0_u128;
        let mut shift = 0_u32;
        loop {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            let shifted = bits.checked_shl(shift).filter(|shifted| shifted.checked_shr(shift) == Some(bits));
            value |= shifted.ok_or(FrameError::Body("a number past 128 bits"))?;
            if byte < 0x80 {
                return Ok(value);
            }
            shift = shift.saturating_add(7);
        }
    }

    fn signed(&mut self) -> Result<i128, FrameError> {
        if let Some(raw) = self.short() {
            return Ok(i128::from((raw >> 1).cast_signed() ^ (raw & 1).cast_signed().wrapping_neg()));
        }
        let raw = self.long()?;
        Ok((raw >> 1).cast_signed() ^ (raw & 1).cast_signed().wrapping_neg())
    }

    fn span(&mut self) -> Result<Millis, FrameError> {
        i64::try_from(self.signed()?).map(Millis).map_err(|_| FrameError::Body("a time past 64 bits"))
    }

    fn amount(&mut self) -> Result<Quantity, FrameError> {
        let packed = self.signed()?;
        let number = packed >> 1;
        if packed & 1 == 1 {
            return Ok(Quantity(number));
        }
        Quantity::of_whole(number).ok_or(FrameError::Body("an amount past 128 bits"))
    }

    fn count(&mut self) -> Result<usize, FrameError> {
        usize::try_from(self.small()?).map_err(|_| FrameError::Body("a count"))
    }

    fn text(&mut self) -> Result<&'a str, FrameError> {
        let length = self.count()?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(FrameError::Body("a text ends too early"))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| FrameError::Body("a text that is not UTF-8"))
    }

    fn place(&mut self, count: usize, what: &'static str) -> Result<u32, FrameError> {
        let at = self.small()?;
        let known = usize::try_from(at).is_ok_and(|at| at < count);
        u32::try_from(at).ok().filter(|_| known).ok_or(FrameError::Body(what))
    }

    fn optional(&mut self, count: usize, what: &'static str) -> Result<u32, FrameError> {
        let at = u32::try_from(self.small()?).map_err(|_| FrameError::Body(what))?;
        bounded(at, count, what)?;
        Ok(at)
    }
}

fn bounded(at: u32, count: usize, what: &'static str) -> Result<(), FrameError> {
    if usize::try_from(at).is_ok_and(|at| at <= count) { Ok(()) } else { Err(FrameError::Body(what)) }
}
