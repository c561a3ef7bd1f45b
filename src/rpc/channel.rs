//! The client side of a hop between Accord's services: a channel whose calls carry this service's
//! own token, the request id, and what is left of the deadline.

use std::{fmt, time::Duration};

use http::{Uri, uri::InvalidUri};
use tokio::time::Instant;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    rpc::{
        context,
        middleware::{MAX_CALL_TIME, REQUEST_ID},
        status::Problem,
    },
    text::opaque::OpaqueToken,
};

/// A channel to another service of Accord.
pub type HopChannel = InterceptedService<Channel, Hop>;

/// Opens a channel to `address` (`http://host:port`) that connects on first use, and again whenever
/// the connection was lost.
///
/// # Errors
/// When `address` is not a URI.
pub fn connect(address: &str, token: &OpaqueToken) -> Result<HopChannel, InvalidUri> {
    let endpoint = Endpoint::from(address.parse::<Uri>()?)
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    let channel = endpoint.connect_lazy();
    Ok(InterceptedService::new(channel, Hop::new(token)))
}

/// Adds to each outgoing call what the hop carries.
#[derive(Clone)]
pub struct Hop {
    authorization: MetadataValue<Ascii>,
}

impl Hop {
    fn new(token: &OpaqueToken) -> Self {
        // A parsed token is base62 with underscores: always a legal header value.
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
            .parse()
            .unwrap_or_else(|_| MetadataValue::from_static(""));
        authorization.set_sensitive(true);
        Self { authorization }
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").finish_non_exhaustive()
    }
}

impl Interceptor for Hop {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        let Some(current) = context::current() else {
            request.set_timeout(shaved(MAX_CALL_TIME));
            return Ok(request);
        };
        if let Ok(id) = current.request_id.parse() {
            request.metadata_mut().insert(REQUEST_ID, id);
        }
        let left = current.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Problem::deadline_exceeded().into());
        }
        request.set_timeout(shaved(left));
        Ok(request)
    }
}

/// What the next hop gets of the time left: nine tenths, so that its answer, also one that says
/// that time is up, comes back while this caller still waits.
fn shaved(left: Duration) -> Duration {
    left.mul_f64(0.9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{random::SeededRandom, rpc::context::CallContext, text::opaque::TokenKind};

    fn hop() -> Hop {
        Hop::new(&OpaqueToken::generate(TokenKind::Workload, &SeededRandom::new(7)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_gets_less_time_and_the_same_request_id() {
        let context = CallContext {
            request_id: "request-1".into(),
            deadline: Instant::now() + Duration::from_secs(10),
        };
        let request = context::scope(context, async { hop().call(Request::new(())) })
            .await
            .unwrap();
        assert_eq!(request.metadata().get(REQUEST_ID).unwrap(), "request-1");
        assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "9000000u");
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_goes_out_when_time_is_up() {
        let context = CallContext {
            request_id: "request-1".into(),
            deadline: Instant::now(),
        };
        let status = context::scope(context, async { hop().call(Request::new(())) })
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[test]
    fn debug_shows_no_token() {
        assert_eq!(format!("{:?}", hop()), "Hop { .. }");
    }
}
