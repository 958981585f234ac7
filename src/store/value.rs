//! How domain values stand in SQLite's columns.

use crate::domain::id::{Mode, Tenant};
use crate::domain::quantity::Quantity;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};

/// An amount: an integer where it fits 64 bits, else 16 bytes.
pub(super) struct Amount(pub(super) Quantity);

impl ToSql for Amount {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let raw = self.0.0;
        Ok(ToSqlOutput::Owned(match i64::try_from(raw) {
            Ok(small) => Value::Integer(small),
            Err(_) => Value::Blob(raw.to_be_bytes().to_vec()),
        }))
    }
}

impl FromSql for Amount {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(small) => Ok(Self(Quantity(i128::from(small)))),
            ValueRef::Blob(bytes) => {
                let bytes = bytes.try_into().map_err(|_| FromSqlError::InvalidType)?;
                Ok(Self(Quantity(i128::from_be_bytes(bytes))))
            }
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) => Err(FromSqlError::InvalidType),
        }
    }
}

/// An id: 16 bytes, ordered as the id is.
pub(super) struct Id(pub(super) u128);

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Blob(self.0.to_be_bytes().to_vec())))
    }
}

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?.try_into().map_err(|_| FromSqlError::InvalidType)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

/// Anything that has a JSON text.
pub(super) fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Reads what [`json`] wrote.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))
}

pub(super) fn mode(tenant: Tenant) -> i64 {
    match tenant.mode {
        Mode::Live => 0,
        Mode::Sandbox => 1,
    }
}

pub(super) fn workspace(tenant: Tenant) -> Id {
    Id(tenant.workspace.0)
}
