//! A node that serves: its listeners, and how it ends in order.

use super::app::App;
use super::body_memory::BodyMemory;
use super::front::Front;
use super::gate::Gate;
use super::router::{admin_router, public_router};
use super::server::{ListenerLimits, ServeError, Server, bind, duration};
use super::tls::Tls;
use crate::domain::limits::{ADMIN_CONNECTIONS_MAX, STOP_TIMEOUT, USAGE_QUERIES_MAX, USAGE_READS_MAX};
use crate::runtime::clock::Deadline;
use crate::runtime::node::Node;
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// How long a scrape that is under way may take when the server stops.
const ADMIN_DRAIN: Duration = Duration::from_millis(250);
/// How much of the time to stop is kept for the node itself, whoever holds it.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the node is free.
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// Listeners that are open, before anything is served: a taken port is known before the data is opened.
#[derive(Debug)]
pub struct Listeners {
    public: Server,
    admin: Server,
    limits: ListenerLimits,
    front: Front,
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where the metrics listen.
    pub admin: SocketAddr,
    app: App,
    public: Serving,
    metrics: Serving,
    drain: Duration,
}

/// A listener that serves, and what stops it.
#[derive(Debug)]
struct Serving {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Serving {
    fn start(server: Server, router: Router, limits: ListenerLimits) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(server.serve(router, limits, stopped)) }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(error = %error, "a listener ended badly");
        }
    }
}

impl Listeners {
    /// Opens both.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn open(public: SocketAddr, admin: SocketAddr) -> Result<Self, ServeError> {
        // Made before anything that counts begins.
        crate::telemetry::recorder();
        Ok(Self {
            public: bind(public)?,
            admin: bind(admin)?,
            limits: ListenerLimits::default(),
            front: Front::default(),
        })
    }

    /// Waits for callers for other times.
    #[must_use]
    pub const fn with_limits(mut self, limits: ListenerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Believes and allows other things than the defaults.
    #[must_use]
    pub fn with_front(mut self, front: Front) -> Self {
        self.public.trusted.clone_from(&front.trusted_proxies);
        self.front = front;
        self
    }

    /// Encrypts the connections of the API.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.public.tls = Some(tls);
        self
    }

    /// Where the API will listen.
    pub const fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Serves a node.
    pub fn serve(self, node: Node) -> Running {
        let cursor_key = node.data.vault.cursor_key();
        let gate = Gate::new(self.front.rates, node.data.journal.is_shared(), node.requests.clone());
        let app = App {
            node: Arc::new(node),
            draining: Arc::new(AtomicBool::new(false)),
            under_way: Arc::default(),
            followers: Arc::default(),
            gate: Arc::new(gate),
            bodies: BodyMemory::new(self.front.body_memory),
            front: Arc::new(self.front),
            cursor_key,
            queries: Arc::new(Semaphore::new(USAGE_QUERIES_MAX)),
            reads: Arc::new(Semaphore::new(USAGE_READS_MAX)),
            query_timeout: self.limits.query,
        };
        let (address, admin, limits) = (self.public.address, self.admin.address, self.limits);
        let public = Serving::start(self.public, public_router(app.clone(), limits), limits);
        // Nothing that is asked of it takes long, and it ends behind the other one.
        let brief = ListenerLimits {
            drain: limits.drain.min(ADMIN_DRAIN),
            connections: ADMIN_CONNECTIONS_MAX,
            per_address: ADMIN_CONNECTIONS_MAX,
            ..limits
        };
        let metrics = Serving::start(self.admin, admin_router(app.clone(), limits), brief);
        Running { address, admin, app, public, metrics, drain: limits.drain }
    }
}

impl Running {
    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.app.node
    }

    /// Stops in order: `/readyz` says so, nothing new is accepted, what is under way ends, the node stops.
    ///
    /// The admin listener answers until the public one has ended. Each part has its share of the time that there is, so
    /// that a client, a receiver, a store or a disk that hangs holds back nobody for longer.
    pub async fn stop(self) {
        let deadline = Deadline::within(self.drain + duration(STOP_TIMEOUT));
        self.app.draining.store(true, Ordering::Relaxed);
        // Nothing new is sent while requests end, and what is under way ends beside them.
        self.app.node.stop_sending();
        self.public.stop().await;
        self.metrics.stop().await;
        let mut node = self.app.node;
        loop {
            match Arc::try_unwrap(node) {
                Ok(node) => return node.stop_by(deadline).await,
                Err(held) if deadline.remaining_before(LAST_PATIENCE).is_zero() => {
                    // What is durable is folded at the next start.
                    tracing::warn!("a request is still under way; stopping without a last snapshot");
                    return held.data.close_by(deadline).await;
                }
                // A request that was cut off may hold the node a moment longer.
                Err(held) => node = held,
            }
            tokio::time::sleep(HELD_PAUSE).await;
        }
    }
}
