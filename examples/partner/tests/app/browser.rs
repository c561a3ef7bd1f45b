//! A minimal browser: it keeps cookies and follows no redirects.

use std::{collections::HashMap, sync::Mutex};

use axum::http::{StatusCode, header};
use example_partner::{router, settings::Settings};
use tokio::net::TcpListener;
use url::Url;

/// Serves the application on a free port. Returns its base URL.
pub async fn serve(settings: &Settings) -> String {
    let router = router(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    base
}

#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    base: String,
    cookies: Mutex<HashMap<String, String>>,
}

#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub location: String,
    pub text: String,
}

impl Browser {
    pub fn at(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            http,
            base: base.to_owned(),
            cookies: Mutex::default(),
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    pub async fn post(&self, path: &str, body: String) -> Page {
        let request = self.http.post(format!("{}{path}", self.base)).body(body);
        let form = "application/x-www-form-urlencoded";
        self.send(request.header(header::CONTENT_TYPE, form)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let cookies = self.cookies.lock().unwrap().clone();
        let cookies: Vec<_> = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let response = request
            .header(header::COOKIE, cookies.join("; "))
            .send()
            .await
            .unwrap();
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(cookie.contains(attribute), "{attribute} is missing");
            }
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let mut cookies = self.cookies.lock().unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'"));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let location = response.headers().get(header::LOCATION);
        Page {
            status: response.status(),
            location: location
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            text: response.text().await.unwrap(),
        }
    }

    /// Presses "Connect". Returns the authorization URL.
    pub async fn press_connect(&self) -> Url {
        let page = self.get("/connect").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        page.location.parse().unwrap()
    }

    /// Presses "Connect" and returns from the authority with a code.
    pub async fn connect(&self) {
        let url = self.press_connect().await;
        let page = self.come_back(&url, &[("code", "acc_1")]).await;
        assert_eq!(
            (page.status, page.location.as_str()),
            (StatusCode::SEE_OTHER, "/"),
            "{page:?}"
        );
    }

    /// Returns from the authorization URL with the right state and issuer, and these parameters.
    pub async fn come_back(&self, url: &Url, parameters: &[(&str, &str)]) -> Page {
        let issuer = url.as_str().split("/authorize").next().unwrap();
        let mut all = vec![("state", parameter(url, "state")), ("iss", issuer.to_owned())];
        all.extend(
            parameters
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        self.call_back(&all).await
    }

    /// Requests the redirect URI with these parameters.
    pub async fn call_back(&self, parameters: &[(&str, String)]) -> Page {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        self.get(&format!("/callback?{}", query.finish())).await
    }

    /// Sends the first page's form for this path.
    pub async fn submit(&self, path: &str) -> Page {
        let home = self.get("/").await.text;
        let (_, rest) = home.split_once("name=\"form_token\" value=\"").expect("a form");
        let token = rest.split('"').next().unwrap();
        self.post(path, format!("form_token={token}")).await
    }
}

pub fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned()).unwrap_or_default()
}
