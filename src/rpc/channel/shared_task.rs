//! Blocking work that cannot be cancelled: resolving a name, reading a file.
//!
//! Such work holds a thread for as long as it takes. A caller stops waiting for it after a while. It starts again only after it has
//! ended, so that a DNS server or a disk that does not answer holds one thread and not all of them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};

/// How long a refresh waits for the work. Its result counts in a later refresh.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// Resolves a host and a port to addresses.
pub(super) type Resolver =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Returns the resolver of the system.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host.as_str(), port)).await?;
            Ok(addresses.collect())
        })
    })
}

/// Work that runs once at a time.
#[derive(Debug)]
pub(super) struct SharedTask<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for SharedTask<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> SharedTask<T> {
    /// Waits for the running work, or starts it. Returns `None` if it does not end in time, or panics.
    pub(super) async fn result(&self, start: impl FnOnce() -> JoinHandle<T>) -> Option<T> {
        let mut running = self.0.lock().await;
        let ended = timeout(TIMEOUT, running.get_or_insert_with(start)).await.ok()?;
        *running = None;
        ended.ok()
    }
}
