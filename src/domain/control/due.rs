//! What time alone brings about in the control plane: keys that are about to expire, pauses and silences that end. It is told at a
//! tick, once for each instant between two ticks.

use super::events::{alert_data, key_data, silence_data};
use super::registry::{Registry, key_concern};
use crate::domain::id::Tenant;
use crate::domain::limits::KEY_EXPIRY_NOTICES;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::outbox::Concern;
use serde_json::Value;

/// What is told of an instant that is further back is told no more.
const STALE: Millis = Millis::days(1);

/// Something that becomes due.
pub(super) struct Due {
    pub(super) at: Timestamp,
    pub(super) tenant: Tenant,
    pub(super) kind: EventType,
    pub(super) data: Value,
    pub(super) concern: Concern,
}

/// When a tick is due next, behind the last one.
pub(super) fn next(registry: &Registry, ticked: Timestamp) -> Option<Timestamp> {
    of_keys(registry).chain(of_worlds(registry)).map(|(at, _)| at).filter(|at| *at > ticked).min()
}

/// What became due in a sandbox because its clock was set on by that much: for the ticks it lies in the past by now.
pub(super) fn passed_over(registry: &Registry, tenant: Tenant, ticked: Timestamp, by: Millis) -> Vec<Due> {
    let from = ticked.minus(by);
    let passed = of_worlds(registry).filter(|(at, _)| (*at > from) && (*at <= ticked)).map(|(_, due)| due());
    let mut due: Vec<Due> = passed.filter(|due| due.tenant == tenant).collect();
    due.sort_by_key(|due| due.at);
    due
}

/// What became due between the last tick and this one, in order.
pub(super) fn between(registry: &Registry, ticked: Timestamp, now: Timestamp) -> Vec<Due> {
    let from = ticked.max(now.minus(STALE));
    let instants = of_keys(registry).chain(of_worlds(registry));
    let mut due: Vec<Due> = instants.filter(|(at, _)| (*at > from) && (*at <= now)).map(|(_, due)| due()).collect();
    due.sort_by_key(|due| due.at);
    due
}

type Make<'a> = Box<dyn Fn() -> Due + 'a>;

fn boxed<'a>(make: impl Fn() -> Due + 'a) -> Make<'a> {
    Box::new(make)
}

/// The instants of keys, which are the same for all.
fn of_keys(registry: &Registry) -> impl Iterator<Item = (Timestamp, Make<'_>)> {
    let keys = registry.keys.all().filter(|record| record.revoked_at.is_none());
    keys.filter_map(|record| Some((record, record.key.expires_at?))).flat_map(|(record, end)| {
        let notices = KEY_EXPIRY_NOTICES.iter().map(move |before| end.minus(*before));
        // A key that was made for less than that is not said to expire so soon.
        notices.filter(move |at| *at > record.life.created_at).map(move |at| {
            let make = move || {
                let tenant = Tenant { workspace: record.key.workspace, mode: record.key.mode };
                let (data, concern) = (key_data(&record.key), key_concern(&record.key));
                Due { at, tenant, kind: EventType::ApiKeyExpiring, data, concern }
            };
            (at, boxed(make))
        })
    })
}

/// The instants of what a tenant has, each when the control log's clock will meet it: a sandbox's own is ahead of that.
fn of_worlds(registry: &Registry) -> impl Iterator<Item = (Timestamp, Make<'_>)> {
    let met = move |tenant: Tenant, at: Timestamp| at.minus(registry.advance_of(tenant));
    let alerts = registry
        .worlds
        .iter()
        .flat_map(|(tenant, world)| world.alerts.records.values().map(move |alert| (*tenant, alert)));
    let resumed = alerts.filter_map(move |(tenant, alert)| {
        let at = alert.definition.pause?.until?;
        let make = move || {
            let mut data = alert_data(alert);
            if let Some(object) = data.as_object_mut() {
                object.insert("status".to_owned(), "active".into());
            }
            let concern = Concern::of(alert.definition.project);
            Due { at, tenant, kind: EventType::AlertResumed, data, concern }
        };
        Some((met(tenant, at), boxed(make)))
    });
    let silences = registry
        .worlds
        .iter()
        .flat_map(|(tenant, world)| world.silences.records.values().map(move |record| (*tenant, record)));
    let ended = silences.filter_map(move |(tenant, record)| {
        let at = record.silence.ends_at;
        let make = move || {
            let (data, concern) = (silence_data(record), Concern::Everybody);
            Due { at, tenant, kind: EventType::SilenceExpired, data, concern }
        };
        record.expired_at.is_none().then(|| (met(tenant, at), boxed(make)))
    });
    resumed.chain(ended)
}
