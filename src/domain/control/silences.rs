//! Silences: what is held, from when until when. Whose messages that holds, the partitions decide.

use super::command::clearable;
use super::outcome::{Change, Refused, Resource};
use super::patch::set;
use super::resource::{Life, SilenceRecord};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::definition::{Matcher, Silence};
use crate::domain::id::SilenceId;
use crate::domain::limits::SILENCES_MAX;
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A silence to be: validated, its expressions known to compile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceDraft {
    /// All of them must match.
    pub matchers: Vec<Matcher>,
    /// When it begins to hold.
    pub starts_at: Timestamp,
    /// When it ends.
    pub ends_at: Timestamp,
    /// Why it is there.
    pub comment: Option<String>,
}

/// Changes of a silence. An absent field stays; `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SilencePatch {
    /// All of them must match.
    pub matchers: Option<Vec<Matcher>>,
    /// When it begins to hold.
    pub starts_at: Option<Timestamp>,
    /// When it ends.
    pub ends_at: Option<Timestamp>,
    /// Why it is there.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub comment: Option<Option<String>>,
}

/// The silences of one tenant, those that ended among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Silences {
    pub(super) records: BTreeMap<SilenceId, SilenceRecord>,
}

impl Silences {
    pub(super) fn create(&mut self, context: Context, id: SilenceId, draft: &SilenceDraft) -> Verdict {
        if self.records.contains_key(&id) {
            return Err(exists_already("silence", id));
        }
        let has_ended =
            |record: &&SilenceRecord| record.expired_at.is_some() || record.silence.ends_at <= context.in_world;
        let ended = self.records.values().filter(has_ended);
        let first = ended.min_by_key(|record| (record.silence.ends_at, record.silence.id)).map(|r| r.silence.id);
        match first.filter(|_| self.records.len() >= SILENCES_MAX) {
            Some(first) => drop(self.records.remove(&first)),
            None => room_for_one(self.records.len(), SILENCES_MAX, "silences that have not ended")?,
        }
        let SilenceDraft { matchers, starts_at, ends_at, comment } = draft.clone();
        let silence = Silence { id, matchers, starts_at, ends_at };
        let life = Life::begun(context.now);
        let record = SilenceRecord {
            silence,
            comment,
            created_by: context.actor,
            expired_at: None,
            changed_at: changed_at(context),
            life,
        };
        Ok(self.keep(context, record, Accepted::created))
    }

    pub(super) fn update(&mut self, context: Context, id: SilenceId, patch: &SilencePatch) -> Verdict {
        let mut record = self.expected(context, id)?.clone();
        if record.expired_at.is_some() {
            return Err(Refused::InvalidState { detail: format!("silence {id} has expired; create another one") });
        }
        let silence = &mut record.silence;
        set(&mut silence.matchers, &patch.matchers);
        set(&mut silence.starts_at, &patch.starts_at);
        set(&mut silence.ends_at, &patch.ends_at);
        if silence.starts_at >= silence.ends_at {
            return Err(Refused::InvalidState { detail: format!("silence {id} would end before it begins") });
        }
        set(&mut record.comment, &patch.comment);
        record.life.touch(context.now);
        record.changed_at = changed_at(context);
        Ok(self.keep(context, record, Accepted::done))
    }

    /// Ends a silence; nothing changes where somebody did so already.
    pub(super) fn expire(&mut self, context: Context, id: SilenceId) -> Verdict {
        let mut record = self.expected(context, id)?.clone();
        if record.expired_at.is_some() {
            return Ok(Accepted::done(Resource::Silence(Box::new(record))));
        }
        record.expired_at = Some(context.now);
        record.life.touch(context.now);
        record.changed_at = changed_at(context);
        self.records.insert(id, record.clone());
        let gone = Change::SilenceDeleted { tenant: context.tenant, silence: id };
        Ok(Accepted::done(Resource::Silence(Box::new(record))).telling(gone))
    }

    fn expected(&self, context: Context, id: SilenceId) -> Result<&SilenceRecord, Refused> {
        let known = self.records.get(&id).ok_or_else(|| not_found("silence", id))?;
        context.expect_version(known.life.version)?;
        Ok(known)
    }

    fn keep(&mut self, context: Context, record: SilenceRecord, say: fn(Resource) -> Accepted) -> Accepted {
        let change = Change::Silence { tenant: context.tenant, silence: record.silence.clone() };
        self.records.insert(record.silence.id, record.clone());
        say(Resource::Silence(Box::new(record))).telling(change)
    }
}

fn changed_at(context: Context) -> Option<Timestamp> {
    (context.engine_version >= V3).then_some(context.in_world)
}
