//! Appending: one idempotent producer; an append returns with the delivery report of its last record.

use super::place;
use super::settings::{KafkaSettings, Timestamps};
use crate::domain::id::{Log, Position, Stamp};
use crate::domain::limits::RECORD_BYTES_MAX;
use crate::domain::time::Timestamp;
use crate::journal::port::AppendError;
use bytes::Bytes;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// How long a record may wait for its delivery report before the append fails.
const DELIVERY_MS: &str = "10000";

pub(super) struct Appender {
    /// Replaced when a fatal error has ended it.
    producer: RwLock<FutureProducer>,
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Appender")
    }
}

impl Appender {
    pub(super) fn start(settings: &KafkaSettings) -> KafkaResult<Self> {
        Ok(Self { producer: RwLock::new(producer(settings)?) })
    }

    pub(super) async fn append(
        &self,
        settings: &KafkaSettings,
        batch: Vec<(Log, Bytes)>,
    ) -> Result<Vec<Stamp>, AppendError> {
        if let Some(bytes) = batch.iter().map(|(_, payload)| payload.len()).max()
            && bytes > RECORD_BYTES_MAX
        {
            return Err(AppendError::TooLarge { bytes, limit: RECORD_BYTES_MAX });
        }
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sent = Vec::with_capacity(batch.len());
        let mut failed = None;
        for (log, payload) in &batch {
            let (topic, partition) = place(settings, *log);
            let mut record: FutureRecord<'_, (), [u8]> =
                FutureRecord::to(topic).partition(partition).payload(payload.as_ref());
            if let Timestamps::Appender(clock) = settings.timestamps {
                record = record.timestamp(clock().0);
            }
            match producer.send_result(record) {
                Ok(delivery) => sent.push(delivery),
                Err((error, _)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let waiting = sent.len();
        let mut stamps = Vec::with_capacity(waiting);
        // Every report is awaited, also behind a failure: what is in then is in before the caller tries again.
        for delivery in sent {
            match delivery.await {
                Ok(Ok(delivered)) => stamps.push(stamp(&delivered)),
                Ok(Err((error, _))) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(KafkaError::Canceled)),
            }
        }
        match failed {
            None => Ok(stamps),
            Some(error) => {
                self.renew(settings, &producer);
                Err(refusal(&error, waiting))
            }
        }
    }

    /// Makes another producer where this one has ended for good.
    fn renew(&self, settings: &KafkaSettings, failed: &FutureProducer) {
        let Some((_, reason)) = failed.client().fatal_error() else { return };
        let mut producer_in_use = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if producer_in_use.client().fatal_error().is_some() {
            tracing::warn!(reason, "the producer ended for good; another takes its place");
            match producer(settings) {
                Ok(fresh) => *producer_in_use = fresh,
                Err(error) => tracing::error!(error = %error, "there is no other producer"),
            }
        }
    }
}

fn producer(settings: &KafkaSettings) -> KafkaResult<FutureProducer> {
    settings
        .client()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", DELIVERY_MS)
        .set("message.max.bytes", (RECORD_BYTES_MAX + 64 * 1024).to_string())
        .set("queue.buffering.max.kbytes", "262144")
        // Records are batches already; what waits goes along.
        .set("linger.ms", "1")
        .set("compression.type", "none")
        .create()
}

fn stamp(delivered: &Delivery) -> Stamp {
    let position = Position(u64::try_from(delivered.offset).unwrap_or(0) + 1);
    Stamp { position, recorded_at: Timestamp(delivered.timestamp.to_millis().unwrap_or(0)) }
}

fn refusal(error: &KafkaError, waiting: usize) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Overloaded { waiting },
        Some(_) | None => AppendError::Storage { detail: error.to_string() },
    }
}

/// How long closing waits for what is under way.
const FLUSH: Duration = Duration::from_secs(5);

impl Drop for Appender {
    fn drop(&mut self) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = producer.flush(FLUSH) {
            tracing::warn!(error = %error, "records were still under way when the journal was closed");
        }
    }
}
