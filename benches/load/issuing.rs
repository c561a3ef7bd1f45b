//! Callers of `IssueToken` with client credentials.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    drive::{Answer, Caller},
    grpc::{Client, Connections, client_credentials, issue},
    picks::Picks,
    stock::Person,
};

/// Calls for anybody.
pub struct AtRandom {
    client: Client,
    picks: Picks,
}

impl AtRandom {
    pub fn callers(connections: &Connections, callers: usize, people: &Arc<[Person]>) -> Vec<Self> {
        let caller = |number| Self {
            client: connections.client(number),
            picks: Picks::new(people, number),
        };
        (0..callers).map(caller).collect()
    }
}

impl Caller for AtRandom {
    async fn call(&mut self) -> Answer {
        answer(&mut self.client, self.picks.next()).await
    }
}

/// Calls for everybody once, whichever of the callers it is.
pub struct InTurn {
    client: Client,
    people: Arc<[Person]>,
    next: Arc<AtomicUsize>,
}

impl InTurn {
    pub fn callers(connections: &Connections, callers: usize, people: &Arc<[Person]>) -> Vec<Self> {
        let next = Arc::new(AtomicUsize::new(0));
        let caller = |number| Self {
            client: connections.client(number),
            people: people.clone(),
            next: next.clone(),
        };
        (0..callers).map(caller).collect()
    }
}

impl Caller for InTurn {
    async fn call(&mut self) -> Answer {
        match self.people.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            Some(person) => answer(&mut self.client, person).await,
            None => Answer::NothingLeft,
        }
    }
}

async fn answer(client: &mut Client, person: &Person) -> Answer {
    match issue(client, person, client_credentials()).await {
        Ok(_) => Answer::Right,
        Err(answer) => answer,
    }
}
