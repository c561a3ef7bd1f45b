//! The partner's site as a browser sees it: a page with the link to connect, the callback, and foreign pages that show
//! ours in a frame.
//!
//! Pages are opened by the name `localhost`, so that for the browser they are another site than the
//! service at 127.0.0.1.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use url::Url;

/// A request at the callback.
#[derive(Clone, Debug)]
pub struct Received {
    parameters: Vec<(String, String)>,
    /// The `Referer` header.
    pub referrer: Option<String>,
}

impl Received {
    /// Returns the value of a parameter that must occur once.
    #[track_caller]
    pub fn get(&self, name: &str) -> &str {
        let mut values = self.parameters.iter().filter(|(given, _)| given == name);
        let (_, value) = values.next().unwrap_or_else(|| panic!("no {name} in {self:?}"));
        assert!(values.next().is_none(), "{name} is repeated in {self:?}");
        value
    }

    /// The names of the parameters, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.parameters.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    stays_silent: AtomicBool,
}

/// The listener. It ends with the test's runtime.
pub struct PartnerSite {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl PartnerSite {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/callback", get(callback))
            .route("/connect", get(connect))
            .route("/frame", get(frame))
            .route("/popup", get(popup))
            .route(
                "/harmless",
                get(async || page("<h1>A page that may be framed</h1>")),
            )
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// The redirect URI to be registered: the port is part of it.
    pub fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// The page with the link that leads to `url`.
    pub fn connect_page(&self, url: &Url) -> String {
        self.page("connect", url.as_str())
    }

    /// The page that opens `url` in a popup, of the same origin as the callback.
    pub fn popup_page(&self, url: &Url) -> String {
        format!("http://{}/popup?{url}", self.address)
    }

    /// The page that shows `url` in a frame.
    pub fn framing_page(&self, url: &str) -> String {
        self.page("frame", url)
    }

    /// A page that may be shown in a frame.
    pub fn harmless_page(&self) -> String {
        self.page("harmless", "")
    }

    /// Lets the callback answer 204 from now on, so that a browser stays on the page before.
    pub fn stay_silent(&self) {
        self.shared.stays_silent.store(true, Ordering::SeqCst);
    }

    /// Takes the requests since the last call.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    fn page(&self, path: &str, url: &str) -> String {
        let mut page = Url::parse(&format!("http://localhost:{}/{path}", self.address.port())).unwrap();
        page.set_query(Some(url));
        page.into()
    }
}

async fn callback(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let parameters = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let referrer = headers
        .get(header::REFERER)
        .map(|value| value.to_str().unwrap().to_owned());
    let received = Received { parameters, referrer };
    shared.received.lock().unwrap().push(received);
    if shared.stays_silent.load(Ordering::SeqCst) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let tell =
        "new BroadcastChannel('connected').postMessage({query: location.search, opener: !!window.opener})";
    page(&format!("<h1>Back at the partner</h1><script>{tell}</script>")).into_response()
}

/// The whole query is the address to open. The page remembers what the callback tells it.
async fn popup(RawQuery(url): RawQuery) -> Html<String> {
    let url = attribute(&url.unwrap_or_default());
    page(&format!(
        "<h1>The partner</h1><a href=\"{url}\" target=\"_blank\" rel=\"opener\">Connect</a>\
         <script>new BroadcastChannel('connected').onmessage = event => window.told = event.data</script>"
    ))
}

/// The whole query is the address to go to.
async fn connect(RawQuery(url): RawQuery) -> Html<String> {
    let url = attribute(&url.unwrap_or_default());
    page(&format!(
        "<h1>The partner</h1><p><a href=\"{url}\">Connect</a></p>"
    ))
}

/// The whole query is the address to show.
async fn frame(RawQuery(url): RawQuery) -> Html<String> {
    let url = attribute(&url.unwrap_or_default());
    page(&format!(
        "<h1>A stranger</h1><iframe title=\"framed\" src=\"{url}\"></iframe>"
    ))
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;")
}

fn page(body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><title>Partner</title>{body}"
    ))
}
