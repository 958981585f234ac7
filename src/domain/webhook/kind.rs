//! The types of events, and the patterns that subscribe to them. Both are frozen API surface.

use serde::{Deserialize, Serialize};

macro_rules! event_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What kind of thing happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventType {$(
            $(#[$doc])*
            #[serde(rename = $text)]
            $name,
        )*}

        impl EventType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name as the API writes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

event_types! {
    /// An alert's condition holds, but not for long enough yet.
    AlertPending = "alert.pending";
    /// An alert fires.
    AlertFiring = "alert.firing";
    /// A firing ended.
    AlertResolved = "alert.resolved";
    /// A late event overturned an earlier decision.
    AlertCorrected = "alert.corrected";
    /// All that an alert reads is missing.
    AlertNoData = "alert.no_data";
    /// Somebody tries whether messages arrive.
    AlertTest = "alert.test";
    /// Somebody looks after a firing.
    AlertAcknowledged = "alert.acknowledged";
    /// An alert was made.
    AlertCreated = "alert.created";
    /// An alert was changed.
    AlertUpdated = "alert.updated";
    /// An alert was paused.
    AlertPaused = "alert.paused";
    /// A pause ended.
    AlertResumed = "alert.resumed";
    /// An alert was deleted.
    AlertDeleted = "alert.deleted";
    /// An account was made.
    AccountCreated = "account.created";
    /// An account was deleted.
    AccountDeleted = "account.deleted";
    /// A silence was made.
    SilenceCreated = "silence.created";
    /// A silence ended.
    SilenceExpired = "silence.expired";
    /// An API key was made.
    ApiKeyCreated = "api_key.created";
    /// An API key was rotated.
    ApiKeyRotated = "api_key.rotated";
    /// An API key expires in 7 days, or in 1 day.
    ApiKeyExpiring = "api_key.expiring";
    /// An API key was revoked.
    ApiKeyRevoked = "api_key.revoked";
    /// An endpoint was disabled.
    WebhookDisabled = "webhook.disabled";
    /// An endpoint that had failed takes events again.
    WebhookRecovered = "webhook.recovered";
    /// The last attempt to deliver an event failed.
    DeliveryExhausted = "delivery.exhausted";
    /// A sandbox began anew.
    SandboxReset = "sandbox.reset";
    /// Somebody tries an endpoint out.
    WebhookTest = "webhook.test";
    // A type's place is written in snapshots: what is new stands at the end.
    /// An account used most of a quota.
    QuotaThresholdReached = "quota.threshold_reached";
    /// An account used more than a quota.
    QuotaExceeded = "quota.exceeded";
    /// A quota of which most was used began anew.
    QuotaReset = "quota.reset";
    /// Events were refused: the journal did not take them.
    IngestBackpressure = "ingest.backpressure";
    /// A channel lost a message, the first since it last took one.
    ChannelFailing = "channel.failing";
    /// A channel that lost messages takes them again.
    ChannelRecovered = "channel.recovered";
    /// As many deliveries wait for an endpoint as may: what comes for it is dropped, and can be replayed.
    WebhookOverflowing = "webhook.overflowing";
    /// Messages of the public topic were lost before they were read.
    IngestGap = "ingest.gap";
}

impl EventType {
    /// Reads the API's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text)
    }

    /// Tells whether a pattern, a name or `prefix.*` or `*`, stands for this type.
    pub fn matches(self, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some("") => true,
            Some(prefix) => prefix.ends_with('.') && self.name().starts_with(prefix),
            None => self.name() == pattern,
        }
    }

    /// Tells whether a pattern stands for anything at all.
    pub fn is_pattern(pattern: &str) -> bool {
        Self::ALL.iter().any(|kind| kind.matches(pattern))
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
