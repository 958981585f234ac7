//! How lists are sorted and narrowed by when their items came to be, the same on every list.

use super::input::Query;
use super::page::Order;
use super::problem::Problem;
use crate::domain::time::Timestamp;
use crate::store::Age;
use utoipa::IntoParams;

/// The parameters.
pub(super) const CREATED: [&str; 3] = ["created_after", "created_before", "sort"];

/// The parameters, as they are described.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct CreatedParameters {
    /// Inclusive.
    created_after: Option<String>,
    /// Exclusive.
    created_before: Option<String>,
    /// The oldest first, or the newest first.
    #[param(inline, pattern = "^-?created_at$")]
    sort: Option<String>,
}

/// A span of time and an order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Created {
    /// The first instant, inclusive.
    pub from: Option<Timestamp>,
    /// The last instant, exclusive.
    pub to: Option<Timestamp>,
    /// The order that is asked for.
    pub sort: Option<Age>,
}

impl Created {
    /// Reads the parameters.
    ///
    /// # Errors
    /// 400 where one is wrong.
    pub(super) fn read(query: &Query) -> Result<Self, Problem> {
        let sort = query.read_as("sort", "created_at or -created_at", |text| match text {
            "created_at" => Some(Age::Rising),
            "-created_at" => Some(Age::Falling),
            _ => None,
        })?;
        Ok(Self { from: query.instant("created_after")?, to: query.instant("created_before")?, sort })
    }

    /// Whether what came to be at an instant is asked for.
    pub(super) fn holds(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }

    /// The span, as far as `from` and `to` leave it.
    ///
    /// # Errors
    /// 400 where one of these is wrong.
    pub(super) fn span(&self, query: &Query) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let from = query.instant("from")?.max(self.from);
        Ok((from, [query.instant("to")?, self.to].into_iter().flatten().min()))
    }

    /// The order; newest first where none is asked for.
    pub(super) fn age(&self) -> Age {
        self.sort.unwrap_or_default()
    }

    /// The order of keys that begin with a time.
    pub(super) fn order(&self) -> Order {
        match self.age() {
            Age::Falling => Order::Falling,
            Age::Rising => Order::Rising,
        }
    }

    /// Puts items that come oldest first into the order.
    pub(super) fn ordered<T>(&self, items: impl DoubleEndedIterator<Item = T>) -> Vec<T> {
        match self.age() {
            Age::Falling => items.rev().collect(),
            Age::Rising => items.collect(),
        }
    }

    /// Puts items that come by name into the order that is asked for; by name where none is. Returns with them how
    /// their keys run.
    pub(super) fn sorted<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> (Order, Vec<T>) {
        let mut items: Vec<T> = items.collect();
        let Some(sort) = self.sort else { return (Order::Rising, items) };
        items.sort_by_cached_key(|item| key(item));
        if sort == Age::Falling {
            items.reverse();
        }
        (self.order(), items)
    }

    /// The key of an item that has a name: the name, with the time before it where the order is by time.
    pub(super) fn key(&self, at: Timestamp, name: &str) -> String {
        if self.sort.is_some() { format!("{at} {name}") } else { name.to_owned() }
    }
}

/// Whether a text begins with another, of whatever case.
pub(super) fn begins_with(text: &str, prefix: &str) -> bool {
    text.to_lowercase().starts_with(&prefix.to_lowercase())
}
