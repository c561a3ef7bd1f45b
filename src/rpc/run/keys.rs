//! Rotates the keys that the database holds, beside replicas that serve.

use anyhow::{Context, bail};
use sea_orm_migration::MigratorTrait;

use super::{signals::print_line, start::open_for_events};
use crate::{
    clock::SystemClock, random::SystemRandom, rpc::config::settings::ServiceSettings, store::keyring,
};

/// A key that can be rotated.
#[derive(Clone, Debug)]
pub enum Key {
    /// The master key: the new one of the settings replaces the other.
    Master,
    /// A data key.
    Data {
        /// What it is for.
        purpose: String,
        /// The purposes of the service.
        purposes: &'static [&'static str],
    },
}

/// Rotates a key, beside replicas that serve, and prints what was done.
///
/// # Errors
/// For a purpose that there is not, without a new master key, and if the database or a master key can't be used.
pub async fn rotate<M: MigratorTrait>(settings: &ServiceSettings, key: Key) -> anyhow::Result<()> {
    let done = match key {
        Key::Master => Box::pin(rotate_master_key::<M>(settings)).await?,
        Key::Data { purpose, purposes } => {
            Box::pin(rotate_data_key::<M>(settings, &purpose, purposes)).await?
        }
    };
    print_line(&done)
}

/// Adds a version to the data key of a purpose. Returns a line for the operator.
async fn rotate_data_key<M: MigratorTrait>(
    settings: &ServiceSettings,
    purpose: &str,
    purposes: &[&'static str],
) -> anyhow::Result<String> {
    if !purposes.contains(&purpose) {
        bail!("no data key has this purpose; there are {}", purposes.join(", "));
    }
    let (db, masters) = Box::pin(open_for_events::<M>(settings)).await?;
    let adding = keyring::add_version(&db, &masters, purpose, &SystemClock, &SystemRandom);
    let version = Box::pin(adding).await.context("adding a version")?;
    let wait = keyring::DISTRIBUTION.as_secs();
    Ok(format!(
        "{purpose} version {version} is used in {wait} s, when every replica has read it"
    ))
}

/// Wraps the keyring with the new master key. Returns a line for the operator.
async fn rotate_master_key<M: MigratorTrait>(settings: &ServiceSettings) -> anyhow::Result<String> {
    let masters = settings.master_keys();
    let [old, new] = &masters[..] else {
        bail!("--new-master-key-file or --new-master-key-pkcs11 is missing");
    };
    let new = new.open().await.context("the new master key")?;
    if old.open().await.context("the master key")?.id() == new.id() {
        bail!(
            "the new master key is the key in use: --new-master-key-file or --new-master-key-pkcs11 must lead to another"
        );
    }
    let (db, masters) = Box::pin(open_for_events::<M>(settings)).await?;
    let mut count = 0;
    // A replica may have added a row under the old key meanwhile.
    loop {
        let changed = Box::pin(keyring::rewrap(&db, &masters, &*new, &SystemClock, &SystemRandom)).await;
        match changed.context("wrapping the keyring")? {
            0 => break,
            changed => count += changed,
        }
    }
    keyring::check(&db, &masters)
        .await
        .context("opening the keyring")?;
    Ok(match count {
        0 => "all data keys are wrapped by the new master key already".to_owned(),
        count => format!("{count} data keys are wrapped by the new master key"),
    })
}
