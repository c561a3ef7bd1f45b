//! The client side of a hop between Accord's services. Its calls carry this service's token, the request id and the rest
//! of the deadline.

use std::time::Duration;

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
    verify::bearer,
};

/// A channel to another service of Accord.
pub type HopChannel = InterceptedService<Channel, Hop>;

/// Opens a channel to `address` (`http://host:port`). It connects on first use, and again whenever the connection is
/// lost.
pub fn connect(address: &str, token: &OpaqueToken) -> Result<HopChannel, InvalidUri> {
    let endpoint = Endpoint::from(address.parse::<Uri>()?)
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    Ok(InterceptedService::new(endpoint.connect_lazy(), Hop::new(token)))
}

/// Adds token, request id and deadline to each outgoing call.
#[derive(Clone, derive_more::Debug)]
#[debug("Hop {{ .. }}")]
pub struct Hop {
    authorization: MetadataValue<Ascii>,
}

impl Hop {
    fn new(token: &OpaqueToken) -> Self {
        let authorization = bearer::header(token.expose());
        Self { authorization }
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

/// Returns nine tenths of the remaining time for the next hop, so that its response, or its deadline error, arrives
/// while this caller still waits.
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
    async fn no_call_is_sent_after_the_deadline() {
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
