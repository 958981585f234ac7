//! `serve`: a node with its API, until it is told to stop.

use super::exit::Code;
use super::workspace;
use crate::api::{ListenerLimits, Listeners, Running, Tls};
use crate::config::{self, Config, ConfigError, Given};
use crate::domain::control::command::Command;
use crate::domain::id::WorkspaceId;
use crate::domain::limits::STOP_BLOCKED_TIMEOUT;
use crate::runtime::data::Data;
use crate::runtime::descriptors;
use crate::runtime::node::{Duty, Node};
use anyhow::Context;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A configuration file (TOML) with the names of these flags, `_` for `-`; flags and environment stand over it
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

impl Arguments {
    /// Reads the configuration file, where one is given.
    ///
    /// # Errors
    /// As [`config::read_file`].
    pub(super) fn read_file(&self) -> Result<Given, ConfigError> {
        self.config.as_deref().map(config::read_file).transpose().map(Option::unwrap_or_default)
    }
}

pub(super) fn run(arguments: Arguments, file: Given) -> anyhow::Result<Code> {
    let config = config::resolve(arguments.given, file)?;
    let runtime = super::multi_threaded()?;
    let served = runtime.block_on(serve(&config));
    // A call that blocks, as to a disk that hangs, must not hold the process back.
    runtime.shutdown_timeout(Duration::from_millis(u64::try_from(STOP_BLOCKED_TIMEOUT.0).unwrap_or(0)));
    served
}

async fn serve(config: &Config) -> anyhow::Result<Code> {
    let mut terminate = signal(SignalKind::terminate())?;
    // A SIGHUP that nobody takes would end the process where it stands.
    let hang_up = signal(SignalKind::hangup())?;
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    tokio::spawn(reload(tls.clone(), hang_up));
    let running = tokio::select! {
        started = start(config, tls) => started?,
        // What is not served yet has nothing to end: what the journal holds is folded at the next start.
        stopped = told_to_stop(&mut terminate) => return Ok(stopped?),
    };
    announce(config, &running);
    let code = tokio::select! {
        stopped = told_to_stop(&mut terminate) => stopped?,
        code = failure(&running) => code,
    };
    tracing::info!("stopping: requests and attempts under way end first");
    running.stop().await;
    Ok(code)
}

async fn told_to_stop(terminate: &mut Signal) -> std::io::Result<Code> {
    tokio::select! {
        _ = terminate.recv() => Ok(Code::Done),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| Code::Done),
    }
}

/// Starts a node and serves it.
pub(super) async fn start(config: &Config, tls: Option<Tls>) -> anyhow::Result<Running> {
    let limits = ListenerLimits::default().within(descriptors::raise(), config.front.connections)?;
    tracing::info!(connections = limits.connections, per_address = limits.per_address, "connections are bounded");
    let listeners = Listeners::open(config.listen, config.admin).await?.with_front(config.front.clone());
    let listeners = listeners.with_limits(limits);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listeners = tls.into_iter().fold(listeners, Listeners::with_tls);
    let data = Data::open(&config.places).await.with_context(|| format!("open {}", config.places.folder.display()))?;
    let data = data.held_back_to(config.engine_version);
    let present = data.control.state().settings();
    let settings = config.settings.over(present)?;
    if settings != present {
        workspace::submit(&data, workspace::live(WorkspaceId(0)), Command::ChangeSettings { settings }).await?;
        tracing::info!(?settings, "the settings of the folds changed");
    }
    let base_url = config.base_url.clone().unwrap_or_else(|| format!("{scheme}://{}", listeners.address()));
    let node = Node::start(data, config.guard.clone(), &base_url, Duty::Serve).await?;
    Ok(listeners.serve(node))
}

fn announce(config: &Config, running: &Running) {
    let guard = &config.guard;
    if !guard.allow_cidrs.is_empty() || !guard.allow_hosts.is_empty() {
        tracing::warn!(networks = ?guard.allow_cidrs, hosts = ?guard.allow_hosts, "webhooks may reach these targets");
    }
    if !config.front.trusted_proxies.is_empty() {
        tracing::info!(networks = ?config.front.trusted_proxies, "X-Forwarded-For of these proxies is believed");
    }
    tracing::info!(
        data = %config.places.folder.display(),
        version = env!("CARGO_PKG_VERSION"),
        "serving {scheme}://{address} · docs {scheme}://{address}/docs · metrics http://{admin}/metrics",
        scheme = if config.tls.is_some() { "https" } else { "http" },
        address = running.address,
        admin = running.admin,
    );
    let keyless = {
        let state = running.node().data.control.state();
        state.workspaces().all(|workspace| state.keys(workspace.id).next().is_none())
    };
    if keyless {
        tracing::warn!(
            "there is no API key yet, so every call answers 401: stop, run `highwater bootstrap --data {}`, serve again",
            config.places.folder.display()
        );
    }
}

/// Reads the certificate again at every SIGHUP; where it is broken, the present one stays, and where there is none, nothing is done.
async fn reload(tls: Option<Tls>, mut hang_up: Signal) {
    while hang_up.recv().await.is_some() {
        match tls.as_ref().map(Tls::reload) {
            None => tracing::info!("SIGHUP is ignored: there is no --tls-cert to read again"),
            Some(Ok(())) => tracing::info!("new connections get the certificate that was just read"),
            Some(Err(error)) => {
                tracing::error!(error = %error, "the new certificate is not taken; the present one stays");
            }
        }
    }
}

/// Resolves when the node cannot go on: a fold has stopped for good, or another store keeps the rows.
async fn failure(running: &Running) -> Code {
    loop {
        match (running.node().has_failed(), running.node().is_replaced()) {
            (true, _) => return Code::Damaged,
            (false, true) => return Code::OtherKeeper,
            (false, false) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}
