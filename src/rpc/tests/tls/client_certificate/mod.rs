//! Which certificate counts as the client's.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::*;
use crate::{
    clock::UnixMillis,
    random::SeededRandom,
    rpc::{
        auth::{Authorizer, Caller, CallerDirectory, Credential, Permissions, WorkloadKind},
        tls::peer::CallerCertificate,
    },
    testing::{
        TEST_START,
        certificates::{Authority, Pair, Subject},
        test_clock,
    },
    text::id::WorkloadId,
    tls::pem,
};

/// Knows a workload of each kind, by a name like its kind.
#[derive(Debug)]
struct Workloads;

#[tonic::async_trait]
impl CallerDirectory for Workloads {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        let Credential::Certificate(names) = credential else {
            return Ok(None);
        };
        if names.iter().any(|name| name == "down") {
            return Err(Status::unavailable("down"));
        }
        let named = |kind: &WorkloadKind| names.contains(&format!("{kind:?}"));
        Ok(WorkloadKind::ALL.into_iter().find(named).map(|kind| {
            let id = WorkloadId::generate(&*test_clock(), &SeededRandom::new(1));
            Caller::Workload { id, kind }
        }))
    }
}

/// The connection of a workload whose certificate has this name.
async fn connection(name: &str) -> Extensions {
    connection_until(name, TEST_START).await
}

async fn connection_until(name: &str, not_after: UnixMillis) -> Extensions {
    let authorizer = Authorizer::new(Permissions::new(&[]), Arc::new(Workloads), test_clock());
    let certificate = CallerCertificate {
        names: [name.to_owned()].into(),
        not_after,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut extensions = Extensions::new();
    extensions.insert(authorizer.identify(&certificate, deadline).await);
    extensions
}

fn client_certificate(pair: &Pair) -> ClientCertificate {
    ClientCertificate::read(&pem::certificates(pair.certificate.as_bytes()).unwrap()).unwrap()
}

fn xfcc(pair: &Pair) -> HeaderMap {
    let cert = utf8_percent_encode(&pair.certificate, NON_ALPHANUMERIC);
    let value = format!("Hash=00;Cert=\"{cert}\";Subject=\"CN=somebody else\"");
    HeaderMap::from_iter([("x-forwarded-client-cert".parse().unwrap(), value.parse().unwrap())])
}

#[tokio::test]
async fn the_header_counts_on_a_gateways_connection_alone() {
    let pair = Authority::new("partner").issue(&Subject::default());
    let headers = xfcc(&pair);
    let with_header = ClientCertificates::new(Some(CertificateHeader::Xfcc));
    let found = with_header.find(&connection("Gateway").await, &headers).unwrap();
    assert_eq!(found, Some(client_certificate(&pair)));
    for extensions in [
        Extensions::new(),
        connection("InternalService").await,
        connection("TokenService").await,
        connection("stranger").await,
    ] {
        assert_eq!(with_header.find(&extensions, &headers).unwrap(), None);
        // A malformed one is ignored there, too.
        let malformed =
            HeaderMap::from_iter([("x-forwarded-client-cert".parse().unwrap(), "x".parse().unwrap())]);
        assert_eq!(with_header.find(&extensions, &malformed).unwrap(), None);
    }
    // The header that is not named, and a gateway whose client presented none.
    for header in [None, Some(CertificateHeader::ClientCert)] {
        let found = ClientCertificates::new(header).find(&connection("Gateway").await, &headers);
        assert_eq!(found.unwrap(), None);
    }
    let found = with_header.find(&connection("Gateway").await, &HeaderMap::new());
    assert_eq!(found.unwrap(), None);
}

#[tokio::test]
async fn a_gateways_malformed_header_is_rejected() {
    let pair = Authority::new("partner").issue(&Subject::default());
    let mut twice = xfcc(&pair);
    twice.extend(xfcc(&pair));
    twice.append("x-forwarded-client-cert", "Hash=00".parse().unwrap());
    let with_header = ClientCertificates::new(Some(CertificateHeader::Xfcc));
    let status = with_header
        .find(&connection("Gateway").await, &twice)
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("x-forwarded-client-cert"), "{status:?}");
    // Nobody knows whether it is a gateway, or one whose certificate has expired: its client's must not get lost.
    let expired = UnixMillis::from_millis(TEST_START.as_millis() - 1000);
    for extensions in [
        connection("down").await,
        connection_until("Gateway", expired).await,
    ] {
        let status = with_header.find(&extensions, &xfcc(&pair)).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(with_header.find(&extensions, &HeaderMap::new()).unwrap(), None);
    }
}

#[tokio::test]
async fn the_connections_own_certificate_needs_no_header() {
    let authority = Authority::new("partner");
    let (own, other) = (
        authority.issue(&Subject::default()),
        authority.issue(&Subject::default()),
    );
    let mut extensions = Extensions::new();
    extensions.insert(client_certificate(&own));
    for header in [None, Some(CertificateHeader::Xfcc)] {
        let found = ClientCertificates::new(header).find(&extensions, &xfcc(&other));
        assert_eq!(found.unwrap(), Some(client_certificate(&own)));
    }
}
