#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::io::{Read, Seek};

use http::HeaderMap;
use tokio::time::Instant;

use super::{connection_caller::LookUpResult, *};
use crate::{
    clock::{ManualClock, UnixMillis},
    random::SeededRandom,
    rpc::tls::peer::CallerCertificate,
    text::{caller::MAX_CERTIFICATE_NAMES, id::WorkloadId},
};

#[derive(Debug)]
struct OneCaller(String, Caller);

const NAME: &str = "spiffe://example.org/api";
const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

#[tonic::async_trait]
impl CallerDirectory for OneCaller {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        let is_one = match credential {
            Credential::Token(token) => token.expose() == self.0,
            Credential::Certificate(names) if names == ["two", "callers"] => {
                return Err(ambiguous_certificate().into());
            }
            Credential::Certificate(names) => names.iter().any(|name| name == NAME),
        };
        Ok(is_one.then(|| self.1.clone()))
    }
}

fn setup(kind: WorkloadKind) -> (Authorizer, String) {
    let (authorizer, token, _) = setup_with_clock(kind);
    (authorizer, token)
}

fn setup_with_clock(kind: WorkloadKind) -> (Authorizer, String, Arc<ManualClock>) {
    let random = SeededRandom::new(1);
    let clock = Arc::new(ManualClock::new(NOW));
    let token = OpaqueToken::generate(TokenKind::Workload, &random);
    let caller = Caller::Workload {
        id: WorkloadId::generate(&*clock, &random),
        kind,
    };
    let permissions = Permissions::new(&[
        ("/a.A/Open", Access::Anyone),
        (
            "/a.A/Inner",
            Access::Callers(&[Role::Admin], &[WorkloadKind::InternalService]),
        ),
        (
            "/a.A/Either",
            Access::CallersOrClients(&[], &[WorkloadKind::InternalService]),
        ),
    ]);
    let directory = Arc::new(OneCaller(token.expose().to_owned(), caller));
    let authorizer = Authorizer::new(permissions, directory, clock.clone());
    (authorizer, token.expose().to_owned(), clock)
}

fn certificate(names: &[&str]) -> CallerCertificate {
    CallerCertificate {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        not_after: NOW,
    }
}

async fn with_certificate(authorizer: &Authorizer, path: &str, names: &[&str]) -> Result<Principal, Status> {
    let connection = connection(authorizer, names).await;
    authorizer
        .authorize(path, &HeaderMap::new(), Some(&connection))
        .await
}

async fn connection(authorizer: &Authorizer, names: &[&str]) -> ConnectionCaller {
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    authorizer.identify(&certificate(names), deadline).await
}

fn headers(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value.parse().unwrap());
    headers
}

#[tokio::test]
async fn a_path_outside_the_table_is_not_served() {
    let (authorizer, token) = setup(WorkloadKind::InternalService);
    let status = authorizer
        .authorize("/a.A/Other", &headers(&format!("Bearer {token}")), None)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn only_the_listed_kinds_are_admitted() {
    for kind in WorkloadKind::ALL {
        let (authorizer, token) = setup(kind);
        let result = authorizer
            .authorize("/a.A/Inner", &headers(&format!("bearer {token}")), None)
            .await;
        assert_eq!(result.is_ok(), kind == WorkloadKind::InternalService, "{kind:?}");
    }
}

#[tokio::test]
async fn an_invalid_token_is_rejected_even_where_none_is_required() {
    let (authorizer, token) = setup(WorkloadKind::InternalService);
    let anonymous = authorizer.authorize("/a.A/Either", &HeaderMap::new(), None).await;
    assert_eq!(anonymous.unwrap(), Principal::Anonymous);
    for bad in [
        "Bearer x",
        "Basic abc",
        &token,
        &format!("Bearer {token}x"),
        "Bearer",
    ] {
        let status = authorizer
            .authorize("/a.A/Either", &headers(bad), None)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{bad}");
    }
    let mut twice = headers(&format!("Bearer {token}"));
    twice.append("authorization", format!("Bearer {token}").parse().unwrap());
    assert!(authorizer.authorize("/a.A/Either", &twice, None).await.is_err());
}

#[tokio::test]
async fn a_certificates_names_identify_a_caller_without_a_token() {
    let (authorizer, _) = setup(WorkloadKind::InternalService);
    for path in ["/a.A/Inner", "/a.A/Either"] {
        let principal = with_certificate(&authorizer, path, &["api.example", NAME]).await;
        let principal = principal.unwrap();
        assert!(matches!(principal, Principal::Caller(_, Some(_))), "{path}");
        let origin = principal.origin();
        assert_eq!(origin.actor.kind, ActorKind::Workload);
        assert_eq!(
            origin.certificate.as_deref(),
            Some("api.example spiffe://example.org/api")
        );
    }
    let open = with_certificate(&authorizer, "/a.A/Open", &[NAME]).await;
    assert_eq!(open.unwrap(), Principal::Anonymous);
}

#[tokio::test]
async fn an_unknown_name_is_named_and_one_of_another_kind_has_no_permission() {
    let (authorizer, _) = setup(WorkloadKind::InternalService);
    let status = with_certificate(&authorizer, "/a.A/Inner", &["stranger", "b"]).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("[stranger b] belong to no workload"),
        "{status:?}"
    );
    let (gateway, _) = setup(WorkloadKind::Gateway);
    let status = with_certificate(&gateway, "/a.A/Inner", &[NAME])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    // The message holds the credential of the caller behind the gateway.
    for names in [&[NAME][..], &["stranger"], &[]] {
        let principal = with_certificate(&gateway, "/a.A/Either", names).await;
        assert_eq!(principal.unwrap(), Principal::Anonymous);
    }
}

#[tokio::test]
async fn names_of_two_callers_and_too_many_names_are_rejected() {
    let (authorizer, _) = setup(WorkloadKind::InternalService);
    let many = ["a.example"; MAX_CERTIFICATE_NAMES + 1];
    for path in ["/a.A/Inner", "/a.A/Either"] {
        for names in [&["two", "callers"][..], &many] {
            let status = with_certificate(&authorizer, path, names).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
        }
    }
}

#[tokio::test]
async fn a_certificate_counts_until_the_end_of_its_last_second() {
    let (authorizer, _, clock) = setup_with_clock(WorkloadKind::InternalService);
    clock.advance(std::time::Duration::from_millis(999));
    assert!(with_certificate(&authorizer, "/a.A/Inner", &[NAME]).await.is_ok());
    clock.advance(std::time::Duration::from_millis(1));
    for path in ["/a.A/Inner", "/a.A/Either"] {
        let status = with_certificate(&authorizer, path, &[NAME]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("expired"), "{status:?}");
    }
}

#[tokio::test]
async fn a_token_decides_before_a_certificate() {
    let (authorizer, token) = setup(WorkloadKind::InternalService);
    let authorize = async |header: &str, names: &[&str]| {
        let (headers, connection) = (headers(header), connection(&authorizer, names).await);
        authorizer
            .authorize("/a.A/Inner", &headers, Some(&connection))
            .await
    };
    let status = authorize("Bearer x", &[NAME]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let principal = authorize(&format!("Bearer {token}"), &["stranger"]).await;
    assert!(matches!(principal.unwrap(), Principal::Caller(_, None)));
}

#[tokio::test]
async fn a_caller_without_permission_is_named_in_the_log() {
    let (gateway, token) = setup(WorkloadKind::Gateway);
    let bearer = headers(&format!("Bearer {token}"));
    // Without a subscriber first, as another thread may have reached the line: see `middleware`.
    let denied = gateway.authorize("/a.A/Inner", &bearer, None).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let file = Arc::new(tempfile::tempfile().unwrap());
    let lines = tracing_subscriber::fmt().with_writer(file.clone()).finish();
    let logging = tracing::subscriber::set_default(lines);
    gateway.authorize("/a.A/Inner", &bearer, None).await.unwrap_err();
    with_certificate(&gateway, "/a.A/Inner", &[NAME])
        .await
        .unwrap_err();
    drop(logging);
    let (mut file, mut text) = (&*file, String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let LookUpResult::Answer(Ok(Some(caller))) = connection(&gateway, &[NAME]).await.found else {
        panic!("no caller");
    };
    assert_eq!(text.matches(caller.id()).count(), 2, "{text}");
    assert!(!text.contains(&token), "{text}");
}

#[tokio::test]
async fn a_gateway_is_known_by_its_certificate_while_it_is_valid() {
    for kind in WorkloadKind::ALL {
        let (authorizer, _, clock) = setup_with_clock(kind);
        let is_gateway = async |names: &[&str]| connection(&authorizer, names).await.is_gateway();
        assert_eq!(is_gateway(&[NAME]).await.unwrap(), kind == WorkloadKind::Gateway);
        assert!(!is_gateway(&["stranger"]).await.unwrap());
        assert!(!is_gateway(&[NAME; MAX_CERTIFICATE_NAMES + 1]).await.unwrap());
        assert!(is_gateway(&["two", "callers"]).await.is_err());
        clock.advance(std::time::Duration::from_secs(1));
        // Nobody knows who it is now.
        assert_eq!(is_gateway(&[NAME]).await.unwrap_err().code(), Code::Unavailable);
    }
}
