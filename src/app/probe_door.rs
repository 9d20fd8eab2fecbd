//! The listener that `check` opens for callbacks while the service is stopped.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{config::Config, http};

/// Replaces the callbacks' listener while the service is not running: it answers probes and accepts
/// no callbacks, so that the public URL can be checked. Dropping it closes it.
pub struct ProbeDoor {
    address: SocketAddr,
    _closing: DropGuard,
}

impl ProbeDoor {
    /// Opens `callbacks.listen`; must not be called while the service is running.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub async fn open(config: &Config, signing_key: [u8; 32]) -> anyhow::Result<Self> {
        let address = config.callbacks.listen;
        let bound = tokio::net::TcpListener::bind(address).await;
        let listener = bound
            .with_context(|| format!("callbacks.listen = \"{address}\" cannot be listened on"))?;
        let address = listener.local_addr()?;
        let router = http::probe::door(signing_key, config);
        let closing = CancellationToken::new();
        let closed = closing.clone().cancelled_owned();
        tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(closed).await },
        );
        Ok(Self { address, _closing: closing.drop_guard() })
    }

    /// The actual address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
