//! Callers: what is remembered of those whom the registry does not know.

use accord::{
    random::SystemRandom,
    rpc::auth::CallerDirectory,
    text::{
        caller::Credential,
        opaque::{OpaqueToken, TokenKind},
    },
};

use super::{super::fixture::cache, *};

#[tokio::test]
async fn a_certificate_of_nobody_is_looked_up_again_only_after_callers_have_changed() {
    let (cache, registry, _database) = cache().await;
    let names = ["partner.example".to_owned()];
    let look_up = async |credential| {
        for _ in 0..3 {
            assert_eq!(cache.caller(credential).await.unwrap(), None);
        }
        registry.checks().callers
    };
    assert_eq!(look_up(Credential::Certificate(&names)).await, 1);
    cache.facts.apply(&Change::Caller("opr_1".into()));
    assert_eq!(look_up(Credential::Certificate(&names)).await, 1);

    // The registry records each rejected call.
    for _ in 0..2 {
        assert_eq!(
            cache.find_revoked(Credential::Certificate(&names)).await.unwrap(),
            None
        );
        assert_eq!(look_up(Credential::Certificate(&names)).await, 1);
    }

    // Anybody can make up tokens, which would fill the memory.
    let token = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
    assert_eq!(look_up(Credential::Token(&token)).await, 3);
}
