//! Adding parts of windows up for a question about usage, within bounds of rows, groups, points and time.

use super::app::App;
use super::problem::Problem;
use super::receipt::store_away;
use crate::domain::id::{AccountId, Epoch, MetricName, Position};
use crate::domain::limits::{USAGE_POINTS_MAX, USAGE_ROWS_MAX};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::{UsagePart, UsageQuery};
use axum::http::StatusCode;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a width may be, in words.
pub(super) const WIDTHS: &str = "a multiple of 5m that divides a day, such as 5m, 30m, 6h or 1d";
const WINDOWS_DEFAULT: i64 = 12;

/// Reads the width of windows, whose starts are the same on every day.
pub(super) fn width(text: &str) -> Option<Millis> {
    let day = Millis::days(1);
    Millis::parse(text).filter(|width| width.0 > 0 && width.0 % WINDOW.0 == 0 && day.0 % width.0 == 0)
}

/// Whole windows next to each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The width of each.
    pub width: Millis,
    /// The first start, inclusive.
    pub from: Timestamp,
    /// The last end, exclusive.
    pub to: Timestamp,
}

impl Span {
    /// Moves the ends out to whole windows; where there are none, the last 12 are meant, the running one included.
    ///
    /// # Errors
    /// `before` where the first end is not before the second; 422 where there are too many windows.
    pub(super) fn read(
        width: Millis,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
        now: Timestamp,
        before: impl FnOnce() -> Problem,
    ) -> Result<Self, Problem> {
        let to = to.unwrap_or_else(|| now.plus(Millis(1))).round_up(width);
        let default_from = Timestamp(to.0.saturating_sub(width.0.saturating_mul(WINDOWS_DEFAULT)));
        let from = from.unwrap_or(default_from).window_start(width);
        if from >= to {
            return Err(before());
        }
        let span = Self { width, from, to };
        if span.windows() > USAGE_POINTS_MAX as i64 { Err(too_many(span.windows())) } else { Ok(span) }
    }

    /// How many they are.
    pub(super) const fn windows(self) -> i64 {
        self.to.since(self.from).0 / self.width.0
    }
}

/// What is read, and how it is added up.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// What is read.
    pub query: UsageQuery,
    /// The width of the windows; everything is one where absent.
    pub width: Option<Millis>,
    /// Whether accounts are told apart. Metrics always are.
    pub by_account: bool,
    /// The dimensions that are told apart.
    pub dimensions: Vec<String>,
    /// What a group must hold to be counted: for each of these dimensions one of the values.
    pub only: BTreeMap<String, Vec<String>>,
    /// How many groups may be told apart.
    pub groups_max: usize,
    /// How many points each group stands for at least.
    pub windows_each: i64,
}

/// What is told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// The account; absent where accounts are not told apart.
    pub account: Option<AccountId>,
    /// The metric.
    pub metric: MetricName,
    /// The dimensions as JSON; absent where none is told apart.
    pub dimensions: Option<String>,
}

/// What is counted in one window of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// The events.
    pub aggregate: Aggregate,
    /// How many of them were late.
    pub late_events: u64,
    /// The last record that changed it.
    pub revision: Position,
}

/// By group and start.
pub(super) type Points = BTreeMap<(Group, Timestamp), Sum>;

/// What is added up, and why it ended early.
#[derive(Debug, Default)]
struct Totals {
    points: Points,
    groups: BTreeSet<Group>,
    epochs: BTreeMap<AccountId, Epoch>,
    rows: usize,
    excess: Option<String>,
}

impl Totals {
    /// Takes a part in that was counted in its account's `current` epoch.
    fn take(&mut self, part: UsagePart, terms: &Terms, current: Epoch) -> ControlFlow<()> {
        if part.epoch != current {
            return ControlFlow::Continue(());
        }
        let Some(dimensions) = narrowed(&part.group, terms) else { return ControlFlow::Continue(()) };
        let account = terms.by_account.then_some(part.account);
        let group = Group { account, metric: part.metric, dimensions };
        if !self.groups.contains(&group) {
            self.groups.insert(group.clone());
            let (groups, windows) = (self.groups.len(), terms.windows_each);
            if groups > terms.groups_max {
                return self.end(format!("more than {} groups", terms.groups_max));
            }
            if (groups as i64).saturating_mul(windows) > USAGE_POINTS_MAX as i64 {
                return self.end(format!("{windows} windows of more than {} groups", groups - 1));
            }
        }
        let start = terms.width.map_or(terms.query.from, |width| part.start.window_start(width));
        let sum = self.points.entry((group, start)).or_default();
        sum.aggregate.merge(&part.aggregate);
        sum.late_events += part.late_events;
        sum.revision = sum.revision.max(part.revision);
        if self.points.len() > USAGE_POINTS_MAX {
            return self.end(format!("more than {USAGE_POINTS_MAX} points"));
        }
        ControlFlow::Continue(())
    }

    /// Counts one more part that was read.
    fn count(&mut self) -> ControlFlow<()> {
        self.rows += 1;
        if self.rows > USAGE_ROWS_MAX {
            return self.end(format!("more than {USAGE_ROWS_MAX} windows to read"));
        }
        ControlFlow::Continue(())
    }

    fn end(&mut self, why: String) -> ControlFlow<()> {
        self.excess = Some(why);
        ControlFlow::Break(())
    }
}

/// What is told apart of a group's dimensions, as one text; `None` where the group is not asked for.
#[expect(clippy::option_option, reason = "a group that is left out is not one without dimensions")]
fn narrowed(group: &str, terms: &Terms) -> Option<Option<String>> {
    if terms.dimensions.is_empty() && terms.only.is_empty() {
        return Some(None);
    }
    let all: BTreeMap<String, &RawValue> = serde_json::from_str(group).ok()?;
    let holds = |(name, values): (&String, &Vec<String>)| {
        let Some(value) = all.get(name) else { return false };
        let text = serde_json::from_str::<String>(value.get());
        let text = text.as_deref().unwrap_or(value.get());
        values.iter().any(|wanted| wanted == text)
    };
    if !terms.only.iter().all(holds) {
        return None;
    }
    if terms.dimensions.is_empty() {
        return Some(None);
    }
    let kept: BTreeMap<&String, Option<&RawValue>> =
        terms.dimensions.iter().map(|name| (name, all.get(name).copied())).collect();
    serde_json::to_string(&kept).ok().map(Some)
}

/// Works on a question, a few at a time, for as long as one may take.
///
/// # Errors
/// What the work says; 504 where it took too long, the wait for its turn included.
pub(super) async fn bounded<T>(
    queries: &Semaphore,
    limit: Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let working = async {
        let _permit = queries.acquire().await.map_err(|error| Problem::internal(&error))?;
        work.await
    };
    tokio::time::timeout(limit, working).await.unwrap_or_else(|_| {
        let detail = format!("it took longer than {} ms; ask for less at once", limit.as_millis());
        Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "query_timeout", detail))
    })
}

/// 422: more points than are answered.
pub(super) fn too_many(points: i64) -> Problem {
    let detail =
        format!("{points} points, at most {USAGE_POINTS_MAX} are answered; take wider windows or a shorter time");
    Problem::unprocessable("query_too_large", detail).with("limit", USAGE_POINTS_MAX)
}

/// Raised when nobody waits any more, so that the reading ends.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads parts and adds them up; the store stops reading where a bound is passed, or nobody waits any more.
///
/// # Errors
/// 422 where a bound is passed.
pub(super) async fn add_up(app: &App, terms: &Terms) -> Result<Points, Problem> {
    let totals = Arc::new(Mutex::new(Totals::default()));
    let abandoned = Arc::new(AtomicBool::new(false));
    let _abandon = Abandon(Arc::clone(&abandoned));
    let (control, tenant) = (app.node.data.control.clone(), terms.query.tenant);
    let (sum, asked) = (Arc::clone(&totals), terms.clone());
    let take = move |part: UsagePart| {
        let mut totals = sum.lock().unwrap_or_else(PoisonError::into_inner);
        if abandoned.load(Ordering::Relaxed) || totals.count().is_break() {
            return ControlFlow::Break(());
        }
        let current = match totals.epochs.get(&part.account) {
            Some(epoch) => *epoch,
            None => {
                let epoch = control.state().epoch_of(tenant, &part.account);
                totals.epochs.insert(part.account.clone(), epoch);
                epoch
            }
        };
        totals.take(part, &asked, current)
    };
    app.node.data.store.usage(terms.query.clone(), take).await.map_err(store_away)?;
    let totals = std::mem::take(&mut *totals.lock().unwrap_or_else(PoisonError::into_inner));
    match &totals.excess {
        None => Ok(totals.points),
        Some(why) => {
            let detail = format!("{why}; at most {USAGE_POINTS_MAX} windows times groups are answered");
            Err(Problem::unprocessable("query_too_large", detail).with("limit", USAGE_POINTS_MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Mode, Tenant, WorkspaceId};

    fn terms() -> Terms {
        let tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
        let (from, to) = (Timestamp(0), Timestamp(10 * WINDOW.0));
        let query = UsageQuery { tenant, accounts: vec![], epoch: None, metrics: vec![], from, to, groups: true };
        Terms {
            query,
            width: Some(WINDOW),
            by_account: false,
            dimensions: vec!["n".to_owned()],
            only: BTreeMap::new(),
            groups_max: 3,
            windows_each: 10,
        }
    }

    fn part(n: &str) -> UsagePart {
        UsagePart {
            account: AccountId::new("acme").unwrap(),
            epoch: Epoch(0),
            metric: MetricName::new("m").unwrap(),
            group: format!("{{\"n\":{n}}}"),
            start: Timestamp(WINDOW.0),
            aggregate: Aggregate::of(crate::domain::quantity::Quantity::ONE, Timestamp(WINDOW.0)),
            late_events: 0,
            revision: Position(1),
        }
    }

    #[test]
    fn reading_ends_at_the_first_part_past_a_bound() {
        let mut totals = Totals::default();
        for n in ["1", "2", "3", "1"] {
            assert!(totals.take(part(n), &terms(), Epoch(0)).is_continue());
        }
        assert!(totals.take(part("4"), &terms(), Epoch(0)).is_break());
        assert_eq!(totals.excess.as_deref(), Some("more than 3 groups"));
        let mut totals = Totals { rows: USAGE_ROWS_MAX - 1, ..Totals::default() };
        assert!(totals.count().is_continue());
        assert!(totals.count().is_break());
        let wide = Terms { windows_each: 5_500, ..terms() };
        let mut totals = Totals::default();
        assert!(["1", "2"].iter().all(|n| totals.take(part(n), &wide, Epoch(0)).is_continue()));
        assert!(totals.take(part("3"), &wide, Epoch(0)).is_break());
    }

    #[test]
    fn groups_are_told_apart_as_exactly_as_their_numbers_are_written() {
        let mut totals = Totals::default();
        for n in ["1000000000000000.000000001", "1000000000000000.000000002", "\"1\""] {
            assert!(totals.take(part(n), &terms(), Epoch(0)).is_continue());
        }
        assert_eq!(totals.groups.len(), 3);
    }

    #[tokio::test]
    async fn what_is_asked_past_the_permits_waits_its_turn_and_not_for_ever() {
        let queries = Semaphore::new(1);
        let taken = queries.acquire().await.unwrap();
        let refused = bounded(&queries, Duration::from_millis(20), async { Ok(()) }).await;
        assert_eq!(refused.unwrap_err().code, "query_timeout");
        let patient = bounded(&queries, Duration::from_secs(60), async { Ok(()) });
        let (answer, ()) = tokio::join!(patient, async { drop(taken) });
        answer.unwrap();
        assert_eq!(queries.available_permits(), 1);
    }
}
