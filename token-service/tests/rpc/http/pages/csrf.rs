//! Forms that were not sent from one of our pages, in this browser and this session: each is refused, and
//! changes nothing.

use accord::token::v1::ConsentState;

use super::{Browser, Request, approval, assert_page};
use crate::{
    http::client::Fields,
    world::{PASSWORD, World},
};

/// Every form, and the page that a browser sends it from.
struct Forms<'a> {
    world: &'a World,
    setup: String,
    grant: String,
    at_setup: Browser<'a>,
    at_integrations: Browser<'a>,
    anonymous: Browser<'a>,
    enrolment: String,
}

/// Who may send a form, where to, and its fields but for the CSRF token.
type Form<'f, 'a> = (&'f Browser<'a>, String, Vec<(&'static str, &'static str)>);

impl<'a> Forms<'a> {
    async fn of(world: &'a World) -> Self {
        let grant_id = world.active_grant().await;
        let mut at_setup = Browser::new(world);
        let setup = at_setup.at_setup().await;
        let mut at_integrations = Browser::new(world);
        at_integrations.at_integrations().await;
        let mut anonymous = Browser::new(world);
        anonymous.get("/acme/sign-in").await;
        Self {
            world,
            setup,
            grant: format!("/acme/integrations/{grant_id}"),
            at_setup,
            at_integrations,
            anonymous,
            enrolment: world.registry().add_enrolment(&world.admin_id),
        }
    }

    fn each(&self) -> Vec<Form<'_, 'a>> {
        let signing_in = vec![("account_name", self.world.admin_name()), ("password", PASSWORD)];
        let passwords = vec![("password", PASSWORD), ("password_again", PASSWORD)];
        let user = vec![("account_name", self.world.second_user_name())];
        let (setup, grant) = (&self.setup, &self.grant);
        vec![
            (&self.anonymous, format!("{setup}/sign-in"), signing_in.clone()),
            (&self.at_setup, format!("{setup}/approve"), approval(self.world)),
            (&self.at_setup, format!("{setup}/deny"), Vec::new()),
            (&self.anonymous, "/acme/sign-in".into(), signing_in),
            (&self.at_integrations, "/acme/sign-out".into(), Vec::new()),
            (&self.at_integrations, format!("{grant}/designated-user"), user),
            (
                &self.at_integrations,
                format!("{grant}/revoke"),
                vec![("reason", "a test")],
            ),
            (
                &self.anonymous,
                format!("/acme/enrol/{}", self.enrolment),
                passwords,
            ),
        ]
    }

    /// Asserts that all is as it was: sessions open, the setup undecided, the grant the same.
    async fn assert_untouched(&self, sessions: usize) {
        let world = self.world;
        assert_eq!(world.audit_events("admin_session.open").await.len(), sessions);
        assert_eq!(world.audit_events("admin_session.end").await.len(), 0);
        assert_eq!(world.audit_events("consent.deny").await.len(), 0);
        assert_eq!(
            world.audit_events("consent.approve").await.len(),
            1,
            "the first grant's"
        );
        let consent = world.consent(self.grant.rsplit('/').next().unwrap()).await;
        assert_eq!(consent.state(), ConsentState::Active);
        assert_eq!(consent.designated_user_id, world.api_user_id);
        assert_eq!(world.registry().calls_about_links(), 0);
    }
}

async fn sessions(world: &World) -> usize {
    world.audit_events("admin_session.open").await.len()
}

#[track_caller]
fn with_token<'a>(csrf: &'a str, fields: &Fields<'a>) -> Vec<(&'a str, &'a str)> {
    [&[("csrf", csrf)], fields].concat()
}

#[tokio::test]
async fn a_form_without_its_csrf_token_is_rejected() {
    let world = World::start().await;
    let forms = Forms::of(&world).await;
    let sessions = sessions(&world).await;
    let mut stranger = Browser::new(&world);
    stranger
        .at_integrations_of("globex", world.globex_admin_name())
        .await;
    stranger.get("/acme/sign-in").await;
    for (browser, path, fields) in forms.each() {
        let own = &browser.csrf;
        let mut elsewhere = browser.clone();
        elsewhere.get("/globex/sign-in").await;
        assert_ne!(elsewhere.csrf, *own, "a tenant's token is its own");
        let cut = &own[..own.len() - 1];
        for wrong in [
            "",
            "x",
            cut,
            &format!("{own}A"),
            &format!(" {own}"),
            &own.to_lowercase(),
            &stranger.csrf,
            &elsewhere.csrf,
            // The cookies themselves.
            &browser.cookies["__Host-accord-csrf"],
        ] {
            let answer = browser.clone().post(&path, &with_token(wrong, &fields)).await;
            assert_eq!(answer.status, 403, "{path}, {wrong:?}");
            assert_page(&answer, 403);
        }
        assert_page(&browser.clone().post(&path, &fields).await, 403);
        // In the address it counts for nothing.
        let target = format!("{path}?csrf={own}");
        assert_page(&browser.clone().post(&target, &fields).await, 403);
        // Nor does the first of two, if it is wrong.
        let twice = [&[("csrf", "x")], &*with_token(own, &fields)].concat();
        assert_page(&browser.clone().post(&path, &twice).await, 403);
        // The right one, from a browser without cookies, or with another's.
        for mut other in [Browser::new(&world), stranger.clone()] {
            assert_page(&other.post(&path, &with_token(own, &fields)).await, 403);
        }
    }
    forms.assert_untouched(sessions + 1).await;
}

#[tokio::test]
async fn a_cross_site_form_is_rejected_even_with_the_csrf_token() {
    let world = World::start().await;
    let forms = Forms::of(&world).await;
    let sessions = sessions(&world).await;
    for (browser, path, fields) in forms.each() {
        for site in ["cross-site", "same-site", "Cross-Site", "what may come", ""] {
            let form = Request::post(&path)
                .header("sec-fetch-site", site)
                .form(&with_token(&browser.csrf, &fields));
            assert_page(&browser.clone().send(form).await, 403);
        }
    }
    // A claim link has no token, since it has no session.
    let claim = world.registry().add_delivery(Default::default());
    let form = Request::post(format!("/claim/{claim}")).header("sec-fetch-site", "cross-site");
    assert_page(&form.form(&[]).send(&world).await, 403);
    forms.assert_untouched(sessions).await;
}

#[tokio::test]
async fn a_token_from_before_the_sign_in_counts_no_more() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.open_setup().await;
    let before = browser.csrf.clone();
    browser.sign_in_at(&path).await;
    assert_ne!(browser.csrf, before);
    let approve = format!("{path}/approve");
    for path in [&*approve, &format!("{path}/deny"), "/acme/sign-out"] {
        let answer = browser
            .clone()
            .post(path, &with_token(&before, &approval(&world)))
            .await;
        assert_page(&answer, 403);
    }
    // Nor that of an earlier session of the same browser.
    let first = browser.csrf.clone();
    browser.submit("/acme/sign-out", &[]).await;
    browser.get(&path).await;
    browser.sign_in_at(&path).await;
    let answer = browser
        .clone()
        .post(&approve, &with_token(&first, &approval(&world)))
        .await;
    assert_page(&answer, 403);
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
    assert_page(&browser.submit(&approve, &approval(&world)).await, 200);
}

#[tokio::test]
async fn every_form_is_taken_with_its_token_from_the_same_site() {
    let world = World::start().await;
    let forms = Forms::of(&world).await;
    for (browser, path, fields) in forms.each() {
        // An approval and a denial of one setup exclude each other, and nothing follows a sign-out.
        if path.ends_with("/deny") || path.ends_with("/sign-out") {
            continue;
        }
        let form = Request::post(&path)
            .header("sec-fetch-site", "same-origin")
            .form(&with_token(&browser.csrf, &fields));
        let answer = browser.clone().send(form).await;
        assert!(matches!(answer.status, 200 | 303), "{path}: {answer:?}");
    }
    assert_eq!(world.registry().calls_about_links(), 1);
    let consent = world.consent(forms.grant.rsplit('/').next().unwrap()).await;
    assert_eq!(consent.state(), ConsentState::Revoked);
    assert_eq!(world.audit_events("consent.approve").await.len(), 2);
}
