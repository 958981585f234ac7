//! Every row as text, for comparing two stores row by row; the texts are those of the SQLite adapter.

use super::record::{
    AccountRecord, DeliveryRecord, InstanceRecord, NotificationRecord, QuarantineRecord, TransitionRecord, WindowRecord,
};
use super::webhooks::{AttemptRecord, EventRecord, WebhookDeliveryRecord};
use crate::domain::id::{MetricName, Mode};
use crate::domain::quantity::Quantity;
use crate::store::{ScannedRow, StoreError};
use clickhouse::{Client, RowOwned, RowRead};
use std::fmt::Write as _;
use std::sync::mpsc::SyncSender;

const BATCH_ROWS: usize = 4_096;

/// Sends the rows of every table, in batches; ends early when nobody receives them.
pub(super) async fn scan(client: &Client, rows: &SyncSender<Vec<ScannedRow>>) -> Result<(), StoreError> {
    let scan = Scan { client, rows };
    let windows = "workspace, mode, epoch, account, metric, grp, start, part";
    let transitions = "workspace, mode, alert, at, account, metric, sequence";
    let more = scan.table("usage_windows", windows, "revision", window).await?
        && scan.table("accounts", "workspace, mode, account, epoch", "revision", account).await?
        && scan.table("alert_states", "workspace, mode, alert, account, metric", "revision", instance).await?
        && scan.table("alert_transitions", transitions, "position", transition).await?
        && scan.table("notifications", "workspace, mode, at, id", "position", notification).await?
        && scan.table("deliveries", "workspace, mode, notification, channel", "revision", delivery).await?
        && scan.table("quarantine", "workspace, mode, id", "revision", quarantined).await?
        && scan.table("webhook_events", "workspace, mode, id", "position", event).await?
        && scan.table("webhook_deliveries", "workspace, mode, webhook, created_at, event", "revision", posted).await?
        && scan.table("webhook_attempts", "workspace, mode, webhook, event, attempt", "revision", attempt).await?;
    tracing::debug!(whole = more, "scanned the store");
    Ok(())
}

struct Scan<'a> {
    client: &'a Client,
    rows: &'a SyncSender<Vec<ScannedRow>>,
}

impl Scan<'_> {
    /// Sends a table's rows, one of each key and in its order: the table's own, so that nothing has to be sorted. Tells
    /// whether there is still somebody to receive them.
    async fn table<R: RowOwned + RowRead>(
        &self,
        table: &'static str,
        key: &str,
        revision: &str,
        print: fn(R) -> (Line, Line),
    ) -> Result<bool, StoreError> {
        let sql = format!("SELECT ?fields FROM {table} ORDER BY {key}, {revision} DESC LIMIT 1 BY {key}");
        let mut cursor = self.client.query(&sql).fetch::<R>()?;
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        while let Some(record) = cursor.next().await? {
            let (key, row) = print(record);
            batch.push(ScannedRow { table, key: key.0, row: row.0 });
            if batch.len() == BATCH_ROWS && self.rows.send(std::mem::take(&mut batch)).is_err() {
                return Ok(false);
            }
        }
        Ok(self.rows.send(batch).is_ok())
    }
}

fn window(row: WindowRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).number(row.epoch.0.cast_signed());
    let key = key.text(row.account.as_str()).text(row.metric.as_str()).text(&row.grp);
    let key = key.number(row.start.0).number(row.part.0.cast_signed());
    let amounts = Line::new().number(row.count.cast_signed()).amount(row.sum).amount(row.min).amount(row.max);
    let rest = amounts.amount(row.last).number(row.last_at.0).number(row.late_events.cast_signed());
    (key, rest.number(row.revision.0.cast_signed()))
}

fn account(row: AccountRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).text(row.account.as_str()).number(row.epoch.0.cast_signed());
    (key, Line::new().number(row.first_seen_at.0).number(row.revision.0.cast_signed()))
}

fn instance(row: InstanceRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.alert.0).text(row.account.as_str());
    let rest = Line::new().number(row.epoch.0.cast_signed());
    let rest = rest.optional(row.state, |line, state| line.text(state.name())).number(row.since.0);
    let rest = rest.number(i64::from(row.silenced)).optional(row.value, Line::amount).number(row.evaluated_at.0);
    (key.metric(row.metric.as_ref()), rest.number(row.revision.0.cast_signed()))
}

fn transition(row: TransitionRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.alert.0).text(row.account.as_str());
    let key = key.metric(row.metric.as_ref()).number(row.sequence.cast_signed());
    (key, Line::new().number(row.at.0).text(&row.body))
}

fn notification(row: NotificationRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.id.0);
    (key, Line::new().id(row.alert.0).number(row.at.0).text(&row.body))
}

fn delivery(row: DeliveryRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.notification.0).id(row.channel.0);
    let rest = Line::new().text(row.status.name()).number(i64::from(row.attempts));
    let rest = rest.optional(row.outcome.as_deref(), Line::text).optional(row.next_at, |line, at| line.number(at.0));
    (key, rest.number(row.at.0).number(row.revision.0.cast_signed()))
}

fn quarantined(row: QuarantineRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.id.0);
    let rest = Line::new().number(i64::from(row.partition)).text(&row.code);
    let rest = rest.text(row.account.as_ref().map_or("", |account| account.as_str())).text(row.status.name());
    (key, rest.number(row.at.0).number(row.revision.0.cast_signed()).text(&row.body))
}

fn event(row: EventRecord) -> (Line, Line) {
    (Line::tenant(row.workspace.0, row.mode).id(row.id.0), Line::new().number(row.at.0).text(&row.body))
}

fn posted(row: WebhookDeliveryRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.webhook.0).id(row.event.0);
    let rest = Line::new().text(row.kind.name()).number(i64::from(row.log.0)).number(row.created_at.0);
    let rest = rest.text(row.status.name()).number(i64::from(row.attempts));
    let rest = rest.optional(row.outcome.as_deref(), Line::text).optional(row.next_at, |line, at| line.number(at.0));
    (key, rest.number(row.at.0).number(row.revision.0.cast_signed()))
}

fn attempt(row: AttemptRecord) -> (Line, Line) {
    let key = Line::tenant(row.workspace.0, row.mode).id(row.webhook.0).id(row.event.0);
    let rest = Line::new().number(row.at.0).number(row.revision.0.cast_signed()).text(&row.body);
    (key.number(i64::from(row.attempt)), rest)
}

/// Values with a bar behind each.
struct Line(String);

impl Line {
    const fn new() -> Self {
        Self(String::new())
    }

    fn tenant(workspace: u128, mode: Mode) -> Self {
        let mode = match mode {
            Mode::Live => 0,
            Mode::Sandbox => 1,
        };
        Self::new().id(workspace).number(mode)
    }

    fn put(mut self, value: std::fmt::Arguments<'_>) -> Self {
        // Writing to a string cannot fail.
        let _written = self.0.write_fmt(format_args!("{value}|"));
        self
    }

    fn text(self, text: &str) -> Self {
        self.put(format_args!("{text}"))
    }

    fn number(self, number: i64) -> Self {
        self.put(format_args!("{number}"))
    }

    fn id(self, id: u128) -> Self {
        self.put(format_args!("{id:032x}"))
    }

    fn amount(self, amount: Quantity) -> Self {
        match i64::try_from(amount.0) {
            Ok(small) => self.number(small),
            Err(_) => self.id(amount.0.cast_unsigned()),
        }
    }

    fn metric(self, metric: Option<&MetricName>) -> Self {
        self.text(metric.map_or("", |metric| metric.as_str()))
    }

    fn optional<T>(self, value: Option<T>, put: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => put(self, value),
            None => self.text("-"),
        }
    }
}
