//! What a credential may hand on: never more than it has, for no longer, to no other projects, from no other addresses, in no
//! other mode. And what it may touch: no other credential that has more rights than it.

use super::app::{App, Caller};
use super::problem::Problem;
use super::text;
use crate::domain::control::resource::{ApiKey, OAuthClient, Role, Scope, ScopeSet};
use crate::domain::id::{Mode, ProjectId, Tenant};
use crate::domain::limits::{ALLOWED_IPS_MAX, PROJECTS_PER_KEY_MAX, ROTATION_GRACE, ROTATION_GRACE_MAX};
use crate::domain::time::{Millis, Timestamp};
use crate::runtime::clock;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Scopes as an array, or as one text with spaces between them.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected an array of scopes, or a text with spaces between them")]
pub(super) enum ScopeList {
    /// As OAuth writes them.
    Text(String),
    /// One by one.
    List(Vec<String>),
}

/// What is asked for a credential to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub scope: Option<ScopeList>,
    pub role: Option<String>,
    pub mode: Option<String>,
    pub project_ids: Option<Vec<String>>,
    pub expires_in: Option<String>,
    pub expires_at: Option<String>,
    pub allowed_ips: Option<Vec<String>>,
}

/// What a credential to be is given.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub tenant: Tenant,
    pub scopes: BTreeSet<Scope>,
    pub role: Option<Role>,
    pub projects: Vec<ProjectId>,
    pub allowed_ips: Vec<IpNet>,
    pub expires_at: Option<Timestamp>,
}

/// What a credential that there is may do, where, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights<'a> {
    pub scopes: &'a BTreeSet<Scope>,
    pub projects: &'a [ProjectId],
    pub allowed_ips: &'a [IpNet],
}

impl<'a> Rights<'a> {
    pub(super) fn of_key(key: &'a ApiKey) -> Self {
        Self { scopes: &key.scopes, projects: &key.projects, allowed_ips: &key.allowed_ips }
    }

    pub(super) fn of_client(client: &'a OAuthClient) -> Self {
        Self { scopes: &client.scopes, projects: &client.projects, allowed_ips: &client.allowed_ips }
    }
}

/// Decides what a credential is given.
///
/// # Errors
/// 422 where a field is wrong, 403 `scope_escalation` where it is more than the caller has.
pub(super) fn grant(app: &App, caller: &Caller, wanted: Wanted) -> Result<Grant, Problem> {
    let (scopes, role) = scopes(wanted.scope, wanted.role)?;
    let mode = mode(caller, wanted.mode.as_deref())?;
    within(caller, &scopes)?;
    let tenant = Tenant { mode, ..caller.principal.tenant };
    let projects = projects(app, caller, tenant, wanted.project_ids)?;
    let allowed_ips = wanted.allowed_ips.map(networks).transpose()?;
    let allowed_ips = allowed_ips.unwrap_or_else(|| caller.principal.allowed_ips.clone());
    within_addresses(caller, &allowed_ips)?;
    let own = caller.principal.expires_at;
    let expires_at = expiry(caller, wanted.expires_in, wanted.expires_at)?.or(own);
    Ok(Grant { tenant, scopes, role, projects, allowed_ips, expires_at })
}

/// Refuses to change, replace or end a credential that has more rights than the caller. When it ends is no such right: a token
/// of an hour may revoke what it could have made.
///
/// # Errors
/// 403 `scope_escalation`, with what the caller lacks.
pub(super) fn within_rights(caller: &Caller, rights: Rights<'_>) -> Result<(), Problem> {
    within(caller, rights.scopes)?;
    within_projects(caller, rights.projects)?;
    within_addresses(caller, rights.allowed_ips)
}

/// Refuses scopes that the caller lacks.
///
/// # Errors
/// 403 `scope_escalation`, with those scopes.
pub(super) fn within(caller: &Caller, scopes: &BTreeSet<Scope>) -> Result<(), Problem> {
    let all = ScopeSet::closure(scopes);
    let offending: Vec<&str> = all.iter().filter(|scope| !caller.principal.may(*scope)).map(Scope::text).collect();
    if offending.is_empty() {
        return Ok(());
    }
    let detail =
        format!("this credential neither hands on nor changes what has scopes that it lacks: {}", offending.join(" "));
    Err(escalation(detail).with("scopes", offending))
}

/// Refuses projects that the caller does not reach; none stands for all of them.
///
/// # Errors
/// 403 `scope_escalation`.
pub(super) fn within_projects(caller: &Caller, projects: &[ProjectId]) -> Result<(), Problem> {
    if caller.principal.projects.is_empty() {
        return Ok(());
    }
    let beyond = |project: &&ProjectId| !caller.principal.reaches(Some(**project));
    let offending: Vec<String> = projects.iter().filter(beyond).map(ProjectId::to_string).collect();
    if !offending.is_empty() || projects.is_empty() {
        let detail = "this credential is narrowed to projects and neither hands on nor changes what has others";
        return Err(escalation(detail).with("project_ids", offending));
    }
    Ok(())
}

/// Refuses networks that the caller may not be used from; none stands for all addresses.
///
/// # Errors
/// 403 `scope_escalation`, with those networks.
pub(super) fn within_addresses(caller: &Caller, allowed_ips: &[IpNet]) -> Result<(), Problem> {
    if caller.principal.allowed_ips.is_empty() {
        return Ok(());
    }
    let offending = beyond(&caller.principal.allowed_ips, allowed_ips);
    if offending.is_empty() && !allowed_ips.is_empty() {
        return Ok(());
    }
    let detail = "this credential is bound to addresses and neither hands on nor changes what works from others";
    Err(escalation(detail).with("allowed_ips", offending))
}

/// Returns the networks that are not within others; two halves of a network are the network.
fn beyond(own: &[IpNet], wanted: &[IpNet]) -> Vec<String> {
    let own = IpNet::aggregate(&own.to_vec());
    let is_within = |network: &IpNet| own.iter().any(|own| own.contains(network));
    wanted.iter().filter(|network| !is_within(network)).map(IpNet::to_string).collect()
}

/// Reads addresses and networks.
///
/// # Errors
/// 422 where one is none, or there are too many.
pub(super) fn networks(texts: Vec<String>) -> Result<Vec<IpNet>, Problem> {
    if texts.len() > ALLOWED_IPS_MAX {
        let detail = format!("{} networks, at most {ALLOWED_IPS_MAX} are taken", texts.len());
        return Err(Problem::invalid("/allowed_ips", detail));
    }
    let read = |(at, text): (usize, &String)| {
        let address = || text.parse::<std::net::IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
        let network = text.parse::<IpNet>().ok().map(|network| network.trunc()).or_else(address);
        network.ok_or_else(|| {
            Problem::invalid(
                &format!("/allowed_ips/{at}"),
                format!("{text:?} is no address and no network such as 10.0.0.0/8"),
            )
        })
    };
    texts.iter().enumerate().map(read).collect()
}

/// 403 `scope_escalation`.
pub(super) fn escalation(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "scope_escalation", detail)
}

fn scopes(scope: Option<ScopeList>, role: Option<String>) -> Result<(BTreeSet<Scope>, Option<Role>), Problem> {
    match (scope, role) {
        (Some(_), Some(_)) => Err(Problem::invalid("/role", "give scope or role, not both")),
        (None, None) => Err(Problem::invalid("/scope", "give scope or role")),
        (None, Some(role)) => {
            let names: Vec<&str> = Role::ALL.iter().map(|role| role.text()).collect();
            let known = Role::parse(&role);
            let known = known.ok_or_else(|| Problem::invalid("/role", format!("expected one of {}", names.join(", "))));
            known.map(|role| (role.scopes(), Some(role)))
        }
        (Some(list), None) => {
            let read = |pointer: &str, text: &str| {
                let unknown = || Problem::invalid(pointer, format!("{text:?} is no scope; see /docs"));
                Scope::parse(text).ok_or_else(unknown)
            };
            let scopes: BTreeSet<Scope> = match list {
                ScopeList::Text(text) => {
                    text.split_ascii_whitespace().map(|one| read("/scope", one)).collect::<Result<_, _>>()?
                }
                ScopeList::List(all) => {
                    let numbered = all.iter().enumerate();
                    numbered.map(|(at, one)| read(&format!("/scope/{at}"), one)).collect::<Result<_, _>>()?
                }
            };
            if scopes.is_empty() { Err(Problem::invalid("/scope", "name at least one")) } else { Ok((scopes, None)) }
        }
    }
}

fn mode(caller: &Caller, wanted: Option<&str>) -> Result<Mode, Problem> {
    let own = caller.principal.tenant.mode;
    let wanted = match wanted {
        None => return Ok(own),
        Some("live") => Mode::Live,
        Some("sandbox") => Mode::Sandbox,
        Some(_) => return Err(Problem::invalid("/mode", "expected live or sandbox")),
    };
    let is_owner = caller.principal.may(Scope::AdminWorkspace) && caller.principal.projects.is_empty();
    match (own, wanted) {
        (Mode::Live, Mode::Live) | (Mode::Sandbox, Mode::Sandbox) => Ok(own),
        (Mode::Live, Mode::Sandbox) if is_owner => Ok(wanted),
        (Mode::Live, Mode::Sandbox) => Err(escalation("only a live owner makes credentials of the sandbox")),
        (Mode::Sandbox, Mode::Live) => Err(escalation("a sandbox credential makes no live ones")),
    }
}

/// A narrowed caller hands on its own projects where none are named.
fn projects(
    app: &App,
    caller: &Caller,
    tenant: Tenant,
    wanted: Option<Vec<String>>,
) -> Result<Vec<ProjectId>, Problem> {
    let Some(wanted) = wanted else { return Ok(caller.principal.projects.clone()) };
    if wanted.is_empty() || wanted.len() > PROJECTS_PER_KEY_MAX {
        let detail = format!("name 1 to {PROJECTS_PER_KEY_MAX} projects, or leave the field out for all");
        return Err(Problem::invalid("/project_ids", detail));
    }
    let mut projects = Vec::new();
    for (at, text) in wanted.iter().enumerate() {
        let pointer = format!("/project_ids/{at}");
        let id: ProjectId = text.parse().map_err(|_| Problem::invalid(&pointer, "there is no such project"))?;
        within_projects(caller, &[id])?;
        if app.node.data.control.state().project(tenant, id).is_none() {
            return Err(Problem::invalid(&pointer, "there is no such project"));
        }
        if !projects.contains(&id) {
            projects.push(id);
        }
    }
    Ok(projects)
}

/// When a credential is to end; nothing where the caller does not say.
///
/// # Errors
/// 422 where it is no time to come, 403 where it is behind the caller's own end.
pub(super) fn expiry(
    caller: &Caller,
    expires_in: Option<String>,
    expires_at: Option<String>,
) -> Result<Option<Timestamp>, Problem> {
    let now = clock::now();
    let (pointer, end) = match (expires_in, expires_at) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Problem::invalid("/expires_in", "give expires_in or expires_at, not both")),
        (Some(span), None) => ("/expires_in", now.plus(text::duration("/expires_in", &span)?)),
        (None, Some(at)) => {
            let expected = || Problem::invalid("/expires_at", "expected an RFC 3339 time such as 2026-12-31T23:59:59Z");
            ("/expires_at", Timestamp::parse(&at).ok_or_else(expected)?)
        }
    };
    if end <= now {
        return Err(Problem::invalid(pointer, "it lies not in the future"));
    }
    if end > Timestamp::LAST_WRITABLE {
        return Err(Problem::invalid(pointer, "it lies behind the year 9999"));
    }
    match caller.principal.expires_at {
        Some(own) if end > own => Err(escalation(format!("this credential itself ends at {own}"))),
        Some(_) | None => Ok(Some(end)),
    }
}

/// How long what a rotation replaces goes on to work.
///
/// # Errors
/// 422 where it is out of range.
pub(super) fn grace(seconds: Option<i64>) -> Result<Millis, Problem> {
    let Some(seconds) = seconds else { return Ok(ROTATION_GRACE) };
    let most = ROTATION_GRACE_MAX.0 / 1_000;
    if (0..=most).contains(&seconds) {
        Ok(Millis::seconds(seconds))
    } else {
        Err(Problem::invalid("/grace_seconds", format!("{seconds} is out of range, expected 0 to {most}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::admits;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// Networks of few bits, so that they overlap.
    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (0u8..4, 0u8..4, 6u8..=16).prop_map(|(a, b, bits)| (IpAddr::from([a << 6, b << 6, 0, 0]), bits));
        let v6 = (0u16..4, 14u8..=18).prop_map(|(a, bits)| (IpAddr::from([0x2001, a << 14, 0, 0, 0, 0, 0, 0]), bits));
        prop_oneof![v4, v6].prop_map(|(address, bits)| IpNet::new(address, bits).unwrap().trunc())
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<[u8; 2]>().prop_map(|[a, b]| IpAddr::V4(Ipv4Addr::new(a, b, 1, 1)));
        let v6 = any::<u16>().prop_map(|a| IpAddr::V6(Ipv6Addr::new(0x2001, a, 0, 0, 0, 0, 0, 1)));
        prop_oneof![v4, v6]
    }

    proptest! {
        /// What is handed on works from no address that its maker does not work from.
        #[test]
        fn what_is_within_works_from_nowhere_else(
            own in proptest::collection::vec(network(), 1..5),
            wanted in proptest::collection::vec(network(), 1..4),
            from in address(),
        ) {
            if beyond(&own, &wanted).is_empty() && admits(&wanted, from) {
                prop_assert!(admits(&own, from), "{own:?} hands on {wanted:?}, and {from} works");
            }
            prop_assert!(beyond(&own, &own).is_empty());
        }
    }

    #[test]
    fn halves_are_the_whole_and_families_stay_apart() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        assert!(beyond(&nets(&["10.0.0.0/9", "10.128.0.0/9"]), &nets(&["10.0.0.0/8"])).is_empty());
        assert_eq!(
            beyond(&nets(&["10.0.0.0/8"]), &nets(&["10.1.0.0/16", "11.0.0.0/8", "::/0"])),
            ["11.0.0.0/8", "::/0"]
        );
    }
}
