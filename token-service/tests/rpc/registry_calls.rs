//! How often each page and each RPC of a Tenant Admin asks the registry: once for each fact.

use std::collections::BTreeMap;

use accord::token::v1 as pb;

use crate::{
    fake_registry::Question::{self, Client, SignIn, Tenant, User},
    http::{authorize::Query, browser::Browser, pages::approval},
    world::World,
};

#[track_caller]
fn assert_asked<const N: usize>(world: &World, call: &str, expected: [(Question, usize); N]) {
    assert_eq!(world.registry().take_counts(), BTreeMap::from(expected), "{call}");
}

#[tokio::test]
async fn a_page_reads_each_fact_from_the_registry_once() {
    let world = World::start().await;
    // There is a grant already, so that the consent page compares.
    let grant_id = world.active_grant().await;
    world.registry().take_counts();
    let mut browser = Browser::new(&world);
    let form = browser.get(&Query::of(&world).target()).await;
    assert_asked(&world, "authorization endpoint", [(Tenant, 1), (Client, 1)]);
    let path = browser.sign_in_with(&form).await;
    // The page and the new session each read the tenant.
    let sign_in = [(Tenant, 2), (Client, 1), (User, 1), (SignIn, 1)];
    assert_asked(&world, "sign-in at the authorization endpoint", sign_in);
    let mut browser = Browser::new(&world);
    browser.get(&path).await;
    assert_asked(&world, "sign-in form", [(Tenant, 1)]);
    let page = browser.sign_in_at(&path).await;
    assert!(page.body.contains("What changes"), "{}", page.body);
    let sign_in_and_consent_page = [(Tenant, 2), (Client, 1), (User, 2), (SignIn, 1)];
    assert_asked(&world, "sign-in, then consent page", sign_in_and_consent_page);
    browser.get(&path).await;
    assert_asked(&world, "consent page", [(Tenant, 1), (Client, 1), (User, 2)]);
    browser
        .submit(&format!("{path}/approve"), &approval(&world))
        .await;
    assert_asked(&world, "approval", [(Tenant, 1), (Client, 1), (User, 2)]);
    let path = browser.at_setup().await;
    world.registry().take_counts();
    browser.submit(&format!("{path}/deny"), &[]).await;
    assert_asked(&world, "denial", [(Tenant, 1), (User, 1)]);

    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    world.registry().take_counts();
    // The session's admin granted both consents to the one client, for the one user.
    let parties = [(Tenant, 1), (Client, 1), (User, 2)];
    browser.get("/acme/integrations").await;
    assert_asked(&world, "integrations", parties);
    let integration = format!("/acme/integrations/{grant_id}");
    browser.get(&integration).await;
    assert_asked(&world, "integration", parties);
    let user = [("account_name", world.second_user_name())];
    browser
        .submit(&format!("{integration}/designated-user"), &user)
        .await;
    assert_asked(&world, "change of the designated user", parties);
    browser.submit(&format!("{integration}/revoke"), &[]).await;
    assert_asked(&world, "revocation", parties);
}

#[tokio::test]
async fn an_rpc_reads_each_fact_from_the_registry_once() {
    let world = World::start().await;
    let setup = world.setup().await;
    assert_asked(&world, "StartSetup", [(Tenant, 1), (Client, 1)]);
    let session = world.sign_in(&setup.setup_id).await;
    assert_asked(&world, "SignInTenantAdmin", [(SignIn, 1)]);
    let approval = world.approval(&setup.setup_id, &session);
    world.setups().approve_setup(approval).await.unwrap();
    assert_asked(&world, "ApproveSetup", [(Tenant, 1), (Client, 1), (User, 2)]);

    // Grants to two more clients; the one tenant, admin and designated user stay the same.
    for _ in 0..2 {
        let client = world.new_client(&["acme"]);
        world.approved(&client, |_| ()).await;
    }
    let request = pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: world.sign_in("").await,
        ..Default::default()
    };
    world.registry().take_counts();
    assert_eq!(world.list(request).await.unwrap().consents.len(), 3);
    assert_asked(&world, "ListConsents", [(Tenant, 1), (Client, 3), (User, 2)]);
}
