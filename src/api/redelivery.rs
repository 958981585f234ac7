//! Sending deliveries again: one of them, or those of a span. No more is asked for than the logs that owe them take, so that
//! nothing of it is dropped again.

use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::deliveries::{delivery, hidden, undeleted};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, empty, present};
use super::page::Paging;
use super::problem::Problem;
use super::receipt::store_away;
use super::webhook_actions::{DeliveryAsked, accepted, asked};
use super::webhooks::find;
use crate::domain::control::command::{Command, DropsLeft, Redelivery};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::Scope;
use crate::domain::id::{Log, NotificationId, Position, ReplayId, Tenant, WebhookId};
use crate::domain::limits::{OWED_PER_WEBHOOK_MAX, REPLAY_DELIVERIES_MAX};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::outbox::TOO_MANY_WAIT;
use crate::domain::webhook::rows::{Again, Delivery};
use crate::runtime::clock;
use crate::store::{Age, OwedQuery, WebhookDeliveryQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a replay waits for the store to hold what is folded here.
const STORED_PATIENCE: Duration = Duration::from_secs(2);

/// A time and an event: where a walk over deliveries stands.
type Place = (Timestamp, NotificationId);

/// Which deliveries are made again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// Events that were first owed at or behind it.
    since: String,
    /// Events that were first owed before it; all where absent.
    #[serde(default, deserialize_with = "present")]
    until: Option<String>,
    /// Names of event types, or `prefix.*`; all where absent.
    #[serde(default, deserialize_with = "present")]
    event_types: Option<Vec<String>>,
    /// Leaves out what the endpoint took; so where absent.
    #[serde(default, deserialize_with = "present")]
    only_failed: Option<bool>,
    /// `next_cursor` of the replay before, to go on behind it; everything else as it was there.
    #[serde(default, deserialize_with = "present")]
    cursor: Option<String>,
}

/// A replay that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayAsked {
    replay_id: String,
    /// How many deliveries it makes again: at most 10,000, and only as many as there is room for beside those that wait.
    queued: u64,
    /// Whether deliveries are left. Where nothing was queued there was no room: go on once the endpoint took some.
    has_more: bool,
    /// Leads to what is left, as `cursor` of the next replay; null where nothing is.
    next_cursor: Option<String>,
}

fn again(row: &Delivery) -> Again {
    Again { event: row.id.event, kind: row.kind, log: row.log, created_at: row.created_at, attempts: row.attempts }
}

/// How many more deliveries to an endpoint each log takes.
struct Room {
    webhook: WebhookId,
    waiting: BTreeMap<Log, usize>,
}

impl Room {
    /// As the store has it; the control log is folded by every node.
    async fn of(app: &App, tenant: Tenant, webhook: WebhookId) -> Result<Self, Problem> {
        let owed = app.node.data.store.webhook_owed(OwedQuery { tenant, webhook }).await.map_err(store_away)?;
        let mut waiting: BTreeMap<Log, usize> =
            owed.into_iter().map(|(partition, count)| (partition.log(), count)).collect();
        let room = app.node.data.control.state().outbox().room_for(webhook);
        waiting.insert(Log::Control, OWED_PER_WEBHOOK_MAX.saturating_sub(room));
        Ok(Self { webhook, waiting })
    }

    fn take(&mut self, log: Log) -> bool {
        let waiting = self.waiting.entry(log).or_default();
        let fits = *waiting < OWED_PER_WEBHOOK_MAX;
        *waiting += usize::from(fits);
        fits
    }

    fn full(&self) -> Problem {
        let detail = format!(
            "{OWED_PER_WEBHOOK_MAX} deliveries to {} wait where this one comes from; ask again once it took some",
            self.webhook
        );
        Problem::new(StatusCode::CONFLICT, "limit_reached", detail).with("limit", OWED_PER_WEBHOOK_MAX)
    }
}

/// Waits for the store to hold what is folded here by now, for a while: it says what waits and what was dropped.
async fn stored(app: &App) {
    let held = app.node.partitions.held();
    let positions = held.iter().map(|held| {
        let position = Position(held.processor.gauges.position.load(Ordering::Acquire));
        (held.processor.partition, position)
    });
    let positions: Vec<_> = positions.collect();
    let all = async {
        for (partition, position) in positions {
            app.node.data.store.wait_for(partition, position).await;
        }
    };
    if tokio::time::timeout(STORED_PATIENCE, all).await.is_err() {
        tracing::debug!("a replay was made before the store held everything that is folded here");
    }
}

/// What is left of an overflow behind deliveries that are made again; absent where there is none.
async fn left(
    app: &App,
    tenant: Tenant,
    webhook: WebhookId,
    taken: &[&Delivery],
) -> Result<Option<DropsLeft>, Problem> {
    let overflow = app.node.data.control.state().webhook(tenant, webhook).and_then(|known| known.overflow);
    let Some(overflow) = overflow else { return Ok(None) };
    let again = taken.iter().filter(|row| row.is_overflow()).count() as u64;
    let ids: BTreeSet<NotificationId> = taken.iter().map(|row| row.id.event).collect();
    let asked = WebhookDeliveryQuery {
        tenant,
        webhook,
        event: None,
        statuses: vec![DeliveryStatus::Dropped],
        outcome: Some(TOO_MANY_WAIT),
        kinds: Vec::new(),
        from: Some(overflow.since),
        to: None,
        age: Age::Rising,
        after: None,
        offset: 0,
        // Of one more than are taken one at least is not.
        limit: taken.len() + 1,
    };
    let since = match undeleted(app, &asked).await {
        Ok(rows) => rows.iter().find(|row| !ids.contains(&row.id.event)).map(|row| row.created_at),
        Err(problem) if problem.code == "query_too_large" => Some(overflow.since),
        Err(problem) => return Err(problem),
    };
    Ok(Some(DropsLeft { again, since }))
}

/// Makes a delivery again at once, under the event's id, with a schedule of its own.
///
/// It is refused with 409 `limit_reached` where 10,000 deliveries to the endpoint wait in the partition that it comes from.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/redeliver", tag = "webhooks", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 202, body = DeliveryAsked), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn redeliver(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    empty(&incoming.headers, &incoming.body)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(asked(&changed));
    }
    let row = delivery(&app, &caller, &id).await?;
    let (tenant, webhook) = (row.tenant, row.id.webhook);
    if row.status != DeliveryStatus::Pending {
        let mut room = Room::of(&app, tenant, webhook).await?;
        if !room.take(row.log) {
            return Err(room.full());
        }
    }
    let leaves = if row.is_overflow() { left(&app, tenant, webhook, &[&row]).await? } else { None };
    let deliveries = vec![again(&row)];
    let command = Command::Redeliver(Redelivery { webhook, replay: None, deliveries, next: None, leaves });
    Ok(asked(&submit(&app, &caller, sent, command).await?))
}

/// Makes the deliveries of a span again, the oldest first, under their events' ids.
///
/// It takes 10,000 at most, and no more than there is room for beside those that wait. `next_cursor` leads to the rest: repeat
/// the same body with it as `cursor` until `has_more` is false.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/replay", tag = "webhooks", params(("id" = String, Path)), request_body = ReplayBody,
    responses((status = 202, body = ReplayAsked), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    let wanted: ReplayBody = incoming.json()?;
    let sent = incoming.sent();
    let walk = walk(&caller, &id, &wanted);
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&app, &changed, &walk, &id));
    }
    let after = wanted.cursor.as_deref().map(|text| place(&app, &walk, text)).transpose()?;
    let webhook = find(&app, &caller, &id)?.id;
    let tenant = caller.principal.tenant;
    let asked = WebhookDeliveryQuery { after, ..query((tenant, webhook), &wanted)? };
    let control = &app.node.data.control;
    app.node.drops.tell_of((tenant, webhook), control).await;
    stored(&app).await;
    let mut room = Room::of(&app, tenant, webhook).await?;
    let rows = app.node.data.store.webhook_deliveries(asked).await.map_err(store_away)?;
    let hidden = hidden(&app, tenant, &rows).await?;
    let (taken, next) =
        take(
            &rows,
            after,
            |row| {
                if hidden.contains(&row.id.event) { Fit::Passed } else { Fit::of(room.take(row.log)) }
            },
        );
    let leaves = left(&app, tenant, webhook, &taken).await?;
    let deliveries = taken.into_iter().map(again).collect();
    let replay = Some(ReplayId(clock::ulid()));
    let command = Command::Redeliver(Redelivery { webhook, replay, deliveries, next, leaves });
    Ok(answered(&app, &submit(&app, &caller, sent, command).await?, &walk, &id))
}

/// What becomes of a delivery that a replay comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It is made again.
    Taken,
    /// It is none that anybody sees.
    Passed,
    /// There is no room, so it and all behind it are left.
    Left,
}

impl Fit {
    const fn of(has_room: bool) -> Self {
        if has_room { Self::Taken } else { Self::Left }
    }
}

/// Takes deliveries in their order until one does not fit; where some are left, tells behind which place. `rows` holds one more
/// than a replay takes where there are more.
fn take(
    rows: &[Delivery],
    after: Option<Place>,
    mut fit: impl FnMut(&Delivery) -> Fit,
) -> (Vec<&Delivery>, Option<Place>) {
    let (mut taken, mut behind) = (Vec::new(), after);
    for (n, row) in rows.iter().enumerate() {
        let fits = if n < REPLAY_DELIVERIES_MAX { fit(row) } else { Fit::Left };
        match fits {
            Fit::Taken => taken.push(row),
            Fit::Passed => {}
            // No event has the id zero, so the first of a walk lies behind it.
            Fit::Left => return (taken, Some(behind.unwrap_or((row.created_at, NotificationId(0))))),
        }
        behind = Some((row.created_at, row.id.event));
    }
    (taken, None)
}

fn query((tenant, webhook): (Tenant, WebhookId), wanted: &ReplayBody) -> Result<WebhookDeliveryQuery, Problem> {
    let instant = |pointer: &str, text: &str| {
        Timestamp::parse(text)
            .ok_or_else(|| Problem::invalid(pointer, "expected an RFC 3339 time such as 2026-11-24T08:00:00Z"))
    };
    let since = instant("/since", &wanted.since)?;
    let until = wanted.until.as_deref().map(|text| instant("/until", text)).transpose()?;
    if until.is_some_and(|until| until <= since) {
        return Err(Problem::invalid("/until", "it lies before since"));
    }
    let patterns = super::webhook_input::event_types(wanted.event_types.clone())?;
    let kinds = EventType::ALL.iter().copied().filter(|kind| patterns.iter().any(|pattern| kind.matches(pattern)));
    let taken = if wanted.only_failed.unwrap_or(true) { None } else { Some(DeliveryStatus::Succeeded) };
    let statuses = [DeliveryStatus::Failed, DeliveryStatus::Dropped].into_iter().chain(taken);
    Ok(WebhookDeliveryQuery {
        tenant,
        webhook,
        event: None,
        statuses: statuses.collect(),
        outcome: None,
        kinds: kinds.collect(),
        from: Some(since),
        to: until,
        age: Age::Rising,
        after: None,
        offset: 0,
        limit: REPLAY_DELIVERIES_MAX + 1,
    })
}

/// What the cursors of a replay belong to: the endpoint, and what of its deliveries.
fn walk(caller: &Caller, id: &str, wanted: &ReplayBody) -> Paging {
    let ReplayBody { since, until, event_types, only_failed, cursor: _ } = wanted;
    let only_failed = only_failed.unwrap_or(true);
    Paging::of_walk(caller, &format!("replay {id} {since} {until:?} {event_types:?} {only_failed}"))
}

fn place(app: &App, walk: &Paging, text: &str) -> Result<Place, Problem> {
    let key = walk.opened(app, text);
    let read = |key: String| {
        let (at, event) = key.split_once(' ')?;
        Some((Timestamp::parse(at)?, event.parse().ok()?))
    };
    let detail =
        "the cursor is not one of a replay of this endpoint with this span and these types; begin anew without it";
    key.and_then(read).ok_or_else(|| Problem::invalid("/cursor", detail))
}

fn answered(app: &App, changed: &Changed, walk: &Paging, id: &str) -> Response {
    let Resource::Replay { id: replay, queued, next } = &changed.resource else { return super::answer::gone() };
    let view = ReplayAsked {
        replay_id: replay.to_string(),
        queued: *queued,
        has_more: next.is_some(),
        next_cursor: next.map(|(at, event)| walk.sealed(app, format!("{at} {event}"))),
    };
    accepted(changed, &view, &format!("/v1/webhooks/{id}/deliveries"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Mode, PartitionId, WorkspaceId};
    use crate::domain::webhook::rows::DeliveryId;

    fn rows(count: usize) -> Vec<Delivery> {
        let row = |n: usize| Delivery {
            tenant: Tenant { workspace: WorkspaceId(1), mode: Mode::Live },
            id: DeliveryId { event: NotificationId(n as u128 + 1), webhook: WebhookId(1) },
            kind: EventType::QuotaReset,
            log: PartitionId(0).log(),
            created_at: Timestamp(7),
            status: DeliveryStatus::Dropped,
            attempts: 0,
            outcome: None,
            next_at: None,
            at: Timestamp(7),
            revision: Position(1),
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_replay_leaves_what_does_not_fit_behind_a_place() {
        let at = |event| Some((Timestamp(7), NotificationId(event)));
        let taken = |count, after, fit: &dyn Fn(u128) -> Fit| {
            let rows = rows(count);
            let (taken, next) = take(&rows, after, |row| fit(row.id.event.0));
            (taken.len(), next)
        };
        assert_eq!(taken(3, None, &|_| Fit::Taken), (3, None));
        assert_eq!(taken(3, None, &|_| Fit::Left), (0, at(0)), "the next one begins with the first");
        assert_eq!(taken(3, at(0), &|_| Fit::Left), (0, at(0)), "nor does it pass one over");
        assert_eq!(taken(3, None, &|n| Fit::of(n < 3)), (2, at(2)));
        assert_eq!(taken(3, None, &|n| if n == 2 { Fit::Passed } else { Fit::of(n < 3) }), (1, at(2)));
        let most = REPLAY_DELIVERIES_MAX;
        assert_eq!(taken(most, None, &|_| Fit::Taken), (most, None));
        assert_eq!(taken(most + 1, None, &|_| Fit::Taken), (most, at(most as u128)));
        assert_eq!(taken(most + 1, None, &|_| Fit::Passed), (0, at(most as u128)), "what is hidden is passed over");
    }
}
