//! Endpoints that are told of state changes: what they want, how they are signed for, and how they do. Secrets and headers
//! are sealed; nothing here can open them.

use super::command::clearable;
use super::outcome::{Change, Refused, Resource};
use super::overflow::{DropReport, DropsLeft, Overflow};
use super::patch::{merge, set};
use super::projects::Projects;
use super::resource::Life;
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::id::{Log, NotificationId, ProjectId, ReplayId, WebhookId};
use crate::domain::limits::{OVERFLOW_LASTS, WEBHOOK_FAILING_MAX, WEBHOOK_SECRETS_MAX, WEBHOOKS_MAX};
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::event_id;
use crate::domain::webhook::outbox::{Intake, Subscription};
use crate::domain::webhook::rows::{Again, DeliveryId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where to.
    pub url: String,
    /// Names of event types, or `prefix.*`.
    pub event_types: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The names of its own headers.
    pub header_names: Vec<String>,
    /// Those headers with their values, sealed with the master key.
    pub sealed_headers: Option<String>,
    /// Most deliveries a second.
    pub rate_limit: Option<u32>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// What signs, the newest first.
    pub secrets: Vec<SealedSecret>,
    /// Whether it is sent to.
    pub status: WebhookStatus,
    /// Why it is disabled.
    pub disabled_reason: Option<DisabledReason>,
    /// Since when it has done nothing but fail.
    pub failing_since: Option<Timestamp>,
    /// What came for it while as many deliveries waited as may, and was dropped; absent where nothing was, or all is replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// The project that it is labelled with, for as long as it exists: what it was sent shows to whoever reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Its life.
    pub life: Life,
}

/// A secret that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The secret, sealed with the master key.
    pub sealed: String,
    /// When it ends; never where absent.
    pub until: Option<Timestamp>,
}

/// Whether an endpoint is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookStatus {
    /// It is.
    Enabled,
    /// Somebody paused it.
    Paused,
    /// It failed for too long, or is gone.
    Disabled,
}

impl WebhookStatus {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    const fn intake(self) -> Intake {
        match self {
            Self::Enabled => Intake::Open,
            Self::Paused => Intake::Paused,
            Self::Disabled => Intake::Disabled,
        }
    }
}

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It did nothing but fail for five days.
    Failing,
}

impl DisabledReason {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// How an endpoint did at one node since the node's last summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookHealth {
    /// Attempts that it took.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// When the first of those failed, by the node's clock.
    pub first_failed_at: Option<Timestamp>,
    /// Whether it answered 410.
    pub gone: bool,
}

/// How an endpoint did at one node, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookReport {
    /// Which one.
    pub id: WebhookId,
    /// How it did.
    pub health: WebhookHealth,
}

/// A secret that takes the place of an endpoint's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRotation {
    /// Which one.
    pub id: WebhookId,
    /// The secret, sealed with the master key.
    pub sealed: String,
    /// When the ones before end.
    pub until: Timestamp,
}

/// Deliveries that are to be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redelivery {
    /// To whom.
    pub webhook: WebhookId,
    /// Names a replay; absent for a single delivery.
    pub replay: Option<ReplayId>,
    /// Which ones.
    pub deliveries: Vec<Again>,
    /// Behind which delivery the next replay begins; absent where nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<(Timestamp, NotificationId)>,
    /// What it leaves of an overflow; absent where it is not about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<DropsLeft>,
}

/// An endpoint to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookDraft {
    /// Where to.
    pub url: String,
    /// Names of event types, or `prefix.*`.
    pub event_types: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The names of its own headers, and all of them sealed with the master key.
    pub headers: Option<(Vec<String>, String)>,
    /// Most deliveries a second.
    pub rate_limit: Option<u32>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// What signs, sealed with the master key.
    pub sealed_secret: String,
    /// The project that it is labelled with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
}

/// Changes of an endpoint. An absent field stays; `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookPatch {
    /// Where to.
    pub url: Option<String>,
    /// Names of event types, or `prefix.*`.
    pub event_types: Option<Vec<String>>,
    /// What it is for.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<String>>,
    /// The names of its own headers, and all of them sealed with the master key.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub headers: Option<Option<(Vec<String>, String)>>,
    /// Most deliveries a second.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Option<u32>>,
    /// Entries of the caller's notes; `None` removes one.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// The endpoints of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Webhooks {
    pub(super) records: BTreeMap<WebhookId, Webhook>,
}

impl Webhooks {
    /// Returns the first endpoint of a project.
    pub(super) fn of_project(&self, project: ProjectId) -> Option<WebhookId> {
        self.records.values().find(|webhook| webhook.project == Some(project)).map(|webhook| webhook.id)
    }

    pub(super) fn create(
        &mut self,
        context: Context,
        projects: &Projects,
        id: WebhookId,
        draft: &WebhookDraft,
    ) -> Verdict {
        if self.records.contains_key(&id) {
            return Err(exists_already("webhook", id));
        }
        room_for_one(self.records.len(), WEBHOOKS_MAX, "webhooks")?;
        projects.expect_label(draft.project)?;
        let draft = draft.clone();
        let (header_names, sealed_headers) = parts(draft.headers);
        let webhook = Webhook {
            id,
            url: draft.url,
            event_types: draft.event_types,
            description: draft.description,
            header_names,
            sealed_headers,
            rate_limit: draft.rate_limit,
            metadata: draft.metadata,
            secrets: vec![SealedSecret { sealed: draft.sealed_secret, until: None }],
            status: WebhookStatus::Enabled,
            disabled_reason: None,
            failing_since: None,
            overflow: None,
            project: draft.project,
            life: Life::begun(context.now),
        };
        let change = self.insert(context, webhook.clone());
        Ok(Accepted::created(Resource::Webhook(Box::new(webhook))).telling(change))
    }

    pub(super) fn update(&mut self, context: Context, id: WebhookId, patch: &WebhookPatch) -> Verdict {
        let mut webhook = self.expected(context, id)?.clone();
        if patch.url.is_some() {
            // How another receiver did says nothing of this one.
            webhook.failing_since = None;
        }
        set(&mut webhook.url, &patch.url);
        set(&mut webhook.event_types, &patch.event_types);
        set(&mut webhook.description, &patch.description);
        set(&mut webhook.rate_limit, &patch.rate_limit);
        merge(&mut webhook.metadata, &patch.metadata, "metadata entries")?;
        if let Some(headers) = patch.headers.clone() {
            (webhook.header_names, webhook.sealed_headers) = parts(headers);
        }
        Ok(self.change(context, webhook))
    }

    pub(super) fn delete(&mut self, context: Context, id: WebhookId) -> Verdict {
        self.expected(context, id)?;
        self.records.remove(&id);
        let change = Change::Webhook { tenant: context.tenant, webhook: id, subscription: None, project: None };
        Ok(Accepted::deleted().telling(change))
    }

    /// Pauses; nothing changes where it is so already, or where the endpoint is disabled.
    pub(super) fn pause(&mut self, context: Context, id: WebhookId) -> Verdict {
        let mut webhook = self.expected(context, id)?.clone();
        match webhook.status {
            WebhookStatus::Paused => return Ok(Accepted::done(Resource::Webhook(Box::new(webhook)))),
            WebhookStatus::Disabled => return Err(disabled(&webhook)),
            WebhookStatus::Enabled => webhook.status = WebhookStatus::Paused,
        }
        Ok(self.change(context, webhook))
    }

    /// Enables; nothing changes where it is so already.
    pub(super) fn resume(&mut self, context: Context, id: WebhookId) -> Verdict {
        let mut webhook = self.expected(context, id)?.clone();
        if webhook.status == WebhookStatus::Enabled {
            return Ok(Accepted::done(Resource::Webhook(Box::new(webhook))));
        }
        webhook.status = WebhookStatus::Enabled;
        webhook.disabled_reason = None;
        webhook.failing_since = None;
        Ok(self.change(context, webhook))
    }

    pub(super) fn rotate(&mut self, context: Context, rotation: &WebhookRotation) -> Verdict {
        let WebhookRotation { id, sealed, until } = rotation.clone();
        let mut webhook = self.expected(context, id)?.clone();
        let before = std::mem::take(&mut webhook.secrets).into_iter();
        let signs_along = before.map(|secret| SealedSecret {
            until: Some(secret.until.map_or(until, |earlier| earlier.min(until))),
            ..secret
        });
        let fresh = SealedSecret { sealed, until: None };
        let all = std::iter::once(fresh).chain(signs_along.filter(|secret| secret.signs_at(context.now)));
        webhook.secrets = all.take(WEBHOOK_SECRETS_MAX).collect();
        webhook.life.touch(context.now);
        self.records.insert(id, webhook.clone());
        Ok(Accepted::created(Resource::Webhook(Box::new(webhook))))
    }

    /// The event that an accepted test causes is the first of its record, so its delivery can be named here.
    pub(super) fn test(&self, context: Context, id: WebhookId) -> Verdict {
        self.sent_to(id)?;
        let event = event_id(context.tenant, Log::Control, context.position, 0);
        Ok(Accepted::done(Resource::Delivery(DeliveryId { event, webhook: id })))
    }

    pub(super) fn redeliver(&mut self, context: Context, redelivery: &Redelivery) -> Verdict {
        let Redelivery { webhook: id, replay, deliveries, next, leaves } = redelivery.clone();
        self.sent_to(id)?;
        if let (Some(webhook), Some(left)) = (self.records.get_mut(&id), leaves)
            && let Some(known) = webhook.overflow
        {
            webhook.overflow = known.behind(left, context.now);
            if webhook.overflow.is_none() {
                webhook.life.touch(context.now);
            }
        }
        let queued = u64::try_from(deliveries.len()).unwrap_or(u64::MAX);
        let resource = match (replay, deliveries.as_slice()) {
            (Some(id), _) => Resource::Replay { id, queued, next },
            (None, [one, ..]) => Resource::Delivery(DeliveryId { event: one.event, webhook: id }),
            (None, []) => Resource::None,
        };
        let tenant = context.tenant;
        Ok(Accepted::done(resource).telling(Change::Redeliver { tenant, webhook: id, deliveries }))
    }

    /// Judges how an endpoint does. It is disabled at once when it is gone, and after five days of nothing but failures.
    pub(super) fn report(&mut self, context: Context, report: &WebhookReport) -> Verdict {
        let WebhookReport { id, health } = *report;
        let mut webhook = self.records.get(&id).ok_or_else(|| not_found("webhook", id))?.clone();
        if webhook.status == WebhookStatus::Disabled {
            return Ok(Accepted::done(Resource::Webhook(Box::new(webhook))));
        }
        let failing_since = match (health.succeeded, health.first_failed_at) {
            (1.., _) => None,
            (0, Some(first)) => Some(webhook.failing_since.map_or(first, |since| since.min(first)).min(context.now)),
            (0, None) => webhook.failing_since,
        };
        let reason = match failing_since {
            _ if health.gone => Some(DisabledReason::Gone),
            Some(since) if context.now.since(since) >= WEBHOOK_FAILING_MAX => Some(DisabledReason::Failing),
            Some(_) | None => None,
        };
        if reason.is_none() && failing_since == webhook.failing_since {
            return Ok(Accepted::done(Resource::Webhook(Box::new(webhook))));
        }
        webhook.failing_since = failing_since;
        if reason.is_some() {
            webhook.status = WebhookStatus::Disabled;
            webhook.disabled_reason = reason;
        }
        Ok(self.change(context, webhook))
    }

    /// Takes in that deliveries were dropped. It is told where nothing was for a while, and where this reaches further back.
    pub(super) fn overflow(&mut self, context: Context, report: DropReport) -> Verdict {
        let DropReport { id, dropped, since } = report;
        let webhook = self.records.get_mut(&id).ok_or_else(|| not_found("webhook", id))?;
        let before = webhook.overflow.unwrap_or(Overflow { dropped: 0, since, until: context.now });
        let is_told = |known: Overflow| context.now.since(known.until) < OVERFLOW_LASTS && known.since <= since;
        if !webhook.overflow.is_some_and(is_told) {
            webhook.life.touch(context.now);
        }
        let dropped = before.dropped.saturating_add(dropped);
        webhook.overflow = Some(Overflow { dropped, since: before.since.min(since), until: context.now });
        Ok(Accepted::done(Resource::Webhook(Box::new(webhook.clone()))))
    }

    fn sent_to(&self, id: WebhookId) -> Result<(), Refused> {
        let webhook = self.records.get(&id).ok_or_else(|| not_found("webhook", id))?;
        match webhook.status {
            WebhookStatus::Enabled => Ok(()),
            WebhookStatus::Paused => {
                Err(Refused::InvalidState { detail: format!("webhook {id} is paused; resume it first") })
            }
            WebhookStatus::Disabled => Err(disabled(webhook)),
        }
    }

    fn expected(&self, context: Context, id: WebhookId) -> Result<&Webhook, Refused> {
        let known = self.records.get(&id).ok_or_else(|| not_found("webhook", id))?;
        context.expect_version(known.life.version)?;
        Ok(known)
    }

    fn change(&mut self, context: Context, mut webhook: Webhook) -> Accepted {
        webhook.life.touch(context.now);
        let before = self.records.get(&webhook.id).map(subscription);
        let change = self.insert(context, webhook.clone());
        let accepted = Accepted::done(Resource::Webhook(Box::new(webhook.clone())));
        if before.as_ref() == Some(&subscription(&webhook)) { accepted } else { accepted.telling(change) }
    }

    fn insert(&mut self, context: Context, webhook: Webhook) -> Change {
        let (id, subscription, project) = (webhook.id, Some(subscription(&webhook)), webhook.project);
        self.records.insert(id, webhook);
        Change::Webhook { tenant: context.tenant, webhook: id, subscription, project }
    }
}

impl SealedSecret {
    /// Tells whether the secret signs at an instant.
    pub fn signs_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn subscription(webhook: &Webhook) -> Subscription {
    Subscription { event_types: webhook.event_types.clone(), intake: webhook.status.intake() }
}

fn disabled(webhook: &Webhook) -> Refused {
    Refused::InvalidState { detail: format!("webhook {} is disabled; resume it first", webhook.id) }
}

fn parts(headers: Option<(Vec<String>, String)>) -> (Vec<String>, Option<String>) {
    headers.map_or((Vec::new(), None), |(names, sealed)| (names, Some(sealed)))
}
