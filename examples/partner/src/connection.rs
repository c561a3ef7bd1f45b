//! A connection to the tenant. It refreshes its tokens, and uses no refresh token twice.

use std::{sync::Arc, time::Duration};

use oauth2::AccessToken;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    authority::{Authority, Tokens},
    error::CallError,
};

/// How long before its expiry an access token is refreshed, so that the call with it has time.
const MARGIN: Duration = Duration::from_secs(10);

/// The access token that a caller needs.
#[derive(Clone, Debug)]
pub enum Need {
    /// Any that has not expired.
    Fresh,
    /// Any except this one, which the Cloud API has rejected.
    OtherThan(AccessToken),
}

/// The state of a connection, for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// The time until the access token expires.
    pub remaining: Duration,
    /// The number of refreshes.
    pub refreshed: u32,
}

/// A connection. Tokens are only in memory, so that this sample stays small. A real integration stores the refresh token
/// encrypted in its database, one row for each tenant, and stores the next one before it uses the access token.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` after the end of the connection.
    tokens: Option<Tokens>,
    refreshed: u32,
}

impl Connection {
    /// Creates a connection from its first tokens.
    pub fn new(tokens: Tokens) -> Self {
        let state = State {
            tokens: Some(tokens),
            refreshed: 0,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Returns an access token, refreshed if necessary. Concurrent callers share one refresh.
    ///
    /// # Errors
    /// [`CallError::NotConnected`] if the Tenant Admin must connect again, the other cases of [`CallError`] if the refresh
    /// failed and may be repeated.
    pub async fn access_token(
        self: &Arc<Self>,
        authority: &Arc<Authority>,
        need: Need,
    ) -> Result<AccessToken, CallError> {
        let (connection, authority) = (self.clone(), authority.clone());
        // In a task of its own: a browser that disconnects ends its handler at any await, and the only copy of a new
        // refresh token would be lost.
        let refreshing = tokio::spawn(async move {
            let mut state = connection.state.lock().await;
            let tokens = state.tokens.as_ref().ok_or(CallError::NotConnected)?;
            let usable = match &need {
                Need::Fresh => tokens.expires_at > Instant::now() + MARGIN,
                Need::OtherThan(rejected) => tokens.access != *rejected,
            };
            if usable {
                return Ok(tokens.access.clone());
            }
            match authority.refresh(tokens).await {
                Ok(tokens) => {
                    let access = tokens.access.clone();
                    state.tokens = Some(tokens);
                    state.refreshed += 1;
                    Ok(access)
                }
                Err(error) => {
                    if matches!(error, CallError::NotConnected) {
                        state.tokens = None;
                    }
                    Err(error)
                }
            }
        });
        let stopped = |_| CallError::Unreachable("the application is stopping".to_owned());
        refreshing.await.map_err(stopped)?
    }

    /// Refreshes now.
    pub async fn refresh(self: &Arc<Self>, authority: &Arc<Authority>) -> Result<(), CallError> {
        let access = {
            let state = self.state.lock().await;
            let tokens = state.tokens.as_ref().ok_or(CallError::NotConnected)?;
            tokens.access.clone()
        };
        let need = Need::OtherThan(access);
        self.access_token(authority, need).await.map(drop)
    }

    /// Revokes the tokens and forgets them. If the revocation fails, the connection stays: its access has not ended.
    pub async fn end(&self, authority: &Authority) -> Result<(), CallError> {
        let mut state = self.state.lock().await;
        if let Some(tokens) = &state.tokens {
            authority.revoke(&tokens.refresh).await?;
            state.tokens = None;
        }
        Ok(())
    }

    /// Returns the state of the connection; `None` after its end.
    pub async fn status(&self) -> Option<Status> {
        let state = self.state.lock().await;
        let tokens = state.tokens.as_ref()?;
        Some(Status {
            scopes: tokens.scopes.clone(),
            remaining: tokens.expires_at.saturating_duration_since(Instant::now()),
            refreshed: state.refreshed,
        })
    }
}
