//! What every page keeps to, whatever text it is given.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use self::{
    html::{Tag, forms, input, tags, unescaped},
    sample::{claimed, consent, frame, integration_page, pages},
};
use super::*;

mod html;
mod sample;

/// What a partner who means ill would write.
const HOSTILE: &str =
    "javascript:x</title></textarea>'\"><script>x</script><img src=x onerror=x style=x>&amp;";

#[test]
fn hostile_text_stays_text() {
    for (page, html) in pages(HOSTILE) {
        assert!(!html.contains("<script"), "{page}");
        assert!(!html.contains("<img"), "{page}");
        assert!(
            unescaped(&html).contains(HOSTILE),
            "{page} shows the text as it is"
        );
        let plain = tags(&pages("plain")[page]);
        let shape = |tags: &[Tag]| {
            tags.iter()
                .map(|tag| {
                    (
                        tag.name.clone(),
                        tag.attributes.keys().cloned().collect::<Vec<_>>(),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shape(&tags(&html)),
            shape(&plain),
            "{page}: text changes no element"
        );
    }
}

#[test]
fn addresses_come_from_us_alone() {
    for (page, html) in pages(HOSTILE) {
        for tag in tags(&html) {
            for attribute in ["href", "action", "formaction", "src", "content"] {
                let address = tag.get(attribute).unwrap_or_default();
                assert!(
                    !address.contains("javascript:"),
                    "{page}: {attribute} of {}",
                    tag.name
                );
            }
        }
    }
}

#[test]
fn nothing_inline_and_no_script() {
    for (page, html) in pages(HOSTILE) {
        for tag in tags(&html) {
            assert!(
                !["script", "style", "iframe", "object", "base"].contains(&&*tag.name),
                "{page}"
            );
            for attribute in tag.attributes.keys() {
                assert!(
                    attribute != "style" && !attribute.starts_with("on"),
                    "{page}: {attribute}"
                );
            }
        }
    }
    for (page, html) in pages("plain") {
        assert!(!html.contains(" style=") && !html.contains("<style"), "{page}");
    }
}

#[test]
fn every_page_has_its_landmarks() {
    for (page, html) in pages("plain") {
        let tags = tags(&html);
        let count = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
        for once in ["html", "title", "header", "main", "h1"] {
            assert_eq!(count(once), 1, "{page}: {once}");
        }
        assert_eq!(tags[0].get("lang"), Some("en"), "{page}");
        assert!(
            html.contains("plain · plain</title>"),
            "{page}: tenant and product in the title"
        );
        let first_link = tags.iter().find(|tag| tag.name == "a").unwrap();
        assert_eq!(
            first_link.get("href"),
            Some("#main"),
            "{page}: the skip link comes first"
        );
        let stylesheets = tags.iter().filter(|tag| tag.get("rel") == Some("stylesheet"));
        let addresses: Vec<_> = stylesheets.map(|tag| tag.get("href")).collect();
        assert_eq!(addresses, [Some("/accord.css")], "{page}");
        let levels = tags
            .iter()
            .filter_map(|tag| tag.name.strip_prefix('h')?.parse::<u8>().ok());
        let mut deepest = 1;
        for level in levels.skip_while(|level| *level != 1) {
            assert!(
                level <= deepest + 1,
                "{page}: a heading of level {level} follows one of {deepest}"
            );
            deepest = level;
        }
    }
}

#[test]
fn every_control_has_a_label_and_every_reference_a_target() {
    for (page, html) in pages("plain") {
        let tags = tags(&html);
        let ids: Vec<_> = tags.iter().filter_map(|tag| tag.get("id")).collect();
        let known: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), known.len(), "{page}: an id occurs twice");
        let labels: BTreeSet<_> = tags.iter().filter_map(|tag| tag.get("for")).collect();
        for input in tags.iter().filter(|tag| tag.name == "input") {
            if input.get("type") != Some("hidden") {
                assert!(
                    labels.contains(input.get("id").unwrap()),
                    "{page}: {:?}",
                    input.get("id")
                );
            }
        }
        for tag in &tags {
            for attribute in ["for", "form", "aria-describedby", "aria-labelledby"] {
                for id in tag.get(attribute).unwrap_or_default().split_whitespace() {
                    assert!(known.contains(id), "{page}: {attribute} names {id}");
                }
            }
            if let Some(id) = tag.get("href").and_then(|href| href.strip_prefix('#')) {
                assert!(known.contains(id), "{page}: a link leads to {id}");
            }
        }
    }
}

#[test]
fn a_translating_browser_leaves_names_and_secrets_alone() {
    for (page, html) in pages("plain") {
        let class = |tag: &Tag| tag.get("class").unwrap_or_default().to_owned();
        for tag in tags(&html) {
            if tag.name == "code" || ["value", "host"].contains(&&*class(&tag)) {
                assert_eq!(tag.get("translate"), Some("no"), "{page}: {}", tag.name);
            }
        }
    }
    assert!(pages("plain")["claimed"].contains(r#"translate="no""#));
}

#[test]
fn every_class_is_in_the_stylesheet() {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let styled: BTreeSet<_> = STYLESHEET
        .split('.')
        .filter_map(|rest| rest.split(|c| !name(c)).next())
        .collect();
    for (page, html) in pages("plain") {
        for tag in tags(&html) {
            for class in tag.get("class").unwrap_or_default().split_whitespace() {
                assert!(styled.contains(class), "{page}: {class}");
            }
        }
    }
}

#[test]
fn forms_post_the_agreed_fields() {
    let expected = [
        ("sign-in", vec!["/t/sign-in csrf reason account_name password"]),
        (
            "consent",
            vec![
                "/t/setups/1/approve csrf chosen scope scope designated_account_name end_date allowed_networks",
                "/t/setups/1/deny csrf",
            ],
        ),
        (
            "integration",
            vec![
                "/t/integrations/1/designated-user csrf account_name",
                "/t/integrations/1/networks csrf chosen allowed_networks",
                "/t/integrations/1/revoke csrf reason",
            ],
        ),
        (
            "enrolment",
            vec!["/t/enrol/1 csrf password password_again release_code"],
        ),
        ("claim", vec!["/claim/1 request_id release_code"]),
        ("integrations", vec![]),
    ];
    let pages = pages("plain");
    for (page, expected) in expected {
        let found = forms(&pages[page]);
        assert_eq!(found[0], "/t/sign-out csrf", "{page}");
        assert_eq!(found[1..], expected, "{page}");
    }
}

#[test]
fn password_managers_and_browsers_know_the_fields() {
    let pages = pages("plain");
    for (page, id, autocomplete) in [
        ("sign-in", "account_name", "username"),
        ("sign-in", "password", "current-password"),
        ("enrolment", "password", "new-password"),
        ("enrolment", "password_again", "new-password"),
        ("consent", "designated_account_name", "off"),
        ("integration", "account_name", "off"),
    ] {
        let field = input(&pages[page], id);
        assert_eq!(field.get("autocomplete"), Some(autocomplete), "{page}: {id}");
        assert!(field.get("required").is_some(), "{page}: {id}");
        assert_eq!(
            field.get("aria-invalid"),
            Some("true"),
            "{page}: {id} after an error"
        );
        assert!(
            field.get("aria-describedby").is_some(),
            "{page}: {id} points at its error"
        );
    }
    assert_eq!(
        input(&pages["enrolment"], "password").get("minlength"),
        Some("15")
    );
    let end = input(&pages["consent"], "end_date");
    assert_eq!(
        (end.get("type"), end.get("min"), end.get("value")),
        (Some("date"), Some("plain"), Some("plain"))
    );
}

#[test]
fn errors_come_first_and_only_when_there_are_some() {
    let with = consent("plain").render().unwrap();
    assert!(with.contains("<title>Error: "));
    let alert = with.find("role=\"alert\"").unwrap();
    assert!(alert < with.find("<h1").unwrap());
    let without = ConsentPage {
        errors: ConsentErrors::default(),
        ..consent("plain")
    };
    let without = without.render().unwrap();
    assert!(!without.contains("role=\"alert\"") && !without.contains("aria-invalid"));
    assert!(!without.contains("Error: "));
}

#[test]
fn a_widened_request_shows_what_is_new_and_leaves_it_unticked() {
    let page = consent("plain").render().unwrap();
    assert!(page.contains("What changes"));
    assert_eq!(page.matches("badge new").count(), 1);
    assert!(input(&page, "scope-0").get("checked").is_some());
    assert!(input(&page, "scope-1").get("checked").is_none());
    let first = ConsentPage {
        changes: None,
        ..consent("plain")
    };
    let first = first.render().unwrap();
    assert!(!first.contains("What changes") && !first.contains("badge new"));
}

#[test]
fn the_way_back_keeps_the_whole_address() {
    let url = "https://partner.example/callback?code=1&state=\"><script>'&iss=https%3A%2F%2Fa";
    let page = LeavingPage {
        frame: frame("plain"),
        url: url.to_owned(),
        partner_name: HOSTILE.to_owned(),
        too_late: false,
        outcome: Leaving::Denied,
        ends_on: None,
    };
    let tags = tags(&page.render().unwrap());
    let refresh = tags
        .iter()
        .find(|tag| tag.get("http-equiv") == Some("refresh"))
        .unwrap();
    assert_eq!(refresh.get("content"), Some(&*format!("0;url={url}")));
    assert!(
        tags.iter()
            .any(|tag| tag.name == "a" && tag.get("href") == Some(url))
    );
}

#[test]
fn credentials_are_there_to_copy_whole() {
    let page = claimed("plain").render().unwrap();
    for id in [
        "client_id",
        "client_secret",
        "tenant_authority_url-0",
        "cloud_api_url-0",
    ] {
        let field = input(&page, id);
        assert_eq!(field.get("value"), Some("plain"), "{id}");
        assert!(field.get("readonly").is_some(), "{id}");
        assert_eq!(
            field.get("autocomplete"),
            Some("off"),
            "{id}: no browser keeps it"
        );
    }
    assert_eq!(
        page.matches("<span class=\"value\" aria-hidden=\"true\" translate=\"no\">plain</span>")
            .count(),
        4
    );
}

#[test]
fn what_is_not_possible_is_not_offered() {
    let page = IntegrationPage {
        change_user_url: None,
        change_networks_url: None,
        revoke_url: None,
        ..integration_page("plain")
    };
    let html = page.render().unwrap();
    assert_eq!(forms(&html).len(), 1, "signing out alone is left");
    assert!(
        !html.contains("#account_name") && !html.contains("#allowed_networks"),
        "the error has no field to lead to"
    );
}
