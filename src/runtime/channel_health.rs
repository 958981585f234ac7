//! How channels do, told to the control fold: it keeps since when one loses messages, and lets the partitions send what it
//! has not heard once it takes them again.

use super::control::{Asking, ControlPlane, SubmitError};
use crate::domain::control::command::{ChannelReport, Command};
use crate::domain::id::{ChannelId, Tenant};
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;

/// Tells that a channel lost a message. Call it before the loss is recorded: what is told twice changes nothing, and what is
/// not told would show nowhere.
///
/// # Errors
/// Where the control log does not take it.
pub(super) async fn tell_lost(
    control: &ControlPlane,
    (tenant, channel): (Tenant, ChannelId),
    at: Timestamp,
) -> Result<(), SubmitError> {
    let wanted = {
        let state = control.state();
        let known = state.channel(tenant, channel);
        state.engine_version() >= V3 && known.is_some_and(|channel| channel.failing_since.is_none())
    };
    if wanted {
        tracing::error!(channel = %channel, "a channel loses messages: nobody hears of what goes there alone");
        report(control, tenant, ChannelReport { id: channel, delivered: false, is_test: false, at }).await?;
    }
    Ok(())
}

/// Tells that a channel took a message, where that changes how it does. Call it behind the record of the success: the
/// channel still fails for who finds that this was not told, so its next success tells it.
pub(super) async fn tell_taken(
    control: &ControlPlane,
    (tenant, channel): (Tenant, ChannelId),
    is_test: bool,
    at: Timestamp,
) {
    let wanted = {
        let state = control.state();
        let known = state.channel(tenant, channel);
        state.engine_version() >= V3 && known.is_some_and(|channel| is_test || channel.failing_since.is_some())
    };
    if !wanted {
        return;
    }
    let told = report(control, tenant, ChannelReport { id: channel, delivered: true, is_test, at }).await;
    match told {
        Ok(()) => tracing::info!(channel = %channel, "a channel takes messages"),
        Err(error) => {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(channel = %channel, error = %cause, "that a channel takes messages again could not be recorded");
        }
    }
}

async fn report(control: &ControlPlane, tenant: Tenant, report: ChannelReport) -> Result<(), SubmitError> {
    control.submit(Asking::by_command_line(tenant), Command::ReportChannel(report)).await.map(drop)
}
