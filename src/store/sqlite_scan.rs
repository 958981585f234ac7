//! Every row as text, for comparing two stores row by row.

use super::query::ScannedRow;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::fmt::Write as _;
use std::ops::ControlFlow;

/// Each table with a query whose first columns, as many as the number says, are its key.
const TABLES: [(&str, usize, &str); 10] = [
    (
        "usage_windows",
        8,
        "SELECT s.workspace, s.mode, s.epoch, s.account, s.metric, s.grp, w.start, w.part, w.count, w.sum, w.min, w.max,
           w.last, w.last_at, w.late_events, w.revision
         FROM series s JOIN usage_windows w ON w.series = s.id ORDER BY 1, 2, 3, 4, 5, 6, 7, 8",
    ),
    ("accounts", 4, "SELECT * FROM accounts ORDER BY 1, 2, 3, 4"),
    ("alert_states", 5, "SELECT * FROM alert_states ORDER BY 1, 2, 3, 4, 5"),
    ("alert_transitions", 6, "SELECT * FROM alert_transitions ORDER BY 1, 2, 3, 4, 5, 6"),
    ("notifications", 3, "SELECT * FROM notifications ORDER BY 1, 2, 3"),
    ("deliveries", 4, "SELECT * FROM deliveries ORDER BY 1, 2, 3, 4"),
    ("quarantine", 3, "SELECT * FROM quarantine ORDER BY 1, 2, 3"),
    ("webhook_events", 3, "SELECT * FROM webhook_events ORDER BY 1, 2, 3"),
    ("webhook_deliveries", 4, "SELECT * FROM webhook_deliveries ORDER BY 1, 2, 3, 4"),
    ("webhook_attempts", 5, "SELECT * FROM webhook_attempts ORDER BY 1, 2, 3, 4, 5"),
];

pub(super) fn scan(
    connection: &Connection,
    visit: &mut dyn FnMut(ScannedRow) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    for (table, key_columns, query) in TABLES {
        let mut select = connection.prepare(query)?;
        let columns = select.column_count();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (mut key, mut whole) = (String::new(), String::new());
            for at in 0..columns {
                let text = if at < key_columns { &mut key } else { &mut whole };
                print(row.get_ref(at)?, text);
            }
            if visit(ScannedRow { table, key, row: whole }).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn print(value: ValueRef<'_>, text: &mut String) {
    // Writing to a string cannot fail.
    let _written = match value {
        ValueRef::Null => write!(text, "-|"),
        ValueRef::Integer(number) => write!(text, "{number}|"),
        ValueRef::Real(number) => write!(text, "{number}|"),
        ValueRef::Text(bytes) => write!(text, "{}|", String::from_utf8_lossy(bytes)),
        ValueRef::Blob(bytes) => {
            bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}")).and_then(|()| write!(text, "|"))
        }
    };
}
