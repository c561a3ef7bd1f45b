//! Callers of `IssueToken` with secrets that are well formed and wrong, every other one for a client
//! that does not exist.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::{Random, SystemRandom},
    text::{
        id::{ClientId, SecretId},
        opaque::{ClientSecret, SecretTagKey},
    },
};

use super::{
    drive::{Answer, Caller},
    grpc::{Client, Connections, client_credentials, issue},
    picks::Picks,
    stock::Person,
};

/// Tries secrets out.
pub struct Guessing {
    client: Client,
    picks: Picks,
    unknown: bool,
}

impl Guessing {
    pub fn callers(connections: &Connections, callers: usize, people: &Arc<[Person]>) -> Vec<Self> {
        let caller = |number| Self {
            client: connections.client(number),
            picks: Picks::new(people, number),
            unknown: number % 2 == 0,
        };
        (0..callers).map(caller).collect()
    }

    /// A person with a secret that nobody ever got.
    fn guess(&mut self) -> Person {
        self.unknown = !self.unknown;
        let mut person = self.picks.next().clone();
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes);
        let secret_id = match ClientSecret::parse(&person.client_secret) {
            Ok(secret) if !self.unknown => secret.secret_id().clone(),
            _ => {
                person.client_id = ClientId::generate(&SystemClock, &SystemRandom).into();
                SecretId::generate(&SystemClock, &SystemRandom)
            }
        };
        let tag_key = SecretTagKey::new(1, &bytes);
        let client_id = ClientId::generate(&SystemClock, &SystemRandom);
        let secret = ClientSecret::compose(&tag_key, &client_id, secret_id, &bytes);
        person.client_secret = secret.expose().to_owned();
        person
    }
}

impl Caller for Guessing {
    async fn call(&mut self) -> Answer {
        let person = self.guess();
        match issue(&mut self.client, &person, client_credentials()).await {
            Ok(_) => Answer::Wrong("a wrong secret got a token".to_owned()),
            Err(Answer::Wrong(why)) => Answer::Refused(why),
            Err(answer) => answer,
        }
    }
}
