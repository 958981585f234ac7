//! The partition engine: windows, quota levels, alert states and debts, folded from one log.
//!
//! [`Partition::apply`] is total: what stands in the log is always taken in. It reads no clock; time is what the records
//! say. One event's way: [`engine`] counts it into its series ([`window`], [`level`]), [`judge`] evaluates the rules that
//! read the series on the [`values`] of the moment, [`instance`] decides the step, [`tell`] performs it.

pub mod aggregate;
pub mod archive;
pub mod effect;
pub mod fact;
pub mod notification;

mod account;
mod alerts;
mod engine;
mod flush;
mod instances;
mod series;
mod state;

mod group_hours;
mod grouping;
mod level;
mod window;

mod amend;
mod instance;
mod judge;
mod reach;
mod step;
mod tell;
mod values;

mod changes;
pub mod clock_set;
mod conversation;
mod deadlines;
mod debts;
mod endpoint_event;
mod fit;
pub mod rehearsal;
mod set_aside;
mod snapshot;
mod test_message;
mod unheard;
mod visit;

pub use debts::Owed;
pub use engine::Seen;
pub use snapshot::{RestoreError, SNAPSHOT_FORMAT};
pub use state::Partition;
