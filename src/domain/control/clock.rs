//! What a wrong clock leaves in the control plane, once the clock is set back: instants that have not come.

use super::outcome::Resource;
use super::registry::Registry;
use super::verdict::Accepted;
use crate::domain::definition::Silence;
use crate::domain::id::Tenant;
use crate::domain::time::Timestamp;

impl Registry {
    /// The silences of everybody that nobody has ended.
    pub(super) fn all_silences(&self) -> impl Iterator<Item = (Tenant, Silence)> {
        self.worlds.iter().flat_map(|(tenant, world)| {
            let going = world.silences.records.values().filter(|record| record.expired_at.is_none());
            going.map(|record| (*tenant, record.silence.clone()))
        })
    }

    /// Lets nothing that is asked "for how long" be of a time behind `to`.
    ///
    /// Access tokens that were revoked may have been forgotten with the end that the wrong clock gave them, so all that were issued
    /// until `to` are. What has an end of its own, such as a key, keeps it.
    pub(super) fn set_clock(&mut self, to: Timestamp) -> Accepted {
        for world in self.worlds.values_mut() {
            if let Some(sandbox) = &mut world.sandbox {
                sandbox.opened_at = sandbox.opened_at.min(to);
                sandbox.last_reset_at = sandbox.last_reset_at.map(|at| at.min(to));
            }
            world.trials.set_clock(to);
            for webhook in world.webhooks.records.values_mut() {
                webhook.failing_since = webhook.failing_since.map(|since| since.min(to));
                if let Some(overflow) = &mut webhook.overflow {
                    overflow.until = overflow.until.min(to);
                }
            }
        }
        for client in self.clients.records.values_mut() {
            client.revoked_through = Some(to);
        }
        Accepted::done(Resource::None)
    }
}
