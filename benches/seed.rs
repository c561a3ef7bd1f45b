//! Fills a pair of databases with tenants, clients and grants, straight through the entities: a million
//! registrations and consents by RPC would take hours. What it writes is what the services would have
//! written.
//!
//! A secret is known by its argon2id hash alone, which takes its time: only the clients that calls are
//! made for have one.

mod grants;
mod registrations;
mod rows;

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use accord::{
    clock::SystemClock,
    random::{Random, SystemRandom},
    text::{
        id::{ClientId, GrantId, SecretId, UserId},
        opaque::{ClientSecret, SecretTagKey},
    },
};
use anyhow::Context;
use serde::Serialize;

use crate::{load::stock::Person, progress::Progress, services::Setup};

pub use self::grants::Codes;

/// Clients are spread over so many tenants.
const TENANTS: usize = 10;
/// What every client may do, and every grant grants.
pub const SCOPES: [&str; 3] = ["contacts.read", "documents.read", "matters.read"];
const REDIRECT_URI: &str = "https://integration.example/oauth/callback";

/// How much to write.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Clients, and grants.
    pub clients: usize,
    /// Those of them that have a secret.
    pub active: usize,
    /// Refresh families, one for each of the first clients.
    pub chains: usize,
}

/// What was written, as far as others need it.
pub struct Seeded {
    tenants: Vec<Tenant>,
    /// The first of them have secrets.
    clients: Vec<Client>,
    /// The file of people, for the load generator.
    pub people: PathBuf,
    /// The file of chains, for the load generator.
    pub chains: PathBuf,
}

struct Tenant {
    tenant_id: String,
    /// The user that API transactions run as.
    designated: UserId,
    admin: UserId,
}

struct Client {
    /// Its place among the tenants.
    tenant: usize,
    client_id: ClientId,
    grant_id: GrantId,
    secret: Option<ClientSecret>,
}

/// The Cloud API URL of the tenant with this number.
pub fn cloud_api_url(tenant: usize) -> String {
    format!("https://api.firm-{tenant}.example/v1")
}

/// Writes it all. The services are set up, and do not run yet.
pub async fn run(
    setup: &Setup,
    directory: &Path,
    amounts: Amounts,
    progress: &Progress,
) -> anyhow::Result<Seeded> {
    let tenants = (0..TENANTS).map(tenant).collect();
    let tag_key = registrations::secret_tag_key(setup).await?;
    let clients =
        (0..amounts.clients).map(|number| client(number, (number < amounts.active).then_some(&tag_key)));
    let seeded = Seeded {
        tenants,
        clients: clients.collect(),
        people: directory.join("people.json"),
        chains: directory.join("chains.json"),
    };
    progress.step(
        Some(amounts.clients as u64 * 2),
        &format!("{} clients and grants", amounts.clients),
    );
    let position = registrations::write(setup, &seeded, progress).await?;
    let chains = grants::write(setup, &seeded, position, amounts.chains, progress).await?;
    write_file(&seeded.people, &seeded.people())?;
    write_file(&seeded.chains, &chains)?;
    Ok(seeded)
}

fn tenant(number: usize) -> Tenant {
    Tenant {
        tenant_id: format!("firm-{number}"),
        designated: UserId::generate(&SystemClock, &SystemRandom),
        admin: UserId::generate(&SystemClock, &SystemRandom),
    }
}

/// A client, with a secret if there is a key to tag it with.
fn client(number: usize, tag_key: Option<&SecretTagKey>) -> Client {
    let client_id = ClientId::generate(&SystemClock, &SystemRandom);
    let secret = tag_key.map(|tag_key| {
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes);
        let secret_id = SecretId::generate(&SystemClock, &SystemRandom);
        ClientSecret::compose(tag_key, &client_id, secret_id, &bytes)
    });
    Client {
        tenant: number % TENANTS,
        client_id,
        grant_id: GrantId::generate(&SystemClock, &SystemRandom),
        secret,
    }
}

impl Seeded {
    fn tenant_of(&self, client: &Client) -> &Tenant {
        &self.tenants[client.tenant]
    }

    fn people(&self) -> Vec<Person> {
        let person = |client: &Client| {
            Some(Person {
                tenant_id: self.tenant_of(client).tenant_id.clone(),
                client_id: client.client_id.to_string(),
                client_secret: client.secret.as_ref()?.expose().to_owned(),
            })
        };
        self.clients.iter().map_while(person).collect()
    }
}

fn write_file(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::to_writer(BufWriter::new(file), content)?)
}
