//! The same story on Kafka and ClickHouse: two nodes, of which the one that folds the account is killed on the way.

use super::Folder;
use super::nodes::{Node, Shared, wait_until_shared};
use super::receiver::Receiver;
use super::story::{self, BATCH_EVENTS, Story, THRESHOLD, climb, counted};
use crate::cli::exit::Code;
use crate::cli::terminal::say;
use crate::cli::workspace;
use crate::config::{self, PlacesGiven};
use crate::domain::id::{AccountId, WorkspaceId};
use crate::domain::routing::partition_of;
use crate::runtime::clock;
use crate::runtime::data::Data;
use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use std::time::Duration;

const PARTITIONS: u32 = 8;
/// How far acme has come when a node is killed.
const KILLED_BEYOND: i64 = 50;
/// How long the receiver listens for what must not come.
const LISTENING: Duration = Duration::from_secs(3);

/// Shows it.
pub(super) async fn show(kafka: &str, clickhouse: &str, once: bool) -> anyhow::Result<Code> {
    let folder = Folder::make()?;
    let name = ulid::Ulid(clock::ulid()).to_string().to_lowercase();
    let (workspace, shared) = set_up(&folder, kafka, clickhouse, &name).await?;
    say(&format!(
        "highwater {} · logs in Kafka at {kafka} (topics demo-{name}.*), windows and history in ClickHouse at {clickhouse} \
         (database demo_{name})",
        env!("CARGO_PKG_VERSION")
    ));
    let (first, second) = (Node::start("node-1", &shared).await?, Node::start("node-2", &shared).await?);
    wait_until_shared(&[&first, &second], partition_count()).await?;
    for node in [&first, &second] {
        let folds = node.folds().await?.join(" ");
        say(&format!("  {}  {}  process {}  folds {folds}", node.name, node.client.base, node.process()));
    }
    let account = AccountId::new("acme").context("the account's name")?;
    let acme = format!("p{}", partition_of(workspace, &account, PARTITIONS).0);
    let (victim, survivor) = if first.folds().await?.contains(&acme) { (first, second) } else { (second, first) };
    let revived = tell(&shared, victim, &survivor, &acme).await?;
    if !once {
        story::by_hand(&survivor.client, &format!("the other node: {}", revived.client.base));
        story::emit(&survivor.client).await?;
    }
    Ok(Code::Done)
}

fn partition_count() -> usize {
    usize::try_from(PARTITIONS).unwrap_or(usize::MAX)
}

/// Makes the cluster's shared parts and its first key, as `bootstrap` does.
async fn set_up(folder: &Folder, kafka: &str, clickhouse: &str, name: &str) -> anyhow::Result<(WorkspaceId, Shared)> {
    let root = &folder.0;
    let master_key_file = root.join("master.key");
    let digits: String = clock::random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&master_key_file, digits)?;
    let journal = format!("kafka://{kafka}?partitions={PARTITIONS}&prefix=demo-{name}");
    let store = format!("clickhouse+{}/demo_{name}", clickhouse.trim_end_matches('/'));
    let snapshots = root.join("snapshots");
    let places = config::places(&PlacesGiven {
        data: root.join("bootstrap"),
        journal: Some(journal.clone()),
        store: Some(store.clone()),
        snapshots: Some(snapshots.display().to_string()),
        retention: None,
        archive: false,
        master_key_file: Some(master_key_file.clone()),
    })?;
    let data = Data::open(&places).await?;
    let workspace = workspace::find_or_create(&data, None).await?;
    let key = workspace::create_owner_key(&data, workspace::live(workspace), "demo", Some(0)).await?;
    let key = key.expose_secret().to_owned();
    Ok((workspace, Shared { folder: root.clone(), journal, store, snapshots, master_key_file, key }))
}

/// Tells the story; returns the node that was killed, started again.
async fn tell(shared: &Shared, mut victim: Node, survivor: &Node, acme: &str) -> anyhow::Result<Node> {
    let mut story = Story { client: &survivor.client, receiver: Receiver::start().await? };
    let alert = story.set_up().await?;
    let before = climb(&[&victim.client, &survivor.client], 0, KILLED_BEYOND).await?;
    victim.kill()?;
    let killed_at = clock::now();
    let (name, other) = (victim.name, survivor.name);
    say(&format!("\n  kill -9 of {name} (process {}), which folded acme ({acme}). {other} goes on:", victim.process()));
    drop(victim);
    let after = climb(&[&survivor.client], before.used, THRESHOLD).await?;
    say(&format!("\n{other} takes the partitions of {name} when Kafka has missed it for 10 s, and folds on:"));
    let fired = story.fires().await?;
    say(&format!("          {:.1} s after the kill", clock::now().since(killed_at).0 as f64 / 1_000.0));
    story.resolves(&fired).await?;
    story.windows(&after.receipt).await?;
    let history = story.history(&alert).await?;
    ensure!(history.len() == 2, "there are {} transitions, not a firing and a resolve", history.len());

    say(&format!("\n{name} starts again and takes its share of the partitions:"));
    let revived = Node::start(name, shared).await?;
    wait_until_shared(&[&revived, survivor], partition_count()).await?;
    let extra = story.receiver.count(LISTENING).await;
    ensure!(extra == 0, "{extra} more messages came");
    let sent = (before.batches + after.batches) * BATCH_EVENTS;
    for node in [&revived, survivor] {
        let counted = counted(&node.client).await?;
        ensure!(counted == sent, "{} counted {counted} events of {sent}", node.name);
        say(&format!("  {}  {sent} events accepted, {counted} counted", node.name));
    }
    say("  receiver  1 firing, 1 resolve, nothing twice");
    Ok(revived)
}
