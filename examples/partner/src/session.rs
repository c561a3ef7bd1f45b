//! The sessions of browsers: first a pending request, then a connection.
//!
//! A random cookie identifies a session. It starts with "Connect", so that mere visitors have none.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use oauth2::CsrfToken;
use tokio::time::Instant;

use crate::{
    authority::{AuthorizationResponse, Pending},
    connection::Connection,
};

/// The most sessions.
const MAX_SESSIONS: usize = 1000;
/// Random bytes of a session's id and of a form token.
const RANDOM_BYTES: u32 = 32;

/// All sessions, in memory.
#[derive(Debug)]
pub struct Sessions {
    sessions: Mutex<HashMap<String, Session>>,
    https: bool,
}

#[derive(Debug)]
struct Session {
    started: Instant,
    pending: Option<Pending>,
    connected: Option<Connected>,
}

/// The connection of a browser after the Tenant Admin's consent.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The token of this browser's forms. Another site can send a form here, but does not know it.
    pub form_token: CsrfToken,
}

impl Sessions {
    /// Creates an empty set. With TLS, cookies are bound to exactly this host.
    pub fn new(https: bool) -> Self {
        Self {
            sessions: Mutex::default(),
            https,
        }
    }

    /// Stores a request until its response arrives. A browser has one at a time.
    pub fn begin(&self, jar: CookieJar, pending: Pending) -> CookieJar {
        let mut sessions = self.lock();
        if let Some(session) = self.id(&jar).and_then(|id| sessions.get_mut(id)) {
            session.pending = Some(pending);
            return jar;
        }
        if sessions.len() >= MAX_SESSIONS {
            // Removes those without a connection first.
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| (session.connected.is_some(), session.started));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&id);
            }
        }
        let session = Session {
            started: Instant::now(),
            pending: Some(pending),
            connected: None,
        };
        self.add(&mut sessions, jar, session)
    }

    /// Removes and returns the request that a response belongs to. The response of another browser removes nothing.
    pub fn take_pending(&self, jar: &CookieJar, response: &AuthorizationResponse) -> Option<Pending> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(self.id(jar)?)?;
        session.pending.take_if(|pending| pending.matches(response))
    }

    /// Stores the browser's connection, in a session with a new id, so that the old id gives no access. Forgets an earlier
    /// connection, whose tokens the new grant has ended.
    pub fn connect(&self, jar: CookieJar, connection: Connection) -> CookieJar {
        let mut sessions = self.lock();
        if let Some(id) = self.id(&jar) {
            sessions.remove(id);
        }
        let session = Session {
            started: Instant::now(),
            pending: None,
            connected: Some(Connected {
                connection: Arc::new(connection),
                form_token: CsrfToken::new_random_len(RANDOM_BYTES),
            }),
        };
        self.add(&mut sessions, jar, session)
    }

    /// Returns the browser's connection.
    pub fn connected(&self, jar: &CookieJar) -> Option<Connected> {
        self.lock().get(self.id(jar)?)?.connected.clone()
    }

    /// Ends the browser's session.
    pub fn end(&self, jar: CookieJar) -> CookieJar {
        if let Some(id) = self.id(&jar) {
            self.lock().remove(id);
        }
        jar.remove(self.cookie(String::new()))
    }

    fn add(&self, sessions: &mut HashMap<String, Session>, jar: CookieJar, session: Session) -> CookieJar {
        let id = CsrfToken::new_random_len(RANDOM_BYTES).into_secret();
        sessions.insert(id.clone(), session);
        jar.add(self.cookie(id))
    }

    fn id<'a>(&self, jar: &'a CookieJar) -> Option<&'a str> {
        jar.get(self.name()).map(Cookie::value)
    }

    fn name(&self) -> &'static str {
        if self.https { "__Host-partner" } else { "partner" }
    }

    fn cookie(&self, id: String) -> Cookie<'static> {
        Cookie::build((self.name(), id))
            .path("/")
            .http_only(true)
            .secure(self.https)
            // With Strict the redirect from the authority would carry no cookie.
            .same_site(SameSite::Lax)
            .build()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        // No code in this file panics during a change.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
