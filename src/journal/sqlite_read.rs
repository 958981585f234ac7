//! What is read from a SQLite journal's file: its meta rows, and records, each checked against the one before it. Nothing
//! here appends.

use super::chain::{link, log, number};
use super::port::{OpenError, ReadError, Record};
use crate::domain::id::{Log, Position};
use crate::domain::time::Timestamp;
use crate::sqlite_file;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;

const FORMAT: i64 = 1;
/// How many rows of each log are checked when the file is opened.
const CHECKED_AT_OPEN: u64 = 64;
const SCHEMA: &str = include_str!("../../schemas/sqlite/journal.sql");

/// Where the next record of a log goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) position: Position,
    pub(super) crc: u32,
}

impl Head {
    const START: Self = Self { position: Position::START, crc: 0 };
}

/// Makes the tables of a journal that is appended to.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA temp_store = MEMORY;",
    )?;
    connection.execute_batch(SCHEMA)
}

/// What a file that does not open is called.
pub(super) fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    let name = path.display().to_string();
    if sqlite_file::is_damage_to_readers(&error) {
        OpenError::Damaged { path: name, detail: sqlite_file::describe_damage(path, &error) }
    } else {
        OpenError::Storage { path: name, detail: error.to_string() }
    }
}

/// Checks the format and the number of partitions; writes them where there are none yet.
pub(super) fn check_meta(connection: &Connection, partitions: u32, path: &Path) -> Result<(), OpenError> {
    let set = |name: &str, value: i64| {
        let insert = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
        connection.execute(insert, params![name, value]).map_err(|error| open_error(path, error))
    };
    let (format, found) = known_meta(connection, partitions, path)?;
    if format.is_none() {
        set("format", FORMAT)?;
    }
    if found.is_none() {
        set("partitions", i64::from(partitions))?;
    }
    Ok(())
}

/// As [`check_meta`], for a journal that is only read. Nothing is there where it was just made.
pub(super) fn check_known_meta(connection: &Connection, partitions: u32, path: &Path) -> Result<(), OpenError> {
    known_meta(connection, partitions, path).map(drop)
}

fn known_meta(connection: &Connection, partitions: u32, path: &Path) -> Result<(Option<i64>, Option<u32>), OpenError> {
    let known = |name: &str| {
        let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
        value.optional().map_err(|error| open_error(path, error))
    };
    let format = known("format")?;
    if let Some(found) = format
        && found > FORMAT
    {
        return Err(OpenError::TooNew { found, known: FORMAT });
    }
    let found = known("partitions")?.map(|found| u32::try_from(found).unwrap_or(0));
    match found {
        Some(found) if found != partitions => Err(OpenError::Partitions { found, wanted: partitions }),
        Some(_) | None => Ok((format, found)),
    }
}

/// Checks the end of every log; returns where their next records go.
pub(super) fn check_ends(connection: &Connection, partitions: u32, path: &Path) -> Result<Vec<Head>, OpenError> {
    let ends = (0..=usize::try_from(partitions).unwrap_or(0)).map(|at| check_end(connection, log(at)));
    ends.collect::<Result<_, _>>().map_err(|error| match error {
        ReadError::Damaged { .. } | ReadError::Gap { .. } | ReadError::CutBack { .. } => {
            OpenError::Damaged { path: path.display().to_string(), detail: error.to_string() }
        }
        ReadError::Storage { detail } => OpenError::Storage { path: path.display().to_string(), detail },
    })
}

/// Returns the stamp of the newest record: stamps never go back within a log, unless a repair set its clock, and then they go on
/// from there.
pub(super) fn newest_stamp(connection: &Connection, partitions: u32) -> rusqlite::Result<Timestamp> {
    let mut select =
        connection.prepare_cached("SELECT recorded_at FROM records WHERE log = ?1 ORDER BY position DESC LIMIT 1")?;
    let mut newest = Timestamp(0);
    for at in 0..=i64::from(partitions) {
        let last = select.query_row([at], |row| row.get(0)).optional()?;
        newest = newest.max(Timestamp(last.unwrap_or(0)));
    }
    Ok(newest)
}

/// The ends of a journal that has nothing yet.
pub(super) fn no_ends(partitions: u32) -> Vec<Head> {
    vec![Head::START; usize::try_from(partitions).unwrap_or(0) + 1]
}

/// Checks the last rows of a log; returns where its next record goes.
fn check_end(connection: &Connection, log: Log) -> Result<Head, ReadError> {
    let newest = connection
        .query_row(
            "SELECT position, crc FROM records WHERE log = ?1 ORDER BY position DESC LIMIT 1",
            [number(log) as i64],
            |row| Ok(Head { position: Position(row.get::<_, i64>(0)?.cast_unsigned()), crc: row.get(1)? }),
        )
        .optional()
        .map_err(|error| read_error(connection, log, Position::START, error))?;
    let Some(newest) = newest else { return Ok(Head::START) };
    let after = Position(newest.position.0.saturating_sub(CHECKED_AT_OPEN));
    read_checked(connection, log, after, usize::MAX, usize::MAX)?;
    Ok(newest)
}

/// Reads rows behind a position, each checked against the one before it.
pub(super) fn read_checked(
    connection: &Connection,
    log: Log,
    after: Position,
    records_max: usize,
    bytes_max: usize,
) -> Result<Vec<Record>, ReadError> {
    let mut previous = previous_link(connection, log, after)?;
    let mut expected = after.next();
    let first_failed = |error| read_error(connection, log, after.next(), error);
    let mut select = connection
        .prepare_cached(
            "SELECT position, recorded_at, crc, payload FROM records WHERE log = ?1 AND position > ?2 ORDER BY position",
        )
        .map_err(first_failed)?;
    let mut rows = select.query(params![number(log) as i64, after.0.cast_signed()]).map_err(first_failed)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    while records.len() < records_max && bytes < bytes_max {
        let Some(row) = rows.next().map_err(|error| read_error(connection, log, expected, error))? else { break };
        let unreadable = |error: rusqlite::Error| read_error(connection, log, expected, error);
        let position = Position(row.get::<_, i64>(0).map_err(unreadable)?.cast_unsigned());
        if position != expected {
            return Err(ReadError::Gap { log, expected, found: position });
        }
        let recorded_at = Timestamp(row.get(1).map_err(unreadable)?);
        let crc: u32 = row.get(2).map_err(unreadable)?;
        let payload: Vec<u8> = row.get(3).map_err(unreadable)?;
        let found = link(previous, position, recorded_at, &payload);
        if found != crc {
            let detail = format!("its checksum is {found:08x}, the row says {crc:08x}");
            return Err(ReadError::Damaged { log, position, detail });
        }
        previous = crc;
        expected = position.next();
        bytes += payload.len();
        records.push(Record { position, recorded_at, payload: Bytes::from(payload) });
    }
    Ok(records)
}

fn previous_link(connection: &Connection, log: Log, at: Position) -> Result<u32, ReadError> {
    if at == Position::START {
        return Ok(0);
    }
    let found = connection
        .query_row(
            "SELECT crc FROM records WHERE log = ?1 AND position = ?2",
            params![number(log) as i64, at.0.cast_signed()],
            |row| row.get(0),
        )
        .optional()
        .map_err(|error| read_error(connection, log, at, error))?;
    found.ok_or_else(|| ReadError::Damaged { log, position: at, detail: "the row is missing".to_owned() })
}

/// What a failed read of a record is called.
fn read_error(connection: &Connection, log: Log, position: Position, error: rusqlite::Error) -> ReadError {
    if !sqlite_file::is_damage_to_readers(&error) {
        return ReadError::Storage { detail: error.to_string() };
    }
    let path = connection.path().unwrap_or_default();
    ReadError::Damaged { log, position, detail: sqlite_file::describe_damage(Path::new(path), &error) }
}
