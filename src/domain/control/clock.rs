//! What a wrong clock leaves in the control plane, once the clock is set back: instants that have not come.

use super::registry::Registry;
use crate::domain::time::Timestamp;

impl Registry {
    /// Lets nothing that is asked "for how long" be of a time behind `to`.
    ///
    /// Access tokens that were revoked may have been forgotten with the end that the wrong clock gave them, so all that were issued
    /// until `to` are. What has an end of its own, such as a key, keeps it.
    pub(super) fn set_clock(&mut self, to: Timestamp) {
        for world in self.worlds.values_mut() {
            if let Some(sandbox) = &mut world.sandbox {
                sandbox.opened_at = sandbox.opened_at.min(to);
                sandbox.last_reset_at = sandbox.last_reset_at.map(|at| at.min(to));
            }
            world.trials.set_clock(to);
            for webhook in world.webhooks.records.values_mut() {
                webhook.failing_since = webhook.failing_since.map(|since| since.min(to));
            }
        }
        for client in self.clients.records.values_mut() {
            client.revoked_through = Some(to);
        }
    }
}
