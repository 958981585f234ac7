//! Who takes care of which incident. What an incident is, the partitions' transitions say.

use super::outcome::Resource;
use super::resource::Acknowledgement;
use super::verdict::{Accepted, Context};
use crate::domain::id::{AlertId, IncidentId};
use crate::domain::limits::ACKNOWLEDGEMENTS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The acknowledgements of one tenant; the oldest go where there are too many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Acknowledgements {
    records: BTreeMap<IncidentId, Acknowledgement>,
    by_age: VecDeque<IncidentId>,
}

impl Acknowledgements {
    pub(super) fn get(&self, id: IncidentId) -> Option<&Acknowledgement> {
        self.records.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Acknowledgement> {
        self.records.values()
    }

    /// Notes who takes care; who was first stays.
    pub(super) fn note(&mut self, context: Context, incident: IncidentId, alert: AlertId) -> Accepted {
        if let Some(known) = self.records.get(&incident) {
            return Accepted::done(Resource::Acknowledgement(known.clone()));
        }
        if self.by_age.len() >= ACKNOWLEDGEMENTS_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.records.remove(&oldest);
        }
        let noted = Acknowledgement { incident, alert, at: context.now, by: context.actor };
        self.records.insert(incident, noted.clone());
        self.by_age.push_back(incident);
        Accepted::done(Resource::Acknowledgement(noted))
    }
}
