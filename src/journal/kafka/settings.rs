//! Where the brokers are and what the topics must be, read from a URL:
//! `kafka://host:9092,host:9092?prefix=highwater&partitions=32&replication=3`.

use super::intake::IntakeStart;
use std::fmt;

/// Partitions of the journal where nobody says.
const PARTITIONS_DEFAULT: u32 = 32;
const INTAKE_PARTITIONS_DEFAULT: u32 = 4;
const PARTITIONS_MAX: u32 = 1_024;

/// How records are stamped.
#[derive(Clone, Copy, Debug)]
pub enum Timestamps {
    /// By the broker, as it appends (`LogAppendTime`).
    Broker,
    /// By whoever appends (`CreateTime`), for tests that make time themselves.
    Appender(fn() -> crate::domain::time::Timestamp),
}

/// What becomes of a partition of the intake whose next messages are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnIntakeGap {
    /// It is read on with the first message that is left.
    #[default]
    Continue,
    /// It is not read until somebody decides.
    Stop,
}

/// What the journal needs to know of Kafka.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The topic of the control log.
    pub control_topic: String,
    /// The topic of the partition logs.
    pub journal_topic: String,
    /// The topic that services may produce to.
    pub intake_topic: String,
    /// The consumer group that shares the partitions out, and its intake.
    pub group: String,
    /// Partitions of the journal; fixed when it is made.
    pub partitions: u32,
    /// Partitions of the intake, where it is made.
    pub intake_partitions: u32,
    /// Where this node's share of the intake begins; absent where it reads none.
    pub intake: Option<IntakeStart>,
    /// Whether the intake goes on where messages are gone.
    pub on_intake_gap: OnIntakeGap,
    /// Copies of every partition, where the topics are made.
    pub replication: i32,
    /// How records are stamped.
    pub timestamps: Timestamps,
    /// More properties of the client, such as `security.protocol`.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Properties may hold passwords.
        write!(f, "KafkaSettings({}, {})", self.brokers, self.journal_topic)
    }
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}; expected kafka://host:9092,…?prefix=highwater&partitions=32&replication=3")]
pub struct SettingsError {
    /// What is wrong.
    pub detail: String,
}

fn wrong<T>(detail: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { detail: detail.into() })
}

impl KafkaSettings {
    /// Reads a URL. Names with a dot are handed to the client as they are.
    ///
    /// # Errors
    /// Where it is none, or names something that is not known.
    pub fn parse(url: &str) -> Result<Self, SettingsError> {
        let Some(rest) = url.strip_prefix("kafka://") else { return wrong("the URL does not begin with kafka://") };
        let (brokers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let brokers = brokers.trim_end_matches('/');
        if brokers.is_empty() || !brokers.split(',').all(is_broker) {
            return wrong(format!("{brokers:?} is no list of host:port"));
        }
        let mut prefix = "highwater".to_owned();
        let mut settings = Self::named(brokers, &prefix);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "prefix" if is_topic(&value) => prefix = value.into_owned(),
                "prefix" => return wrong(format!("prefix {value:?} is no topic name")),
                "partitions" => match value.parse() {
                    Ok(count @ 1..=PARTITIONS_MAX) => settings.partitions = count,
                    Ok(_) | Err(_) => return wrong(format!("partitions is {value}, not from 1 to {PARTITIONS_MAX}")),
                },
                "intake_partitions" => match value.parse() {
                    Ok(count @ 1..=PARTITIONS_MAX) => settings.intake_partitions = count,
                    Ok(_) | Err(_) => {
                        return wrong(format!("intake_partitions is {value}, not from 1 to {PARTITIONS_MAX}"));
                    }
                },
                "intake" => match value.as_ref() {
                    "earliest" => settings.intake = Some(IntakeStart::Earliest),
                    "latest" => settings.intake = Some(IntakeStart::Latest),
                    "off" => settings.intake = None,
                    other => return wrong(format!("intake is {other}, not earliest, latest or off")),
                },
                "on_intake_gap" => match value.as_ref() {
                    "continue" => settings.on_intake_gap = OnIntakeGap::Continue,
                    "stop" => settings.on_intake_gap = OnIntakeGap::Stop,
                    other => return wrong(format!("on_intake_gap is {other}, not continue or stop")),
                },
                "replication" => match value.parse() {
                    Ok(copies @ 1..=32) => settings.replication = copies,
                    Ok(_) | Err(_) => return wrong(format!("replication is {value}, not from 1 to 32")),
                },
                property if property.contains('.') => {
                    settings.properties.push((property.to_owned(), value.into_owned()));
                }
                unknown => return wrong(format!("{unknown} is not known")),
            }
        }
        settings.check_security()?;
        let named = Self::named(brokers, &prefix);
        Ok(Self {
            control_topic: named.control_topic,
            journal_topic: named.journal_topic,
            intake_topic: named.intake_topic,
            group: named.group,
            ..settings
        })
    }

    /// A client without TLS and SASL would only say that a property is not known, or not connect.
    fn check_security(&self) -> Result<(), SettingsError> {
        let secures = |(name, value): &&(String, String)| {
            let plain = name == "security.protocol" && value.eq_ignore_ascii_case("plaintext");
            !plain && ["security.", "sasl.", "ssl."].iter().any(|family| name.starts_with(family))
        };
        match self.properties.iter().find(secures) {
            // The value may be a password.
            Some((name, _)) if !cfg!(feature = "kafka-tls") => wrong(format!(
                "{name} needs TLS or SASL, which this build has not: build it with the feature kafka-tls"
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn named(brokers: &str, prefix: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            control_topic: format!("{prefix}.control"),
            journal_topic: format!("{prefix}.journal"),
            intake_topic: format!("{prefix}.usage"),
            group: prefix.to_owned(),
            partitions: PARTITIONS_DEFAULT,
            intake_partitions: INTAKE_PARTITIONS_DEFAULT,
            intake: Some(IntakeStart::Earliest),
            on_intake_gap: OnIntakeGap::Continue,
            replication: 1,
            timestamps: Timestamps::Broker,
            properties: Vec::new(),
        }
    }

    /// The client's configuration that everything shares.
    pub(crate) fn client(&self) -> rdkafka::ClientConfig {
        let mut config = rdkafka::ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "highwater")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

fn is_broker(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_topic(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=200).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_what() {
        let settings =
            KafkaSettings::parse("kafka://a:9092,b:9093?prefix=hw&partitions=4&replication=3&socket.timeout.ms=9000");
        let settings = settings.unwrap();
        assert_eq!((settings.brokers.as_str(), settings.partitions, settings.replication), ("a:9092,b:9093", 4, 3));
        assert_eq!((settings.journal_topic.as_str(), settings.group.as_str()), ("hw.journal", "hw"));
        assert_eq!(settings.properties, [("socket.timeout.ms".to_owned(), "9000".to_owned())]);
        let stopping = KafkaSettings::parse("kafka://a:1?on_intake_gap=stop").unwrap();
        assert_eq!((stopping.on_intake_gap, settings.on_intake_gap), (OnIntakeGap::Stop, OnIntakeGap::Continue));
        assert_eq!(KafkaSettings::parse("kafka://a:1").unwrap().control_topic, "highwater.control");
        for secured in ["security.protocol=SASL_SSL", "sasl.password=secret", "ssl.ca.location=/x"] {
            let parsed = KafkaSettings::parse(&format!("kafka://a:9092?security.protocol=plaintext&{secured}"));
            assert_eq!(parsed.is_ok(), cfg!(feature = "kafka-tls"), "{secured}");
            let said = parsed.err().map_or_else(|| "kafka-tls".to_owned(), |error| error.to_string());
            assert!(said.contains("kafka-tls") && !said.contains("secret"), "{said}");
        }
        for (url, says) in [
            ("http://a:9092", "kafka://"),
            ("kafka://", "host:port"),
            ("kafka://a", "host:port"),
            ("kafka://a:0", "host:port"),
            ("kafka://a:9092?partitions=0", "partitions is 0"),
            ("kafka://a:9092?replication=x", "replication is x"),
            ("kafka://a:9092?on_intake_gap=halt", "on_intake_gap is halt, not continue or stop"),
            ("kafka://a:9092?prefx=x", "prefx is not known"),
            ("kafka://a:9092?prefix=a/b", "no topic name"),
        ] {
            let error = KafkaSettings::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
