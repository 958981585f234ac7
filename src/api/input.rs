//! Reading requests: JSON bodies with exact faults, query strings without unknown names.

use super::problem::{Advice, Fault, Problem};
use crate::domain::id::{AccountId, MetricName, ProjectId};
use crate::domain::time::Timestamp;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_path_to_error::Segment;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Reads a JSON body.
///
/// # Errors
/// 415 where it is declared as something else, 400 where it is not JSON, 422 where a field is
/// unknown or wrong.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let declared = essence(headers);
    if !matches!(declared.as_deref(), None | Some("application/json" | "application/merge-patch+json")) {
        return Err(unsupported(&declared.unwrap_or_default(), "application/json, application/merge-patch+json"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| json_problem(&error))?;
    deserializer.end().map_err(|error| Problem::bad_request("malformed_json", error.to_string()))?;
    Ok(value)
}

/// An object and nothing else: a structure alone is read of an array, too, one field after the other.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// An object without fields.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Takes no body, or an empty object.
///
/// # Errors
/// As [`json`].
pub(super) fn empty(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() { Ok(()) } else { json(headers, body).map(|Nothing {}| ()) }
}

/// 415, with the types that are read.
pub(super) fn unsupported(found: &str, accepted: &'static str) -> Problem {
    let detail = format!("{found} is not read here; send one of {accepted}");
    Problem {
        advice: Some(Advice::AcceptPost(accepted)),
        ..Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }
}

/// The content type without its parameters, in lower case.
pub(super) fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

fn json_problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    if inner.is_syntax() || inner.is_eof() || inner.is_io() {
        return Problem::bad_request("malformed_json", inner.to_string());
    }
    let mut pointer = String::new();
    for segment in error.path().iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&token(key)),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let detail = inner.to_string();
    let code = if detail.starts_with("unknown field") { "unknown_field" } else { "validation_failed" };
    // What is missing or unknown has no value of its own, so the path leads to what it is missing in.
    let prefixes = ["missing field `", "unknown field `", "duplicate field `"];
    if let Some(named) = prefixes.iter().find_map(|prefix| detail.strip_prefix(prefix))
        && let Some((name, _)) = named.split_once('`')
        && !pointer.ends_with(&token(name))
    {
        pointer.push_str(&token(name));
    }
    let fault = Fault { pointer, code: code.to_owned(), detail: detail.clone(), ..Fault::default() };
    Problem { errors: vec![fault], ..Problem::unprocessable(code, detail) }
}

/// Makes a name one token of a JSON pointer (RFC 6901).
fn token(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Tells an absent field from one that is `null`.
///
/// # Errors
/// Where the value is wrong.
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Reads a field that may be left out, but not cleared.
///
/// # Errors
/// Where the value is wrong, or `null`.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a field that stands for its default where it is `null`.
///
/// # Errors
/// Where the value is wrong.
pub(super) fn defaulted<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Some(Option::<T>::deserialize(deserializer)?.unwrap_or_default()))
}

/// A query string whose names are all known.
#[derive(Debug, Default)]
pub(super) struct Query {
    values: BTreeMap<String, Vec<String>>,
}

impl Query {
    /// Reads a query string.
    ///
    /// # Errors
    /// 400 where a name is not among those that are known.
    pub(super) fn read(raw: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(raw.unwrap_or("").as_bytes()) {
            let is_known = known.contains(&name.as_ref())
                || member(&name).is_some_and(|(object, _)| known.contains(&format!("{object}[]").as_str()));
            if !is_known {
                let detail = format!("unknown parameter {name}; known are {}", known.join(", "));
                return Err(Problem::bad_request("unknown_parameter", detail).with("param", name.into_owned()));
            }
            query.values.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Ok(query)
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The members of an object that is written `name[member]=value`, each with all of its values.
    pub(super) fn members(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let of = |(full, values): (&String, &Vec<String>)| {
            let (object, member) = member(full)?;
            (object == name).then(|| (member.to_owned(), values.clone()))
        };
        self.values.iter().filter_map(of).collect()
    }

    /// The value of a name that may stand once.
    ///
    /// # Errors
    /// 400 where it stands more often.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.all(name) {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            [_, _, ..] => Err(parameter(name, "it stands more than once")),
        }
    }

    /// The value of a name, read as `T`.
    ///
    /// # Errors
    /// 400 where it is wrong, with what was expected.
    pub(super) fn read_as<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.one(name)? {
            None => Ok(None),
            Some(text) => match read(text) {
                Some(value) => Ok(Some(value)),
                None => Err(parameter(name, format!("{text:?} is not valid, expected {expected}"))),
            },
        }
    }

    /// Every value of a name, read as `T`.
    ///
    /// # Errors
    /// 400 where one is wrong, with what was expected.
    pub(super) fn read_all<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Problem> {
        let wrong = |text: &str| parameter(name, format!("{text:?} is not valid, expected {expected}"));
        self.all(name).iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect()
    }

    /// An instant.
    ///
    /// # Errors
    /// 400 where it is none.
    pub(super) fn instant(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.read_as(name, "an RFC 3339 time such as 2026-11-24T08:00:00Z", Timestamp::parse)
    }

    /// A metric.
    ///
    /// # Errors
    /// 400 where it is none.
    pub(super) fn metric(&self, name: &str) -> Result<Option<MetricName>, Problem> {
        self.read_as(name, MetricName::EXPECTED, |text| MetricName::new(text).ok())
    }

    /// Accounts, any of them.
    ///
    /// # Errors
    /// 400 where one is none.
    pub(super) fn accounts(&self, name: &str) -> Result<Vec<AccountId>, Problem> {
        self.read_all(name, AccountId::EXPECTED, |text| AccountId::new(text).ok())
    }

    /// Projects, any of them.
    ///
    /// # Errors
    /// 400 where one is none.
    pub(super) fn projects(&self, name: &str) -> Result<Vec<ProjectId>, Problem> {
        self.read_all(name, "prj_ and 26 base32 characters", |text| text.parse().ok())
    }

    /// The names and values that filter, as a query string that ends in `&`, for links and for binding a cursor to them.
    pub(super) fn filters(&self) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        let filters = self.values.iter().filter(|(name, _)| !matches!(name.as_str(), "page" | "page_size" | "cursor"));
        for (name, values) in filters {
            for value in values {
                text.append_pair(name, value);
            }
        }
        let text = text.finish();
        if text.is_empty() { text } else { text + "&" }
    }
}

/// Takes `object[member]` apart.
fn member(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(']')?.split_once('[')
}

/// 400 for one parameter.
pub(super) fn parameter(name: &str, detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::bad_request("invalid_parameter", format!("{name}: {detail}")).with("param", name)
}
