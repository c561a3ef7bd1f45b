//! The connection of a [`Checker`](super::Checker) to token-service, which follows the files of its TLS.

use std::time::Duration;

use http::Uri;
use tokio::{task::spawn_blocking, time::Instant};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};

use crate::{
    lock::Lock,
    tls::{ClientTls, Connector, Destination, Name, endpoint},
    token::v1::token_service_client::TokenServiceClient,
};

/// How often the files of TLS are read.
const RELOAD_PERIOD: Duration = Duration::from_secs(2);

/// A channel to token-service.
pub(super) struct Connection {
    current: Lock<Current>,
    /// What opens another channel; `None` for a channel of the caller.
    tls: Option<(Endpoint, Connector)>,
}

struct Current {
    channel: Channel,
    generation: u64,
    looked_at: Instant,
}

impl Connection {
    /// Uses a channel.
    pub(super) fn over(channel: Channel) -> Self {
        Self::new(channel, None)
    }

    /// Opens a channel with TLS to `https://host:port`; `None` if that is not its form. A name is resolved for each
    /// connection, and may have several addresses.
    pub(super) fn with_tls(url: &str, tls: ClientTls) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let has_no_more = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if uri.scheme_str() != Some("https") || !has_no_more || authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let connector = Connector {
            tls,
            server_name: ServerName::try_from(host.to_owned()).ok()?,
            address: Destination::Name(Name::new(host, authority.port_u16().unwrap_or(443))),
        };
        // Together the pings take less than a lease, so that a machine that has gone does not end the next one, too.
        let endpoint = endpoint(uri)?
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_millis(500))
            .keep_alive_timeout(Duration::from_secs(1));
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        Some(Self::new(channel, Some((endpoint, connector))))
    }

    fn new(channel: Channel, tls: Option<(Endpoint, Connector)>) -> Self {
        let current = Current {
            channel,
            generation: 0,
            looked_at: Instant::now(),
        };
        Self {
            current: Lock::new(current),
            tls,
        }
    }

    /// Returns a client. Looks now and then whether the files of TLS have changed, and then opens another connection.
    pub(super) async fn client(&self) -> TokenServiceClient<Channel> {
        if let Some((endpoint, connector)) = &self.tls {
            let is_due = self.current(|current| {
                let is_due = current.looked_at.elapsed() >= RELOAD_PERIOD;
                if is_due {
                    current.looked_at = Instant::now();
                }
                is_due
            });
            if is_due {
                let tls = connector.tls.clone();
                if let Ok(Err(error)) = spawn_blocking(move || tls.reload()).await {
                    let file = error.file;
                    tracing::warn!(?file, %error, "the files of TLS can't be used, and the old ones count");
                }
                let generation = connector.tls.generation();
                self.current(|current| {
                    if current.generation != generation {
                        current.generation = generation;
                        current.channel = endpoint.connect_with_connector_lazy(connector.clone());
                    }
                });
            }
        }
        TokenServiceClient::new(self.current(|current| current.channel.clone()))
    }

    /// Opens another connection for the calls to come, to the next address of the name: a replica that is silent, or has lost its
    /// database, must not end the lease while others serve.
    pub(super) fn renew(&self) {
        if let Some((endpoint, connector)) = &self.tls {
            self.current(|current| current.channel = endpoint.connect_with_connector_lazy(connector.clone()));
        }
    }

    fn current<T>(&self, access: impl FnOnce(&mut Current) -> T) -> T {
        access(&mut self.current.lock())
    }
}
