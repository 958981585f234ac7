//! Who may ask how often: the rate limits of keys, and the throttle of addresses that present wrong ones.
//!
//! Budgets are this process's: a restart empties them, and each node of a cluster has its own.

use super::problem::Problem;
use crate::credential::Principal;
use crate::domain::id::{KeyId, Mode, ProjectId};
use crate::domain::limits::{FAILING_ADDRESSES_MAX, RATE_BUCKETS_MAX, RATE_IDLE};
use crate::domain::time::Millis;
use crate::limiter::{Decision, Rings, Standing};
use crate::runtime::clock::{self, Stopwatch};
use crate::runtime::requests::Requests;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often each may ask in any window; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The window's length, in whole seconds.
    pub window: Millis,
    /// Requests of a live key.
    pub live: u32,
    /// Requests of a sandbox key.
    pub sandbox: u32,
    /// Requests of a live key to `/v1/events`; they draw on nothing else.
    pub ingest: u32,
    /// Requests of a sandbox key to `/v1/events`.
    pub sandbox_ingest: u32,
    /// Requests of an address with a credential that is not valid.
    pub auth_failures: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            window: Millis::minutes(1),
            live: 120,
            sandbox: 30,
            ingest: 6_000,
            sandbox_ingest: 600,
            auth_failures: 60,
        }
    }
}

impl Rates {
    /// No limits at all: for measurements, and where a gateway in front has its own.
    pub fn unlimited() -> Self {
        Self { live: 0, sandbox: 0, ingest: 0, sandbox_ingest: 0, auth_failures: 0, ..Self::default() }
    }
}

/// Which of its budgets a request draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    General,
    Ingest,
}

impl Class {
    fn of(path: &str) -> Self {
        let rest = path.strip_prefix("/v1/events");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) { Self::Ingest } else { Self::General }
    }
}

/// What the callers of this process have asked already.
#[derive(Debug)]
pub(super) struct Gate {
    rates: Rates,
    /// Whether other nodes have budgets of their own.
    is_shared: bool,
    started: Stopwatch,
    /// What is asked for each project.
    counted: Requests,
    requests: Rings<(KeyId, Class)>,
    failures: Rings<IpAddr>,
}

/// How a request stands to the limit that it drew on.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    policy: Policy,
    standing: Standing,
    /// Whether it was within the limit.
    is_taken: bool,
    /// When there is room for one more, in milliseconds since 1970.
    resets_at_ms: u64,
}

/// A limit with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// As the headers name it.
    pub name: &'static str,
    /// How many requests are allowed in any window; 0 is no limit.
    pub limit: u32,
    /// The window's length.
    pub window: Millis,
    is_shared: bool,
}

/// A request that presented a valid credential.
#[derive(Clone, Debug)]
struct Known {
    mode: Mode,
    /// The project that it counts for, where the credential says so.
    project: Option<ProjectId>,
    /// How it stood, where there is a limit.
    drawn: Option<Drawn>,
    requests: Requests,
}

/// Where a request notes how it stood, for its answer. A request that is looked at twice draws once.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenRate(Arc<OnceLock<Known>>);

impl Gate {
    pub(super) fn new(rates: Rates, is_shared: bool, counted: Requests) -> Self {
        let (window, idle) = (span(rates.window), span(RATE_IDLE));
        Self {
            rates,
            is_shared,
            counted,
            started: Stopwatch::start(),
            requests: Rings::new(window, idle, RATE_BUCKETS_MAX),
            failures: Rings::new(window, idle, FAILING_ADDRESSES_MAX),
        }
    }

    /// The limits on a principal: in general, and on events.
    pub(super) fn policies(&self, principal: &Principal) -> [Policy; 2] {
        ["/", "/v1/events"].map(|path| self.policy(principal, path))
    }

    /// The limit on what a principal asks of a path.
    fn policy(&self, principal: &Principal, path: &str) -> Policy {
        let rates = &self.rates;
        let (name, limit) = match (principal.tenant.mode, Class::of(path)) {
            (Mode::Live, Class::General) => ("default", principal.rate_limit.unwrap_or(rates.live)),
            (Mode::Sandbox, Class::General) => ("sandbox", principal.rate_limit.unwrap_or(rates.sandbox)),
            (Mode::Live, Class::Ingest) => ("ingest", rates.ingest),
            (Mode::Sandbox, Class::Ingest) => ("ingest", rates.sandbox_ingest),
        };
        Policy { name, limit, window: rates.window, is_shared: self.is_shared }
    }

    /// Draws one request of a principal, and notes in `seen` how it stands.
    ///
    /// # Errors
    /// 429 where the limit is reached; 503 where so many keys ask that this one cannot be counted.
    pub(super) fn admit(&self, principal: &Principal, path: &str, seen: Option<&SeenRate>) -> Result<(), Problem> {
        let policy = self.policy(principal, path);
        if seen.is_some_and(|SeenRate(seen)| seen.get().is_some()) {
            return Ok(());
        }
        let drawn = (policy.limit > 0).then(|| self.draw(principal, policy, path)).transpose()?;
        if let Some(SeenRate(seen)) = seen {
            let project = principal.projects.first().copied();
            seen.get_or_init(|| Known { mode: principal.tenant.mode, project, drawn, requests: self.counted.clone() });
        }
        match drawn {
            Some(Drawn { is_taken: false, standing, .. }) => {
                let spent = format!("{} requests in any {} are allowed", policy.limit, policy.window);
                Err(too_many("rate_limited", policy.name, spent, standing.wait))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn draw(&self, principal: &Principal, policy: Policy, path: &str) -> Result<Drawn, Problem> {
        let bucket = (principal.lineage, Class::of(path));
        let decision = self.requests.take(bucket, policy.limit, self.started.elapsed());
        let decision = decision.map_err(|full| {
            tracing::warn!(error = %full, "a request was refused");
            Problem::unavailable("overloaded", full.to_string())
        })?;
        let (standing, is_taken) = match decision {
            Decision::Taken(standing) => (standing, true),
            Decision::Refused(standing) => (standing, false),
        };
        let now_ms = u64::try_from(clock::now().0).unwrap_or(0);
        let resets_at_ms = now_ms + u64::try_from(standing.wait.as_millis()).unwrap_or(0);
        Ok(Drawn { policy, standing, is_taken, resets_at_ms })
    }

    /// Counts a request that presented a credential in vain, and returns what it is answered.
    ///
    /// Who presents none guesses nothing, and is not counted; who presents a valid one is never held up by others behind
    /// the same address.
    pub(super) fn failed(&self, address: IpAddr, problem: Problem) -> Problem {
        let is_guess = problem.status == StatusCode::UNAUTHORIZED && problem.code != "authentication_required";
        let Some(wait) = (if is_guess { self.guess(address) } else { None }) else { return problem };
        let (limit, window) = (self.rates.auth_failures, self.rates.window);
        let spent = format!("{limit} credentials that are not valid in any {window} are heard out");
        too_many("too_many_auth_failures", "auth-failures", spent, wait)
    }

    /// Counts a credential that was presented in vain; says how long to wait where those were too many.
    pub(super) fn guess(&self, address: IpAddr) -> Option<Duration> {
        let limit = self.rates.auth_failures;
        if limit == 0 {
            return None;
        }
        match self.failures.take(network(address), limit, self.started.elapsed()) {
            Ok(Decision::Taken(_)) => None,
            Ok(Decision::Refused(standing)) => Some(standing.wait),
            Err(_) => Some(span(self.rates.window)),
        }
    }

    /// Tells whether an address has presented too many wrong credentials to be worth a question to others.
    pub(super) fn is_failing(&self, address: IpAddr) -> bool {
        let limit = self.rates.auth_failures;
        limit > 0 && self.failures.is_spent(&network(address), limit, self.started.elapsed())
    }
}

impl SeenRate {
    /// Writes the headers of the request's answer, where it presented a valid credential, and counts it for its project:
    /// the first that its credential is narrowed to, else the one that the path names, where the answer shows that there
    /// is such a project.
    pub(super) fn answer(&self, path: &str, status: StatusCode, headers: &mut HeaderMap) {
        let Some(known) = self.0.get() else { return };
        if let Some(drawn) = &known.drawn {
            drawn.write(headers);
            if !drawn.is_taken {
                return;
            }
        }
        let has_project = status.is_success() || status == StatusCode::NOT_MODIFIED;
        let named = || if has_project { project_of(path) } else { None };
        if let Some(project) = known.project.or_else(named) {
            known.requests.count(known.mode, project);
        }
    }
}

impl Drawn {
    /// Writes the headers of an answer.
    fn write(&self, headers: &mut HeaderMap) {
        let Self { policy, standing, .. } = self;
        let mut text = String::with_capacity(64);
        // Writing to a string cannot fail; what is written is ASCII.
        let mut put = |name: &'static str, arguments: std::fmt::Arguments<'_>| {
            text.clear();
            if text.write_fmt(arguments).is_ok()
                && let Ok(value) = HeaderValue::from_str(&text)
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        let scope = if policy.is_shared { ";hw-scope=\"node\"" } else { "" };
        let (name, limit, window) = (policy.name, policy.limit, policy.window.0 / 1_000);
        put("ratelimit-policy", format_args!("\"{name}\";q={limit};w={window}{scope}"));
        put("ratelimit", format_args!("\"{name}\";r={};t={}", standing.remaining, seconds(standing.wait)));
        headers.insert("x-ratelimit-limit", limit.into());
        headers.insert("x-ratelimit-remaining", standing.remaining.into());
        headers.insert("x-ratelimit-reset", self.resets_at_ms.div_ceil(1_000).into());
    }
}

/// The project that a path is about.
fn project_of(path: &str) -> Option<ProjectId> {
    path.strip_prefix("/v1/projects/")?.split('/').next()?.parse().ok()
}

fn too_many(code: &'static str, policy: &'static str, spent: String, wait: Duration) -> Problem {
    crate::telemetry::counter("highwater_rate_limited_total", &[("policy", policy)], 1);
    let seconds = seconds(wait);
    let detail = format!("{spent}; try again in {seconds} s");
    Problem::too_often(code, policy, detail, seconds)
}

/// Whole seconds that are never too few.
pub(super) fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis.0).unwrap_or(0))
}

/// Whom an address stands for: whoever has one address of IPv6 has its whole /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_draw_on_what_they_should() {
        for path in ["/v1/events", "/v1/events/", "/v1/events/batch"] {
            assert_eq!(Class::of(path), Class::Ingest, "{path}");
        }
        for path in ["/v1/eventsx", "/v1/event", "/v1/alerts", "/v1/receipts/rcp_v1/events"] {
            assert_eq!(Class::of(path), Class::General, "{path}");
        }
    }

    #[test]
    fn neighbours_of_a_64_are_one_and_of_ipv4_are_not() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb:cccc::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn failures_are_counted_by_address_and_only_where_something_was_presented() {
        let gate = Gate::new(Rates { auth_failures: 3, ..Rates::default() }, false, Requests::default());
        let wrong = || Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "x");
        let nothing = || Problem::new(StatusCode::UNAUTHORIZED, "authentication_required", "x");
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..10 {
            assert_eq!(gate.failed(one, nothing()).status, StatusCode::UNAUTHORIZED);
            assert_eq!(gate.failed(one, Problem::unavailable("not_ready", "x")).code, "not_ready");
        }
        for _ in 0..3 {
            assert!(!gate.is_failing(one));
            assert_eq!(gate.failed(one, wrong()).code, "invalid_api_key");
        }
        let refused = gate.failed(one, wrong());
        assert_eq!((refused.code, refused.retry_after), ("too_many_auth_failures", Some(60)));
        assert!(gate.is_failing(one) && !gate.is_failing(other));
        assert_eq!(gate.failed(other, wrong()).code, "invalid_api_key");
    }

    #[test]
    fn headers_are_written_as_they_are_promised() {
        let policy = Policy { name: "default", limit: 120, window: Millis::minutes(1), is_shared: false };
        let standing = Standing { limit: 120, remaining: 0, wait: Duration::from_millis(11_001) };
        let drawn = Drawn { policy, standing, is_taken: false, resets_at_ms: 1_795_000_011_001 };
        let mut headers = HeaderMap::new();
        drawn.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=120;w=60");
        assert_eq!(headers["ratelimit"], "\"default\";r=0;t=12");
        assert_eq!(headers["x-ratelimit-limit"], "120");
        assert_eq!(headers["x-ratelimit-remaining"], "0");
        assert_eq!(headers["x-ratelimit-reset"], "1795000012");
        Drawn { policy: Policy { is_shared: true, ..policy }, ..drawn }.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=120;w=60;hw-scope=\"node\"");
    }
}
