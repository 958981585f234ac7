//! Sending events, and asking whether they are counted.

use super::app::{App, Caller};
use super::change::{idempotency_key, spread};
use super::docs::Problems;
use super::event_schema::{CloudEvent, EventBatch, NativeEvent};
use super::input::{Query, essence, unsupported};
use super::problem::{Fault, Problem};
use super::receipt::Receipt;
use crate::domain::control::resource::Scope;
use crate::domain::event::{
    BodyError, ContentKind, EventWarning, Item, Refusal, RefusalCode, id_of, parse_binary_cloudevent, parse_events,
};
use crate::domain::id::Position;
use crate::domain::limits::{EVENT_BYTES_MAX, JSON_BODY_BYTES_MAX, NDJSON_BODY_BYTES_MAX};
use crate::journal::AppendError;
use crate::runtime::clock;
use crate::runtime::ingest::{IdSource, NamedEvent, Sender};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode;
use serde::Serialize;
use utoipa::ToSchema;

const ACCEPTED_TYPES: &str =
    "application/json, application/cloudevents+json, application/cloudevents-batch+json, application/x-ndjson";

/// What became of the events of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IngestAnswer {
    /// How many were accepted: they are durable.
    accepted: usize,
    /// How many were refused.
    rejected: usize,
    /// Stands for the accepted events; `usage?after=` waits until they are counted. Absent where none was accepted.
    receipt: Option<String>,
    /// The refused events, and those accepted with warnings; all of them with `verbose=true`.
    results: Vec<IngestResult>,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IngestResult {
    /// Its place in the request, from 0; for NDJSON its line.
    index: usize,
    /// Its id, given or made; of a refused event the given one, where it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// `accepted` or `rejected`.
    status: &'static str,
    /// Why it was refused, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why it was refused, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Where in the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// What was changed about the dimensions of an accepted event, one for each kind; absent where nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<IngestWarning>,
}

/// What was changed about an event that is accepted and counted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IngestWarning {
    /// What it is, for programs.
    #[schema(example = "dimension_text_cut")]
    code: &'static str,
    /// What it is, for people, with the names of the first dimensions.
    detail: String,
    /// The first dimension that it happened to, as a JSON pointer into the event.
    pointer: String,
}

impl From<EventWarning> for IngestWarning {
    fn from(warning: EventWarning) -> Self {
        Self { code: warning.code.text(), detail: warning.detail, pointer: warning.pointer }
    }
}

/// Sends events, in any of the content types: one native event, CloudEvents (structured, batch, or binary by `ce-`
/// headers), or one event a line.
///
/// The body may be packed with gzip (any number of members), deflate or zstd. Dimensions refuse no event: what cannot be
/// kept of them is changed or left out, and the event's result has a warning.
#[utoipa::path(
    post, path = "/v1/events", tag = "events",
    params(("verbose" = Option<bool>, Query, description = "Lists accepted events without warnings too"),
           ("Idempotency-Key" = Option<String>, Header, max_length = 255,
            description = "Gives events without an id one that a retry repeats")),
    request_body(description = "One native event (or, with `ce-` headers, the data of a binary CloudEvent), CloudEvents, \
                                or lines of either", content(
        (NativeEvent = "application/json"), (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"), (String = "application/x-ndjson"))),
    responses((status = 202, body = IngestAnswer), Problems), security(("key" = ["write:events"]))
)]
pub(super) async fn send(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteEvents)?;
    let declared = essence(&headers);
    if is_binary(&headers) {
        return binary(&app, &caller, query.as_deref(), (&headers, &body)).await;
    }
    let kind = match declared.as_deref() {
        None | Some("application/json") => ContentKind::Native,
        Some("application/cloudevents+json") => ContentKind::CloudEvent,
        Some("application/cloudevents-batch+json") => ContentKind::CloudEventBatch,
        Some(other) if LINES_TYPES.contains(&other) => ContentKind::Lines,
        Some(other) => return Err(unsupported(other, ACCEPTED_TYPES)),
    };
    take(&app, &caller, query.as_deref(), (&headers, &body), kind).await
}

/// The content types of one event a line.
const LINES_TYPES: [&str; 3] = ["application/x-ndjson", "application/jsonl", "application/ndjson"];

/// Whether headers make a body the data of a binary CloudEvent: all that have its headers, and do not say that the event is
/// structured.
fn is_binary(headers: &HeaderMap) -> bool {
    let is_structured = essence(headers).is_some_and(|kind| kind.starts_with("application/cloudevents"));
    !is_structured && headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

/// How many bytes a body of `POST /v1/events` may have.
pub(super) fn body_limit(headers: &HeaderMap) -> usize {
    if is_binary(headers) {
        EVENT_BYTES_MAX
    } else if essence(headers).is_some_and(|kind| LINES_TYPES.contains(&kind.as_str())) {
        NDJSON_BODY_BYTES_MAX
    } else {
        JSON_BODY_BYTES_MAX
    }
}

/// Sends a batch of native events: `{"events":[…]}`.
#[utoipa::path(
    post, path = "/v1/events/batch", tag = "events",
    params(("verbose" = Option<bool>, Query, description = "Lists accepted events without warnings too"),
           ("Idempotency-Key" = Option<String>, Header, max_length = 255,
            description = "Gives events without an id one that a retry repeats")),
    request_body(description = "At most 1,000 events; a bare array is taken, too", content((EventBatch = "application/json"))),
    responses((status = 202, body = IngestAnswer), Problems), security(("key" = ["write:events"]))
)]
pub(super) async fn send_batch(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteEvents)?;
    match essence(&headers).as_deref() {
        None | Some("application/json") => {}
        Some(other) => return Err(unsupported(other, "application/json")),
    }
    take(&app, &caller, query.as_deref(), (&headers, &body), ContentKind::NativeBatch).await
}

async fn take(
    app: &App,
    caller: &Caller,
    query: Option<&str>,
    (headers, body): (&HeaderMap, &Bytes),
    kind: ContentKind,
) -> Result<Response, Problem> {
    let items = parse_events(body, kind).map_err(|error| match error {
        BodyError::Malformed { detail } => Problem::bad_request("malformed_json", detail),
        BodyError::TooMany { limit, .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", error.to_string()).with("limit", limit)
        }
    })?;
    if kind == ContentKind::CloudEvent {
        sound(&items)?;
    }
    ingest(app, caller, (query, headers), items, None).await
}

/// Makes sure that a lone CloudEvent is one.
///
/// # Errors
/// 400 where it breaks its specification: there is no event then that could be refused.
fn sound(items: &[Item<'_>]) -> Result<(), Problem> {
    let [Item { event: Err(refusal), .. }] = items else { return Ok(()) };
    if refusal.code != RefusalCode::InvalidCloudevent {
        return Ok(());
    }
    crate::telemetry::counter("highwater_events_ingested_total", &[("result", "rejected")], 1);
    let (code, detail) = (refusal.code.text(), refusal.detail.clone());
    let pointer = refusal.pointer.clone().unwrap_or_default();
    let fault = Fault { pointer, code: code.to_owned(), detail: detail.clone(), ..Fault::default() };
    Err(Problem { errors: vec![fault], ..Problem::bad_request(code, detail) })
}

async fn binary(
    app: &App,
    caller: &Caller,
    query: Option<&str>,
    (headers, body): (&HeaderMap, &Bytes),
) -> Result<Response, Problem> {
    let attributes: Vec<(String, Vec<u8>)> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("ce-")?.to_owned(), value.as_bytes().to_vec())))
        .collect();
    let items = vec![Item { index: 0, bytes: body, event: parse_binary_cloudevent(&attributes, body) }];
    sound(&items)?;
    let id = attributes.iter().find(|(name, _)| name == "id").map(|(_, id)| percent_decode(id).decode_utf8_lossy());
    ingest(app, caller, (query, headers), items, id.as_deref()).await
}

/// `beside` is the id of a lone event that does not stand in its bytes.
async fn ingest(
    app: &App,
    caller: &Caller,
    (query, headers): (Option<&str>, &HeaderMap),
    items: Vec<Item<'_>>,
    beside: Option<&str>,
) -> Result<Response, Problem> {
    let query = Query::read(query, &["verbose"])?;
    let verbose = query.read_as("verbose", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    let ids = match idempotency_key(headers)? {
        Some(key) => IdSource::Derived { lineage: caller.principal.lineage.to_string(), key },
        None => IdSource::Fresh,
    };
    let sender = Sender { tenant: caller.principal.tenant, ids, backfill: false };
    let mut results = Vec::new();
    let mut prepared = {
        let mut batch = app.node.ingest.batch(&sender);
        if verbose {
            batch = batch.naming_all();
        }
        for Item { index, bytes, event } in items {
            let taken = event.and_then(|event| batch.push(index, bytes, &event));
            if let Err(refusal) = taken {
                let id = beside.map(str::to_owned).or_else(|| id_of(bytes));
                results.push(rejected(index, id, refusal));
            }
        }
        batch.finish()
    };
    let (accepted, rejected) = (prepared.accepted, results.len());
    crate::telemetry::counter("highwater_events_ingested_total", &[("result", "accepted")], accepted as u64);
    crate::telemetry::counter("highwater_events_ingested_total", &[("result", "rejected")], rejected as u64);
    results.extend(std::mem::take(&mut prepared.named).into_iter().map(accepted_event));
    results.sort_by_key(|result| result.index);
    if accepted == 0 && rejected > 0 {
        let answer = IngestAnswer { accepted, rejected, receipt: None, results };
        let mut problem =
            Problem::unprocessable("batch_rejected", format!("none of the {rejected} events was accepted"));
        if let Ok(serde_json::Value::Object(members)) = serde_json::to_value(&answer) {
            problem.members.extend(members);
        }
        return Err(problem);
    }
    behind_reset(app, caller).await;
    let appended = app.node.ingest.append(prepared).await;
    let positions = appended.map_err(|error| not_taken(app, caller, error))?;
    let receipt = Some(Receipt(positions)).filter(|receipt| !receipt.0.is_empty()).map(|receipt| receipt.to_string());
    let answer = IngestAnswer { accepted, rejected, receipt, results };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Waits until the partitions of this node know of a sandbox's newest reset, so that events of the time behind it never
/// meet a clock that is still ahead.
pub(super) async fn behind_reset(app: &App, caller: &Caller) {
    let epoch = app.node.data.control.state().sandbox(caller.principal.tenant).map(|sandbox| sandbox.epoch);
    if let Some(epoch) = epoch {
        spread(app, Position(epoch.0)).await;
    }
}

fn accepted_event(event: NamedEvent) -> IngestResult {
    IngestResult {
        index: event.index,
        id: Some(event.id),
        status: "accepted",
        code: None,
        detail: None,
        pointer: None,
        warnings: event.warnings.into_iter().map(IngestWarning::from).collect(),
    }
}

fn rejected(index: usize, id: Option<String>, refusal: Refusal) -> IngestResult {
    IngestResult {
        index,
        id,
        status: "rejected",
        code: Some(refusal.code.text()),
        detail: Some(refusal.detail),
        pointer: refusal.pointer,
        warnings: Vec::new(),
    }
}

/// 503: any part of the events may be in; ids make the retry safe.
pub(super) fn not_taken(app: &App, caller: &Caller, error: AppendError) -> Problem {
    if !matches!(error, AppendError::TooLarge { .. }) {
        app.node.pressure.note(caller.principal.tenant, clock::now());
    }
    not_appended(error)
}

/// As [`not_taken`], for what is no request with events.
pub(super) fn not_appended(error: AppendError) -> Problem {
    tracing::warn!(error = %error, "events could not be appended");
    match error {
        AppendError::TooLarge { limit, .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", error.to_string()).with("limit", limit)
        }
        AppendError::ReadOnly { .. } => Problem::read_only(),
        AppendError::Overloaded { .. }
        | AppendError::Storage { .. }
        | AppendError::Damaged { .. }
        | AppendError::Closed => Problem::unavailable(
            "overloaded",
            "the journal did not take all events; send them again: those with an id, or under an Idempotency-Key, count once",
        ),
    }
}

/// Whether events are counted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReceiptAnswer {
    /// The receipt.
    receipt: String,
    /// Whether every answer includes the events.
    applied: bool,
}

/// Tells whether the events of a receipt are counted.
#[utoipa::path(
    get, path = "/v1/receipts/{receipt}", tag = "events", params(("receipt" = String, Path)),
    responses((status = 200, body = ReceiptAnswer), Problems), security(("key" = ["write:events"]))
)]
pub(super) async fn receipt(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(receipt): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteEvents)?;
    Query::read(query.as_deref(), &[])?;
    let read = Receipt::parse(&receipt).ok_or_else(|| Problem::not_found("receipt"))?;
    let applied = read.is_applied(&app).await?;
    Ok(Json(ReceiptAnswer { receipt, applied }).into_response())
}
