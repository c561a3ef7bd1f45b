//! Browsers and what belongs to each: the request it was sent off with, then its connection.
//!
//! A session is found by a random cookie. It begins with "Connect", so that mere visitors take no room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use oauth2::CsrfToken;
use tokio::time::Instant;

use crate::{
    authority::{Answer, Pending},
    connection::Connection,
};

/// The most sessions that are kept.
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
    began: Instant,
    pending: Option<Pending>,
    connected: Option<Connected>,
}

/// What a browser has once the Tenant Admin agreed.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The connection.
    pub connection: Arc<Connection>,
    /// What this browser's forms carry: another site can send a form here, but can't know this.
    pub form_token: CsrfToken,
}

impl Sessions {
    /// No sessions. Behind TLS, cookies are bound to exactly this host.
    pub fn new(https: bool) -> Self {
        Self {
            sessions: Mutex::default(),
            https,
        }
    }

    /// Keeps a request until its answer comes; a browser has one at a time.
    pub fn begin(&self, jar: CookieJar, pending: Pending) -> CookieJar {
        let mut sessions = self.lock();
        if let Some(session) = self.id(&jar).and_then(|id| sessions.get_mut(id)) {
            session.pending = Some(pending);
            return jar;
        }
        if sessions.len() >= MAX_SESSIONS {
            // Those that came to nothing go first.
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| (session.connected.is_some(), session.began));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&id);
            }
        }
        let session = Session {
            began: Instant::now(),
            pending: Some(pending),
            connected: None,
        };
        self.add(&mut sessions, jar, session)
    }

    /// The request that this answer belongs to. It is taken once; an answer that is not this browser's
    /// takes nothing.
    pub fn take_pending(&self, jar: &CookieJar, answer: &Answer) -> Option<Pending> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(self.id(jar)?)?;
        session.pending.take_if(|pending| pending.is_answered_by(answer))
    }

    /// Gives the browser its connection, in a session with a new id: whoever knew the old one has no part.
    /// An earlier connection is forgotten; the new grant has ended its tokens.
    pub fn connect(&self, jar: CookieJar, connection: Connection) -> CookieJar {
        let mut sessions = self.lock();
        if let Some(id) = self.id(&jar) {
            sessions.remove(id);
        }
        let session = Session {
            began: Instant::now(),
            pending: None,
            connected: Some(Connected {
                connection: Arc::new(connection),
                form_token: CsrfToken::new_random_len(RANDOM_BYTES),
            }),
        };
        self.add(&mut sessions, jar, session)
    }

    /// The browser's connection.
    pub fn connected(&self, jar: &CookieJar) -> Option<Connected> {
        self.lock().get(self.id(jar)?)?.connected.clone()
    }

    /// Forgets the browser.
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
            // Strict would keep the cookie back when the Tenant Admin returns from the authority.
            .same_site(SameSite::Lax)
            .build()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        // Nothing in this file panics while it holds the lock half-way through a change.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
