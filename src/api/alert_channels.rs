//! Where an alert goes: channels by id, or by type, as far as its maker reaches them.

use super::app::{App, Caller};
use super::problem::Problem;
use crate::domain::control::command::ChannelChoice;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::{Channel, ChannelKind};
use crate::domain::control::sandbox::{outbox_channel, outbox_kind};
use crate::domain::id::{ChannelId, Mode, ProjectId};
use crate::domain::limits::CHANNELS_PER_ALERT_MAX;

/// Finds the channels that a choice stands for.
pub(super) fn resolve(
    app: &App,
    caller: &Caller,
    choice: &ChannelChoice,
    label: Option<ProjectId>,
) -> Result<Vec<ChannelId>, Problem> {
    let named = match choice {
        ChannelChoice::One(one) => std::slice::from_ref(one),
        ChannelChoice::Many(many) => many.as_slice(),
    };
    if named.is_empty() || named.len() > CHANNELS_PER_ALERT_MAX {
        return Err(Problem::invalid("/channel", format!("expected 1 to {CHANNELS_PER_ALERT_MAX} channels")));
    }
    let tenant = caller.principal.tenant;
    let state = app.node.data.control.state();
    let mut channels = Vec::new();
    for name in named {
        let kind = match name.as_str() {
            "slack" => Some(ChannelKind::Slack),
            "webhook" => Some(ChannelKind::Webhook),
            _ => None,
        };
        let found = match kind {
            Some(kind) => match (default_channel(&state, caller, kind, label), tenant.mode) {
                (Some(channel), _) => Some(channel),
                (None, Mode::Sandbox) => Some(outbox_channel(tenant.workspace, kind)),
                (None, Mode::Live) => None,
            },
            None => {
                let is_reached =
                    |channel: &Channel| caller.principal.reaches(channel.project) && channel.takes_alerts_of(label);
                let is_known = |id: &ChannelId| {
                    state.channel(tenant, *id).is_some_and(is_reached) || outbox_kind(tenant, *id).is_some()
                };
                name.parse().ok().filter(is_known)
            }
        };
        let Some(found) = found else {
            let shown: String = name.chars().take(64).collect();
            let detail = match kind {
                Some(kind) if caller.principal.projects.is_empty() => {
                    format!("there is no {} channel yet; create one with POST /v1/channels", kind.name())
                }
                Some(kind) => format!(
                    "no {} channel is labelled with the alert's project, and this credential reaches no other; create one with \
                     POST /v1/channels",
                    kind.name()
                ),
                None => format!(
                    "{shown:?} is no channel for this alert: expected slack, webhook or the chn_ id of a channel that is \
                     labelled with the alert's project, or with none"
                ),
            };
            let problem = Problem::invalid("/channel", detail);
            return Err(Problem { code: "channel_not_configured", ..problem });
        };
        if !channels.contains(&found) {
            channels.push(found);
        }
    }
    Ok(channels)
}

/// Tells whether alerts with a label may go to channels, as far as these exist.
pub(super) fn take_alerts_of(app: &App, caller: &Caller, channels: &[ChannelId], label: Option<ProjectId>) -> bool {
    let state = app.node.data.control.state();
    let mut known = channels.iter().filter_map(|id| state.channel(caller.principal.tenant, *id));
    known.all(|channel| channel.takes_alerts_of(label))
}

/// Where an alert goes that names only a kind: a channel of its project, else one that is labelled with none, where the caller
/// reaches that.
fn default_channel(state: &Control, caller: &Caller, kind: ChannelKind, label: Option<ProjectId>) -> Option<ChannelId> {
    let of = |label| state.default_channel(caller.principal.tenant, kind, label).map(|channel| channel.id);
    let own = label.and_then(|project| of(Some(project)));
    own.or_else(|| if caller.principal.reaches(None) { of(None) } else { None })
}
