//! Metric names, and how logs are set up. Nothing else names a metric.

use hashbrown::{Equivalent, HashMap};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::error::Error;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::{OnceLock, PoisonError, RwLock};

mod log_filter;
mod mask;

pub use log_filter::LogFilterError;
pub use mask::has_secret;

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to standard error; `filter` is a level, or directives such as `info,highwater::api=debug`.
///
/// # Errors
/// Where a word of the filter is neither a level nor a directive with one.
pub fn init_log(filter: &str, format: LogFormat) -> Result<(), LogFilterError> {
    let filter = log_filter::parse(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| mask::Masked(std::io::stderr()));
    // A line that cannot be written, as where the terminal is gone, is no reason to end: the layer would panic over it.
    let log = log.log_internal_errors(false);
    // Colours are for people: a file and a collector would keep their escapes.
    let log = log.with_ansi(std::io::stderr().is_terminal());
    let set = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // A second call, in tests, finds the log there already.
    drop(set);
    Ok(())
}

/// Seconds that the histograms tell apart: from a tenth of a millisecond to half a minute.
const BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The classes of an answer's status. One counter for each, since those of a route begin with their first answer: a rate over
/// them misses that one, and a ratio is nothing before it.
const ANSWER_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The histograms without labels, which are told from the start as well.
const HISTOGRAMS: [&str; 3] = [
    "highwater_log_append_duration_seconds",
    "highwater_webhook_delivery_duration_seconds",
    "highwater_alert_evaluation_delay_seconds",
];

/// Every counter with each value of its label. All of them are told from the start: what was never counted is zero, and
/// no alert waits for a first time.
const COUNTERS: [(&str, &str, &[&str]); 14] = [
    ("highwater_http_answers_total", "class", &ANSWER_CLASSES),
    ("highwater_events_ingested_total", "result", &["accepted", "rejected"]),
    (
        "highwater_event_warnings_total",
        "code",
        &[
            "dimensions_left_out",
            "dimension_name_invalid",
            "dimension_nested",
            "dimension_repeated",
            "dimension_number_as_text",
            "dimension_text_cut",
            "dimension_text_repaired",
        ],
    ),
    ("highwater_intake_messages_total", "result", &["accepted", "rejected"]),
    ("highwater_events_folded_total", "result", &["counted", "duplicate", "conflict"]),
    ("highwater_events_late_total", "", &[]),
    ("highwater_events_ungrouped_total", "", &[]),
    ("highwater_alert_evaluations_total", "", &[]),
    ("highwater_alert_late_uncorrected_total", "", &[]),
    ("highwater_rate_limited_total", "policy", &["default", "sandbox", "ingest", "auth-failures"]),
    ("highwater_bodies_refused_total", "credential", &["present", "none"]),
    ("highwater_requests_uncounted_total", "", &[]),
    ("highwater_idempotency_total", "outcome", &["new", "replayed", "reused", "in_progress"]),
    (
        "highwater_auth_failures_total",
        "reason",
        &[
            "authentication_required",
            "invalid_api_key",
            "api_key_expired",
            "api_key_revoked",
            "token_expired",
            "ip_not_allowed",
            "invalid_client",
        ],
    ),
];

/// What gathers the metrics of this process, made at the first call.
pub fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let seconds = Matcher::Suffix("_seconds".to_owned());
            let builder = PrometheusBuilder::new();
            // The buckets are a constant that is not empty, the only thing that is refused.
            let builder =
                builder.set_buckets_for_metric(seconds, &BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::debug!("another recorder gathers the metrics of this process");
            }
            COUNTERS.iter().for_each(announce);
            HISTOGRAMS.iter().for_each(announce_histogram);
            handle
        })
        .clone()
}

#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
fn announce((name, label, values): &(&'static str, &'static str, &'static [&'static str])) {
    if values.is_empty() {
        metrics::counter!(*name).absolute(0);
    }
    for value in *values {
        metrics::counter!(*name, &vec![(*label, *value)]).absolute(0);
    }
}

#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
fn announce_histogram(name: &&'static str) {
    drop(metrics::histogram!(*name));
}

/// Counts an answer by the class of its status.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
fn count_answer(status: u16) {
    static BY_CLASS: OnceLock<[metrics::Counter; ANSWER_CLASSES.len()]> = OnceLock::new();
    let by_class = BY_CLASS.get_or_init(|| {
        recorder();
        ANSWER_CLASSES.map(|class| metrics::counter!("highwater_http_answers_total", "class" => class))
    });
    if let Some(counter) = usize::from(status / 100).checked_sub(2).and_then(|class| by_class.get(class)) {
        counter.increment(1);
    }
}

/// Prints an error with its causes: `append the command: disk full`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a string cannot fail.
        let _written = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// An answered request as its histogram names it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Answered<R> {
    method: &'static str,
    route: R,
    status: u16,
}

impl Equivalent<Answered<Box<str>>> for Answered<&str> {
    fn equivalent(&self, known: &Answered<Box<str>>) -> bool {
        self.method == known.method && self.route == &*known.route && self.status == known.status
    }
}

type Histograms = HashMap<Answered<Box<str>>, metrics::Histogram>;

/// Adds an answered request to the histogram of its method, route and status, which is found without copying a label.
///
/// `method` and `route` are some of a few, never what a caller made up: each pair is kept for good.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn answered(method: &'static str, route: &str, status: u16, elapsed: std::time::Duration) {
    static KNOWN: OnceLock<RwLock<Histograms>> = OnceLock::new();
    count_answer(status);
    let known = KNOWN.get_or_init(RwLock::default);
    let asked = Answered { method, route, status };
    if let Some(histogram) = known.read().unwrap_or_else(PoisonError::into_inner).get(&asked) {
        return histogram.record(elapsed.as_secs_f64());
    }
    // A histogram that is made before the recorder would record nothing for good.
    recorder();
    let labels = [
        ("http_request_method", method.to_owned()),
        ("http_route", route.to_owned()),
        ("http_response_status_code", status.to_string()),
    ];
    let histogram = metrics::histogram!("http_server_request_duration_seconds", &labels);
    histogram.record(elapsed.as_secs_f64());
    let asked = Answered { method, route: route.into(), status };
    known.write().unwrap_or_else(PoisonError::into_inner).insert(asked, histogram);
}

/// Counts what a batch of a fold did.
pub fn count_fold(counts: &crate::domain::partition::effect::Counts) {
    counter("highwater_events_folded_total", &[("result", "counted")], counts.events);
    counter("highwater_events_folded_total", &[("result", "duplicate")], counts.duplicates);
    counter("highwater_events_folded_total", &[("result", "conflict")], counts.conflicts);
    counter("highwater_events_late_total", &[], counts.late);
    counter("highwater_events_ungrouped_total", &[], counts.ungrouped);
    counter("highwater_alert_evaluations_total", &[], counts.evaluations);
    counter("highwater_alert_late_uncorrected_total", &[], counts.late_uncorrected);
}

/// Adds to a counter. Labels are few and never name a tenant.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn counter(name: &'static str, labels: &[(&'static str, &'static str)], by: u64) {
    crate::check!(is_announced(name, labels), "telemetry.counters_are_announced");
    if by > 0 {
        metrics::counter!(name, &labels.to_vec()).increment(by);
    }
}

fn is_announced(name: &str, labels: &[(&str, &str)]) -> bool {
    let fits = |label: &str, values: &[&str]| match labels {
        [] => values.is_empty(),
        [(known, value)] => *known == label && values.contains(value),
        [..] => false,
    };
    COUNTERS.iter().any(|(known, label, values)| *known == name && fits(label, values))
}

/// What is read when somebody asks, in Prometheus' text format: nothing of it stays behind, so that a partition which was
/// given back is not told any more.
#[derive(Debug, Default)]
pub struct Readings(String);

impl Readings {
    /// Adds a gauge with all of its samples; the label's values are few and never name a tenant.
    pub fn gauge(&mut self, name: &str, help: &str, samples: &[(Option<(&str, String)>, f64)]) {
        self.add("gauge", (name, help), samples);
    }

    /// Adds a counter that is kept elsewhere.
    pub fn counter(&mut self, name: &str, help: &str, samples: &[(Option<(&str, String)>, f64)]) {
        self.add("counter", (name, help), samples);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn add(&mut self, kind: &str, (name, help): (&str, &str), samples: &[(Option<(&str, String)>, f64)]) {
        if samples.is_empty() {
            return;
        }
        // Writing to a string cannot fail.
        let _written = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (label, value) in samples {
            let _written = match label {
                Some((label, of)) => writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}"),
                None => writeln!(self.0, "{name} {value}"),
            };
        }
    }
}

/// Adds to a histogram of seconds.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn seconds(name: &'static str, labels: Vec<(&'static str, String)>, elapsed: std::time::Duration) {
    metrics::histogram!(name, &labels).record(elapsed.as_secs_f64());
}
