//! What became of messages at the channels that they went to, beside what they tell of.

use super::app::{App, Caller};
use super::problem::Problem;
use super::receipt::store_away;
use crate::domain::control::resource::Scope;
use crate::domain::id::NotificationId;
use crate::domain::partition::effect::DeliveryRow;
use crate::store::OutcomeQuery;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What became of a message at one channel.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DeliveredView {
    channel_id: String,
    /// The message's id; with the channel's it names the delivery.
    delivery_id: String,
    /// `pending`, `succeeded`, `failed` (the channel lost it), `superseded` (a newer message of the
    /// instance took its place), or `dropped`: it was not sent, because there was nothing to send it
    /// for any more.
    status: String,
    attempt_count: u32,
    /// What came of the last attempt; null where there was none, and for who may not read the channel.
    outcome: Option<String>,
    next_attempt_at: Option<String>,
    updated_at: String,
}

impl DeliveredView {
    /// Changes with what is shown.
    pub(super) fn tag(&self) -> String {
        let shown = format!("{self:?}");
        let digest = <sha2::Sha256 as sha2::Digest>::digest(shown.as_bytes());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

pub(super) fn delivered(app: &App, caller: &Caller, row: &DeliveryRow) -> DeliveredView {
    let label = app.node.data.control.state().channel(row.tenant, row.channel).and_then(|channel| channel.project);
    let may_read = caller.require(Scope::ReadChannels).is_ok() && caller.principal.reaches(label);
    DeliveredView {
        channel_id: row.channel.to_string(),
        delivery_id: row.notification.to_string(),
        status: row.status.name().to_owned(),
        attempt_count: row.attempts,
        outcome: row.outcome.clone().filter(|_| may_read),
        next_attempt_at: row.next_at.map(|at| at.to_string()),
        updated_at: row.at.to_string(),
    }
}

/// Returns what became of some messages, by message.
///
/// # Errors
/// 503 where the store is away.
pub(super) async fn outcomes(
    app: &App,
    caller: &Caller,
    notifications: Vec<NotificationId>,
) -> Result<BTreeMap<NotificationId, Vec<DeliveredView>>, Problem> {
    let mut found: BTreeMap<NotificationId, Vec<DeliveredView>> = BTreeMap::new();
    if notifications.is_empty() {
        return Ok(found);
    }
    let asked = OutcomeQuery { tenant: caller.principal.tenant, notifications };
    for row in app.node.data.store.outcomes(asked).await.map_err(store_away)? {
        found.entry(row.notification).or_default().push(delivered(app, caller, &row));
    }
    Ok(found)
}
