//! `demo`: the whole of it in a temporary folder: a server, seeded accounts, events over HTTP, one alert's life. With a
//! Kafka and a ClickHouse the same story on two nodes, of which one is killed.

mod client;
mod cluster;
mod nodes;
mod receiver;
mod story;

use super::exit::Code;
use super::terminal::say;
use super::{serve, workspace};
use crate::config::Config;
use crate::notifier::Guard;
use crate::runtime::data::{Data, Places};
use client::Client;
use receiver::Receiver;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use story::Story;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// End by itself when the alert has fired and resolved
    #[arg(long)]
    once: bool,
    /// Where the API listens; any free port where it says 0
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Brokers of a Kafka: shows two nodes that share it, and kills one
    #[arg(long, value_name = "HOST:PORT,…", requires = "clickhouse")]
    kafka: Option<String>,
    /// The ClickHouse of the two nodes
    #[arg(long, value_name = "URL", requires = "kafka")]
    clickhouse: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    super::multi_threaded()?.block_on(async {
        match (&arguments.kafka, &arguments.clickhouse) {
            (Some(kafka), Some(clickhouse)) => cluster::show(kafka, clickhouse, arguments.once).await,
            (Some(_), None) | (None, Some(_)) | (None, None) => show(arguments).await,
        }
    })
}

async fn show(arguments: &Arguments) -> anyhow::Result<Code> {
    let folder = Folder::make()?;
    let places = Places::in_folder(&folder.0.join("data"));
    let key = {
        let data = Data::open(&places).await?;
        let id = workspace::find_or_create(&data, None).await?;
        workspace::create_owner_key(&data, workspace::live(id), "demo", Some(0)).await?
    };
    let receiver = Receiver::start().await?;
    let loopback = Guard { allow_cidrs: vec!["127.0.0.0/8".parse()?], ..Guard::default() };
    let config = Config {
        places,
        listen: arguments.listen,
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        guard: loopback,
        front: Default::default(),
        tls: None,
        base_url: None,
        engine_version: None,
        settings: Default::default(),
    };
    let running = serve::start(&config, None).await?;
    let client = Client::new(running.address, key.expose_secret())?;
    say(&format!(
        "highwater {} · a server on http://{} with its data in {}",
        env!("CARGO_PKG_VERSION"),
        running.address,
        config.places.folder.display()
    ));
    let told = Story { client: &client, receiver }.tell().await;
    if told.is_ok() && !arguments.once {
        story::by_hand(&client, &format!("metrics: http://{}/metrics", running.admin));
        story::emit(&client).await?;
    }
    running.stop().await;
    told.map(|()| Code::Done)
}

/// A temporary folder; removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let name = format!("highwater-demo-{}", ulid::Ulid(crate::runtime::clock::ulid()));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), error = %error, "the demo's folder could not be removed");
        }
    }
}
