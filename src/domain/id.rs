//! Identifiers: prefixed ULIDs for what highwater names, validated text for what callers name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A text is not an identifier of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected {expected}")]
pub struct InvalidId {
    /// What would have been right.
    pub expected: &'static str,
}

macro_rules! prefixed_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Written as its prefix and 26 Crockford base32 characters.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// The prefix of the text form.
            pub const PREFIX: &'static str = $prefix;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str($prefix)?;
                f.write_str(ulid::Ulid(self.0).array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { expected: concat!($prefix, " and 26 base32 characters") };
                let ulid = ulid::Ulid::from_string(text.strip_prefix($prefix).ok_or(invalid)?).map_err(|_| invalid)?;
                // Only the canonical spelling names the thing; the decoder also takes lower case.
                if Self(ulid.0).to_string() == text { Ok(Self(ulid.0)) } else { Err(invalid) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    Ok(Self(u128::deserialize(deserializer)?))
                }
            }
        }
    )*};
}

prefixed_ids! {
    /// A workspace: the tenant that owns everything else.
    WorkspaceId = "ws_";
    /// A project: a label on credentials and alerts.
    ProjectId = "prj_";
    /// An API key (its public half).
    KeyId = "key_";
    /// An OAuth client.
    ClientId = "cli_";
    /// An alert definition.
    AlertId = "alr_";
    /// A notification channel.
    ChannelId = "chn_";
    /// A silence.
    SilenceId = "sil_";
    /// A notification; the same on every retry.
    NotificationId = "msg_";
    /// A quarantined event.
    QuarantineId = "evt_";
    /// An endpoint that is told of state changes.
    WebhookId = "whk_";
    /// A replay of deliveries.
    ReplayId = "rpl_";
    /// An entry of the audit log; ordered as the entries are.
    AuditId = "aud_";
    /// An incident: one firing of an alert instance, from its beginning to its end.
    IncidentId = "inc_";
}

/// The world a credential belongs to. Objects never cross from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Real usage and real pages.
    Live,
    /// Isolated data for trying things out.
    Sandbox,
}

impl Mode {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Sandbox => "sandbox",
        }
    }
}

/// The first part of every key: a workspace in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tenant {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Live or sandbox.
    pub mode: Mode,
}

/// The control position of the last reset or deletion that covers an account; 0 when there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Behind every epoch that there may be: positions fit 63 bits.
    pub const LAST: Self = Self(u64::MAX >> 1);
}

/// A place in a log: the ordinal of a record, counted from 1; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const START: Self = Self(0);

    /// Returns the position behind this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a partition, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// Stands for the control log where rows are kept by partition.
    pub const CONTROL: Self = Self(u32::MAX);

    /// The log whose rows these are.
    pub const fn log(self) -> Log {
        if self.0 == Self::CONTROL.0 { Log::Control } else { Log::Partition(self) }
    }
}

impl Log {
    /// The number under which the rows of this log are kept.
    pub const fn rows(self) -> PartitionId {
        match self {
            Self::Control => PartitionId::CONTROL,
            Self::Partition(partition) => partition,
        }
    }
}

/// One of the logs that the journal keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// Commands: keys, accounts, quotas, channels, alerts.
    Control,
    /// Facts of one partition.
    Partition(PartitionId),
}

/// Prints `control` or `p17`.
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Partition(partition) => write!(f, "p{}", partition.0),
        }
    }
}

/// Where a record stands and when its log took it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The record's place in its log.
    pub position: Position,
    /// When the log took it in, by the log's own clock.
    pub recorded_at: crate::domain::time::Timestamp,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $check:ident, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// What a valid text looks like.
            pub const EXPECTED: &'static str = $expected;

            /// Tells whether a text is valid.
            pub fn is_valid(text: &str) -> bool {
                $check(text.as_bytes())
            }

            /// Makes a name of a valid text.
            ///
            /// # Errors
            /// Where the text does not have the form of [`Self::EXPECTED`].
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                if $check(text.as_bytes()) { Ok(Self(text.into())) } else { Err(InvalidId { expected: $expected }) }
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    )*};
}

names! {
    /// The caller's own name for one of their customers.
    AccountId: is_account, "1 to 128 characters of A-Z a-z 0-9 . _ : @ -";
    /// What is counted, for example `api.requests`.
    MetricName: is_metric, "a lower-case letter, then up to 63 of a-z 0-9 _ .";
}

fn is_account(text: &[u8]) -> bool {
    (1..=128).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

fn is_metric(text: &[u8]) -> bool {
    text.len() <= 64
        && text.first().is_some_and(u8::is_ascii_lowercase)
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_'))
}

/// One account, or all of them (`*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AccountScope {
    /// Every account of the tenant.
    All,
    /// This account alone.
    One(AccountId),
}

impl AccountScope {
    /// Tells whether the scope holds an account.
    pub fn covers(&self, account: &AccountId) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == account,
        }
    }

    /// Returns the text as the API writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "*",
            Self::One(account) => account.as_str(),
        }
    }
}

impl fmt::Display for AccountScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for AccountScope {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text == "*" { Ok(Self::All) } else { AccountId::new(&text).map(Self::One) }
    }
}

impl From<AccountScope> for String {
    fn from(scope: AccountScope) -> Self {
        scope.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_in_one_spelling_only() {
        let id = AlertId(0x0191_8c5e_0000_0000_0000_0000_0000_00ff);
        let text = id.to_string();
        assert!(text.starts_with("alr_") && text.len() == 30, "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_lowercase().parse::<AlertId>().is_err());
        assert!(text.replace("alr_", "chn_").parse::<AlertId>().is_err());
        assert_eq!(serde_json::from_str::<AlertId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn names_are_checked() {
        assert!(AccountId::new("acc_123:x@y-z.1").is_ok());
        assert!(
            AccountId::new("").is_err() && AccountId::new("*").is_err() && AccountId::new(&"a".repeat(129)).is_err()
        );
        assert!(MetricName::new("api.requests_2").is_ok());
        assert!(
            MetricName::new("Api").is_err()
                && MetricName::new("1a").is_err()
                && MetricName::new(&"a".repeat(65)).is_err()
        );
    }
}
