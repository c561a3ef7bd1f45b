//! Callers of `IntrospectToken`, as an internal service.

use std::sync::Arc;

use accord::token::v1::IntrospectTokenRequest;
use anyhow::bail;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
};

use super::{
    drive::{Answer, Caller},
    grpc::{Client, Connections, client_credentials, describe, issue},
    stock::Person,
};

/// How many tokens are asked about in turn.
const TOKENS: usize = 256;

/// A token, and the tenant that it is for.
struct Token {
    tenant_id: String,
    token: String,
}

/// Asks about tokens.
pub struct Asking {
    client: Client,
    authorization: MetadataValue<Ascii>,
    tokens: Arc<[Token]>,
    next: usize,
}

impl Asking {
    /// Callers that ask about tokens which `issuer` gives out now.
    pub async fn callers(
        connections: &Connections,
        callers: usize,
        people: &[Person],
        issuer: &str,
        workload_token: &str,
    ) -> anyhow::Result<Vec<Self>> {
        let authorization: MetadataValue<Ascii> = format!("Bearer {workload_token}").parse()?;
        let tokens: Arc<[Token]> = collect(issuer, people).await?.into();
        let caller = |number| Self {
            client: connections.client(number),
            authorization: authorization.clone(),
            tokens: tokens.clone(),
            next: number,
        };
        Ok((0..callers).map(caller).collect())
    }
}

async fn collect(issuer: &str, people: &[Person]) -> anyhow::Result<Vec<Token>> {
    let mut client = Connections::open(issuer).await?.client(0);
    let mut tokens = Vec::with_capacity(TOKENS);
    for person in people.iter().cycle().take(TOKENS) {
        match issue(&mut client, person, client_credentials()).await {
            Ok(issued) => tokens.push(Token {
                tenant_id: person.tenant_id.clone(),
                token: issued.access_token,
            }),
            Err(Answer::Wrong(why)) => bail!("tokens to ask about: {why}"),
            Err(_) => bail!("tokens to ask about"),
        }
    }
    Ok(tokens)
}

impl Caller for Asking {
    async fn call(&mut self) -> Answer {
        let token = &self.tokens[self.next % TOKENS];
        self.next += 1;
        let mut request = Request::new(IntrospectTokenRequest {
            tenant_id: token.tenant_id.clone(),
            token: token.token.clone(),
            ..Default::default()
        });
        let authorization = self.authorization.clone();
        request.metadata_mut().insert("authorization", authorization);
        match self.client.introspect_token(request).await {
            Ok(answer) => match answer.into_inner() {
                answer if answer.active == Some(true) && answer.tenant_id == token.tenant_id => Answer::Right,
                _ => Answer::Wrong("a live token is called inactive".to_owned()),
            },
            Err(status) => Answer::Wrong(describe(&status)),
        }
    }
}
