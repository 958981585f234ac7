//! Conditions of queries, and reading what a row holds.

use crate::domain::id::Tenant;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use clickhouse::query::Query;

/// Conditions and the values of their question marks, in order.
pub(super) struct Filter {
    pub(super) sql: String,
    values: Vec<Value>,
}

pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(u64),
}

impl Filter {
    pub(super) fn of(tenant: Tenant) -> Self {
        let mut filter = Self { sql: String::new(), values: Vec::new() };
        filter.tenant(tenant);
        filter
    }

    pub(super) fn tenant(&mut self, tenant: Tenant) {
        self.and("workspace = ?", Value::Text(tenant.workspace.to_string()));
        self.and("mode = ?", Value::Text(tenant.mode.name().to_owned()));
    }

    pub(super) fn and(&mut self, condition: &str, value: Value) {
        if !self.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(condition);
        self.values.push(value);
    }

    /// At least one of two.
    pub(super) fn either(&mut self, one: (&str, Value), other: (&str, Value)) {
        self.and(&format!("({}", one.0), one.1);
        self.sql.push_str(&format!(" OR {})", other.0));
        self.values.push(other.1);
    }

    /// One more value of a tuple that a condition began.
    pub(super) fn tuple_next(&mut self, value: Value) {
        self.sql.push_str(", ?");
        self.values.push(value);
    }

    /// The last value of a tuple that a condition began.
    pub(super) fn tuple_end(&mut self, value: Value) {
        self.tuple_next(value);
        self.sql.push(')');
    }

    /// A time in `[from, to)`, as far as ClickHouse can write such times: its calendar goes from 1900 to 2299.
    pub(super) fn between(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        const CALENDAR: std::ops::Range<i64> = -2_208_988_800_000..10_413_792_000_000;
        for (compare, bound) in [(">=", from), ("<", to)] {
            if let Some(bound) = bound.filter(|bound| CALENDAR.contains(&bound.0)) {
                self.sql.push_str(&format!(" AND {column} {compare} {}", instant(bound)));
            }
        }
    }

    /// Any of some texts; anything where there is none.
    pub(super) fn any_of(&mut self, column: &str, texts: impl Iterator<Item = String>) {
        let texts: Vec<String> = texts.collect();
        if !texts.is_empty() {
            self.and(&format!("{column} IN ?"), Value::Texts(texts));
        }
    }

    pub(super) fn bind(self, query: Query) -> Query {
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Texts(texts) => query.bind(texts),
            Value::Number(number) => query.bind(number),
        })
    }
}

pub(super) fn instant(at: Timestamp) -> String {
    format!("fromUnixTimestamp64Milli(toInt64({}))", at.0)
}

/// A limit or an offset that their sum does not overflow.
pub(super) fn bounded(count: usize) -> u64 {
    const MAX: u64 = 1 << 62;
    u64::try_from(count).map_or(MAX, |count| count.min(MAX))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Storage { detail: format!("a row cannot be read: {error}") }
}
