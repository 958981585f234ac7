//! The journal: ordered, durable logs. Everything else can be made anew from them.
//!
//! **Contract.** `append` returns when every record is durable, with their places in the order they were given; after an
//! error any subset may be in. Positions of one log increase; they need not be dense. `recorded_at` of one log never
//! decreases. `read` returns records strictly behind a position, in order, and at least one where there is one. A record
//! that is read is the record that was appended, or reading it is an error that says which one is damaged.

mod chain;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
mod port;
mod sqlite;
mod sqlite_read;
mod tail;

#[cfg(test)]
mod contract;

#[cfg(feature = "kafka")]
pub use kafka::{
    Assignment, IntakeGauge, IntakeLag, IntakeMessage, IntakePlace, IntakeProgress, IntakeReader, IntakeStart,
    KafkaJournal, KafkaSettings, Membership, OnIntakeGap, SettingsError, Timestamps,
};
pub use memory::MemoryJournal;
pub use port::{AppendError, Journal, Member, OpenError, ReadError, Record};
pub use sqlite::SqliteJournal;
