//! Pages and cursors, the same on every list.

use super::app::{App, Caller};
use super::input::{Query, parameter};
use super::problem::Problem;
use crate::domain::limits::{PAGE_REACH_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::LINK;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;

/// The parameters that every list takes.
pub(super) const PARAMETERS: [&str; 3] = ["page", "page_size", "cursor"];
const MAC_BYTES: usize = 8;

/// Where in a list a request stands.
#[derive(Clone, Debug)]
pub(super) struct Paging {
    /// Counts from 1.
    pub page: usize,
    /// Items of a page.
    pub size: usize,
    /// The key of the last item before this page, from a cursor.
    pub after: Option<String>,
    filters: String,
    path: String,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    v: u8,
    k: String,
    p: usize,
    s: usize,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The items, in the order of the list.
    items: Vec<T>,
    /// Counts from 1, with `page` and with `cursor`.
    #[schema(minimum = 1)]
    page: usize,
    #[schema(minimum = 1, maximum = 100)]
    page_size: usize,
    /// Whether there is a page behind this one.
    has_more: bool,
    /// Leads to the page behind this one; null where there is none.
    next_cursor: Option<String>,
}

/// How the keys of a list run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By name.
    Rising,
    /// Newest first.
    Falling,
}

impl Paging {
    /// Reads where a request stands.
    ///
    /// # Errors
    /// 400 where a parameter is out of range, or the cursor is not one of ours for this list.
    pub(super) fn read(app: &App, caller: &Caller, path: &str, query: &Query) -> Result<Self, Problem> {
        let number = |name: &str, most: usize| {
            let read = |text: &str| text.parse().ok().filter(|n| (1..=most).contains(n));
            query.read_as(name, &format!("a whole number from 1 to {most}"), read)
        };
        let size = number("page_size", PAGE_SIZE_MAX)?;
        let page = number("page", usize::MAX)?;
        let tenant = caller.principal.tenant;
        let filters = format!("{}|{}|{path}|{}", tenant.workspace, tenant.mode.name(), query.filters());
        let mut paging = Self {
            page: page.unwrap_or(1),
            size: size.unwrap_or(PAGE_SIZE_DEFAULT),
            after: None,
            filters,
            path: format!("{path}?{}", query.filters()),
        };
        if let Some(text) = query.one("cursor")? {
            if page.is_some() {
                return Err(parameter("cursor", "give page or cursor, not both"));
            }
            let cursor = paging.open(app, text).ok_or_else(invalid_cursor)?;
            paging.page = cursor.p;
            paging.size = size.unwrap_or(cursor.s);
            paging.after = Some(cursor.k);
        }
        if paging.after.is_none() && paging.page.saturating_mul(paging.size) > PAGE_REACH_MAX {
            let detail = format!("pages reach {PAGE_REACH_MAX} items; go on with cursor");
            return Err(Problem::bad_request("page_out_of_range", detail).with("param", "cursor"));
        }
        Ok(paging)
    }

    /// How many items to pass over; none where a cursor says behind which key to begin.
    pub(super) fn offset(&self) -> usize {
        if self.after.is_some() { 0 } else { (self.page - 1).saturating_mul(self.size) }
    }

    /// Reads the key that the cursor holds, in its parts.
    ///
    /// # Errors
    /// 400 where it is none of this list.
    pub(super) fn after_parts<T>(&self, read: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(key) = self.after.as_deref() else { return Ok(None) };
        let parts: Vec<&str> = key.split(' ').collect();
        read(&parts).map(Some).ok_or_else(invalid_cursor)
    }

    /// Cuts a page out of a whole list; `key` names an item for the cursor.
    ///
    /// The list may have lost the item that the cursor names, so its place is found by order, not by equality.
    pub(super) fn cut<T>(&self, order: Order, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> Vec<T> {
        let before_page = |item: &T| match (self.after.as_deref(), order) {
            (None, _) => false,
            (Some(after), Order::Rising) => key(item).as_str() <= after,
            (Some(after), Order::Falling) => key(item).as_str() >= after,
        };
        items.skip_while(before_page).skip(self.offset()).take(self.size + 1).collect()
    }

    /// Answers with a page; `items` may hold one more than its size, `key` names the last one shown.
    pub(super) fn answer<T: Serialize>(&self, app: &App, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Response {
        let has_more = items.len() > self.size;
        items.truncate(self.size);
        let next_cursor = items.last().filter(|_| has_more).map(|last| self.seal(app, key(last)));
        self.page_of(items, has_more, next_cursor)
    }

    /// Where an action stands that walks over more than it does at once; its cursors belong to the caller's tenant and to
    /// `what` alone.
    pub(super) fn of_walk(caller: &Caller, what: &str) -> Self {
        let tenant = caller.principal.tenant;
        let filters = format!("{}|{}|{what}", tenant.workspace, tenant.mode.name());
        Self { page: 1, size: 1, after: None, filters, path: String::new() }
    }

    /// A cursor of a walk.
    pub(super) fn sealed(&self, app: &App, key: String) -> String {
        self.seal(app, key)
    }

    /// The key in a cursor of this walk.
    pub(super) fn opened(&self, app: &App, text: &str) -> Option<String> {
        self.open(app, text).map(|cursor| cursor.k)
    }

    fn page_of<T: Serialize>(&self, items: Vec<T>, has_more: bool, next_cursor: Option<String>) -> Response {
        let links = self.links(has_more, next_cursor.as_deref());
        let body = Page { items, page: self.page, page_size: self.size, has_more, next_cursor };
        let mut response = Json(body).into_response();
        if let Ok(value) = HeaderValue::from_str(&links) {
            response.headers_mut().insert(LINK, value);
        }
        response
    }

    /// As [`Self::answer`], of what is shown in another form than the key is taken from.
    pub(super) fn answer_as<R, T: Serialize>(
        &self,
        app: &App,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        show: impl Fn(&R) -> T,
    ) -> Response {
        let has_more = rows.len() > self.size;
        rows.truncate(self.size);
        let next_cursor = rows.last().filter(|_| has_more).map(|last| self.seal(app, key(last)));
        self.page_of(rows.iter().map(show).collect(), has_more, next_cursor)
    }

    fn links(&self, has_more: bool, next_cursor: Option<&str>) -> String {
        let (path, size) = (&self.path, self.size);
        let mut links = vec![format!("<{path}page=1&page_size={size}>; rel=\"first\"")];
        if self.page > 1 && self.after.is_none() {
            links.push(format!("<{path}page={}&page_size={size}>; rel=\"prev\"", self.page - 1));
        }
        // Past what pages reach, only the cursor goes on.
        let is_far = self.page.saturating_add(1).saturating_mul(size) > PAGE_REACH_MAX;
        match next_cursor {
            Some(cursor) if self.after.is_some() || is_far => {
                links.push(format!("<{path}cursor={cursor}>; rel=\"next\""))
            }
            _ if has_more => links.push(format!("<{path}page={}&page_size={size}>; rel=\"next\"", self.page + 1)),
            _ => {}
        }
        links.join(", ")
    }

    fn seal(&self, app: &App, key: String) -> String {
        let cursor = Cursor { v: 1, k: key, p: self.page + 1, s: self.size };
        let mut bytes = serde_json::to_vec(&cursor).unwrap_or_default();
        let mac = self.mac(app, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open(&self, app: &App, text: &str) -> Option<Cursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (json, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let genuine = subtle::ConstantTimeEq::ct_eq(self.mac(app, json).as_slice(), mac);
        let cursor: Cursor = serde_json::from_slice(json).ok()?;
        (bool::from(genuine) && cursor.v == 1 && (1..=PAGE_SIZE_MAX).contains(&cursor.s) && cursor.p > 0)
            .then_some(cursor)
    }

    fn mac(&self, app: &App, json: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&app.cursor_key) else { return Vec::new() };
        mac.update(self.filters.as_bytes());
        mac.update(json);
        mac.finalize().into_bytes().iter().copied().take(MAC_BYTES).collect()
    }
}

fn invalid_cursor() -> Problem {
    let detail = "the cursor is not one of this list with these filters; begin anew without it";
    Problem::bad_request("invalid_cursor", detail).with("param", "cursor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_next_past_the_reach_of_pages_is_told_by_its_cursor() {
        let next = |page: usize, size: usize| {
            let path = "/v1/accounts?".to_owned();
            let paging = Paging { page, size, after: None, filters: String::new(), path };
            let links = paging.links(true, Some("abc"));
            links.split(", ").find(|link| link.ends_with("rel=\"next\"")).unwrap().to_owned()
        };
        assert_eq!(next(99, 100), "</v1/accounts?page=100&page_size=100>; rel=\"next\"");
        assert_eq!(next(100, 100), "</v1/accounts?cursor=abc>; rel=\"next\"");
        assert_eq!(next(142, 70), "</v1/accounts?cursor=abc>; rel=\"next\"");
        assert_eq!(next(usize::MAX, 1), "</v1/accounts?cursor=abc>; rel=\"next\"");
    }
}
