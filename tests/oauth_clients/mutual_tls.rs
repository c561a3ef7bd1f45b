//! A library whose tokens are bound to its certificate (RFC 8705), at services with TLS.

use accord::{
    testing::{
        HeldPort,
        calls::ok,
        certificates::{Authority, KeyKind, Pair, Subject},
    },
    text::opaque::sha256,
    token::v1::StartSetupRequest,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use super::{
    program::{KeyType, Program, make_key, partner_of_the_profile},
    python::python,
};
use crate::harness::secured::Secured;

tests!(authlib_follows_the_fapi_profile_with_a_certificate,);

async fn authlib_follows_the_fapi_profile_with_a_certificate() {
    // The issuer has the port, so it is known before the services start.
    let port = HeldPort::reserve();
    let base = format!("https://localhost:{}", port.address().port());
    let directory = tempfile::tempdir().unwrap();
    let partner_ca = Authority::new("partners").write(directory.path(), "partners.pem");
    let services = Secured::start_at(&base, |mut serve| {
        serve
            .env("ACCORD_TOKEN_HTTP_LISTEN", port.address().to_string())
            .env("ACCORD_TOKEN_PARTNER_CA", partner_ca);
        serve
    })
    .await;
    let world = services.world().await;
    let (key, public) = make_key(KeyType::P256);
    let partner = partner_of_the_profile(&world, public).await;

    let pair = Pair::self_signed(&Subject::default(), KeyKind::P256);
    let certificate = directory.path().join("client.pem");
    std::fs::write(&certificate, format!("{}{}", pair.private_key, pair.certificate)).unwrap();
    let mut command = python("authlib_key_client.py");
    command
        .env("PRIVATE_KEY", key.to_string())
        .env("CLIENT_CERTIFICATE", certificate)
        .env("REQUESTS_CA_BUNDLE", services.certs().join("ca.pem"));
    let mut program = Program::start(command, &world, &partner);

    let begun = program.hear().await;
    let url: Url = begun["authorization_url"].as_str().unwrap().parse().unwrap();
    let (_, request_uri) = url.query_pairs().find(|(name, _)| name == "request_uri").unwrap();
    let request = StartSetupRequest {
        tenant_id: world.target.tenant_id.clone(),
        client_id: partner.client_id.clone(),
        request_uri: request_uri.into_owned(),
        ..Default::default()
    };
    let setup = ok(world.setups().start_setup(request).await).setup.unwrap();
    assert!(setup.bound_tokens);
    let session = world.sign_in(&setup.setup_id).await;
    let approval = world.approval(&setup.setup_id, &session);
    let approved = ok(world.setups().approve_setup(approval).await);
    program.tell(&approved.redirect_url).await;

    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(&pair.der()));
    let mut steps = Vec::new();
    while let Some(said) = program.next().await {
        let step = said["step"].as_str().unwrap().to_owned();
        // RFC 8705 §3: it is a bearer token by name.
        assert_eq!(said["token_type"], "Bearer", "{step}");
        let introspected = world.introspect(said["access_token"].as_str().unwrap()).await;
        assert_eq!(introspected.active, Some(true), "{step}");
        assert_eq!(introspected.cnf.unwrap().x5t_s256, thumbprint, "{step}");
        steps.push(step);
    }
    assert_eq!(steps, ["code", "refresh", "client_credentials"]);
}
