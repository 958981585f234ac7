//! Whether the process lives, whether it can accept, how far behind it is, and what it counts.

use super::app::{App, Caller};
use super::docs::Problems;
use super::problem::Problem;
use crate::domain::control::resource::{Scope, WebhookStatus};
use crate::domain::id::{Log, Mode, Tenant};
use crate::domain::limits::{CLOCK_STEP_MAX, CONTROL_LAG_RECORDS_MAX};
use crate::domain::partition::fact::ENGINE_VERSION;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::rows::DeliveryId;
use crate::runtime::clock;
use crate::runtime::lag::{PartitionLag, folds_ahead_of};
use crate::runtime::node::Node;
use crate::telemetry::Readings;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;

/// The process lives; asks nothing else.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "alive", body = Object)))]
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether the node can accept. 503 where the journal cannot be written or does not answer, where this node is far behind the
/// control log, and in drain. A store that is away, a fold that lags, an intake that does, and clocks that
/// disagree (`checks.clock`) show in `checks` and are no 503.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, description = "can accept", body = Object), (status = 503, description = "cannot accept", body = Object)))]
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let node = &app.node;
    let log = match (node.has_failed(), node.answers.lately(), node.data.journal.is_writable()) {
        (true, _, _) => "failed",
        (false, false, _) => "unreachable",
        (false, true, false) => "not_writable",
        (false, true, true) => "ok",
    };
    let held = node.partitions.held();
    let store = if held.iter().any(|held| held.writer.is_degraded()) { "degraded" } else { "ok" };
    let control = node.data.control.position();
    let head = node.data.journal.end(Log::Control).max(control);
    let status = match (app.draining.load(Ordering::Relaxed), log) {
        (true, _) => "draining",
        (false, "ok") if head.0.saturating_sub(control.0) > CONTROL_LAG_RECORDS_MAX => "control_behind",
        (false, log) => log,
    };
    let checks = json!({
        "log": log,
        "disk_free_bytes": node.data.folder().free_bytes(),
        "control": {"position": control, "head": head, "lag_records": head.0.saturating_sub(control.0)},
        "folds": folds(&app),
        "intake": intake(&app),
        "store": store,
        "engine": engine(&app),
        "clock": clock_check(node),
        "intake_gaps": intake_gaps(&app),
    });
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"status": status, "checks": checks}))).into_response()
}

/// Whether time goes by clocks that agree: the node's wall clock, the one from its boot, and what the logs recorded.
fn clock_check(node: &Node) -> Value {
    let (now, wall_ahead) = (clock::now(), clock::wall_ahead());
    let fold_ahead = folds_ahead_of(&node.data.journal, &node.partitions, now);
    let status = match fold_ahead {
        Some(ahead) if ahead > CLOCK_STEP_MAX => "fold_ahead",
        Some(_) | None if wall_ahead > Millis::ZERO => "wall_clock_doubted",
        Some(_) | None => "ok",
    };
    let seconds = |span: Millis| span.0 / 1_000;
    json!({"status": status, "fold_ahead_seconds": fold_ahead.map(seconds), "wall_ahead_seconds": seconds(wall_ahead)})
}

fn folds(app: &App) -> Map<String, Value> {
    let of = |held: &std::sync::Arc<crate::runtime::partitions::Held>| {
        let lag = PartitionLag::read(&app.node.data.journal, held);
        let fold = json!({
            "position": lag.folded,
            "head": lag.head,
            "lag_records": lag.records(),
            "stored": lag.stored,
            "clock": lag.clock.to_string(),
            "owed": held.processor.gauges.owed.load(Ordering::Relaxed),
            "control": held.processor.gauges.control_through.load(Ordering::Relaxed),
            "engine_version": held.processor.gauges.engine_version.load(Ordering::Relaxed),
        });
        (format!("p{}", lag.partition.0), fold)
    };
    app.node.partitions.held().iter().map(of).collect()
}

/// How many gaps of the intake are on record, the newest one, and the partitions that this node does not read for one.
fn intake_gaps(app: &App) -> Value {
    let state = app.node.data.control.state();
    let gaps = state.intake().gaps();
    let newest = gaps.back().map(|noted| {
        let gap = &noted.gap;
        json!({
            "id": gap.id(),
            "partition": gap.partition,
            "cause": gap.cause.name(),
            "from_offset": gap.from,
            "to_offset": gap.to,
            "from": gap.read_until.map(|at| at.to_string()),
            "to": gap.left_from.to_string(),
            "found_at": noted.found_at.to_string(),
        })
    });
    json!({"recorded": gaps.len(), "newest": newest, "stopped_partitions": app.node.intake_gaps.stopped()})
}

/// The engine version of the control log (each partition's is in `folds`), what this release folds, what this node asks for
/// at most, and how many members fold which; of these nothing is known where the logs are at what is asked for.
fn engine(app: &App) -> Value {
    let versions = &app.node.versions;
    let members = versions.members().map(|counts| {
        let of = |(version, count): (u32, usize)| (version.to_string(), json!(count));
        counts.into_iter().map(of).collect::<Map<String, Value>>()
    });
    json!({
        "control_version": app.node.data.control.state().engine_version(),
        "release_version": ENGINE_VERSION,
        "asked_version": versions.own(),
        "members": members,
    })
}

/// The partitions of the intake as a whole, whoever reads them; `unknown` since when, where the brokers do not tell.
fn intake(app: &App) -> Value {
    match app.node.intake_clock.reading() {
        Err(since) => json!({"unknown_since": since.to_string()}),
        Ok(partitions) => {
            let of = |partition: &crate::runtime::lag::IntakePartition| {
                let one = json!({
                    "position": partition.committed,
                    "head": partition.head,
                    "lag_messages": partition.messages(),
                    "through": partition.through.map(|through| through.to_string()),
                });
                (format!("p{}", partition.partition), one)
            };
            Value::Object(partitions.iter().map(of).collect())
        }
    }
}

/// Everything that this process counts and measures, in Prometheus' text format. The admin listener has it without a key.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "scrape",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"), Problems),
    security(("key" = ["read:metrics"])))]
pub(super) async fn metrics(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::ReadMetrics)?;
    Ok(scraped(&app))
}

/// What a scrape is answered.
pub(super) fn scraped(app: &App) -> Response {
    let text = crate::telemetry::recorder().render() + &readings(app);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The gauges that are read when somebody asks, as text.
fn readings(app: &App) -> String {
    let mut readings = Readings::default();
    read_folds(app, &mut readings);
    read_intake(app, &mut readings);
    read_intake_gaps(app, &mut readings);
    let node = &app.node;
    let control = node.data.control.position();
    let head = node.data.journal.end(Log::Control).max(control);
    let degraded = node.partitions.held().iter().filter(|held| held.writer.is_degraded()).count();
    let one = |value: f64| [(None, value)];
    if let Some(free) = node.data.folder().free_bytes() {
        readings.gauge("highwater_disk_free_bytes", "Left of the disk that holds the data folder", &one(free as f64));
    }
    let help = "Bytes that request bodies hold at present";
    readings.gauge("highwater_body_memory_bytes", help, &one(app.bodies.held() as f64));
    let help = "Bytes that request bodies may hold";
    readings.gauge("highwater_body_memory_limit_bytes", help, &one(app.bodies.limit() as f64));
    let writable = f64::from(u8::from(node.data.journal.is_writable()));
    readings.gauge("highwater_log_writable", "1 where the journal took what was last appended", &one(writable));
    readings.gauge("highwater_control_head_position", "Last record of the control log", &one(head.0 as f64));
    readings.gauge("highwater_control_position", "Last control record that is folded here", &one(control.0 as f64));
    let version = f64::from(node.data.control.state().engine_version());
    let help = "The engine version that the control log asks for";
    readings.gauge("highwater_control_engine_version", help, &one(version));
    let help = "The engine version that this node asks the logs for at most";
    readings.gauge("highwater_engine_version_asked", help, &one(f64::from(node.versions.own())));
    readings.gauge(
        "highwater_partitions",
        "Partitions of the journal",
        &one(f64::from(node.data.journal.partitions())),
    );
    let answers = f64::from(u8::from(node.answers.lately()));
    readings.gauge("highwater_log_answers", "1 where the journal answered in the last 10 seconds", &one(answers));
    let help = "Partitions whose last write to the store failed";
    readings.gauge("highwater_store_degraded_partitions", help, &one(degraded as f64));
    let result = |name: &str, count: u64| (Some(("result", name.to_owned())), count as f64);
    let attempts = [
        result("delivered", node.tally.delivered.load(Ordering::Relaxed)),
        result("failed", node.tally.failed.load(Ordering::Relaxed)),
    ];
    readings.counter("highwater_notification_attempts_total", "Attempts to deliver, by result", &attempts);
    let lost = node.tally.lost.load(Ordering::Relaxed) as f64;
    let help = "Notifications that a channel lost: the last attempt failed, or the target refused for good";
    readings.counter("highwater_notifications_lost_total", help, &one(lost));
    let failing = failing_channels(app) as f64;
    readings.gauge("highwater_channels_failing", "Channels that lost a message and took none since", &one(failing));
    let posted = &node.posted;
    let deliveries = [
        result("delivered", posted.delivered.load(Ordering::Relaxed)),
        result("failed", posted.failed.load(Ordering::Relaxed)),
    ];
    let help = "Attempts to deliver to webhook endpoints, by result";
    readings.counter("highwater_webhook_deliveries_total", help, &deliveries);
    let dropped = node.drops.total() as f64;
    let help = "Events for webhook endpoints that were dropped because as many deliveries wait as may";
    readings.counter("highwater_webhook_dropped_total", help, &one(dropped));
    let waiting = posted.pending.load(Ordering::Relaxed) as f64;
    let help = "Messages to webhook endpoints that wait or are under way";
    readings.gauge("highwater_webhook_queue_depth", help, &one(waiting));
    let doubted = clock::wall_ahead().0 as f64 / 1_000.0;
    let help = "How far the wall clock is ahead of what the node goes by; 0 where it is believed";
    readings.gauge("highwater_wall_clock_ahead_seconds", help, &one(doubted));
    read_oldest_pending(node, &mut readings);
    let broken = crate::domain::invariant::breaches() as f64;
    readings.counter("highwater_invariants_broken_total", "Impossible states that were met", &one(broken));
    let version = [(Some(("version", env!("CARGO_PKG_VERSION").to_owned())), 1.0)];
    readings.gauge("highwater_build_info", "The release that runs", &version);
    readings.into_text()
}

/// How long the oldest message has been pending that this node is to deliver. It falls only when that one settles.
fn read_oldest_pending(node: &Node, readings: &mut Readings) {
    let now = clock::now();
    let age =
        |since: Option<Timestamp>| [(None, since.map_or(0.0, |since| now.since(since).0.max(0) as f64 / 1_000.0))];
    let help = "How long the oldest message to a channel has been pending, or the one in whose place it stands; 0 where none is";
    readings.gauge(
        "highwater_notification_oldest_pending_seconds",
        help,
        &age(node.tally.undelivered.oldest(|_| true)),
    );
    // What waits for an endpoint that is paused waits because its owner says so.
    let state = node.data.control.state();
    let is_sent_to = |(tenant, id): &(Tenant, DeliveryId)| {
        state.webhook(*tenant, id.webhook).is_some_and(|webhook| webhook.status == WebhookStatus::Enabled)
    };
    let help = "How long the oldest message to an endpoint that is enabled has been pending; 0 where none is";
    readings.gauge("highwater_webhook_oldest_pending_seconds", help, &age(node.posted.undelivered.oldest(is_sent_to)));
}

/// How many channels of any tenant lose messages.
fn failing_channels(app: &App) -> usize {
    let state = app.node.data.control.state();
    let modes = |id| [Mode::Live, Mode::Sandbox].map(|mode| Tenant { workspace: id, mode });
    let tenants = state.workspaces().flat_map(|workspace| modes(workspace.id));
    tenants.map(|tenant| state.channels(tenant).filter(|channel| channel.failing_since.is_some()).count()).sum()
}

/// What is known of the partitions that are folded here; of each by its number.
fn read_folds(app: &App, readings: &mut Readings) {
    let held = app.node.partitions.held();
    let lags: Vec<PartitionLag> = held.iter().map(|held| PartitionLag::read(&app.node.data.journal, held)).collect();
    let mut of = |name: &str, help: &str, value: &dyn Fn(&PartitionLag) -> f64| {
        let sample = |lag: &PartitionLag| (Some(("partition", lag.partition.0.to_string())), value(lag));
        readings.gauge(name, help, &lags.iter().map(sample).collect::<Vec<_>>());
    };
    of("highwater_log_head_position", "Last record of the partition's log", &|lag| lag.head.0 as f64);
    of("highwater_fold_position", "Last record that was folded", &|lag| lag.folded.0 as f64);
    of("highwater_fold_lag_records", "Records that wait to be folded", &|lag| lag.records() as f64);
    of("highwater_fold_clock_seconds", "The fold's clock, its watermark", &|lag| seconds(lag.clock));
    let now = clock::now();
    of("highwater_fold_clock_ahead_seconds", "The fold's clock minus the node's", &|lag| {
        lag.ahead_of(now).unwrap_or_default().0 as f64 / 1_000.0
    });
    of("highwater_store_position", "Last record whose rows are stored", &|lag| lag.stored.0 as f64);
    of("highwater_store_lag_records", "Folded records that wait to be stored", &|lag| lag.unstored() as f64);
    let gauges = |value: fn(&crate::runtime::processor::Gauges) -> u64| {
        let sample = |held: &std::sync::Arc<crate::runtime::partitions::Held>| {
            let label = ("partition", held.processor.partition.0.to_string());
            (Some(label), value(&held.processor.gauges) as f64)
        };
        held.iter().map(sample).collect::<Vec<_>>()
    };
    let owed = gauges(|gauges| gauges.owed.load(Ordering::Relaxed));
    let versions = gauges(|gauges| u64::from(gauges.engine_version.load(Ordering::Relaxed)));
    readings.gauge("highwater_engine_version", "The engine version that the partition's log asks for", &versions);
    readings.gauge("highwater_notifications_owed", "Notifications that no destination has taken yet", &owed);
    let remembered = gauges(|gauges| gauges.remembered.load(Ordering::Relaxed));
    readings.gauge("highwater_dedup_ids", "Event ids that are remembered", &remembered);
}

/// What this node found missing in the public topic.
fn read_intake_gaps(app: &App, readings: &mut Readings) {
    let (gaps, messages) = app.node.intake_gaps.counts();
    let help = "Gaps of the intake that this node found: messages that were gone before they were read";
    readings.counter("highwater_intake_gaps_total", help, &[(None, gaps as f64)]);
    let help =
        "Messages that are known to be gone with them; how many went with a topic that was made anew nobody knows";
    readings.counter("highwater_intake_lost_messages_total", help, &[(None, messages as f64)]);
    let newest = app.node.data.control.state().intake().gaps().back().map_or(0.0, |noted| seconds(noted.found_at));
    let help = "When the newest gap of the intake was recorded, by whichever node; 0 where there is none";
    readings.gauge("highwater_intake_last_gap_seconds", help, &[(None, newest)]);
    let help = "Partitions of the intake that this node does not read for a gap (on_intake_gap=stop)";
    let stopped = app.node.intake_gaps.stopped().len() as f64;
    readings.gauge("highwater_intake_stopped_partitions", help, &[(None, stopped)]);
}

/// What the brokers say of the public topic; the same on every node. Nothing where they did not say it lately.
fn read_intake(app: &App, readings: &mut Readings) {
    let Ok(partitions) = app.node.intake_clock.reading() else { return };
    let label = |partition: i32| Some(("partition", partition.to_string()));
    let heads: Vec<_> = partitions.iter().map(|of| (label(of.partition), of.head as f64)).collect();
    let committed: Vec<_> = partitions.iter().map(|of| (label(of.partition), of.committed as f64)).collect();
    let lags: Vec<_> = partitions.iter().map(|of| (label(of.partition), of.messages() as f64)).collect();
    let through = partitions.iter().filter_map(|of| Some((label(of.partition), seconds(of.through?))));
    readings.gauge("highwater_intake_head_offset", "Offset behind the last message of the intake", &heads);
    readings.gauge("highwater_intake_committed_offset", "Offset up to which messages are in the journal", &committed);
    readings.gauge("highwater_intake_lag_messages", "Messages that wait to be copied into the journal", &lags);
    let help = "Record time up to which everything is in the journal";
    readings.gauge("highwater_intake_through_seconds", help, &through.collect::<Vec<_>>());
}

fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}
