//! The topics: made where they are missing, checked where they are not. A wrong one is never changed, only named.

use super::settings::{KafkaSettings, Timestamps};
use super::{ASK_TIMEOUT, OpenError};
use crate::domain::limits::RECORD_BYTES_MAX;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::time::Duration;

/// How long a new topic may take to be known.
const SETTLING: Duration = Duration::from_millis(50);
const SETTLING_TRIES: usize = 100;

/// One topic and what it must be.
struct Wanted<'a> {
    name: &'a str,
    partitions: u32,
    properties: Vec<(&'static str, String)>,
}

fn wanted(settings: &KafkaSettings) -> [Wanted<'_>; 2] {
    let stamped = match settings.timestamps {
        Timestamps::Broker => "LogAppendTime",
        Timestamps::Appender(_) => "CreateTime",
    };
    let properties = || {
        vec![
            ("message.timestamp.type", stamped.to_owned()),
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
        ]
    };
    [
        Wanted { name: &settings.control_topic, partitions: 1, properties: properties() },
        Wanted { name: &settings.journal_topic, partitions: settings.partitions, properties: properties() },
    ]
}

/// Makes or checks the public topic. How long it keeps messages is its operator's business.
pub(super) async fn prepare_intake(settings: &KafkaSettings) -> Result<(), OpenError> {
    let failed = |detail: String| OpenError::Storage { path: settings.brokers.clone(), detail };
    let admin: AdminClient<DefaultClientContext> =
        settings.client().create().map_err(|error| failed(error.to_string()))?;
    let [control, _] = wanted(settings);
    let stamped = control.properties.into_iter().take(1).collect();
    let mut topic =
        Wanted { name: &settings.intake_topic, partitions: settings.intake_partitions, properties: stamped };
    create(&admin, settings, &topic).await?;
    topic.partitions = partitions(&admin, topic.name).await.map_err(failed)?;
    check(&admin, settings, &topic).await
}

/// Makes or checks both topics.
pub(super) async fn prepare(settings: &KafkaSettings) -> Result<(), OpenError> {
    let failed = |detail: String| OpenError::Storage { path: settings.brokers.clone(), detail };
    let admin: AdminClient<DefaultClientContext> =
        settings.client().create().map_err(|error| failed(error.to_string()))?;
    for topic in wanted(settings) {
        create(&admin, settings, &topic).await?;
        check(&admin, settings, &topic).await?;
    }
    Ok(())
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    settings: &KafkaSettings,
    topic: &Wanted<'_>,
) -> Result<(), OpenError> {
    let bytes_max = (RECORD_BYTES_MAX + 64 * 1024).to_string();
    let count = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    let mut new = NewTopic::new(topic.name, count, TopicReplication::Fixed(settings.replication));
    for (name, value) in &topic.properties {
        new = new.set(name, value);
    }
    new = new.set("max.message.bytes", &bytes_max);
    let options = AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
    let failed = |detail: String| OpenError::Storage { path: settings.brokers.clone(), detail };
    let results = admin.create_topics([&new], &options).await.map_err(|error| failed(error.to_string()))?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, partitions = topic.partitions, "made a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(failed(format!("make the topic {name}: {code}"))),
        }
    }
    Ok(())
}

async fn check(
    admin: &AdminClient<DefaultClientContext>,
    settings: &KafkaSettings,
    topic: &Wanted<'_>,
) -> Result<(), OpenError> {
    let failed = |detail: String| OpenError::Storage { path: settings.brokers.clone(), detail };
    let found = partitions(admin, topic.name).await.map_err(failed)?;
    if found != topic.partitions {
        if topic.name == settings.journal_topic {
            return Err(OpenError::Partitions { found, wanted: topic.partitions });
        }
        return Err(OpenError::Topic {
            topic: topic.name.to_owned(),
            detail: format!("it has {found} partitions, not {}", topic.partitions),
        });
    }
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic.name)], &options).await;
    let described = described.map_err(|error| failed(error.to_string()))?;
    for resource in described {
        let resource = resource.map_err(|code| failed(format!("ask what the topic {} is: {code}", topic.name)))?;
        for (name, wanted) in &topic.properties {
            let found = resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
            // An operator may keep less than everything, and then says so; a cut log is refused where it matters.
            let chosen = name.starts_with("retention");
            if found != *wanted && !chosen {
                let detail = format!("{name} is {found}, it must be {wanted}");
                return Err(OpenError::Topic { topic: topic.name.to_owned(), detail });
            }
            if found != *wanted {
                tracing::warn!(topic = topic.name, setting = name, found, "the journal does not keep everything");
            }
        }
    }
    Ok(())
}

/// How many partitions a topic has; waits until every one of them has a leader.
async fn partitions(admin: &AdminClient<DefaultClientContext>, name: &str) -> Result<u32, String> {
    let mut last = String::new();
    for _ in 0..SETTLING_TRIES {
        let metadata = admin
            .inner()
            .fetch_metadata(Some(name), ASK_TIMEOUT)
            .map_err(|error| format!("ask for topics: {error}"))?;
        if let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) {
            let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
            match topic.error() {
                None if led && !topic.partitions().is_empty() => {
                    return Ok(u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX));
                }
                None => last = "a partition has no leader".to_owned(),
                Some(error) => last = explain(error),
            }
        }
        tokio::time::sleep(SETTLING).await;
    }
    Err(format!("the topic {name} is not there: {last}"))
}

fn explain(error: RDKafkaRespErr) -> String {
    RDKafkaErrorCode::from(error).to_string()
}
