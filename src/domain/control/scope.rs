//! What credentials may do, and the named sets of it. Both are frozen API surface; endpoints are not named here.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What a credential may do. Ordered as its text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope {$(
            $(#[$doc])*
            #[serde(rename = $text)]
            $name,
        )*}

        impl Scope {
            /// Every scope, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Returns the text as the API writes it.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

scopes! {
    /// Change the workspace itself and its settings.
    AdminWorkspace = "admin:workspace";
    /// See and rotate the secrets that sign webhooks.
    ManageWebhookSecrets = "manage:webhook-secrets";
    /// See accounts, quotas and metrics.
    ReadAccounts = "read:accounts";
    /// See alerts, their states and their history.
    ReadAlerts = "read:alerts";
    /// See who did what.
    ReadAudit = "read:audit";
    /// See channels, without their secrets.
    ReadChannels = "read:channels";
    /// See the quarantine.
    ReadEvents = "read:events";
    /// See API keys, without their secrets.
    ReadKeys = "read:keys";
    /// Read `/metrics` on the public listener.
    ReadMetrics = "read:metrics";
    /// See projects.
    ReadProjects = "read:projects";
    /// See silences.
    ReadSilences = "read:silences";
    /// See usage.
    ReadUsage = "read:usage";
    /// See webhooks and their deliveries.
    ReadWebhooks = "read:webhooks";
    /// Change accounts, quotas and metrics.
    WriteAccounts = "write:accounts";
    /// Change alerts.
    WriteAlerts = "write:alerts";
    /// Change channels.
    WriteChannels = "write:channels";
    /// Send events.
    WriteEvents = "write:events";
    /// Make, rotate and revoke API keys.
    WriteKeys = "write:keys";
    /// Change projects.
    WriteProjects = "write:projects";
    /// Reset the sandbox and put its clock forward.
    WriteSandbox = "write:sandbox";
    /// Change silences.
    WriteSilences = "write:silences";
    /// Change webhooks.
    WriteWebhooks = "write:webhooks";
}

impl Scope {
    /// Reads the API's text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.text() == text)
    }

    /// Returns the scope that this one brings along: `write:x` brings `read:x`.
    ///
    /// `write:events` brings nothing, so that an ingest key cannot read data back.
    pub const fn implied(self) -> Option<Self> {
        match self {
            Self::WriteAccounts => Some(Self::ReadAccounts),
            Self::WriteAlerts => Some(Self::ReadAlerts),
            Self::WriteChannels => Some(Self::ReadChannels),
            Self::WriteKeys => Some(Self::ReadKeys),
            Self::WriteProjects => Some(Self::ReadProjects),
            Self::WriteSilences => Some(Self::ReadSilences),
            Self::WriteWebhooks => Some(Self::ReadWebhooks),
            Self::AdminWorkspace
            | Self::ManageWebhookSecrets
            | Self::ReadAccounts
            | Self::ReadAlerts
            | Self::ReadAudit
            | Self::ReadChannels
            | Self::ReadEvents
            | Self::ReadKeys
            | Self::ReadMetrics
            | Self::ReadProjects
            | Self::ReadSilences
            | Self::ReadUsage
            | Self::ReadWebhooks
            | Self::WriteEvents
            | Self::WriteSandbox => None,
        }
    }

    /// Returns the scope, and the one that it brings along.
    fn with_implied(self) -> impl Iterator<Item = Self> {
        [Some(self), self.implied()].into_iter().flatten()
    }

    /// Adds what the scopes bring along.
    pub fn closure(scopes: &BTreeSet<Self>) -> BTreeSet<Self> {
        scopes.iter().flat_map(|scope| scope.with_implied()).collect()
    }
}

/// A set of scopes as bits: every request carries one, so it is copied and never allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u64);

impl ScopeSet {
    /// Returns the scopes with what they bring along.
    pub fn closure<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> Self {
        scopes.into_iter().flat_map(|scope| scope.with_implied()).collect()
    }

    /// Tells whether a scope is one of them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Returns them in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }

    const fn bit(scope: Scope) -> u64 {
        #[expect(clippy::as_conversions, reason = "the place of a variant without fields")]
        1_u64.wrapping_shl(scope as u32)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

/// A named set of scopes, resolved when a key is made and frozen on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but the workspace itself.
    Admin,
    /// The daily work on events, accounts, alerts and where they go.
    Developer,
    /// Sees everything but the audit log.
    Viewer,
    /// Sends events, sees nothing.
    Ingest,
}

impl Role {
    /// Every role, mightiest first.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Developer, Self::Viewer, Self::Ingest];

    /// The name as the API writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Viewer => "viewer",
            Self::Ingest => "ingest",
        }
    }

    /// Reads the API's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.text() == text)
    }

    /// Returns what the role may do, with what its scopes bring along.
    pub fn scopes(self) -> BTreeSet<Scope> {
        let all = Scope::ALL.iter().copied();
        let chosen: BTreeSet<Scope> = match self {
            Self::Owner => all.collect(),
            Self::Admin => all.filter(|scope| *scope != Scope::AdminWorkspace).collect(),
            Self::Developer => [
                Scope::WriteEvents,
                Scope::ReadEvents,
                Scope::ReadUsage,
                Scope::WriteAccounts,
                Scope::WriteAlerts,
                Scope::WriteSilences,
                Scope::WriteChannels,
                Scope::WriteWebhooks,
                Scope::ReadProjects,
            ]
            .into(),
            Self::Viewer => {
                all.filter(|scope| scope.text().starts_with("read:") && *scope != Scope::ReadAudit).collect()
            }
            Self::Ingest => [Scope::WriteEvents].into(),
        };
        Scope::closure(&chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_one_text_and_its_order() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.text()), Some(*scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.text());
        }
        assert!(Scope::ALL.windows(2).all(|pair| pair[0] < pair[1] && pair[0].text() < pair[1].text()));
        assert_eq!(Scope::ALL.len(), 22);
        assert_eq!(Scope::parse("read:everything"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_into_it_and_nothing_else() {
        assert!(Scope::ALL.len() <= 64);
        for scope in Scope::ALL {
            let set = ScopeSet::closure([scope]);
            let expected: Vec<Scope> = Scope::closure(&[*scope].into()).into_iter().collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            assert_eq!(Scope::ALL.iter().filter(|other| set.contains(**other)).count(), expected.len());
        }
        assert_eq!(ScopeSet::default().iter().count(), 0);
    }

    #[test]
    fn writing_brings_reading_except_for_events() {
        for scope in Scope::ALL {
            let reading = scope.text().strip_prefix("write:").and_then(|noun| Scope::parse(&format!("read:{noun}")));
            let expected = if *scope == Scope::WriteEvents { None } else { reading };
            assert_eq!(scope.implied(), expected, "{}", scope.text());
        }
    }

    #[test]
    fn roles_are_the_documented_sets() {
        let check = |role: &str, expected: &str| {
            let scopes = Role::parse(role).unwrap().scopes();
            let texts: Vec<&str> = scopes.iter().map(|scope| scope.text()).collect();
            assert_eq!(texts.join(" "), expected, "{role}");
        };
        check(
            "developer",
            "read:accounts read:alerts read:channels read:events read:projects read:silences read:usage read:webhooks \
             write:accounts write:alerts write:channels write:events write:silences write:webhooks",
        );
        check(
            "viewer",
            "read:accounts read:alerts read:channels read:events read:keys read:metrics read:projects read:silences \
             read:usage read:webhooks",
        );
        check("ingest", "write:events");
        assert_eq!(Role::Owner.scopes().len(), Scope::ALL.len());
        let beyond_admin: Vec<Scope> = Role::Owner.scopes().difference(&Role::Admin.scopes()).copied().collect();
        assert_eq!(beyond_admin, [Scope::AdminWorkspace]);
        assert_eq!(Role::parse("root"), None);
    }
}
