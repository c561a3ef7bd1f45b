//! A connection to the tenant: its tokens, and keeping them fresh without using one twice.

use std::{sync::Arc, time::Duration};

use oauth2::AccessToken;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    authority::{Authority, Tokens},
    error::CallError,
};

/// How long before its end an access token counts as worn out: the call that it is for takes time too.
const MARGIN: Duration = Duration::from_secs(10);

/// Which access token a caller can use.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Any that has not reached its end.
    Fresh,
    /// Any but this one, which the Cloud API has refused.
    OtherThan(AccessToken),
}

/// What can be shown of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// How long the access token still lasts.
    pub lasts: Duration,
    /// How often it was refreshed.
    pub refreshed: u32,
}

/// A connection. Tokens are kept in memory, so that this sample stays small: a real integration keeps the
/// refresh token encrypted in its database, a row per tenant, and writes the next one before it uses it.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` when the connection has ended.
    tokens: Option<Tokens>,
    refreshed: u32,
}

impl Connection {
    /// A connection that begins with these tokens.
    pub fn new(tokens: Tokens) -> Self {
        let state = State {
            tokens: Some(tokens),
            refreshed: 0,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// An access token, refreshed if need be. However many ask at once, one refresh is made: the others
    /// wait for it and find its result.
    ///
    /// # Errors
    /// [`CallError::NotConnected`] if the Tenant Admin has to connect again, and the other cases of
    /// [`CallError`] if the refresh failed and may be tried again.
    pub async fn access_token(
        self: &Arc<Self>,
        authority: &Arc<Authority>,
        wanted: Wanted,
    ) -> Result<AccessToken, CallError> {
        let (connection, authority) = (self.clone(), authority.clone());
        // On a task of its own: a browser that goes away ends its handler at any await, and with it the
        // only copy of a refresh token that has just come.
        let refreshing = tokio::spawn(async move {
            let mut state = connection.state.lock().await;
            let tokens = state.tokens.as_ref().ok_or(CallError::NotConnected)?;
            let usable = match &wanted {
                Wanted::Fresh => tokens.ends_at > Instant::now() + MARGIN,
                Wanted::OtherThan(refused) => tokens.access != *refused,
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
    ///
    /// # Errors
    /// As [`Connection::access_token`].
    pub async fn refresh(self: &Arc<Self>, authority: &Arc<Authority>) -> Result<(), CallError> {
        let access = {
            let state = self.state.lock().await;
            let tokens = state.tokens.as_ref().ok_or(CallError::NotConnected)?;
            tokens.access.clone()
        };
        let wanted = Wanted::OtherThan(access);
        self.access_token(authority, wanted).await.map(drop)
    }

    /// Gives the tokens back to the authority and forgets them. A connection that the authority could not
    /// be told about goes on: pretending that access has ended would be worse.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn end(&self, authority: &Authority) -> Result<(), CallError> {
        let mut state = self.state.lock().await;
        if let Some(tokens) = &state.tokens {
            authority.revoke(&tokens.refresh).await?;
            state.tokens = None;
        }
        Ok(())
    }

    /// What can be shown; `None` when the connection has ended.
    pub async fn status(&self) -> Option<Status> {
        let state = self.state.lock().await;
        let tokens = state.tokens.as_ref()?;
        Some(Status {
            scopes: tokens.scopes.clone(),
            lasts: tokens.ends_at.saturating_duration_since(Instant::now()),
            refreshed: state.refreshed,
        })
    }
}
