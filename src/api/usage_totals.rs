//! Adding parts of windows up for a question about usage, within bounds of rows, groups, points and time.

use super::app::App;
use super::problem::Problem;
use super::receipt::store_away;
use super::usage_coverage::{Counted, Coverage, Dimensions, value_in};
use super::usage_hours::{CrowdedHours, HourGroups, whole_hours};
use crate::domain::id::{AccountId, Epoch, MetricName, Position};
use crate::domain::limits::{USAGE_POINTS_MAX, USAGE_ROWS_MAX};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::OVERFLOW_GROUP;
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
    /// By metric: since when all of the dimensions that are asked for have been kept.
    pub kept_since: BTreeMap<MetricName, Timestamp>,
}

impl Terms {
    /// Whether groups are read, and not totals.
    pub(super) fn reads_groups(&self) -> bool {
        !self.dimensions.is_empty() || !self.only.is_empty()
    }
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
    /// Whether it is what there was no room for a group of its own for; each of its dimensions is then null.
    pub overflow: bool,
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

/// What was added up, and what the reading met on the way.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// What was added up.
    pub points: Points,
    /// How far the groups that were read make up the whole.
    pub coverage: Coverage,
}

/// What is added up, and why it ended early.
#[derive(Debug, Default)]
struct Totals {
    points: Points,
    groups: BTreeSet<Group>,
    coverage: Coverage,
    hours: HourGroups,
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
        let Some(dimensions) = self.narrowed(&part, terms) else { return ControlFlow::Continue(()) };
        let account = terms.by_account.then_some(part.account);
        let overflow = part.group == OVERFLOW_GROUP;
        let group = Group { account, metric: part.metric, dimensions, overflow };
        if !overflow && !self.groups.contains(&group) {
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

    /// What is told apart of a part's dimensions, as one text; `None` where its group is not asked for.
    #[expect(clippy::option_option, reason = "a group that is left out is not one without dimensions")]
    fn narrowed(&mut self, part: &UsagePart, terms: &Terms) -> Option<Option<String>> {
        if !terms.reads_groups() {
            return Some(None);
        }
        let is_overflow = part.group == OVERFLOW_GROUP;
        let all: Dimensions<'_> =
            if is_overflow { Dimensions::new() } else { serde_json::from_str(&part.group).ok()? };
        self.coverage.note(part, &all, terms);
        if !terms.only.iter().all(|(name, values)| value_in(&all, name, values).is_some()) {
            return None;
        }
        if terms.dimensions.is_empty() {
            return Some(None);
        }
        let kept: BTreeMap<&String, Option<&RawValue>> =
            terms.dimensions.iter().map(|name| (name, all.get(name).copied())).collect();
        serde_json::to_string(&kept).ok().map(Some)
    }
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
pub(super) async fn add_up(app: &App, terms: &Terms) -> Result<Added, Problem> {
    let totals = if terms.reads_groups() { add_groups(app, terms).await? } else { add_told(app, terms, None).await? };
    match totals.excess {
        None => Ok(Added { points: totals.points, coverage: totals.coverage }),
        Some(why) => {
            let detail = format!("{why}; at most {USAGE_POINTS_MAX} windows times groups are answered");
            Err(Problem::unprocessable("query_too_large", detail).with("limit", USAGE_POINTS_MAX))
        }
    }
}

/// Adds groups up as if no hour had too many, and once more where one has.
async fn add_groups(app: &App, terms: &Terms) -> Result<Totals, Problem> {
    let asked = terms.clone();
    let span = terms.query.from..terms.query.to;
    let start = Totals { coverage: Coverage::of(&terms.only), ..Totals::default() };
    let hours = whole_hours(&terms.query);
    let totals = read_parts(app, &hours, start, move |totals, part, current| {
        if part.epoch == current {
            totals.hours.note(&part);
        }
        let is_asked = span.contains(&part.start) && totals.excess.is_none();
        if is_asked && totals.take(part, &asked, current).is_break() {
            // What is too much may be less where some groups are not told apart: the hours are read to their end.
            totals.points.clear();
        }
        ControlFlow::Continue(())
    });
    let totals = totals.await?;
    let crowded = totals.hours.crowded();
    if crowded.is_empty() || totals.rows > USAGE_ROWS_MAX {
        return Ok(totals);
    }
    drop(totals);
    add_told(app, terms, Some(crowded)).await
}

/// Adds parts up, each as it is told where some hours are crowded.
async fn add_told(app: &App, terms: &Terms, crowded: Option<CrowdedHours>) -> Result<Totals, Problem> {
    let asked = terms.clone();
    let crowded = crowded.unwrap_or_default();
    let start = Totals { coverage: Coverage::of(&terms.only), ..Totals::default() };
    let take = move |totals: &mut Totals, part, current| totals.take(crowded.told(part), &asked, current);
    read_parts(app, &terms.query, start, take).await
}

/// Counts the events of each metric's totals, as [`Coverage`] counts those of groups; nothing where there are too many
/// windows to read.
///
/// # Errors
/// Where the store is away.
pub(super) async fn count_totals(app: &App, terms: &Terms) -> Result<Option<BTreeMap<MetricName, Counted>>, Problem> {
    let query = UsageQuery { groups: false, ..terms.query.clone() };
    let asked = terms.clone();
    let totals = read_parts(app, &query, Totals::default(), move |totals, part, current| {
        if part.epoch == current {
            totals.coverage.count(&part, true, &asked);
        }
        ControlFlow::Continue(())
    });
    let totals = totals.await?;
    Ok(totals.excess.is_none().then_some(totals.coverage.counted))
}

/// Hands every part that is found to `take`, with its account's present epoch, until a bound is passed or nobody waits any
/// more.
async fn read_parts(
    app: &App,
    query: &UsageQuery,
    start: Totals,
    take: impl Fn(&mut Totals, UsagePart, Epoch) -> ControlFlow<()> + Send + 'static,
) -> Result<Totals, Problem> {
    let totals = Arc::new(Mutex::new(start));
    let abandoned = Arc::new(AtomicBool::new(false));
    let _abandon = Abandon(Arc::clone(&abandoned));
    let (control, tenant) = (app.node.data.control.clone(), query.tenant);
    let sum = Arc::clone(&totals);
    let each = move |part: UsagePart| {
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
        take(&mut totals, part, current)
    };
    app.node.data.store.usage(query.clone(), each).await.map_err(store_away)?;
    let totals = std::mem::take(&mut *totals.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(totals)
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
            kept_since: BTreeMap::new(),
        }
    }

    fn part(n: &str) -> UsagePart {
        UsagePart {
            account: AccountId::new("acme").unwrap(),
            epoch: Epoch(0),
            metric: MetricName::new("m").unwrap(),
            group: format!("{{\"n\":{n}}}"),
            start: Timestamp(WINDOW.0),
            part: Position(1),
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
    fn what_had_no_room_is_one_group_more_and_not_counted_among_them() {
        let mut totals = Totals::default();
        for n in ["1", "2", "null", "3"] {
            assert_eq!(totals.take(part(n), &terms(), Epoch(0)).is_continue(), n != "3");
        }
        let mut totals = Totals::default();
        let overflow = UsagePart { group: OVERFLOW_GROUP.to_owned(), ..part("1") };
        for part in [part("1"), overflow.clone(), part("2"), part("null"), overflow.clone()] {
            assert!(totals.take(part, &terms(), Epoch(0)).is_continue());
        }
        let seen = |totals: &Totals| -> Vec<_> {
            totals.points.iter().map(|((g, _), sum)| (g.overflow, g.dimensions.clone(), sum.aggregate.count)).collect()
        };
        let text = |n: &str| Some(format!("{{\"n\":{n}}}"));
        let expected =
            [(false, text("1"), 1), (false, text("2"), 1), (false, text("null"), 1), (true, text("null"), 2)];
        assert_eq!(seen(&totals), expected);
        assert!(totals.coverage.counted.values().all(|counted| counted.overflow && counted.events == 5));
        // It holds no value that could be chosen.
        let only = BTreeMap::from([("n".to_owned(), vec!["1".to_owned()])]);
        let mut totals = Totals { coverage: Coverage::of(&only), ..Totals::default() };
        let terms = Terms { only, dimensions: Vec::new(), ..terms() };
        for part in [part("1"), overflow, part("2")] {
            assert!(totals.take(part, &terms, Epoch(0)).is_continue());
        }
        assert_eq!(seen(&totals), [(false, None, 1)]);
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
