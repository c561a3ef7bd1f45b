//! The application against a fake authority, with failures that a real authority does not make on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod browser;
mod fake;

use std::sync::Arc;

use axum::http::StatusCode;
use browser::{Browser, Page, parameter, serve};
use example_partner::{router, settings::Settings};
use fake::{Fake, Refresh, value};
use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use tokio::io::{AsyncBufReadExt, BufReader};

async fn start() -> (Fake, Browser) {
    let fake = Fake::start().await;
    let base = serve(&fake.settings()).await;
    (fake, Browser::at(&base))
}

#[track_caller]
fn shows(page: &Page, status: u16, text: &str) {
    assert_eq!(page.status.as_u16(), status, "{page:?}");
    assert!(page.text.contains(text), "{page:?}");
}

#[tokio::test]
async fn an_admin_connects_and_sees_the_contacts() {
    let (fake, browser) = start().await;
    shows(&browser.get("/").await, 200, "Not connected");
    shows(&browser.get("/contacts").await, 409, "Not connected");

    let url = browser.press_connect().await;
    assert!(
        url.as_str()
            .starts_with(&format!("{}/firm/authorize?", fake.base))
    );
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "cli_1"),
        ("redirect_uri", "http://127.0.0.1:9090/callback"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&url, name), expected);
    }
    assert_eq!(parameter(&url, "resource"), format!("{}/v1", fake.base));
    assert!(parameter(&url, "state").len() >= 22);

    browser.come_back(&url, &[("code", "acc_1")]).await;
    {
        let seen = fake.seen.lock().unwrap();
        let (form, authorization) = &seen.token[0];
        assert_eq!(value(form, "code"), "acc_1");
        assert_eq!(value(form, "redirect_uri"), "http://127.0.0.1:9090/callback");
        let verifier = PkceCodeVerifier::new(value(form, "code_verifier").to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        assert_eq!(challenge.as_str(), parameter(&url, "code_challenge"));
        // cli_1:acs_a%2Bb
        assert_eq!(authorization, "Basic Y2xpXzE6YWNzX2ElMkJi");
    }
    shows(&browser.get("/").await, 200, "<code>contacts.read</code>");
    let contacts = browser.get("/contacts").await;
    shows(&contacts, 200, "Ada");
    assert!(!contacts.text.contains("<b>"), "the response is escaped");
    assert_eq!(fake.seen.lock().unwrap().token.len(), 1, "nothing was refreshed");

    assert_eq!(browser.submit("/refresh").await.status, StatusCode::SEE_OTHER);
    shows(&browser.get("/contacts").await, 200, "Ada");
    assert_eq!(
        value(&fake.seen.lock().unwrap().token[1].0, "refresh_token"),
        "refresh-1"
    );

    assert_eq!(browser.submit("/disconnect").await.status, StatusCode::SEE_OTHER);
    assert_eq!(fake.seen.lock().unwrap().revoked, ["refresh-2"]);
    shows(&browser.get("/").await, 200, "Not connected");
}

#[tokio::test]
async fn a_nonce_goes_into_the_proofs_that_follow_and_a_challenge_is_answered_once() {
    let (fake, browser) = start().await;
    let set_nonce = |nonce: &str| fake.seen.lock().unwrap().nonce = nonce.to_owned();
    set_nonce("nonce-1");
    browser.connect().await;
    assert_eq!(
        fake.seen.lock().unwrap().challenges,
        1,
        "the code counts after it"
    );
    shows(&browser.get("/contacts").await, 200, "Ada");
    assert_eq!(browser.submit("/refresh").await.status, StatusCode::SEE_OTHER);
    assert_eq!(fake.seen.lock().unwrap().challenges, 1, "the nonce is kept");

    // A challenge of the Cloud API is no rejection of the token.
    set_nonce("nonce-2");
    shows(&browser.get("/contacts").await, 200, "Ada");
    {
        let seen = fake.seen.lock().unwrap();
        assert_eq!((seen.challenges, seen.token.len()), (2, 2));
        assert_eq!(seen.proof_keys.len(), 1, "one key signs all proofs");
    }

    // A server that is never content.
    fake.seen.lock().unwrap().every_nonce_is_old = true;
    shows(&browser.submit("/refresh").await, 502, "use_dpop_nonce");
    assert_eq!(fake.seen.lock().unwrap().challenges, 4);
    shows(&browser.get("/").await, 200, "<h1>Connected</h1>");
}

#[tokio::test]
async fn a_token_that_anybody_could_use_is_not_accepted() {
    let (fake, browser) = start().await;
    fake.seen.lock().unwrap().binds_no_tokens = true;
    let url = browser.press_connect().await;
    let page = browser.come_back(&url, &[("code", "acc_1")]).await;
    shows(&page, 502, "not bound");
    shows(&browser.get("/").await, 200, "Not connected");
}

#[tokio::test]
async fn a_response_is_accepted_once_in_its_own_browser_from_its_own_issuer() {
    let (fake, browser) = start().await;
    let url = browser.press_connect().await;
    let state = parameter(&url, "state");
    let issuer = format!("{}/firm", fake.base);
    let with = |state: &str, iss: &str| {
        vec![
            ("code", "acc_1".to_owned()),
            ("state", state.to_owned()),
            ("iss", iss.to_owned()),
        ]
    };

    let stranger = Browser::at(browser.base());
    for (who, parameters) in [
        (&stranger, with(&state, &issuer)),
        (&browser, with("other", &issuer)),
        (&browser, with("", &issuer)),
        (&browser, vec![("code", "acc_1".to_owned())]),
    ] {
        shows(&who.call_back(&parameters).await, 400, "not expected");
    }
    let mut twice = with(&state, &issuer);
    twice.push(("code", "acc_2".to_owned()));
    assert_eq!(browser.call_back(&twice).await.status, StatusCode::BAD_REQUEST);

    // A response of another issuer ends the request and has no other effect.
    for iss in ["https://evil.example", "", &format!("{issuer}/")] {
        let url = browser.press_connect().await;
        let page = browser.call_back(&with(&parameter(&url, "state"), iss)).await;
        shows(&page, 502, "another issuer");
    }
    let url = browser.press_connect().await;
    let nameless = [("code", "acc_1".to_owned()), ("state", parameter(&url, "state"))];
    shows(&browser.call_back(&nameless).await, 502, "another issuer");
    assert!(
        fake.seen.lock().unwrap().token.is_empty(),
        "no code went to the authority"
    );

    let url = browser.press_connect().await;
    let good = with(&parameter(&url, "state"), &issuer);
    assert_eq!(browser.call_back(&good).await.status, StatusCode::SEE_OTHER);
    shows(&browser.call_back(&good).await, 400, "not expected");
    assert_eq!(fake.seen.lock().unwrap().token.len(), 1);
}

#[tokio::test]
async fn an_error_is_shown_as_text() {
    let (_fake, browser) = start().await;
    let url = browser.press_connect().await;
    let denied = browser.come_back(&url, &[("error", "access_denied")]).await;
    shows(&denied, 403, "did not agree");
    let url = browser.press_connect().await;
    let markup = [("error", "<i>x</i>"), ("error_description", "<script>y</script>")];
    let page = browser.come_back(&url, &markup).await;
    shows(&page, 502, "script");
    assert!(!page.text.contains("<script>") && !page.text.contains("<i>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_callers_share_one_refresh() {
    let (fake, browser) = start().await;
    fake.seen.lock().unwrap().first_lifetime = 5;
    browser.connect().await;
    let browser = Arc::new(browser);
    all_get_contacts(&browser).await;
    assert_eq!(
        fake.seen.lock().unwrap().token.len(),
        2,
        "the code and one refresh"
    );

    // The Cloud API rejects a token that has not expired.
    fake.seen.lock().unwrap().generation = 99;
    all_get_contacts(&browser).await;
    let seen = fake.seen.lock().unwrap();
    assert_eq!(seen.token.len(), 3);
    assert_eq!(seen.accepted, 2 * CALLERS);
}

const CALLERS: usize = 16;

async fn all_get_contacts(browser: &Arc<Browser>) {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let browser = browser.clone();
        callers.spawn(async move { browser.get("/contacts").await });
    }
    for page in callers.join_all().await {
        shows(&page, 200, "Ada");
    }
}

#[tokio::test]
async fn a_lost_response_is_requested_again_with_the_same_token() {
    let (fake, browser) = start().await;
    browser.connect().await;
    fake.seen.lock().unwrap().refreshes.push_back(Refresh::Lost);
    assert_eq!(browser.submit("/refresh").await.status, StatusCode::SEE_OTHER);
    let seen = fake.seen.lock().unwrap();
    let used: Vec<_> = seen.token[1..]
        .iter()
        .map(|(form, _)| value(form, "refresh_token"))
        .collect();
    assert_eq!(used, ["refresh-1", "refresh-1"]);
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_connection_and_invalid_grant_ends_it() {
    let (fake, browser) = start().await;
    browser.connect().await;
    fake.seen
        .lock()
        .unwrap()
        .refreshes
        .extend([Refresh::Unavailable, Refresh::InvalidGrant]);
    shows(&browser.submit("/refresh").await, 502, "temporarily_unavailable");
    shows(&browser.get("/contacts").await, 200, "Ada");
    shows(&browser.submit("/refresh").await, 409, "Not connected");
    shows(&browser.get("/").await, 200, "href=\"/connect\"");
}

#[tokio::test]
async fn a_form_from_another_site_has_no_effect() {
    let (fake, browser) = start().await;
    browser.connect().await;
    for path in ["/refresh", "/disconnect"] {
        let page = browser.post(path, "form_token=guess".to_owned()).await;
        shows(&page, 403, "Nothing was done");
    }
    let seen = fake.seen.lock().unwrap();
    assert_eq!((seen.token.len(), seen.revoked.len()), (1, 0));
}

#[tokio::test]
async fn a_failed_revocation_keeps_the_connection() {
    let (fake, browser) = start().await;
    browser.connect().await;
    fake.seen.lock().unwrap().revocation_fails = true;
    shows(&browser.submit("/disconnect").await, 502, "later");
    shows(&browser.get("/").await, 200, "<h1>Connected</h1>");
}

#[tokio::test]
async fn a_token_is_sent_only_to_the_cloud_api() {
    let (fake, browser) = start().await;
    browser.connect().await;
    fake.seen.lock().unwrap().api_redirects = true;
    shows(&browser.get("/contacts").await, 502, "the Cloud API failed");
    assert_eq!(fake.seen.lock().unwrap().elsewhere, 0);
}

#[tokio::test]
async fn only_metadata_of_the_issuer_is_accepted_at_the_start() {
    let fake = Fake::start().await;
    for (tenant, problem) in [
        ("liar", "it is the metadata of"),
        ("moved", "307"),
        ("nobody", "404"),
    ] {
        let settings = Settings {
            issuer: format!("{}/{tenant}", fake.base),
            ..fake.settings()
        };
        let error = router(&settings).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let settings = Settings {
        ca_pem: Some("no certificate".into()),
        ..fake.settings()
    };
    let error = router(&settings).await.unwrap_err().to_string();
    assert!(error.contains("ca-file"), "{error}");
}

#[tokio::test]
async fn the_command_serves_and_shows_no_secret() {
    let fake = Fake::start().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "acs_a+b\n").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_example-partner"))
        .env("PARTNER_ISSUER", fake.settings().issuer)
        .env("PARTNER_CLOUD_API_URL", fake.settings().cloud_api_url)
        .args([
            "--client-id",
            "cli_1",
            "--listen",
            "127.0.0.1:0",
            "--client-secret-file",
        ])
        .arg(&secret)
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(command.stderr.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("listening") && !line.contains("acs_"), "{line}");
    let (_, rest) = line.split_once("address=").unwrap();
    let address = rest.split_whitespace().next().unwrap();
    let browser = Browser::at(&format!("http://{address}"));
    shows(&browser.get("/").await, 200, "Not connected");
    browser.connect().await;
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("connected") && !line.contains("access-"), "{line}");
    command.kill().await.unwrap();
}
