//! What callers call with: clients and their secrets, refresh tokens, codes. They come in files, which
//! whoever seeds the databases writes.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A client that may call, at the tenant that consented.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    pub tenant_id: String,
    pub client_id: String,
    pub client_secret: String,
}

/// A refresh family, with its latest token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chain {
    /// Whose it is: a place among the people.
    pub person: usize,
    pub refresh_token: String,
}

/// A code with what belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Code {
    /// Whose it is: a place among the people.
    pub person: usize,
    pub code: String,
    pub redirect_uri: String,
    pub code_verifier: String,
}

/// A chain that one caller at a time moves on, and the next job goes on with.
pub type SharedChain = Arc<Mutex<Chain>>;

/// What the load generator keeps from job to job.
#[derive(Default)]
pub struct Stock {
    people: HashMap<PathBuf, Arc<[Person]>>,
    chains: HashMap<PathBuf, Vec<SharedChain>>,
}

impl Stock {
    pub fn people(&mut self, file: &Path) -> anyhow::Result<Arc<[Person]>> {
        if let Some(people) = self.people.get(file) {
            return Ok(people.clone());
        }
        let people: Arc<[Person]> = read::<Vec<Person>>(file)?.into();
        ensure!(!people.is_empty(), "nobody to call for");
        self.people.insert(file.to_owned(), people.clone());
        Ok(people)
    }

    /// A chain for each caller, where the last job left it.
    pub fn chains(&mut self, file: &Path, callers: usize) -> anyhow::Result<Vec<SharedChain>> {
        if !self.chains.contains_key(file) {
            let chains = read::<Vec<Chain>>(file)?;
            let chains = chains.into_iter().map(|chain| Arc::new(Mutex::new(chain)));
            self.chains.insert(file.to_owned(), chains.collect());
        }
        let chains = &self.chains[file];
        let chains = chains.get(..callers).context("fewer chains than callers")?;
        Ok(chains.to_vec())
    }
}

/// A share of the codes for each caller. All codes of a client are in one.
pub fn codes(file: &Path, callers: usize) -> anyhow::Result<Vec<Vec<Code>>> {
    let shares: Vec<Vec<Code>> = read(file)?;
    ensure!(shares.len() == callers, "as many shares of codes as callers");
    Ok(shares)
}

fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_reader(BufReader::new(opened))?)
}
