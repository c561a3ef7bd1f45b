//! The log that is open: how it begins with an epoch, and how the one before it ends.

use crate::{
    clock::UnixMillis,
    keys::Keyring,
    store::{
        Database, StoreError, change,
        error::lasting,
        log::{self, Log},
    },
    tlog::Origin,
};

/// Starts the first log of an epoch, unless there is one. Racing replicas start one.
///
/// # Errors
/// [`StoreError::Corrupt`] if no holder of the keys has written the newest log, [`StoreError::Removed`] if a newer one was
/// started in this epoch: another log with its name would have other heads of the same sizes.
pub async fn ensure_log(
    db: &Database,
    keyring: &Keyring,
    base_host: &str,
    service: &str,
    now: UnixMillis,
) -> Result<Log, StoreError> {
    const MALFORMED: StoreError = StoreError::Corrupt("the origin of an audit log");
    // Before the logs: another replica may start one meanwhile.
    let counted = change::counted_logs(db.read()).await;
    let current = log::current(db.read()).await?;
    let epoch = match db.position().await {
        Ok(position) => position.epoch,
        // Somebody has edited the counter: the log that is open takes what was committed before.
        Err(error @ (StoreError::Altered(_) | StoreError::Corrupt(_))) => {
            let current = current.ok_or(error)?;
            current.check(current.key(keyring)?)?;
            return Ok(current);
        }
        Err(error) => return Err(error),
    };
    if counted?.is_gone(current.as_ref().map(|log| log.log_id)) {
        return Err(StoreError::Removed("audit_logs"));
    }
    let origin = Origin::of_log(base_host, service, epoch.as_str(), 1).map_err(|_| MALFORMED)?;
    if let Some(current) = &current {
        current.check(current.key(keyring)?)?;
        if is_of(current, &origin) {
            return Ok(current.clone());
        }
    }
    if let Some(current) = &current {
        sign_last(db, keyring, current).await?;
    }
    let key = keyring.current(log::KEYRING_PURPOSE)?;
    let position = current.map_or_else(|| "0".to_owned(), |log| log.position);
    let tx = db.write().await?;
    match log::start(&tx, &origin, key, &position, now).await {
        Ok(started) => {
            tx.commit().await?;
            Ok(started)
        }
        Err(StoreError::Conflict) => {
            drop(tx);
            log::current(db.read()).await?.ok_or(MALFORMED)
        }
        Err(error) => Err(error),
    }
}

/// Signs the last head of a log that ends. Leaves one that somebody has edited as it is, for a verification to name.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub(super) async fn sign_last(db: &Database, keyring: &Keyring, log: &Log) -> Result<(), StoreError> {
    let (Ok(key), Ok(signer)) = (log.key(keyring), log.signer(keyring)) else {
        return Ok(());
    };
    let _ = lasting(log::sign_heads(db, log, key, &signer).await)?;
    Ok(())
}

/// Returns whether a log is the first of an epoch, with this origin, or one that a resume has started in it.
fn is_of(log: &Log, origin: &Origin) -> bool {
    let rest = log.origin.as_str().strip_prefix(origin.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
