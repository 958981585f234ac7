//! Importing many lines: read in blocks, parsed on every core, appended in the order of the file.

use super::ingest::{Ingest, Prepared, Sender};
use crate::domain::event::{Refusal, RefusalCode, parse_line};
use crate::domain::limits::{EVENT_BYTES_MAX, IMPORT_BLOCK_BYTES, QUARANTINE_BYTES_MAX};
use crate::journal::AppendError;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// How many blocks wait between two stages.
const BLOCKS_WAITING: usize = 2;

/// Why an import stopped. What was appended before stays; the same file can be imported again, and counts once.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("read the lines behind line {behind}")]
    Read {
        /// The last line that was read.
        behind: u64,
        /// What the operating system, or the decompressor, said.
        source: std::io::Error,
    },
    /// The journal did not take the events.
    #[error("append events")]
    Append(#[from] AppendError),
    /// The listener could not note a refused line.
    #[error("write down a refused line")]
    Note(#[source] std::io::Error),
}

/// A line that was not taken.
#[derive(Clone, Debug)]
pub struct RefusedLine {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub refusal: Refusal,
    /// The line, cut at 64 KiB.
    pub text: String,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of lines, after decompression.
    pub bytes: u64,
    /// Events that are durable.
    pub accepted: u64,
    /// Those of them whose dimensions could not all be kept as they were sent.
    pub warned: u64,
    /// Lines that were refused.
    pub refused: u64,
}

/// Imports every line of a source; blocks. `note` hears of every step, in the order of the lines.
///
/// # Errors
/// Where the source cannot be read or the journal fails.
pub fn import(
    source: impl Read + Send,
    ingest: &Ingest,
    sender: &Sender,
    mut note: impl FnMut(&Totals, &[RefusedLine]) -> std::io::Result<()>,
) -> Result<Totals, ImportError> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let (blocks, waiting) = sync_channel::<(u64, Block)>(BLOCKS_WAITING);
    let (parsed, parsing) = sync_channel::<(u64, Parsed)>(BLOCKS_WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_all(source, &blocks));
        for _ in 0..workers {
            let (waiting, parsed) = (Arc::clone(&waiting), parsed.clone());
            scope.spawn(move || parse_all(&waiting, &parsed, ingest, sender));
        }
        // What is left belongs to the workers alone: when they end, the reader finds nobody and ends too.
        drop((waiting, parsed));
        let totals = append_all(&parsing, ingest, &mut note);
        drop(parsing);
        let read = reading.join().unwrap_or(Ok(()));
        let totals = totals?;
        read?;
        Ok(totals)
    })
}

/// Whole lines.
struct Block {
    first_line: u64,
    bytes: Vec<u8>,
    /// The length of the only line, where it is longer than a block and was cut.
    cut_from: Option<u64>,
}

struct Parsed {
    bytes: u64,
    prepared: Prepared,
    refused: Vec<RefusedLine>,
}

fn read_all(source: impl Read, blocks: &SyncSender<(u64, Block)>) -> Result<(), ImportError> {
    let mut lines = Lines { source, carry: Vec::new(), next_line: 1, ended: false };
    let mut number = 0;
    loop {
        let behind = lines.next_line - 1;
        let Some(block) = lines.next().map_err(|source| ImportError::Read { behind, source })? else { return Ok(()) };
        if blocks.send((number, block)).is_err() {
            return Ok(());
        }
        number += 1;
    }
}

/// Cuts a source into blocks of whole lines.
struct Lines<R> {
    source: R,
    carry: Vec<u8>,
    next_line: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn next(&mut self) -> std::io::Result<Option<Block>> {
        let mut bytes = std::mem::take(&mut self.carry);
        self.fill(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        match memchr::memrchr(b'\n', &bytes) {
            _ if self.ended => {}
            Some(last) => self.carry = bytes.split_off(last + 1),
            None => return self.cut(bytes).map(Some),
        }
        self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Block { first_line, bytes, cut_from: None }))
    }

    fn fill(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        let room = IMPORT_BLOCK_BYTES.saturating_sub(bytes.len());
        if !self.ended && self.source.by_ref().take(room as u64).read_to_end(bytes)? < room {
            self.ended = true;
        }
        Ok(())
    }

    /// Passes over the rest of a line that is longer than a block.
    fn cut(&mut self, mut bytes: Vec<u8>) -> std::io::Result<Block> {
        let mut length = bytes.len() as u64;
        let mut more = Vec::new();
        while !self.ended {
            more.clear();
            self.fill(&mut more)?;
            if let Some(end) = memchr::memchr(b'\n', &more) {
                length += end as u64;
                self.carry = more.split_off(end + 1);
                break;
            }
            length += more.len() as u64;
        }
        bytes.truncate(QUARANTINE_BYTES_MAX);
        let first_line = self.next_line;
        self.next_line += 1;
        Ok(Block { first_line, bytes, cut_from: Some(length) })
    }
}

fn parse_all(
    waiting: &Mutex<Receiver<(u64, Block)>>,
    parsed: &SyncSender<(u64, Parsed)>,
    ingest: &Ingest,
    sender: &Sender,
) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = next else { return };
        if parsed.send((number, parse(&block, ingest, sender))).is_err() {
            return;
        }
    }
}

fn parse(block: &Block, ingest: &Ingest, sender: &Sender) -> Parsed {
    let mut batch = ingest.batch(sender);
    let mut refused = Vec::new();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', &block.bytes).chain([block.bytes.len()]);
    for (line_number, end) in (block.first_line..).zip(ends) {
        let line = block.bytes.get(start..end).unwrap_or_default().trim_ascii();
        start = end + 1;
        if line.is_empty() {
            continue;
        }
        let index = usize::try_from(line_number).unwrap_or(usize::MAX);
        let taken = match block.cut_from {
            Some(length) => Err(Refusal {
                code: RefusalCode::LineTooLarge,
                detail: format!("{length} bytes, at most {EVENT_BYTES_MAX} are taken in one line"),
                pointer: None,
            }),
            None => parse_line(line).and_then(|event| batch.push(index, line, &event)),
        };
        if let Err(refusal) = taken {
            let kept = line.get(..QUARANTINE_BYTES_MAX).unwrap_or(line);
            let text = String::from_utf8_lossy(kept).into_owned();
            refused.push(RefusedLine { line: line_number, refusal, text });
        }
    }
    Parsed { bytes: block.bytes.len() as u64, prepared: batch.finish(), refused }
}

fn append_all(
    parsing: &Receiver<(u64, Parsed)>,
    ingest: &Ingest,
    note: &mut impl FnMut(&Totals, &[RefusedLine]) -> std::io::Result<()>,
) -> Result<Totals, ImportError> {
    let mut totals = Totals::default();
    let mut early = BTreeMap::new();
    let mut next = 0;
    while let Ok((number, parsed)) = parsing.recv() {
        early.insert(number, parsed);
        while let Some(parsed) = early.remove(&next) {
            next += 1;
            let (accepted, warned) = (parsed.prepared.accepted as u64, parsed.prepared.warned as u64);
            if accepted > 0 {
                ingest.append_blocking(parsed.prepared)?;
            }
            totals.bytes += parsed.bytes;
            totals.accepted += accepted;
            totals.warned += warned;
            totals.refused += parsed.refused.len() as u64;
            note(&totals, &parsed.refused).map_err(ImportError::Note)?;
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &[u8]) -> Vec<(u64, usize, Option<u64>)> {
        let mut lines = Lines { source: text, carry: Vec::new(), next_line: 1, ended: false };
        let mut found = Vec::new();
        while let Some(block) = lines.next().unwrap() {
            found.push((block.first_line, block.bytes.len(), block.cut_from));
        }
        found
    }

    #[test]
    fn blocks_hold_whole_lines_and_know_their_numbers() {
        assert_eq!(blocks(b""), []);
        assert_eq!(blocks(b"a\nb"), [(1, 3, None)]);
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        let many = line.repeat(IMPORT_BLOCK_BYTES / 1_000 + 10);
        let found = blocks(&many);
        let first = IMPORT_BLOCK_BYTES / 1_000;
        assert_eq!(found, [(1, first * 1_000, None), (first as u64 + 1, 10_000, None)]);
    }

    #[test]
    fn a_line_longer_than_a_block_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; IMPORT_BLOCK_BYTES * 2 + 5];
        let text = [b"a\n".as_slice(), &long, b"\nlast\n"].concat();
        let found = blocks(&text);
        assert_eq!(found[0], (1, 2, None));
        assert_eq!(found[1], (2, QUARANTINE_BYTES_MAX, Some(long.len() as u64)));
        assert_eq!(found[2], (3, 5, None));
        assert_eq!(found.len(), 3);
    }
}
