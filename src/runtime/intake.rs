//! The intake: messages of a public topic become frames of the journal, and only then are they committed.
//!
//! A crash between the two copies some messages twice, and dedup removes them. What cannot be read or is refused becomes
//! an entry of the quarantine, durable before the commit; nothing stops a partition.

use super::clock;
use super::control::ControlPlane;
use super::ingest::{Batch, IdSource, Ingest, Prepared, Sender};
use super::intake_places::{IntakePlaces, PlacesDeps};
use super::lag::{IntakeClock, IntakePartition};
use crate::domain::event::{Refusal, RefusalCode, UsageEvent, parse_binary_cloudevent, parse_line};
use crate::domain::id::{AccountId, Log, Mode, PartitionId, Position, QuarantineId, Stamp, Tenant, WorkspaceId};
use crate::domain::limits::{EVENT_BYTES_MAX, INTAKE_BATCH_MESSAGES, QUARANTINE_BYTES_MAX};
use crate::domain::partition::effect::{QuarantineRow, QuarantineStatus};
use crate::domain::partition::fact::Note;
use crate::domain::routing::partition_of;
use crate::journal::{
    AppendError, IntakeGauge, IntakeLag, IntakeMessage, IntakeProgress, IntakeReader, KafkaSettings, OpenError,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the brokers are asked how far the intake is.
const GAUGE_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a batch that the journal did not take waits before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
const WORKSPACE_HEADER: &str = "hw-workspace";
const MODE_HEADER: &str = "hw-mode";
const BINARY_PREFIX: &str = "ce_";

/// A running intake; it ends when it is stopped.
#[derive(Debug)]
pub struct Intake {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Why the intake does not run.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The group cannot be joined, or the topic is not as it must be.
    #[error("read the intake")]
    Open(#[from] OpenError),
    /// The client cannot be made.
    #[error("read how far the intake is: {0}")]
    Gauge(String),
    /// The operating system gave no thread.
    #[error("start a thread")]
    Thread(#[from] std::io::Error),
}

impl Intake {
    /// Starts to copy messages, and to tell how far the intake as a whole has come. Nothing starts where the settings name
    /// no intake.
    ///
    /// # Errors
    /// Where the group cannot be joined or the operating system gives no thread.
    pub async fn begin(
        settings: &KafkaSettings,
        ingest: Ingest,
        time: IntakeClock,
        deps: PlacesDeps,
    ) -> Result<Option<Self>, IntakeError> {
        let Some(start) = settings.intake else { return Ok(None) };
        let reader = Arc::new(IntakeReader::join(settings, start).await?);
        tracing::info!(
            topic = settings.intake_topic,
            ?start,
            "reading the intake; what the group has read it does not read again"
        );
        let gauge = IntakeGauge::new(settings).map_err(|error| IntakeError::Gauge(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Handle::current();
        let topic = settings.intake_topic.clone();
        let control = deps.control.clone();
        let places = IntakePlaces::new(deps, topic.clone(), settings.on_intake_gap);
        let read = Arc::clone(&reader);
        let copier = Copier { reader, topic, ingest, control, runtime, stop: Arc::clone(&stop) };
        let copying = std::thread::Builder::new().name("intake".to_owned()).spawn(move || copier.run(places))?;
        let stopped = Arc::clone(&stop);
        let reading = std::thread::Builder::new().name("intake-gauge".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                read_gauge(&gauge, &time);
                if let Err(error) = gauge.look_back(&read, clock::now()) {
                    tracing::debug!(error = %error, "what was read of the intake cannot be looked at");
                }
                std::thread::sleep(GAUGE_EVERY);
            }
        })?;
        Ok(Some(Self { stop, threads: vec![copying, reading] }))
    }

    /// Stops behind the batch that is under way.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the intake panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(error = %error, "the intake could not be stopped in order");
        }
    }
}

/// Reads how far the intake is. Where the brokers do not answer, the last reading stands: time is held back.
fn read_gauge(gauge: &IntakeGauge, time: &IntakeClock) {
    // A message that comes during the reading is of a later time than this.
    let now = clock::now();
    match gauge.read() {
        Ok(lags) => {
            let read = |lag: &IntakeLag| IntakePartition {
                partition: lag.partition,
                head: lag.head,
                committed: lag.next,
                through: lag.through,
            };
            time.set(lags.iter().map(read).collect(), now);
        }
        Err(error) => tracing::warn!(error = %error, "how far the intake is cannot be read"),
    }
}

struct Copier {
    reader: Arc<IntakeReader>,
    topic: String,
    ingest: Ingest,
    control: ControlPlane,
    runtime: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
}

/// Messages on their way into the journal.
struct Underway {
    batch: Vec<(Log, Bytes)>,
    accepted: u64,
    rejected: u64,
    progress: IntakeProgress,
    appending: JoinHandle<Result<Vec<Stamp>, AppendError>>,
}

impl Copier {
    /// Reads and decides on the next messages while the journal takes the ones before.
    fn run(&self, mut places: IntakePlaces) {
        let mut underway: Option<Underway> = None;
        let mut committed = IntakeProgress::new();
        while !self.stop.load(Ordering::Acquire) {
            let due = places.due(&self.reader);
            if !due.is_empty() {
                // What was read of them is committed first: behind a gap it would take the group back.
                if let Some(before) = underway.take() {
                    let Some(progress) = self.wait(before) else { break };
                    self.commit(&progress);
                    committed.extend(progress);
                }
                for partition in due {
                    if self.runtime.block_on(places.settle(&self.reader, partition)) {
                        committed.remove(&partition);
                    }
                }
            }
            let mut messages = Vec::with_capacity(INTAKE_BATCH_MESSAGES);
            let patience = if underway.is_some() { Duration::ZERO } else { PATIENCE };
            let progress = self.reader.poll(INTAKE_BATCH_MESSAGES, patience, &mut messages);
            let prepared = (!messages.is_empty()).then(|| self.prepare(&messages));
            drop(messages);
            let durable = match underway.take() {
                Some(before) => match self.wait(before) {
                    Some(progress) => Some(progress),
                    None => break,
                },
                None => None,
            };
            underway = prepared.map(|(prepared, refused)| self.begin(prepared, refused, progress));
            if let Some(progress) = durable {
                self.commit(&progress);
                committed.extend(progress);
            }
        }
        committed.extend(underway.and_then(|last| self.wait(last)).unwrap_or_default());
        // The commits before may be under way still, and nobody sees to them behind the end of the client.
        if !committed.is_empty()
            && let Err(error) = self.reader.commit_surely(&committed)
        {
            tracing::warn!(error = %error, "the intake could not commit at its end; messages may be read again");
        }
    }

    fn begin(&self, prepared: Prepared, refused: Vec<(Log, Bytes)>, progress: IntakeProgress) -> Underway {
        let (accepted, rejected) = (prepared.accepted as u64, refused.len() as u64);
        let batch = prepared.into_facts(refused);
        let appending = self.append(&batch);
        Underway { batch, accepted, rejected, progress, appending }
    }

    fn append(&self, batch: &[(Log, Bytes)]) -> JoinHandle<Result<Vec<Stamp>, AppendError>> {
        let (ingest, batch) = (self.ingest.clone(), batch.to_vec());
        self.runtime.spawn(async move { ingest.append_facts(batch).await })
    }

    /// Waits until messages are durable, however long that takes, and returns how far they reach; nothing where it was
    /// stopped before.
    fn wait(&self, mut underway: Underway) -> Option<IntakeProgress> {
        loop {
            let failure = match self.runtime.block_on(&mut underway.appending) {
                Ok(Ok(_)) => {
                    count("accepted", underway.accepted);
                    count("rejected", underway.rejected);
                    return Some(underway.progress);
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let messages = underway.accepted + underway.rejected;
            tracing::warn!(error = failure, messages, "the intake waits for the journal");
            std::thread::sleep(PAUSE);
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            underway.appending = self.append(&underway.batch);
        }
    }

    fn commit(&self, progress: &IntakeProgress) {
        // What is not committed is copied again, and counts once.
        if let Err(error) = self.reader.commit(progress) {
            tracing::warn!(error = %error, "the intake could not commit; messages may be read again");
        }
    }

    fn prepare(&self, messages: &[IntakeMessage<'_>]) -> (Prepared, Vec<(Log, Bytes)>) {
        let default = self.default_workspace();
        let mut refused = Vec::new();
        let mut senders: BTreeMap<Tenant, Vec<usize>> = BTreeMap::new();
        for (place, message) in messages.iter().enumerate() {
            match self.tenant(message, default) {
                Ok(tenant) => senders.entry(tenant).or_default().push(place),
                Err(refusal) => refused.push(self.set_aside(
                    message,
                    Tenant { workspace: default.unwrap_or(WorkspaceId(0)), mode: Mode::Live },
                    None,
                    refusal,
                )),
            }
        }
        let mut prepared = Prepared::default();
        for (tenant, places) in senders {
            let sender = Sender { tenant, ids: IdSource::Fresh, backfill: false };
            let mut batch = self.ingest.batch(&sender);
            for message in places.iter().filter_map(|place| messages.get(*place)) {
                let headers = binary_headers(message);
                if let Err((account, refusal)) = self.take(message, &headers, &mut batch) {
                    refused.push(self.set_aside(message, tenant, account.as_deref(), refusal));
                }
            }
            prepared.absorb(batch.finish());
        }
        (prepared, refused)
    }

    fn take(
        &self,
        message: &IntakeMessage<'_>,
        headers: &[(String, Vec<u8>)],
        batch: &mut Batch<'_>,
    ) -> Result<(), (Option<String>, Refusal)> {
        let event = read(message, headers).map_err(|refusal| (None, refusal))?;
        let accepted_at = message.recorded_at;
        let made;
        let id = match &event.id {
            Some(id) => id.as_ref(),
            None => {
                made = format!("k:{}:{}:{}:{}", self.topic, message.partition(), message.offset(), accepted_at.0);
                &made
            }
        };
        let taken = batch.push_as(&event, id, accepted_at);
        taken.map(drop).map_err(|refusal| (Some(event.account_id.to_string()), refusal))
    }

    /// The workspace that a message without a header belongs to: the only one.
    fn default_workspace(&self) -> Option<WorkspaceId> {
        let state = self.control.state();
        let mut all = state.workspaces();
        let first = all.next().map(|workspace| workspace.id);
        first.filter(|_| all.next().is_none())
    }

    fn tenant(&self, message: &IntakeMessage<'_>, default: Option<WorkspaceId>) -> Result<Tenant, Refusal> {
        let header = |name: &str| {
            let found = message.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let workspace = match header(WORKSPACE_HEADER) {
            Some(text) => {
                let id = text.parse::<WorkspaceId>().ok();
                let known = id.filter(|id| self.control.state().workspace(*id).is_some());
                known.ok_or_else(|| refusal(format!("the header {WORKSPACE_HEADER} names no workspace: {text:.64}")))?
            }
            None => default.ok_or_else(|| {
                refusal(format!("there is not exactly one workspace; name one in the header {WORKSPACE_HEADER}"))
            })?,
        };
        let mode = match header(MODE_HEADER).as_deref() {
            None | Some("live") => Mode::Live,
            Some("sandbox") => Mode::Sandbox,
            Some(other) => {
                return Err(refusal(format!("the header {MODE_HEADER} is {other:.64}, expected live or sandbox")));
            }
        };
        Ok(Tenant { workspace, mode })
    }

    /// Makes the fact that a message was set aside; its id is a hash of where it stands, so a second copy lists once.
    fn set_aside(
        &self,
        message: &IntakeMessage<'_>,
        tenant: Tenant,
        account: Option<&str>,
        refusal: Refusal,
    ) -> (Log, Bytes) {
        let origin = format!("{}:{}:{}", self.topic, message.partition(), message.offset());
        let digest = Sha256::digest(origin.as_bytes());
        let mut first = [0_u8; 16];
        first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        let account = account.and_then(|account| AccountId::new(account).ok());
        let partitions = self.ingest.partitions();
        let partition = match &account {
            Some(account) => partition_of(tenant.workspace, account, partitions),
            None => PartitionId(u32::try_from(message.partition()).unwrap_or(0) % partitions.max(1)),
        };
        let body = message.payload().unwrap_or_default();
        let kept = body.get(..QUARANTINE_BYTES_MAX).unwrap_or(body);
        let row = QuarantineRow {
            tenant,
            id: QuarantineId(u128::from_be_bytes(first)),
            code: refusal.code.text().to_owned(),
            detail: format!("{} ({origin})", refusal.detail),
            account,
            body: String::from_utf8_lossy(kept).into_owned(),
            at: message.recorded_at,
            status: QuarantineStatus::Open,
            revision: Position::START,
            epoch: None,
            repeats: None,
        };
        (Log::Partition(partition), Bytes::from(Note::EventRefused { row }.encode()))
    }
}

fn refusal(detail: String) -> Refusal {
    Refusal { code: RefusalCode::InvalidEvent, detail, pointer: None }
}

fn count(result: &'static str, by: u64) {
    crate::telemetry::counter("highwater_intake_messages_total", &[("result", result)], by);
}

/// The attributes of a binary CloudEvent. Kafka's binding carries them as they are; a percent sign is no escape there.
fn binary_headers(message: &IntakeMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let own = message.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(BINARY_PREFIX)?, value)));
    own.map(|(name, value)| {
        let escaped = value.iter().flat_map(|byte| if *byte == b'%' { b"%25".to_vec() } else { vec![*byte] });
        (name.to_owned(), escaped.collect())
    })
    .collect()
}

fn read<'a>(message: &'a IntakeMessage<'_>, headers: &'a [(String, Vec<u8>)]) -> Result<UsageEvent<'a>, Refusal> {
    let Some(payload) = message.payload() else {
        return Err(refusal("a tombstone: the message has no value".to_owned()));
    };
    if payload.len() > EVENT_BYTES_MAX {
        let detail = format!("{} bytes, at most {EVENT_BYTES_MAX} are taken", payload.len());
        return Err(Refusal { code: RefusalCode::EventTooLarge, detail, pointer: None });
    }
    if headers.iter().any(|(name, _)| name == "specversion") {
        return parse_binary_cloudevent(headers, payload);
    }
    if payload.is_empty() {
        return Err(refusal("the message's value is empty".to_owned()));
    }
    parse_line(payload)
}
