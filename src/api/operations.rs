//! Whether the process lives, whether it can accept, and what it counts.

use super::app::App;
use crate::domain::id::Log;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;

/// The process lives; asks nothing else.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "alive", body = Object)))]
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether the node can accept. A store that is away or a fold that lags shows in `checks` and is no 503.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, description = "can accept", body = Object), (status = 503, description = "cannot accept", body = Object)))]
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let draining = app.draining.load(Ordering::Relaxed);
    let failed = app.node.has_failed();
    let mut folds = Map::new();
    let held = app.node.partitions.held();
    for processor in held.iter().map(|held| &held.processor) {
        let end = app.node.data.journal.end(Log::Partition(processor.partition)).0;
        let position = processor.gauges.position.load(Ordering::Relaxed);
        let owed = processor.gauges.owed.load(Ordering::Relaxed);
        let lag = end.saturating_sub(position);
        folds.insert(
            format!("p{}", processor.partition.0),
            json!({"position": position, "lag_records": lag, "owed": owed}),
        );
    }
    let store = if held.iter().any(|held| held.writer.is_degraded()) { "degraded" } else { "ok" };
    let status = match (draining, failed) {
        (true, _) => "draining",
        (false, true) => "failed",
        (false, false) => "ok",
    };
    let checks = json!({"log": if failed { "failed" } else { "ok" }, "folds": folds, "store": store});
    let code = if draining || failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(json!({"status": status, "checks": checks}))).into_response()
}

/// Sets the gauges that are read rather than counted.
pub(super) fn refresh_gauges(app: &App) {
    use crate::telemetry::gauge;
    let held = app.node.partitions.held();
    for processor in held.iter().map(|held| &held.processor) {
        let label = || vec![("partition", processor.partition.0.to_string())];
        let end = app.node.data.journal.end(Log::Partition(processor.partition)).0;
        let position = processor.gauges.position.load(Ordering::Relaxed);
        gauge("highwater_log_head_position", label(), end as f64);
        gauge("highwater_fold_lag_records", label(), end.saturating_sub(position) as f64);
        gauge("highwater_fold_clock_seconds", label(), processor.gauges.clock.load(Ordering::Relaxed) as f64 / 1_000.0);
        gauge("highwater_notifications_owed", label(), processor.gauges.owed.load(Ordering::Relaxed) as f64);
        gauge("highwater_dedup_ids", label(), processor.gauges.remembered.load(Ordering::Relaxed) as f64);
    }
    let degraded = held.iter().filter(|held| held.writer.is_degraded()).count();
    gauge("highwater_store_degraded_partitions", vec![], degraded as f64);
    let tally = &app.node.tally;
    let result = |name: &str| vec![("result", name.to_owned())];
    gauge("highwater_notifications_attempted", result("delivered"), tally.delivered.load(Ordering::Relaxed) as f64);
    gauge("highwater_notifications_attempted", result("failed"), tally.failed.load(Ordering::Relaxed) as f64);
    let posted = &app.node.posted;
    gauge("highwater_webhook_deliveries", result("delivered"), posted.delivered.load(Ordering::Relaxed) as f64);
    gauge("highwater_webhook_deliveries", result("failed"), posted.failed.load(Ordering::Relaxed) as f64);
    gauge("highwater_webhook_queue_depth", vec![], posted.pending.load(Ordering::Relaxed) as f64);
    gauge("highwater_invariants_broken", vec![], crate::domain::invariant::breaches() as f64);
    gauge("highwater_build_info", vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
}
