//! A node that serves: its listeners, and how it ends in order.

use super::app::App;
use super::router::{admin_router, public_router};
use super::server::{ServeError, Server, bind};
use crate::runtime::node::Node;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Listeners that are open, before anything is served: a taken port is known before the data is opened.
#[derive(Debug)]
pub struct Listeners {
    public: Server,
    admin: Server,
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where the metrics listen.
    pub admin: SocketAddr,
    app: App,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Opens both.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn open(public: SocketAddr, admin: SocketAddr) -> Result<Self, ServeError> {
        Ok(Self { public: bind(public).await?, admin: bind(admin).await? })
    }

    /// Where the API will listen.
    pub const fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Serves a node.
    pub fn serve(self, node: Node) -> Running {
        let cursor_key = node.data.vault.cursor_key();
        let app = App {
            node: Arc::new(node),
            draining: Arc::new(AtomicBool::new(false)),
            under_way: Arc::default(),
            cursor_key,
        };
        let (stop, stopped) = watch::channel(false);
        let (address, admin) = (self.public.address, self.admin.address);
        let metrics = crate::telemetry::recorder();
        let serving = vec![
            tokio::spawn(self.public.serve(public_router(app.clone()), stopped.clone())),
            tokio::spawn(self.admin.serve(admin_router(app.clone(), metrics), stopped)),
        ];
        Running { address, admin, app, stop, serving }
    }
}

impl Running {
    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.app.node
    }

    /// Stops in order: `/readyz` says so, nothing new is accepted, what is under way ends, the node stops.
    pub async fn stop(self) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        for task in self.serving {
            if let Err(error) = task.await {
                tracing::error!(error = %error, "a listener ended badly");
            }
        }
        match Arc::try_unwrap(self.app.node) {
            Ok(node) => node.stop().await,
            // A request that was cut off still holds the node; what is durable is folded at the next start.
            Err(_) => tracing::warn!("a request is still under way; stopping without a last snapshot"),
        }
    }
}
