//! What a request turned out to be, for the headers of its answer and its line in the log: on whose behalf, and in which
//! trace.

use crate::domain::control::access_note::{AccessKind, AccessNote};
use crate::domain::control::audit::Target;
use crate::domain::id::{KeyId, Mode, Tenant};
use crate::runtime::access_notes::{Access, AccessNotes};
use crate::runtime::clock;
use axum::http::HeaderMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Where a request notes on whose behalf it turned out to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<OnceLock<Known>>);

/// Who asks, and where it is noted what belongs in the audit log.
#[derive(Clone, Debug)]
struct Known {
    tenant: Tenant,
    key: KeyId,
    address: IpAddr,
    notes: AccessNotes,
}

impl Seen {
    pub(super) fn note(&self, (tenant, key): (Tenant, KeyId), address: IpAddr, notes: &AccessNotes) {
        self.0.get_or_init(|| Known { tenant, key, address, notes: notes.clone() });
    }

    /// Notes an escalation that was refused, where the answer is one.
    pub(super) fn escalation(&self, code: &'static str, request_id: &str) {
        let Some(known) = self.0.get().filter(|_| code == "scope_escalation") else { return };
        let target = Target::ApiKey(known.key);
        let note = AccessNote { kind: AccessKind::EscalationRefused, target, refused: Some(code.to_owned()) };
        let access = Access {
            tenant: known.tenant,
            actor: Some(known.key),
            request_id: request_id.to_owned(),
            ip: known.address,
            note,
        };
        known.notes.note(access, clock::now());
    }

    /// The credential's tenant and its name among the keys, where there was a valid one.
    pub(super) fn get(&self) -> Option<(Tenant, KeyId)> {
        self.0.get().map(|known| (known.tenant, known.key))
    }

    /// The mode of the credential.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.get().map(|(tenant, _)| tenant.mode)
    }
}

/// The trace that a caller's `traceparent` names (<https://www.w3.org/TR/trace-context/#traceparent-header>); one that is
/// malformed is none.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all("traceparent").iter();
    let (only, None) = (given.next()?, given.next()) else { return None };
    let mut parts = only.to_str().ok()?.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, length: usize| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
    // Later versions may say more behind what the first one says.
    let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (is_version && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_trace_is_joined_where_its_header_is_well_formed() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let named = |value: &str| {
            let headers =
                HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::from_str(value).unwrap())]);
            trace_id(&headers).map(str::to_owned)
        };
        let own = |value: String| assert_eq!(named(&value).as_deref(), Some(trace), "{value}");
        own(format!("00-{trace}-{parent}-01"));
        own(format!("00-{trace}-{parent}-00"));
        own(format!("cc-{trace}-{parent}-01-what-comes-later"));
        let none = |value: String| assert_eq!(named(&value), None, "{value}");
        none(format!("00-{trace}-{parent}-01-more"));
        none(format!("ff-{trace}-{parent}-01"));
        none(format!("00-{}-{parent}-01", trace.to_uppercase()));
        none(format!("00-{}-{parent}-01", "0".repeat(32)));
        none(format!("00-{trace}-{}-01", "0".repeat(16)));
        none(format!("00-{trace}-{parent}"));
        none(format!("00-{trace}{parent}-01"));
        none(String::new());
    }
}
