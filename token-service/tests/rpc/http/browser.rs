//! A browser without scripts: it stores cookies as a browser does, and sends a form with the CSRF token of the
//! page that it showed. It follows no redirect, so that a test sees each of them.

use std::collections::BTreeMap;

use super::{
    Answer, Request,
    authorize::{Query, assert_taken_in, hidden_request},
    client::Fields,
};
use crate::world::{PASSWORD, World};

/// A browser, at the pages of a world. A clone has the same cookies, as a thief of them has.
#[derive(Clone)]
pub struct Browser<'a> {
    world: &'a World,
    pub cookies: BTreeMap<String, String>,
    /// The CSRF token of the page seen last.
    pub csrf: String,
}

impl<'a> Browser<'a> {
    pub fn new(world: &'a World) -> Self {
        Self {
            world,
            cookies: BTreeMap::new(),
            csrf: String::new(),
        }
    }

    /// Looks at a page.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path)).await
    }

    /// Sends a form of the page seen last.
    pub async fn submit(&mut self, path: &str, fields: &Fields<'_>) -> Answer {
        let csrf = self.csrf.clone();
        let fields = [&[("csrf", &*csrf)], fields].concat();
        self.post(path, &fields).await
    }

    /// Sends a form with these fields and no others.
    pub async fn post(&mut self, path: &str, fields: &Fields<'_>) -> Answer {
        self.send(Request::post(path).form(fields)).await
    }

    /// Sends a request with the cookies that belong to it, and keeps those that come back.
    pub async fn send(&mut self, request: Request) -> Answer {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs = pairs.collect::<Vec<_>>().join("; ");
        let request = match pairs.is_empty() {
            true => request,
            false => request.header("cookie", pairs),
        };
        let answer = request.send(self.world).await;
        for cookie in cookies_of(&answer) {
            match cookie.ended {
                true => self.cookies.remove(&cookie.name),
                false => self.cookies.insert(cookie.name, cookie.value),
            };
        }
        if let Some(csrf) = csrf_of(&answer) {
            self.csrf = csrf;
        }
        answer
    }

    /// Opens the page of a new setup from the partner's site. Returns its path.
    pub async fn open_setup(&mut self) -> String {
        self.open_setup_of(&Query::of(self.world)).await
    }

    pub async fn open_setup_of(&mut self, query: &Query) -> String {
        let path = Browser::new(self.world).start_setup(&query.target()).await;
        assert_eq!(self.get(&path).await.status, 200);
        path
    }

    /// Opens this address of the authorization endpoint, and signs `acme`'s admin in, which starts a setup. Returns the setup's path.
    pub async fn start_setup(&mut self, target: &str) -> String {
        let form = self.get(target).await;
        self.sign_in_with(&form).await
    }

    /// Signs `acme`'s admin in with the form of the authorization endpoint. Returns the path of the setup.
    pub async fn sign_in_with(&mut self, form: &Answer) -> String {
        let path = assert_taken_in(form);
        let fields = [
            ("request", hidden_request(form)),
            ("account_name", self.world.admin_name()),
            ("password", PASSWORD),
        ];
        let answer = self.submit(&format!("{path}/sign-in"), &fields).await;
        let expected = (303, Some(&*path));
        assert_eq!((answer.status, answer.header("location")), expected, "{answer:?}");
        path
    }

    /// Signs `acme`'s admin in at the setup of this path, whose page was seen; then sees the request.
    pub async fn sign_in_at(&mut self, path: &str) -> Answer {
        let fields = [("account_name", self.world.admin_name()), ("password", PASSWORD)];
        let answer = self.submit(&format!("{path}/sign-in"), &fields).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(path)),
            "{answer:?}"
        );
        self.get(path).await
    }

    /// Opens a new setup of this query, and signs in. Returns its path.
    pub async fn at_setup_of(&mut self, query: &Query) -> String {
        let path = self.open_setup_of(query).await;
        assert_eq!(self.sign_in_at(&path).await.status, 200);
        path
    }

    /// Opens a new setup, and signs in. Returns its path.
    pub async fn at_setup(&mut self) -> String {
        self.at_setup_of(&Query::of(self.world)).await
    }

    /// Signs `acme`'s admin in to look after integrations; then sees the list of them.
    pub async fn at_integrations(&mut self) -> Answer {
        self.at_integrations_of("acme", self.world.admin_name()).await
    }

    pub async fn at_integrations_of(&mut self, tenant: &str, account_name: &str) -> Answer {
        let path = format!("/{tenant}/sign-in");
        assert_eq!(self.get(&path).await.status, 200);
        let fields = [("account_name", account_name), ("password", PASSWORD)];
        let answer = self.submit(&path, &fields).await;
        let list = format!("/{tenant}/integrations");
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(&*list)),
            "{answer:?}"
        );
        self.get(&list).await
    }
}

/// A cookie as an answer sets it.
#[derive(Debug)]
pub struct SetCookie {
    pub name: String,
    pub value: String,
    /// Whether the browser is to forget it.
    pub ended: bool,
    /// Everything behind the value, in small letters, sorted.
    pub attributes: Vec<String>,
}

/// The cookies that an answer sets.
pub fn cookies_of(answer: &Answer) -> Vec<SetCookie> {
    let lines = answer.headers.get_all("set-cookie").iter();
    lines
        .map(|line| {
            let mut parts = line.to_str().unwrap().split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let mut attributes: Vec<_> = parts.map(str::to_ascii_lowercase).collect();
            attributes.sort_unstable();
            SetCookie {
                name: name.into(),
                value: value.into(),
                ended: attributes.iter().any(|attribute| attribute == "max-age=0"),
                attributes,
            }
        })
        .collect()
}

/// The CSRF token of a page's forms: one for all of them.
pub fn csrf_of(answer: &Answer) -> Option<String> {
    let mut tokens: Vec<_> = answer
        .body
        .split(r#"name="csrf" value=""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let forms = answer.body.matches(r#"method="post""#).count();
    tokens.dedup();
    assert!(
        tokens.len() <= 1 && (forms > 0 || tokens.is_empty()),
        "{}",
        answer.body
    );
    tokens.first().map(|token| (*token).to_owned())
}
