//! Resolves names and keeps only the addresses that may be called, so that a name cannot lead inside.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::AddressRules;

/// Every address of the name was refused.
#[derive(Debug, thiserror::Error)]
#[error("no address that may be called")]
struct AllForbidden;

/// Whether a failed call failed because of its address.
pub(super) fn was_forbidden(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.is::<AllForbidden>() {
            return true;
        }
        source = inner.source();
    }
    false
}

/// The system's resolver behind [`AddressRules`]. It runs for every new connection, so a name that changes its
/// address after the check (DNS rebinding) is checked again: the addresses returned here are the ones dialled.
pub(super) struct FilteringResolver {
    rules: Arc<AddressRules>,
}

impl FilteringResolver {
    pub(super) fn new(rules: Arc<AddressRules>) -> Self {
        Self { rules }
    }
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| rules.allows(name.as_str(), address.ip())).collect();
            if allowed.is_empty() {
                return Err(AllForbidden.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
