//! What comes before serving: migrating, opening, checking.

use std::time::Duration;

use anyhow::{Context, bail};
use sea_orm_migration::MigratorTrait;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    clock::{SharedClock, SystemClock},
    keys::MasterKeys,
    random::{Random, SystemRandom},
    rpc::config::{ConfigError, load_some, settings::ServiceSettings},
    store::{
        Database, StoreError,
        audit::{self, Origin},
        batch::schema::foreign_objects,
        change, is_epoch_unfinished,
        keyring::{self, SharedKeyring},
        log, mark_epoch_finished, mark_epoch_unfinished, origin, rows,
    },
};

/// The pause before a service tries again to reach its database at its start.
const START_PAUSE: Duration = Duration::from_secs(1);

/// Applies a service's migrations. Replicas may race.
pub async fn migrate<M: MigratorTrait>(database_url: &str) -> anyhow::Result<()> {
    let db = connect(database_url).await?;
    db.migrate::<M>().await.context("migrating the database")
}

/// Starts a new epoch of the change feed, for a database restored from a backup. Tokens issued before are rejected from
/// then on. `end` ends what may have ended after the backup, such as unused links, in as many transactions as it takes.
///
/// The epoch starts first, with a mark that `end` is not done. Until it is, [`open`] refuses the database; a call after an
/// interrupted one starts an epoch of its own.
pub async fn start_epoch<M: MigratorTrait>(
    settings: &ServiceSettings,
    random: &dyn Random,
    end: impl AsyncFnOnce(&Database) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (db, _) = Box::pin(open_for_events::<M>(settings)).await?;
    let started = begin_epoch(&db, random).await;
    started.context("starting a new epoch")?;
    end(&db)
        .await
        .context("ending what may have ended after the backup: run `migrate --new-epoch` again")?;
    let finished = finish_epoch(&db).await;
    finished.context("finishing the new epoch: run `migrate --new-epoch` again")
}

async fn begin_epoch(db: &Database, random: &dyn Random) -> Result<(), StoreError> {
    let tx = db.write().await?;
    // Also after an interruption: the copy itself may have been made between the two, and its epoch was served from since.
    let position = change::start_epoch(&tx, random).await?;
    let event = audit::epoch_start(&tx, position.epoch.as_str()).await?;
    mark_epoch_unfinished(&tx).await?;
    audit::record(&tx, &SystemClock, random, &Origin::system("command-line"), event).await;
    tx.commit().await
}

async fn finish_epoch(db: &Database) -> Result<(), StoreError> {
    let tx = db.write().await?;
    mark_epoch_finished(&tx).await?;
    tx.commit().await
}

/// Opens a migrated database and its keyring.
pub async fn open<M: MigratorTrait>(
    settings: &ServiceSettings,
    purposes: &[&'static str],
    clock: SharedClock,
    random: &dyn Random,
) -> anyhow::Result<(Database, SharedKeyring)> {
    let (db, masters) = Box::pin(open_with_masters::<M>(settings)).await?;
    require_finished_epoch(&db).await?;
    // Boxed, as the others here: the futures of a start are deep.
    let keyring = Box::pin(SharedKeyring::open(db.clone(), masters, purposes, clock, random)).await;
    Ok((db, keyring.context("opening the keyring")?))
}

/// What a service needs for its start, and does not answer: the context of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0} does not answer")]
pub struct Outage(pub &'static str);

/// Opens a service with a PostgreSQL server that may not be there yet, as after a reboot: tries again while the server, or
/// its name in the DNS, does not answer, and during an [`Outage`]. A supervisor that counts failed starts would give up.
///
/// # Errors
/// Those of `open` that waiting does not mend. With SQLite all but an [`Outage`].
pub async fn when_reachable<T>(
    database_url: &str,
    open: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    loop {
        // Boxed, or the compiler gives up on the depth of the future.
        match Box::pin(open()).await {
            // Store and channel have logged the reason, once in some seconds.
            Err(error) if error.downcast_ref::<Outage>().is_some() => sleep(START_PAUSE).await,
            Err(error) if is_outage(&error) && !database_url.starts_with("sqlite:") => {
                sleep(START_PAUSE).await;
            }
            other => return other,
        }
    }
}

fn is_outage(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<StoreError>());
    causes.any(StoreError::is_temporary)
}

/// Checks that a service could serve from its database with its master keys. Changes nothing.
pub async fn check<M: MigratorTrait>(settings: &ServiceSettings) -> anyhow::Result<Database> {
    let (db, masters) = Box::pin(open_with_masters::<M>(settings)).await?;
    require_not_development(&db).await?;
    require_finished_epoch(&db).await?;
    let checked = Box::pin(keyring::check(&db, &masters)).await;
    checked.context("opening the keyring")?;
    Ok(db)
}

/// Adds to the problems of a configuration that of the database, if the settings lead to one: of its schema, or what `also` finds.
/// The other arguments are those of [`load_some`].
pub async fn with_schema<M: MigratorTrait, T>(
    loaded: Result<T, ConfigError>,
    prefix: &str,
    file: Option<&str>,
    flags: impl Serialize,
    also: impl AsyncFnOnce(&Database, &ServiceSettings) -> anyhow::Result<()>,
) -> Result<T, ConfigError> {
    let error = match loaded {
        Err(error) => error,
        loaded => return loaded,
    };
    let settings = load_some::<ServiceSettings>(prefix, file, flags).ok();
    let Some(settings) = settings.filter(|settings| origin::check_url(&settings.database_url).is_ok()) else {
        return Err(error);
    };
    let checked = async {
        let db = Box::pin(open_schema::<M>(&settings.database_url)).await?;
        require_not_development(&db).await?;
        also(&db, &settings).await
    };
    Err(match checked.await {
        Ok(()) => error,
        Err(found) => error.and(format!("{found:#}")),
    })
}

/// Opens a migrated database whose schema nobody has edited.
async fn open_schema<M: MigratorTrait>(database_url: &str) -> anyhow::Result<Database> {
    let db = connect_existing(database_url).await?;
    require_migrated::<M>(&db).await?;
    if let Some(object) = foreign_objects(db.read()).await?.first() {
        bail!("no migration has created the {object} in the database: somebody has edited its schema");
    }
    Ok(db)
}

/// Opens a migrated database and the master keys.
async fn open_with_masters<M: MigratorTrait>(
    settings: &ServiceSettings,
) -> anyhow::Result<(Database, MasterKeys)> {
    let db = open_schema::<M>(&settings.database_url).await?;
    let masters = MasterKeys::open(settings.master_keys()).await;
    let masters = masters.context("the master key")?;
    // The table that no other service has.
    let service = M::migration_table_name().to_string();
    Ok((db, masters.for_service(service)))
}

/// Does the same for a command that records events: opens the keys that protect them, and that of the log, which no event may be
/// behind.
pub(super) async fn open_for_events<M: MigratorTrait>(
    settings: &ServiceSettings,
) -> anyhow::Result<(Database, MasterKeys)> {
    let (db, masters) = open_with_masters::<M>(settings).await?;
    let [events, rows] = [audit::KEYRING_PURPOSE, rows::KEYRING_PURPOSE];
    let purposes = [events, rows, log::KEYRING_PURPOSE];
    let opening = keyring::open(&db, &masters, &purposes, &SystemClock, &SystemRandom);
    Box::pin(opening).await.context("opening the keyring")?;
    Ok((db, masters))
}

/// Refuses a database of `accord dev`: a file holds its operators' tokens in plaintext.
pub async fn require_not_development(db: &Database) -> anyhow::Result<()> {
    let is_for_development = db.is_for_development().await;
    if is_for_development.context("reading what the database was created for")? {
        bail!("the database is one of `accord dev`, which is for development only");
    }
    Ok(())
}

/// Refuses a restored database that still holds what its new epoch ends.
async fn require_finished_epoch(db: &Database) -> anyhow::Result<()> {
    let is_unfinished = is_epoch_unfinished(db.read()).await;
    if is_unfinished.context("reading whether a new epoch is finished")? {
        bail!("a new epoch of the database was begun and is not finished: run `migrate --new-epoch` again");
    }
    Ok(())
}

async fn require_migrated<M: MigratorTrait>(db: &Database) -> anyhow::Result<()> {
    let migrated = db.is_migrated::<M>().await;
    if !migrated.context("reading the database's schema")? {
        bail!("the database's schema is not up to date: run `migrate` first");
    }
    Ok(())
}

/// Connects to a database that was migrated. Creates no file: the path may be wrong.
async fn connect_existing(database_url: &str) -> anyhow::Result<Database> {
    if origin::is_missing(database_url) {
        bail!("the database does not exist: run `migrate` first");
    }
    connect(database_url).await
}

async fn connect(database_url: &str) -> anyhow::Result<Database> {
    let connected = Database::connect(database_url).await;
    connected.context("connecting to the database")
}
