//! What the SQLite files of the journal and of the store have in common: how they are opened, what counts as damage, and
//! how what is in the WAL gets into the file. It must know no table.

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// How long the last checkpoint waits for readers.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// What SQLite writes above the findings of a check.
const CHECK_HEADING: &str = "*** in database main ***";

/// Opens a file for reading alone; it must exist.
///
/// # Errors
/// Where SQLite cannot open it.
pub fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    Ok(connection)
}

/// Reports whether a file has no tables at all, as one that was just made.
///
/// # Errors
/// Where SQLite cannot read it.
pub fn is_blank(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Reports whether an error means that the file is not what was written.
pub fn is_damage(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::Utf8Error(..)
        )
}

/// As [`is_damage`], for statements that only read: where SQLite does not know a table or a column, the schema is damaged.
pub fn is_damage_to_readers(error: &Error) -> bool {
    is_damage(error) || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// Describes damage: what SQLite said, and the first place that a check of the whole file finds.
pub fn describe_damage(path: &Path, error: &Error) -> String {
    let check =
        |connection: Connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let place = match open_to_read(path).and_then(check) {
        Ok(place) if place != "ok" => place.replace(CHECK_HEADING, "").trim().replace('\n', ", "),
        Ok(_) => String::new(),
        // Where even the check fails, what it says is the same once more.
        Err(_) => String::new(),
    };
    if place.is_empty() { error.to_string() } else { format!("{error} ({place})") }
}

/// Moves everything from the WAL into the file, and empties the WAL. Returns whether it is empty: it is not where somebody
/// reads from it for longer than this waits.
///
/// # Errors
/// Where the disk refuses.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(CHECKPOINT_PATIENCE)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn damage_is_told_from_trouble() {
        let failure = |code| Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, writing, reading) in [
            (ffi::SQLITE_CORRUPT, true, true),
            (ffi::SQLITE_NOTADB, true, true),
            (ffi::SQLITE_ERROR, false, true),
            (ffi::SQLITE_BUSY, false, false),
            (ffi::SQLITE_FULL, false, false),
            (ffi::SQLITE_CANTOPEN, false, false),
            (ffi::SQLITE_IOERR, false, false),
        ] {
            assert_eq!((is_damage(&failure(code)), is_damage_to_readers(&failure(code))), (writing, reading), "{code}");
        }
    }

    #[test]
    fn a_damaged_page_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA page_size = 4096; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(9000))")
            .unwrap();
        drop(connection);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..4200].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let read =
            open_to_read(&path).unwrap().query_row("SELECT sum(length(x)) FROM t", [], |row| row.get::<_, i64>(0));
        let error = read.unwrap_err();
        assert!(is_damage(&error), "{error}");
        let said = describe_damage(&path, &error);
        assert!(said.contains("malformed") && said.contains("page 2"), "{said}");
    }
}
