//! The same over gRPC: the proof is a field, and the nonce is in the metadata.

use accord::{
    testing::dpop::ProofKey,
    token::v1::{self as pb},
};
use serde_json::json;
use token_service::model::dpop_nonce::NoncePolicy;
use tonic::Code;
use tonic_types::StatusExt;

use super::{altered, ask, assert_bound, proof};
use crate::{harness::assert_rejected, world::World};

fn request(world: &World, proof: String) -> pb::IssueTokenRequest {
    pb::IssueTokenRequest {
        dpop_proof: proof,
        ..world.by_client_credentials()
    }
}

#[tokio::test]
async fn a_proof_counts_once_on_both_faces() {
    let world = World::start().await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let first = proof(&world, &key);
    let issued = world.issue(request(&world, first.clone())).await.unwrap();
    assert_eq!(issued.token_type, "DPoP");
    assert_eq!(
        world.introspect(&issued.access_token).await.cnf.unwrap().jkt,
        key.jkt()
    );
    let again = world.issue(request(&world, first.clone())).await;
    assert_rejected(again, Code::InvalidArgument, "INVALID_DPOP_PROOF");
    assert_eq!(ask(&world, &first).await.status, 400);
    let get = altered(&world, &key, |_, claims| claims["htm"] = json!("GET"));
    let refused = world.issue(request(&world, get)).await;
    let message = refused.as_ref().unwrap_err().message().to_owned();
    assert!(message.contains("htm must be POST"), "{message}");
    assert_rejected(refused, Code::InvalidArgument, "INVALID_DPOP_PROOF");
}

#[tokio::test]
async fn a_nonce_comes_in_the_error_info_and_in_the_metadata() {
    let world = World::start_with(|settings| settings.dpop_nonce = NoncePolicy::Required).await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let status = world
        .issue(request(&world, proof(&world, &key)))
        .await
        .unwrap_err();
    let nonce = status.get_details_error_info().unwrap().metadata["dpop_nonce"].clone();
    assert_rejected::<()>(Err(status), Code::InvalidArgument, "USE_DPOP_NONCE");
    let with = |nonce: &str| altered(&world, &key, |_, claims| claims["nonce"] = json!(nonce));
    let answer = world
        .tokens()
        .issue_token(request(&world, with(&nonce)))
        .await
        .unwrap();
    let next = answer
        .metadata()
        .get("dpop-nonce")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(answer.into_inner().token_type, "DPoP");
    assert_bound(&ask(&world, &with(&next)).await, &key);
}

#[tokio::test]
async fn a_client_with_dpop_jkts_is_limited_to_them() {
    let world = World::start().await;
    world.first_tokens().await;
    let own = ProofKey::es256();
    world.change_client(|client| client.dpop_jkts = vec![own.jkt()]);
    for proof in [String::new(), proof(&world, &ProofKey::es256())] {
        let refused = world.issue(request(&world, proof)).await;
        assert_rejected(refused, Code::InvalidArgument, "INVALID_DPOP_PROOF");
    }
    assert_eq!(world.audit_events("dpop_key.refuse").await.len(), 2);
    world.issue(request(&world, proof(&world, &own))).await.unwrap();
}
