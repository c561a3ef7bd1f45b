//! The process of the README from end to end: the sample partner, the real gateway and a Tenant Admin in a real
//! browser.

use std::{path::Path, sync::Arc};

use accord::{clock::SystemClock, random::SystemRandom};
use accord_cli::dev::Dev;
use example_partner::settings::Settings;
use oauth2::{ClientId, ClientSecret};
use tokio::net::TcpListener;

use crate::harness::{
    browser::Browser,
    dev,
    document::{file, run_lines},
    envoy::{Gateway, Place},
};

tests!(a_tenant_admin_connects_the_sample_partner_through_the_gateway,);

/// Runs the README's lines that register the sample partner. Returns the one-time link.
async fn register(directory: &Path, redirect_uri: &str) -> String {
    let request = file("examples/partner/integration-request.json");
    let request = std::fs::read_to_string(request).unwrap();
    let listed = "http://127.0.0.1:9090/callback";
    assert!(
        request.contains(listed),
        "the sample listens elsewhere: {request}"
    );
    let copy = directory.join("examples/partner");
    std::fs::create_dir_all(&copy).unwrap();
    let request = request.replace(listed, redirect_uri);
    std::fs::write(copy.join("integration-request.json"), request).unwrap();
    let printed = run_lines(&[("README.md", "sample-partner")], directory, &[]).await;
    let link = printed.lines().last().unwrap_or_default();
    assert!(link.contains("/claim/acl_"), "no link at the end of\n{printed}");
    link.to_owned()
}

/// Starts the sample partner on the listener.
async fn start_partner(listener: TcpListener, settings: Settings) {
    let settings = settings.checked().unwrap();
    let router = example_partner::router(&settings).await.unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
}

async fn a_tenant_admin_connects_the_sample_partner_through_the_gateway() {
    let place = Place::reserve();
    let browser = Browser::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut args = dev::args(&directory.path().join("accord-data"));
    args.public_base_url = Some(place.url());
    args.api_listen = Some(args.http_listen);
    let dev = Dev::start(&args, Arc::new(SystemClock), Arc::new(SystemRandom));
    let dev = dev.await.unwrap();
    let gateway = Gateway::start(place, &dev.file).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let partner = format!("http://{}", listener.local_addr().unwrap());
    let redirect_uri = format!("{partner}/callback");
    let link = register(directory.path(), &redirect_uri).await;
    assert!(link.starts_with(&gateway.url()), "{link} is not the gateway's");

    browser.open(&link).await;
    browser.press("Show the credentials").await;
    let client_id = browser.see("#client_id").await.value().await.unwrap().unwrap();
    let secret = browser
        .see("#client_secret")
        .await
        .value()
        .await
        .unwrap()
        .unwrap();
    let authority = browser
        .see("#tenant_authority_url-0")
        .await
        .value()
        .await
        .unwrap();
    let cloud_api_url = browser.see("#cloud_api_url-0").await.value().await.unwrap();
    assert_eq!(authority.as_deref(), Some(dev.file.tenant_authority_url.as_str()));
    let settings = Settings {
        issuer: authority.unwrap(),
        client_id: ClientId::new(client_id),
        client_secret: ClientSecret::new(secret),
        cloud_api_url: cloud_api_url.unwrap(),
        redirect_uri: redirect_uri.parse().unwrap(),
        ca_pem: Some(std::fs::read(gateway.certificate()).unwrap()),
    };
    start_partner(listener, settings).await;

    browser.open(&partner).await;
    browser.press("Connect").await;
    browser.arrive("Sign in").await;
    browser.fill("account_name", &dev.file.admin_account_name).await;
    browser.fill("password", &dev.file.admin_password).await;
    browser.press("Sign in").await;
    browser.arrive("asks for access").await;
    let user = &dev.file.api_user_account_name;
    browser.fill("designated_account_name", user).await;
    browser.press("Approve access").await;
    browser.arrive("Connected").await;
    let at = browser.driver.current_url().await.unwrap();
    assert!(at.as_str().starts_with(&partner), "{at}");
    browser.press("Show contacts").await;
    browser.arrive("Contacts").await;
    let shown = browser.text().await;
    assert!(shown.contains("Harbour Street Estates"), "{shown}");

    let integrations = format!("{}/integrations", dev.file.tenant_authority_url);
    browser.open(&integrations).await;
    browser.arrive("Connected integrations").await;
    let shown = browser.text().await;
    assert!(
        shown.contains("Fileharbour") && shown.contains("Active"),
        "{shown}"
    );
    browser.quit().await;
    dev.stop().await.unwrap();
}
