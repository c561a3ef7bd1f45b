//! A Tenant Admin with a browser without JavaScript: it keeps cookies, sends forms, and follows redirects within the
//! authority and the link back to the partner.

use std::collections::BTreeMap;

use accord_cli::dev_file::DevFile;
use reqwest::{RequestBuilder, header};
use url::Url;

use super::Way;

pub struct Admin {
    way: Way,
    target: DevFile,
    cookies: BTreeMap<String, String>,
}

/// The Tenant Admin's decision.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// These scopes, for the environment's API user.
    Approve(&'a [&'a str]),
    Deny,
}

impl Admin {
    pub fn new(target: &DevFile) -> Self {
        Self::by(Way::to(target), target)
    }

    /// Goes this way.
    pub fn by(way: Way, target: &DevFile) -> Self {
        Self {
            way,
            target: target.clone(),
            cookies: BTreeMap::new(),
        }
    }

    /// Opens an authorization URL, signs in, decides. Returns where the browser goes in the end: the partner's redirect
    /// URI with the response.
    pub async fn decide(&mut self, authorization_url: &str, decision: Decision<'_>) -> Url {
        let request = self.way.http.get(self.way.url(authorization_url));
        let answer = self.send(request).await;
        if let Some(location) = answer.headers().get(header::LOCATION) {
            // The authority responded to the partner without a decision.
            return location.to_str().unwrap().parse().unwrap();
        }
        assert_eq!(answer.status(), 200, "{authorization_url}");
        let form = answer.text().await.unwrap();
        let action = unescaped(between(&form, "<form method=\"post\" action=\"", "\""));
        let sign_in = [
            (
                "request",
                between(&form, "name=\"request\" value=\"", "\"").to_owned(),
            ),
            ("account_name", self.target.admin_account_name.clone()),
            ("password", self.target.admin_password.clone()),
        ];
        let answer = self
            .post(&format!("{}{action}", self.way.public), &form, &sign_in)
            .await;
        assert_eq!(answer.status(), 303, "signing in");
        let location = answer.headers()[header::LOCATION].to_str().unwrap();
        let page = self.within(location).unwrap();
        let text = self.text(&page).await;
        let answer = match decision {
            Decision::Approve(scopes) => {
                let mut fields: Vec<_> = scopes
                    .iter()
                    .map(|scope| ("scope", (*scope).to_owned()))
                    .collect();
                let user = self.target.api_user_account_name.clone();
                fields.extend([("designated_account_name", user), ("end_date", String::new())]);
                self.post(&format!("{page}/approve"), &text, &fields).await
            }
            Decision::Deny => self.post(&format!("{page}/deny"), &text, &[]).await,
        };
        assert_eq!(answer.status(), 200, "deciding");
        let text = answer.text().await.unwrap();
        let back = unescaped(between(&text, "http-equiv=\"refresh\" content=\"0;url=", "\""));
        back.parse().unwrap()
    }

    /// The URL of a page of the authority; `None` for anything else.
    fn within(&self, location: &str) -> Option<String> {
        if location.starts_with('/') {
            return Some(format!("{}{location}", self.way.public));
        }
        location
            .starts_with(&format!("{}/", self.way.public))
            .then(|| location.to_owned())
    }

    async fn text(&mut self, url: &str) -> String {
        let request = self.way.http.get(self.way.url(url));
        let answer = self.send(request).await;
        assert_eq!(answer.status(), 200, "{url}");
        answer.text().await.unwrap()
    }

    /// Sends a form of this page, the hidden field included.
    async fn post(&mut self, url: &str, page: &str, fields: &[(&str, String)]) -> reqwest::Response {
        let csrf = between(page, "name=\"csrf\" value=\"", "\"");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf", csrf).extend_pairs(fields);
        let request = self.way.http.post(self.way.url(url)).body(form.finish());
        let form_type = "application/x-www-form-urlencoded";
        self.send(request.header(header::CONTENT_TYPE, form_type)).await
    }

    async fn send(&mut self, request: RequestBuilder) -> reqwest::Response {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let answer = request
            .header(header::COOKIE, cookies.join("; "))
            .send()
            .await
            .unwrap();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap().0
}

/// An attribute's value without the references that askama writes.
fn unescaped(value: &str) -> String {
    let references = [("&#38;", "&"), ("&amp;", "&"), ("&#34;", "\""), ("&#39;", "'")];
    references
        .iter()
        .fold(value.to_owned(), |text, (reference, character)| {
            text.replace(reference, character)
        })
}

/// A parameter of a URL's query.
pub fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut values = url
        .query_pairs()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    let value = values.next();
    assert!(values.next().is_none(), "{name} is repeated");
    value
}
