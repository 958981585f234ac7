//! Every operation of `/v1`, kept by hand: what the description says is compared with it, and each is called with keys
//! of all kinds.

use highwater::domain::control::resource::Scope;
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) struct Operation {
    pub(crate) method: Method,
    /// As the description writes it.
    pub(crate) path: &'static str,
    pub(crate) scope: Scope,
    pub(crate) body: Option<Value>,
}

impl Operation {
    /// The path with made-up names of things.
    pub(crate) fn call(&self) -> String {
        let id = match self.path.split('/').nth(2) {
            Some("alerts") => "alr_01J9Z0000000000000000000AA",
            Some("webhooks") => "whk_01J9Z0000000000000000000AA",
            Some("deliveries") => "dlv_01J9Z0000000000000000000AA01J9Z0000000000000000000AA",
            Some("silences") => "sil_01J9Z0000000000000000000AA",
            Some("incidents") => "inc_01J9Z0000000000000000000AA",
            Some("channels") => "chn_01J9Z0000000000000000000AA",
            Some("projects") => "prj_01J9Z0000000000000000000AA",
            Some("api-keys") => "key_01J9Z0000000000000000000AA",
            Some("oauth") => "cli_01J9Z0000000000000000000AA",
            _ => "evt_01J9Z0000000000000000000AA",
        };
        let path = self.path.replace("{account_id}", "acme").replace("{metric}", "api.calls");
        let path = path.replace("{delivery_id}", "msg_01J9Z0000000000000000000AA");
        path.replace("{id}", id).replace("{receipt}", "rcp_MC4x")
    }
}

/// Those whose answer ends: the stream is looked at by tests of its own.
pub(crate) fn that_end() -> Vec<Operation> {
    let mut operations = all();
    operations.retain(|operation| operation.path != "/v1/stream");
    operations
}
/// The operations that any valid credential may call.
pub(crate) const OPEN_TO_ANY: [(&str, &str); 1] = [("get", "/v1/whoami")];

/// The operations that OAuth clients call with their own credentials.
pub(crate) const OF_CLIENTS: [(&str, &str); 2] = [("post", "/v1/oauth/token"), ("post", "/v1/oauth/revoke")];

pub(crate) fn all() -> Vec<Operation> {
    [of_usage(), of_watching(), of_people()].into_iter().flatten().collect()
}

const fn of(method: Method, path: &'static str, scope: Scope, body: Option<Value>) -> Operation {
    Operation { method, path, scope, body }
}

/// Events, accounts, channels and alerts.
fn of_usage() -> Vec<Operation> {
    let event = json!({"account_id": "acme", "metric": "api.calls"});
    let quota = json!({"limit": 10, "period": "day"});
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/hook"});
    let alert = json!({"account_id": "acme", "rule": "used > 1", "channel": "webhook"});
    let name = json!({"name": "x"});
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    vec![
        of(post.clone(), "/v1/events", Scope::WriteEvents, Some(event.clone())),
        of(post.clone(), "/v1/events/batch", Scope::WriteEvents, Some(json!({"events": [event]}))),
        of(get.clone(), "/v1/receipts/{receipt}", Scope::WriteEvents, None),
        of(get.clone(), "/v1/accounts", Scope::ReadAccounts, None),
        of(post.clone(), "/v1/accounts", Scope::WriteAccounts, Some(json!({"id": "acme"}))),
        of(get.clone(), "/v1/accounts/{account_id}", Scope::ReadAccounts, None),
        of(patch.clone(), "/v1/accounts/{account_id}", Scope::WriteAccounts, Some(name.clone())),
        of(get.clone(), "/v1/accounts/{account_id}/quotas", Scope::ReadAccounts, None),
        of(put.clone(), "/v1/accounts/{account_id}/quotas/{metric}", Scope::WriteAccounts, Some(quota)),
        of(delete.clone(), "/v1/accounts/{account_id}/quotas/{metric}", Scope::WriteAccounts, None),
        of(get.clone(), "/v1/accounts/{account_id}/usage", Scope::ReadUsage, None),
        of(delete.clone(), "/v1/accounts/{account_id}", Scope::WriteAccounts, None),
        of(get.clone(), "/metrics", Scope::ReadMetrics, None),
        of(get.clone(), "/v1/metrics", Scope::ReadAccounts, None),
        of(put, "/v1/metrics/{metric}", Scope::WriteAccounts, Some(json!({"unit": "calls"}))),
        of(patch.clone(), "/v1/metrics/{metric}", Scope::WriteAccounts, Some(json!({"unit": null}))),
        of(delete.clone(), "/v1/metrics/{metric}", Scope::WriteAccounts, None),
        of(get.clone(), "/v1/channels", Scope::ReadChannels, None),
        of(post.clone(), "/v1/channels", Scope::WriteChannels, Some(channel)),
        of(get.clone(), "/v1/channels/{id}", Scope::ReadChannels, None),
        of(patch.clone(), "/v1/channels/{id}", Scope::WriteChannels, Some(name.clone())),
        of(delete.clone(), "/v1/channels/{id}", Scope::WriteChannels, None),
        of(get.clone(), "/v1/alerts", Scope::ReadAlerts, None),
        of(post.clone(), "/v1/alerts", Scope::WriteAlerts, Some(alert)),
        of(get.clone(), "/v1/alerts/{id}", Scope::ReadAlerts, None),
        of(patch.clone(), "/v1/alerts/{id}", Scope::WriteAlerts, Some(name.clone())),
        of(delete.clone(), "/v1/alerts/{id}", Scope::WriteAlerts, None),
        of(post.clone(), "/v1/alerts/{id}/pause", Scope::WriteAlerts, None),
        of(post.clone(), "/v1/alerts/{id}/resume", Scope::WriteAlerts, None),
        of(get.clone(), "/v1/alerts/{id}/instances", Scope::ReadAlerts, None),
        of(get.clone(), "/v1/alerts/{id}/history", Scope::ReadAlerts, None),
    ]
}

/// Endpoints, tests, questions, incidents and silences.
fn of_watching() -> Vec<Operation> {
    let preview = json!({"account_id": "acme", "rule": "used > 1", "from": "2026-11-01T00:00:00Z",
                         "to": "2026-11-01T01:00:00Z"});
    let silence = json!({"matchers": [{"name": "severity", "value": "info"}], "starts_at": "2026-01-01T00:00:00Z",
                         "ends_at": "2126-01-01T00:00:00Z"});
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        of(get.clone(), "/v1/webhooks", Scope::ReadWebhooks, None),
        of(post.clone(), "/v1/webhooks", Scope::WriteWebhooks, Some(json!({"url": "https://example.com/hook"}))),
        of(get.clone(), "/v1/webhooks/event-types", Scope::ReadWebhooks, None),
        of(get.clone(), "/v1/webhooks/{id}", Scope::ReadWebhooks, None),
        of(patch.clone(), "/v1/webhooks/{id}", Scope::WriteWebhooks, Some(json!({"rate_limit": 5}))),
        of(delete, "/v1/webhooks/{id}", Scope::WriteWebhooks, None),
        of(get.clone(), "/v1/webhooks/{id}/secret", Scope::ManageWebhookSecrets, None),
        of(post.clone(), "/v1/webhooks/{id}/rotate-secret", Scope::ManageWebhookSecrets, None),
        of(post.clone(), "/v1/webhooks/{id}/test", Scope::WriteWebhooks, None),
        of(post.clone(), "/v1/webhooks/{id}/pause", Scope::WriteWebhooks, None),
        of(post.clone(), "/v1/webhooks/{id}/resume", Scope::WriteWebhooks, None),
        of(get.clone(), "/v1/webhooks/{id}/deliveries", Scope::ReadWebhooks, None),
        of(
            post.clone(),
            "/v1/webhooks/{id}/replay",
            Scope::WriteWebhooks,
            Some(json!({"since": "2026-11-24T08:00:00Z"})),
        ),
        of(get.clone(), "/v1/deliveries/{id}", Scope::ReadWebhooks, None),
        of(post.clone(), "/v1/deliveries/{id}/redeliver", Scope::WriteWebhooks, None),
        of(get.clone(), "/v1/stream", Scope::ReadUsage, None),
        of(post.clone(), "/v1/alerts/{id}/test", Scope::WriteAlerts, None),
        of(post.clone(), "/v1/channels/{id}/test", Scope::WriteChannels, None),
        of(get.clone(), "/v1/channels/{id}/deliveries", Scope::ReadChannels, None),
        of(get.clone(), "/v1/channels/{id}/deliveries/{delivery_id}", Scope::ReadChannels, None),
        of(post.clone(), "/v1/channels/{id}/deliveries/{delivery_id}/redeliver", Scope::WriteChannels, None),
        of(post.clone(), "/v1/alerts/preview", Scope::ReadAlerts, Some(preview)),
        of(get.clone(), "/v1/alerts/{id}/explain", Scope::ReadAlerts, None),
        of(post.clone(), "/v1/usage/query", Scope::ReadUsage, Some(json!({}))),
        of(get.clone(), "/v1/incidents", Scope::ReadAlerts, None),
        of(get.clone(), "/v1/incidents/{id}", Scope::ReadAlerts, None),
        of(post.clone(), "/v1/incidents/{id}/ack", Scope::WriteAlerts, None),
        of(get.clone(), "/v1/silences", Scope::ReadSilences, None),
        of(post.clone(), "/v1/silences", Scope::WriteSilences, Some(silence.clone())),
        of(post.clone(), "/v1/silences/preview", Scope::ReadSilences, Some(silence)),
        of(get.clone(), "/v1/silences/{id}", Scope::ReadSilences, None),
        of(patch.clone(), "/v1/silences/{id}", Scope::WriteSilences, Some(json!({"comment": null}))),
        of(post.clone(), "/v1/silences/{id}/expire", Scope::WriteSilences, None),
    ]
}

/// Projects, credentials, the quarantine, the sandbox.
fn of_people() -> Vec<Operation> {
    let name = json!({"name": "x"});
    // A key of that scope alone can hand on nothing but it.
    let key = json!({"name": "ci", "scope": "write:keys"});
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        of(get.clone(), "/v1/projects", Scope::ReadProjects, None),
        of(post.clone(), "/v1/projects", Scope::WriteProjects, Some(name.clone())),
        of(get.clone(), "/v1/projects/{id}", Scope::ReadProjects, None),
        of(patch.clone(), "/v1/projects/{id}", Scope::WriteProjects, Some(name.clone())),
        of(delete.clone(), "/v1/projects/{id}", Scope::WriteProjects, None),
        of(get.clone(), "/v1/api-keys", Scope::ReadKeys, None),
        of(post.clone(), "/v1/api-keys", Scope::WriteKeys, Some(key.clone())),
        of(get.clone(), "/v1/api-keys/{id}", Scope::ReadKeys, None),
        of(patch.clone(), "/v1/api-keys/{id}", Scope::WriteKeys, Some(name.clone())),
        of(post.clone(), "/v1/api-keys/{id}/rotate", Scope::WriteKeys, None),
        of(post.clone(), "/v1/api-keys/{id}/revoke", Scope::WriteKeys, None),
        of(get.clone(), "/v1/oauth/clients", Scope::ReadKeys, None),
        of(post.clone(), "/v1/oauth/clients", Scope::WriteKeys, Some(key)),
        of(get.clone(), "/v1/oauth/clients/{id}", Scope::ReadKeys, None),
        of(patch.clone(), "/v1/oauth/clients/{id}", Scope::WriteKeys, Some(json!({"name": "x"}))),
        of(delete.clone(), "/v1/oauth/clients/{id}", Scope::WriteKeys, None),
        of(post.clone(), "/v1/oauth/clients/{id}/rotate-secret", Scope::WriteKeys, None),
        of(get.clone(), "/v1/workspace", Scope::AdminWorkspace, None),
        of(patch.clone(), "/v1/workspace", Scope::AdminWorkspace, Some(name.clone())),
        of(get.clone(), "/v1/quarantine", Scope::ReadEvents, None),
        of(post.clone(), "/v1/quarantine/{id}/replay", Scope::WriteEvents, None),
        of(post.clone(), "/v1/quarantine/{id}/discard", Scope::WriteEvents, None),
        of(get.clone(), "/v1/audit-log", Scope::ReadAudit, None),
        of(get.clone(), "/v1/sandbox", Scope::WriteSandbox, None),
        of(get, "/v1/sandbox/outbox", Scope::WriteSandbox, None),
        of(post.clone(), "/v1/sandbox/reset", Scope::WriteSandbox, None),
        of(post, "/v1/sandbox/clock/advance", Scope::WriteSandbox, Some(json!({"by": "1h"}))),
    ]
}
