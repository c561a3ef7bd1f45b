//! Redirect URIs that are almost the client's: none is accepted, and no browser is sent to any.

use super::{Query, assert_shown, assert_taken_in, send, setups_started};
use crate::world::World;

mod corpus;

use corpus::{REGISTERED, hostile};

#[tokio::test]
async fn no_browser_is_sent_to_an_unregistered_redirect_uri() {
    let world = World::start().await;
    world.change_client(|client| client.redirect_uris = REGISTERED.map(String::from).to_vec());
    let query = Query::of(&world);
    let hostile = hostile();
    assert!(hostile.len() >= 800, "{}", hostile.len());
    // One page for all of them: so nothing of an address is on it, escaped or not.
    let page = query
        .with("redirect_uri", "https://elsewhere.example/")
        .send(&world)
        .await
        .body;
    for uri in &hostile {
        let answer = query.with("redirect_uri", uri).send(&world).await;
        assert!(
            answer.status == 400 && answer.header("location").is_none(),
            "{uri:?}: {answer:?}"
        );
        assert_shown(&answer, 400);
        assert_eq!(answer.body, page, "{uri:?}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    // Nor with another error, which a registered address would get.
    for uri in &hostile {
        let asked = query.with("redirect_uri", uri).with("response_type", "token");
        let answer = asked.send(&world).await;
        assert_shown(&answer, 400);
        assert_eq!(answer.body, page, "{uri:?}");
    }
    assert_eq!(setups_started(&world).await, 0);
    for uri in REGISTERED {
        assert_taken_in(&query.with("redirect_uri", uri).send(&world).await);
    }
}

#[tokio::test]
async fn redirect_uris_are_compared_as_sent() {
    let world = World::start().await;
    world.change_client(|client| client.redirect_uris = REGISTERED.map(String::from).to_vec());
    let query = Query::of(&world).without("redirect_uri").encoded();
    for raw in [
        "https%253A%252F%252Fgood.example%252Fcallback",
        "https://good.example/callback%00",
        "https://good.example/call%62ack%2f",
        "https://good.example/callback%ff",
        "https://good.example/callback?tenant=acme%26x=1",
        "https://good.example/callback;x",
        "https://good.example+/callback",
        "https:good.example/callback",
        "https://good.example/callback[]",
    ] {
        assert_shown(&send(&world, &format!("{query}&redirect_uri={raw}")).await, 400);
    }
    for name in [
        "redirect_uri[]",
        "Redirect_URI",
        "redirect_uri%20",
        "redirect-uri",
        "redirectUri",
        ";redirect_uri",
    ] {
        let raw = "https://good.example/callback";
        assert_shown(&send(&world, &format!("{query}&{name}={raw}")).await, 400);
    }
    assert_eq!(setups_started(&world).await, 0);
    // Encoding that means the same is the same.
    for raw in [
        "https://good.example/callback",
        "https%3a%2f%2fgood%2Eexample%2fcall%62ack",
    ] {
        assert_taken_in(&send(&world, &format!("{query}&redirect_uri={raw}")).await);
    }
}

#[tokio::test]
async fn another_clients_redirect_uri_is_rejected() {
    let world = World::start().await;
    let other = world.new_client(&["acme"]);
    world.registry().edit_client(&other.client_id, |client| {
        client.redirect_uris = vec!["https://other.example/callback".into()];
    });
    let query = Query::of(&world).with("redirect_uri", "https://other.example/callback");
    assert_shown(&query.send(&world).await, 400);
    assert_eq!(setups_started(&world).await, 0);
    assert_taken_in(&query.with("client_id", &other.client_id).send(&world).await);
}

#[tokio::test]
async fn a_client_without_addresses_is_sent_nowhere() {
    let world = World::start().await;
    world.change_client(|client| client.redirect_uris.clear());
    for uri in ["", "https://app.partner.example/callback", "null"] {
        assert_shown(
            &Query::of(&world).with("redirect_uri", uri).send(&world).await,
            400,
        );
    }
    assert_eq!(setups_started(&world).await, 0);
}
