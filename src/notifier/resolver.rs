//! The resolver of outgoing connections: it drops every address that the guard does not allow.

use super::guard::{Guard, TargetError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::Arc;

/// Resolves names by the operating system, and vets what comes back.
#[derive(Clone, Debug)]
pub(super) struct VettingResolver {
    pub(super) guard: Arc<Guard>,
}

impl Resolve for VettingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let vetted: Vec<SocketAddr> =
                found.into_iter().filter(|address| guard.allows_address(&host, address.ip())).collect();
            if vetted.is_empty() {
                let reason =
                    format!("{host} has no public address; allow it with --allow-target if it is your own receiver");
                return Err(TargetError { reason }.into());
            }
            let addresses: Addrs = Box::new(vetted.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
        let resolve = async |guard: Guard| {
            let resolver = VettingResolver { guard: Arc::new(guard) };
            resolver.resolve("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        assert!(resolve(Guard::default()).await.is_err());
        let open = Guard { allow_hosts: vec!["localhost".to_owned()], ..Guard::default() };
        assert!(resolve(open).await.unwrap() > 0);
    }
}
