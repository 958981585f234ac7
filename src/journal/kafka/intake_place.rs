//! Where reading a partition of the intake begins, and which messages before there are gone.
//!
//! The client is never left to choose: where an offset is not there any more it would go on elsewhere without a word.
//! [`Known::place`] decides of what the brokers say, and is pure.

use super::ASK_TIMEOUT;
use super::intake::IntakeStart;
use super::settings::KafkaSettings;
use crate::domain::control::intake::{GapCause, IntakeGap};
use crate::domain::time::Timestamp;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

/// What a commit says in front of the time, where nothing was read yet: since when it stands there.
const SINCE: &str = "since=";

/// How far a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastRead {
    /// The next offset.
    pub(super) next: i64,
    /// When the message before it was taken in; absent where none was read.
    pub(super) recorded_at: Option<Timestamp>,
    /// Everything that was taken in until then was read.
    pub(super) read_until: Option<Timestamp>,
}

impl LastRead {
    /// That of a message that was read.
    pub(super) const fn message(next: i64, recorded_at: Timestamp) -> Self {
        Self { next, recorded_at: Some(recorded_at), read_until: Some(recorded_at) }
    }

    /// Reads a commit, with the text that goes along.
    pub(super) fn committed(next: i64, metadata: &str) -> Self {
        let instant = |text: &str| text.parse().ok().map(Timestamp);
        let recorded_at = instant(metadata);
        let read_until = recorded_at.or_else(|| instant(metadata.strip_prefix(SINCE)?));
        Self { next, recorded_at, read_until }
    }
}

/// The text that goes along with a commit behind no message.
pub(super) fn since(at: Timestamp) -> String {
    format!("{SINCE}{}", at.0)
}

/// What is known of a partition that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// How far the group, or this member, has read it.
    pub(super) last: Option<LastRead>,
    /// How far it was read at least, where the brokers have forgotten it.
    pub(super) forgotten: Option<LastRead>,
    /// The first offset that is there, and the one behind the last.
    pub(super) offsets: (i64, i64),
    /// When the message before the next one was taken in, by the topic; absent where it is not there or was not asked for.
    pub(super) before: Option<Timestamp>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At this offset.
    At(i64),
    /// At the first message that was taken in at or behind this instant, or behind the last one.
    Since(Timestamp),
}

impl Known {
    /// Decides where reading begins, and why messages before there are gone, if any are.
    pub(super) fn place(&self, start: IntakeStart) -> (Begin, Option<GapCause>) {
        let (first, end) = self.offsets;
        let since = |last: &LastRead| last.read_until.map_or(Begin::At(first), Begin::Since);
        match (&self.last, &self.forgotten) {
            (Some(last), _) if last.next < first => (Begin::At(first), Some(GapCause::Removed)),
            (Some(last), _) if last.next > end || self.is_another(last) => (since(last), Some(GapCause::Replaced)),
            (Some(last), _) => (Begin::At(last.next), None),
            // Of what was read before nothing is known but the time: dedup removes what is read again.
            (None, Some(last)) => (since(last), Some(GapCause::Forgotten)),
            (None, None) => match start {
                IntakeStart::Earliest => (Begin::At(first), None),
                IntakeStart::Latest => (Begin::At(end), None),
            },
        }
    }

    /// Tells whether another message stands where the last one was read: brokers stamp, so it has another time.
    fn is_another(&self, last: &LastRead) -> bool {
        matches!((last.recorded_at, self.before), (Some(read), Some(found)) if read != found)
    }
}

/// Where a partition is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakePlace {
    /// The offset of the first message that is read.
    pub begin: i64,
    /// What is gone before it.
    pub gap: Option<IntakeGap>,
    /// What a commit of it says of the time; absent where the group has committed it.
    pub(super) metadata: Option<String>,
}

/// Looks at single messages; no member of any group.
pub(super) struct Probe {
    consumer: BaseConsumer,
    topic: String,
}

impl Probe {
    pub(super) fn new(settings: &KafkaSettings) -> KafkaResult<Self> {
        let consumer = settings
            .client()
            .set("group.id", format!("{}.intake", settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What was asked for is not there any more: the first one that is does as well, and says its offset.
            .set("auto.offset.reset", "earliest")
            .create()?;
        Ok(Self { consumer, topic: settings.intake_topic.clone() })
    }

    /// The offset and the time of the first message at or behind an offset; none where no broker hands one over in time.
    pub(super) fn message(&self, partition: i32, offset: i64) -> KafkaResult<Option<(i64, Timestamp)>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let polled = self.consumer.poll(ASK_TIMEOUT).transpose();
        self.consumer.unassign()?;
        let found = polled?;
        Ok(found.and_then(|message| Some((message.offset(), Timestamp(message.timestamp().to_millis()?)))))
    }

    /// Asks what is known of a partition.
    pub(super) fn ask(
        &self,
        partition: i32,
        (last, forgotten): (Option<LastRead>, Option<LastRead>),
    ) -> KafkaResult<Known> {
        let offsets = self.consumer.fetch_watermarks(&self.topic, partition, ASK_TIMEOUT)?;
        let read = last.filter(|last| last.recorded_at.is_some() && offsets.0 < last.next && last.next <= offsets.1);
        let before = match read {
            Some(last) => {
                let found = self.message(partition, last.next - 1)?;
                found.filter(|(offset, _)| *offset == last.next - 1).map(|(_, at)| at)
            }
            None => None,
        };
        Ok(Known { last, forgotten, offsets, before })
    }

    /// Finds where reading begins. `now` is the time of what is not there.
    pub(super) fn place(
        &self,
        partition: i32,
        known: &Known,
        (start, now): (IntakeStart, Timestamp),
    ) -> KafkaResult<IntakePlace> {
        let (begin, cause) = known.place(start);
        let (_, end) = known.offsets;
        let begin = match begin {
            Begin::At(offset) => offset,
            Begin::Since(at) => self.offset_at(partition, at)?.unwrap_or(end),
        };
        let Some(cause) = cause else {
            let metadata = known.last.is_none().then(|| since(now));
            return Ok(IntakePlace { begin, gap: None, metadata });
        };
        let left = if begin < end { self.message(partition, begin)? } else { None };
        let left_from = left.map_or(now, |(_, at)| at);
        let last = known.last.or(known.forgotten);
        let from = last.filter(|_| known.last.is_some()).map(|last| last.next);
        let read_until = last.and_then(|last| last.read_until);
        let gap = IntakeGap { topic: self.topic.clone(), partition, cause, from, to: begin, read_until, left_from };
        Ok(IntakePlace { begin, gap: Some(gap), metadata: Some(since(left_from)) })
    }

    /// The offset of the first message that was taken in at or behind an instant.
    fn offset_at(&self, partition: i32, at: Timestamp) -> KafkaResult<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(at.0))?;
        let found = self.consumer.offsets_for_times(list, ASK_TIMEOUT)?;
        let place = found.find_partition(&self.topic, partition);
        Ok(place.and_then(|place| match place.offset() {
            Offset::Offset(offset) => Some(offset),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Begin::{At, Since};
    use GapCause::{Forgotten, Removed, Replaced};

    #[test]
    fn reading_begins_where_it_ended_or_says_what_is_gone() {
        let read = |next| Some(LastRead::message(next, Timestamp(7)));
        let known = |last, forgotten, offsets, before: Option<i64>| Known {
            last,
            forgotten,
            offsets,
            before: before.map(Timestamp),
        };
        for (known, begin, gap) in [
            // Where it ended: in the middle, at the first one that is left, behind the last one.
            (known(read(5), None, (0, 9), Some(7)), At(5), None),
            (known(read(5), None, (5, 9), None), At(5), None),
            (known(read(9), None, (0, 9), Some(7)), At(9), None),
            (known(read(9), None, (9, 9), None), At(9), None),
            // The message before is not there to compare: nothing speaks against it.
            (known(read(5), None, (0, 9), None), At(5), None),
            // Retention was faster, by one message and by all.
            (known(read(5), None, (6, 9), None), At(6), Some(Removed)),
            (known(read(5), None, (9, 9), None), At(9), Some(Removed)),
            // Made anew, with fewer messages, with none, and with as many or more.
            (known(read(5), None, (0, 4), None), Since(Timestamp(7)), Some(Replaced)),
            (known(read(5), None, (0, 0), None), Since(Timestamp(7)), Some(Replaced)),
            (known(read(5), None, (0, 5), Some(8)), Since(Timestamp(7)), Some(Replaced)),
            (known(read(5), None, (0, 9), Some(6)), Since(Timestamp(7)), Some(Replaced)),
            // Committed before anything was read, and removed before anything was.
            (known(Some(LastRead::committed(0, "since=3")), None, (0, 9), None), At(0), None),
            (known(Some(LastRead::committed(0, "since=3")), None, (2, 9), None), At(2), Some(Removed)),
            (known(Some(LastRead::committed(5, "since=3")), None, (0, 2), None), Since(Timestamp(3)), Some(Replaced)),
            (known(Some(LastRead::committed(5, "")), None, (1, 2), None), At(1), Some(Replaced)),
            // Read before, and nobody knows how far.
            (known(None, read(5), (0, 9), None), Since(Timestamp(7)), Some(Forgotten)),
        ] {
            for start in [IntakeStart::Earliest, IntakeStart::Latest] {
                assert_eq!(known.place(start), (begin, gap), "{known:?}");
            }
        }
        // Only a partition that was never read begins where the settings say.
        let fresh = known(None, None, (3, 9), None);
        assert_eq!(fresh.place(IntakeStart::Earliest), (At(3), None));
        assert_eq!(fresh.place(IntakeStart::Latest), (At(9), None));
    }

    #[test]
    fn a_commit_says_how_far_the_time_is() {
        let all = |text: &str| {
            let last = LastRead::committed(1, text);
            (last.recorded_at.map(|at| at.0), last.read_until.map(|at| at.0))
        };
        assert_eq!(all("1700"), (Some(1700), Some(1700)));
        assert_eq!(all(&since(Timestamp(1700))), (None, Some(1700)));
        assert_eq!((all(""), all("since="), all("other")), ((None, None), (None, None), (None, None)));
    }
}
