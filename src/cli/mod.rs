//! The command line: one file a subcommand, one place where errors become exit codes.

mod audit;
mod bootstrap;
mod demo;
mod exit;
mod import;
mod limit;
mod openapi;
mod repair;
mod replay;
mod serve;
mod terminal;
mod verify;
mod workspace;

use crate::config::{self, ConfigError, DATA_DEFAULT, Given, LOG_DEFAULT, PlacesGiven};
use crate::runtime::data::{Data, Places};
use crate::telemetry::{self, LogFormat};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exact usage windows, quotas and alerts, folded from a durable log.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, max_term_width = 110, after_help = exit::CODES)]
struct Arguments {
    /// What is logged: error, warn, info, debug, trace, off, or directives such as info,highwater::api=debug [default: info]
    #[arg(long, env = "HIGHWATER_LOG", global = true)]
    log: Option<String>,
    /// How lines of the log look [default: text]
    #[arg(long, env = "HIGHWATER_LOG_FORMAT", global = true, value_enum)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve the API: take events, evaluate alerts, send notifications
    Serve(Box<serve::Arguments>),
    /// Make a workspace and print its owner key, alone, on standard output; once
    Bootstrap(bootstrap::Arguments),
    /// Give an API key that exists a rate limit of its own
    Limit(limit::Arguments),
    /// Show the whole of it: a server, seeded accounts, events, an alert's life
    Demo(demo::Arguments),
    /// Take in a file of events, one a line (native or CloudEvents; plain, .gz or .zst)
    Import(import::Arguments),
    /// Make the store anew from the journal
    Replay(replay::Arguments),
    /// Mend what a wrong clock did to the logs; nothing may serve them meanwhile
    Repair(repair::Arguments),
    /// Prove that the store and the snapshots follow from the journal
    Verify(verify::Arguments),
    /// Print an audit log, one entry a line (JSON), each with the hash of the one before it
    Audit(audit::Arguments),
    /// Print the OpenAPI document
    Openapi,
}

/// Where the data is, for the commands that work on it alone.
#[derive(Clone, Debug, clap::Args)]
struct DataArguments {
    /// The data folder
    #[arg(long, env = "HIGHWATER_DATA", value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// Where the logs are, as `serve` has it
    #[arg(long, env = "HIGHWATER_JOURNAL", value_name = "URL", hide_env_values = true)]
    journal: Option<String>,
    /// Where windows and history are, as `serve` has it
    #[arg(long, env = "HIGHWATER_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<String>,
    /// Where snapshots are, as `serve` has it
    #[arg(long, env = "HIGHWATER_SNAPSHOTS", value_name = "PLACE")]
    snapshots: Option<String>,
    /// The master key's file, as `serve` has it
    #[arg(long, env = "HIGHWATER_MASTER_KEY_FILE", value_name = "FILE")]
    master_key_file: Option<PathBuf>,
}

impl DataArguments {
    fn places(&self) -> Result<Places, ConfigError> {
        self.places_with(false)
    }

    fn places_with(&self, archive: bool) -> Result<Places, ConfigError> {
        config::places(&PlacesGiven {
            data: self.data.clone(),
            journal: self.journal.clone(),
            store: self.store.clone(),
            retention: None,
            archive,
            snapshots: self.snapshots.clone(),
            master_key_file: self.master_key_file.clone(),
        })
    }

    /// Where the data is, where there is any: a misspelt folder must not look like an empty one.
    fn existing(&self) -> Result<Places, ConfigError> {
        let places = self.places()?;
        self.refuse_unless(has_journal(&places))?;
        Ok(places)
    }

    /// As [`Self::existing`], for a command that says what is missing: a part of the data is enough.
    fn with_traces(&self) -> Result<Places, ConfigError> {
        self.with_traces_and(false)
    }

    /// As [`Self::with_traces`], for a command that may archive.
    fn with_traces_and(&self, archive: bool) -> Result<Places, ConfigError> {
        let places = self.places_with(archive)?;
        let own = ["master.key", "snapshots"].iter().any(|name| self.data.join(name).exists());
        let store = places.store_file().is_some_and(|file| file.is_file());
        self.refuse_unless(has_journal(&places) || own || store)?;
        Ok(places)
    }

    fn refuse_unless(&self, exists: bool) -> Result<(), ConfigError> {
        let detail = format!("there is no data in {}", self.data.display());
        if exists { Ok(()) } else { Err(ConfigError::Value { name: "data", detail }) }
    }
}

/// Reports whether the journal's file is there; brokers have to be asked.
fn has_journal(places: &Places) -> bool {
    places.journal_file().is_none_or(|file| file.is_file())
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    // Whatever is written from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failure. Where even the message cannot be written, the code still says it.
            drop(error.print());
            return if error.use_stderr() { exit::Code::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(arguments) {
        Ok(code) => code.into(),
        Err(error) => {
            terminal::complain(&format!("highwater: {error:#}"));
            exit::code_of(&error).into()
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<exit::Code> {
    config::check_environment(&config::environment(), &known_variables())?;
    let file = match &arguments.command {
        Subcommands::Serve(arguments) => arguments.read_file()?,
        Subcommands::Bootstrap(_)
        | Subcommands::Limit(_)
        | Subcommands::Demo(_)
        | Subcommands::Import(_)
        | Subcommands::Replay(_)
        | Subcommands::Repair(_)
        | Subcommands::Verify(_)
        | Subcommands::Audit(_)
        | Subcommands::Openapi => Given::default(),
    };
    let filter = arguments.log.as_deref().or(file.log.as_deref()).unwrap_or(LOG_DEFAULT);
    telemetry::init_log(filter, arguments.log_format.or(file.log_format).unwrap_or_default())
        .map_err(|error| ConfigError::Value { name: "log", detail: error.to_string() })?;
    match arguments.command {
        Subcommands::Serve(arguments) => serve::run(*arguments, file),
        Subcommands::Bootstrap(arguments) => bootstrap::run(&arguments),
        Subcommands::Demo(arguments) => demo::run(&arguments),
        Subcommands::Import(arguments) => import::run(&arguments),
        Subcommands::Limit(arguments) => limit::run(&arguments),
        Subcommands::Replay(arguments) => replay::run(&arguments),
        Subcommands::Repair(arguments) => repair::run(&arguments),
        Subcommands::Verify(arguments) => verify::run(&arguments),
        Subcommands::Audit(arguments) => audit::run(&arguments),
        Subcommands::Openapi => openapi::run(),
    }
}

/// Every variable that some argument reads.
fn known_variables() -> Vec<&'static str> {
    // The names come from literals; leaking the few of them once is what lets them be compared as such.
    let command = Box::leak(Box::new(Arguments::command()));
    let own = command.get_arguments();
    let subcommands = command.get_subcommands().flat_map(clap::Command::get_arguments);
    own.chain(subcommands).filter_map(|argument| argument.get_env()?.to_str()).collect()
}

/// Opens the data for a command that changes it.
async fn open(places: &Places) -> anyhow::Result<Data> {
    Data::open(places).await.with_context(|| format!("open {}", places.folder.display()))
}

fn multi_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
        let known = known_variables();
        for name in ["HIGHWATER_DATA", "HIGHWATER_LOG", "HIGHWATER_ALLOW_TARGET", "HIGHWATER_CONFIG"] {
            assert!(known.contains(&name), "{name} of {known:?}");
        }
    }
}
