//! Every page with all its parts, filled with one text.

use std::collections::BTreeMap;

use accord::{
    clock::Clock,
    random::SeededRandom,
    registry::v1::Endpoint,
    testing::test_clock,
    text::id::{ClientId, GrantId, ScopeName, TenantId, UserId},
};
use askama::Template;
use zeroize::Zeroizing;

use crate::{
    http::pages::view::*,
    model::{
        client::{ClientScope, DisplayInfo},
        grant::{Consent, Grant, GrantState, StoredState, usage::UsageSummary},
    },
};

pub(super) fn frame(text: &str) -> Frame {
    Frame {
        product_name: text.to_owned(),
        tenant_name: text.to_owned(),
        stylesheet: "/accord.css".to_owned(),
        base: "/t".to_owned(),
        csrf: Some("csrf-of-the-session".to_owned()),
    }
}

fn display(text: &str) -> DisplayInfo {
    DisplayInfo {
        display_name: text.to_owned(),
        partner_name: text.to_owned(),
        purpose: text.to_owned(),
        bound_tokens: true,
        allowed_networks: vec!["203.0.113.0/24".to_owned(), "2001:db8::/32".to_owned()],
    }
}

fn sign_in(text: &str) -> SignInPage {
    SignInPage {
        frame: frame(text),
        action: "/t/sign-in".to_owned(),
        csrf: "csrf-of-the-page".to_owned(),
        account_name: text.to_owned(),
        entered: vec![("reason", text.to_owned())],
        client: Some(display(text)),
        error: Some(text.to_owned()),
        notice: Some(text.to_owned()),
    }
}

pub(super) fn consent(text: &str) -> ConsentPage {
    let scope = |is_new: bool| ScopeChoice {
        name: text.to_owned(),
        description: text.to_owned(),
        reason: text.to_owned(),
        checked: !is_new,
        is_new,
    };
    ConsentPage {
        frame: frame(text),
        setup_id: "1".to_owned(),
        csrf: "csrf-of-the-page".to_owned(),
        client: display(text),
        redirect_host: text.to_owned(),
        scopes: vec![scope(false), scope(true)],
        changes: Some(ScopeChanges {
            granted_on: text.to_owned(),
            added: vec![text.to_owned()],
            dropped: vec![text.to_owned()],
            designated_user: text.to_owned(),
        }),
        account_name: text.to_owned(),
        end_date: text.to_owned(),
        networks: text.to_owned(),
        earliest_end_date: text.to_owned(),
        now: text.to_owned(),
        notice: Some("A notice."),
        errors: ConsentErrors {
            scopes: Some(text.to_owned()),
            account_name: Some(text.to_owned()),
            end_date: Some(text.to_owned()),
            networks: Some(text.to_owned()),
        },
    }
}

fn integration(text: &str) -> Integration {
    let (clock, random) = (test_clock(), SeededRandom::new(1));
    let grant = Grant {
        grant_id: GrantId::generate(&*clock, &random),
        tenant_id: TenantId::parse("acme").unwrap(),
        client_id: ClientId::generate(&*clock, &random),
        display: display(text),
        scopes: Vec::new(),
        designated_user_id: UserId::generate(&*clock, &random),
        granted_by: UserId::generate(&*clock, &random),
        state: StoredState::Active,
        client_version: 1,
        created_at: clock.now(),
        family_id: None,
        redeem_until: clock.now(),
        activated_at: None,
        expires_at: None,
        ended_at: None,
        allowed_networks: Default::default(),
    };
    let consent = Consent {
        grant,
        state: GrantState::Active,
        ended_at: None,
        scopes: vec![ClientScope {
            name: ScopeName::parse("<script>x</script>").unwrap(),
            description: text.to_owned(),
            reason: text.to_owned(),
            added_seq: 0,
        }],
        removed_scopes: vec![ScopeName::parse("<script>y</script>").unwrap()],
        designated_user_label: text.to_owned(),
        granted_by_label: text.to_owned(),
        usage: UsageSummary::default(),
    };
    Integration {
        url: "/t/integrations/1".to_owned(),
        consent,
        state: "Active",
        class: "active",
        granted_on: text.to_owned(),
        ends_on: Some(text.to_owned()),
        ended_on: None,
        networks: vec![text.to_owned()],
        last_used: text.to_owned(),
        is_unused: true,
    }
}

pub(super) fn integration_page(text: &str) -> IntegrationPage {
    IntegrationPage {
        frame: frame(text),
        integration: integration(text),
        csrf: "csrf-of-the-page".to_owned(),
        change_user_url: Some("/t/integrations/1/designated-user".to_owned()),
        change_networks_url: Some("/t/integrations/1/networks".to_owned()),
        revoke_url: Some("/t/integrations/1/revoke".to_owned()),
        account_name: text.to_owned(),
        reason: text.to_owned(),
        account_name_error: Some(text.to_owned()),
        networks: text.to_owned(),
        networks_error: Some(text.to_owned()),
        notice: Some(text.to_owned()),
        reuse: Some(("a refresh token", text.to_owned())),
        days: vec![ShownDay {
            day: text.to_owned(),
            issued: 1,
            rejected: 1,
            scopes: vec![text.to_owned()],
            addresses: vec![text.to_owned()],
            has_more_addresses: true,
        }],
    }
}

pub(super) fn claimed(text: &str) -> ClaimedPage {
    ClaimedPage {
        frame: frame(text),
        bundle: CredentialBundle {
            client_id: text.to_owned(),
            client_secret: Zeroizing::new(text.to_owned()),
            endpoints: vec![Endpoint {
                tenant_id: text.to_owned(),
                tenant_authority_url: text.to_owned(),
                cloud_api_url: text.to_owned(),
            }],
        },
    }
}

/// Every page with all its parts, each text being `text`.
pub(super) fn pages(text: &str) -> BTreeMap<&'static str, String> {
    let text = text.to_owned();
    let integrations = IntegrationsPage {
        frame: frame(&text),
        integrations: vec![integration(&text)],
        next_url: Some("/t/integrations?page=2".to_owned()),
    };
    let operator_actions = OperatorActionsPage {
        frame: frame(&text),
        actions: vec![ShownAction {
            description: text.clone(),
            time: text.clone(),
            operator_id: text.clone(),
            reason: text.clone(),
            subject: text.clone(),
            client_id: text.clone(),
        }],
        next_url: Some("/t/operator-actions?page=2".to_owned()),
        is_unavailable: false,
    };
    let leaving = LeavingPage {
        frame: frame(&text),
        url: "https://partner.example/callback?code=1".to_owned(),
        partner_name: text.clone(),
        too_late: false,
        outcome: Leaving::Approved,
        ends_on: Some(text.clone()),
    };
    let enrolment = EnrolmentPage {
        frame: frame(&text),
        action: "/t/enrol/1".to_owned(),
        csrf: "csrf-of-the-page".to_owned(),
        errors: vec![text.clone()],
        release_code_error: Some(text.clone()),
    };
    let enrolled = EnrolledPage {
        frame: frame(&text),
        sign_in_url: "/t/sign-in".to_owned(),
    };
    let claim = ClaimPage {
        frame: frame(&text),
        action: "/claim/1".to_owned(),
        request_id: text.clone(),
        release_code_error: Some(text.clone()),
    };
    let message = MessagePage {
        frame: frame(&text),
        title: text.clone(),
        text: text.clone(),
        detail: Some(text.clone()),
        next_page: Some("/t/integrations".to_owned()),
    };
    BTreeMap::from([
        ("sign-in", sign_in(&text).render().unwrap()),
        ("consent", consent(&text).render().unwrap()),
        ("leaving", leaving.render().unwrap()),
        ("integrations", integrations.render().unwrap()),
        ("integration", integration_page(&text).render().unwrap()),
        ("operator-actions", operator_actions.render().unwrap()),
        ("enrolment", enrolment.render().unwrap()),
        ("enrolled", enrolled.render().unwrap()),
        ("claim", claim.render().unwrap()),
        ("claimed", claimed(&text).render().unwrap()),
        ("message", message.render().unwrap()),
    ])
}
