//! The daily reset over nodes that share one control log, with a clock of the test's own.

use highwater::domain::control::command::Command;
use highwater::domain::control::outcome::Change;
use highwater::domain::id::{Mode, Tenant, WorkspaceId};
use highwater::domain::time::{Millis, Timestamp};
use highwater::journal::{Journal, MemoryJournal};
use highwater::runtime::control::{Asking, ControlPlane};
use highwater::runtime::sandbox;
use highwater::vault::Vault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sandbox_is_reset_once_a_day_by_whichever_node() {
    let journal = MemoryJournal::new(1);
    let midnight = Timestamp::parse("2026-11-25T00:00:00Z").unwrap();
    journal.set_time(midnight.minus(Millis::hours(3)));
    let vault = Vault::new([7; 32]);
    let nodes: Vec<ControlPlane> =
        (0..3).map(|_| ControlPlane::open(Journal::Memory(journal.clone())).unwrap()).collect();
    let tenants: Vec<Tenant> = (1..=4).map(|n| Tenant { workspace: WorkspaceId(n), mode: Mode::Sandbox }).collect();
    for tenant in &tenants {
        sandbox::open(&nodes[0], &vault, *tenant).await.unwrap();
    }
    let all = async |now: Timestamp| {
        for node in &nodes {
            node.catch_up().unwrap();
        }
        let (first, second, third) = tokio::join!(
            sandbox::reset_due(&nodes[0], &vault, now),
            sandbox::reset_due(&nodes[1], &vault, now),
            sandbox::reset_due(&nodes[2], &vault, now)
        );
        first + second + third
    };
    assert_eq!(all(midnight.minus(Millis(1))).await, 0, "the day has not begun");
    // A node whose clock is ahead of the log's asks in vain.
    assert_eq!(all(midnight).await, 0, "the log decides what time it is");
    journal.set_time(midnight);
    assert_eq!(all(midnight).await, tenants.len(), "three nodes, one reset each");
    assert_eq!(all(midnight.plus(Millis::hours(23))).await, 0);
    let next = midnight.plus(Millis::days(1));
    journal.set_time(next.minus(Millis::minutes(5)));
    let asking = Asking::by_command_line(tenants[0]);
    let seed = Box::new(sandbox::seed(&vault, tenants[0]));
    let (_, applied) = nodes[1].submit(asking, Command::ResetSandbox { midnight: None, seed }).await.unwrap();
    assert!(matches!(applied.changes[0], Change::SandboxReset { .. }), "people may do so at any time");
    journal.set_time(next.plus(Millis(1)));
    assert_eq!(all(next.plus(Millis(1))).await, tenants.len(), "an evening's reset is not the next day's");
    for node in &nodes {
        node.catch_up().unwrap();
        assert!(node.state().sandboxes().all(|(_, sandbox)| sandbox.last_reset_at == Some(next.plus(Millis(1)))));
    }
    assert!(*nodes[0].state() == *nodes[2].state(), "every node folds the same");
}
