//! Callers of `IssueToken` with what can be used once: refresh tokens and codes.

use std::sync::{Arc, PoisonError};

use accord::token::v1::{AuthorizationCodeGrant, RefreshTokenGrant, issue_token_request::Grant};

use super::{
    drive::{Answer, Caller},
    grpc::{Client, Connections, issue},
    stock::{Code, Person, SharedChain},
};

/// Renews its token, again and again: each use of a refresh token brings the next one.
pub struct Refreshing {
    client: Client,
    people: Arc<[Person]>,
    chain: SharedChain,
}

impl Refreshing {
    pub fn callers(connections: &Connections, chains: Vec<SharedChain>, people: &Arc<[Person]>) -> Vec<Self> {
        let caller = |(number, chain)| Self {
            client: connections.client(number),
            people: people.clone(),
            chain,
        };
        chains.into_iter().enumerate().map(caller).collect()
    }
}

impl Caller for Refreshing {
    async fn call(&mut self) -> Answer {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let grant = Grant::RefreshToken(RefreshTokenGrant {
            refresh_token: chain.refresh_token,
        });
        match issue(&mut self.client, &self.people[chain.person], grant).await {
            Ok(issued) if issued.refresh_token.is_empty() => Answer::Wrong("no refresh token".to_owned()),
            Ok(issued) => {
                let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
                chain.refresh_token = issued.refresh_token;
                Answer::Right
            }
            Err(answer) => answer,
        }
    }
}

/// Redeems codes.
pub struct Redeeming {
    client: Client,
    people: Arc<[Person]>,
    codes: std::vec::IntoIter<Code>,
}

impl Redeeming {
    pub fn callers(connections: &Connections, shares: Vec<Vec<Code>>, people: &Arc<[Person]>) -> Vec<Self> {
        let caller = |(number, share): (_, Vec<Code>)| Self {
            client: connections.client(number),
            people: people.clone(),
            codes: share.into_iter(),
        };
        shares.into_iter().enumerate().map(caller).collect()
    }
}

impl Caller for Redeeming {
    async fn call(&mut self) -> Answer {
        let Some(code) = self.codes.next() else {
            return Answer::NothingLeft;
        };
        let grant = Grant::AuthorizationCode(AuthorizationCodeGrant {
            code: code.code,
            redirect_uri: code.redirect_uri,
            code_verifier: code.code_verifier,
        });
        match issue(&mut self.client, &self.people[code.person], grant).await {
            Ok(issued) if issued.refresh_token.is_empty() => Answer::Wrong("no refresh token".to_owned()),
            Ok(_) => Answer::Right,
            Err(answer) => answer,
        }
    }
}
