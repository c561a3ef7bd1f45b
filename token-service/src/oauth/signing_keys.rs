//! How signing keys come and go beside clients that follow the FAPI 2.0 Security Profile, which forbids RS256 (§5.4.1).
//!
//! The registry knows the clients, so it decides. It is told of RS256 before there is a key for it, and from then on admits no
//! client to the profile; while one follows it, it rejects RS256. The reports of two replicas may still cross, and one that took too
//! long may come after the next. Then signing decides:
//! [`Client::require_token`](crate::model::client::Client::require_token) rejects the token.

use std::time::Duration;

use accord::{log_limit::LogLimit, store::Creation};
use tokio::time::timeout;

use super::OAuth;
use crate::{
    error::{Error, Result},
    model::signing_key::{Algorithm, SigningKey},
    registry::Registry,
    store::Store,
};

/// How long a report may take: other keys wait behind it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates the keys that are missing, with the algorithm `first` in a database that never had one.
///
/// # Errors
/// For RS256 those of [`Registry::report_signing_algorithms`].
pub async fn ensure(registry: &Registry, store: &Store, first: Algorithm) -> Result<()> {
    if store.missing_signing_algorithm(first).await? == Some(Algorithm::Rs256) {
        registry.report_signing_algorithms(&[Algorithm::Rs256]).await?;
    }
    store.ensure_signing_keys(first).await
}

/// Rotates as an operator asks: see [`Store::rotate_signing_key`].
///
/// # Errors
/// Those of [`Store::rotate_signing_key`], and for RS256 those of [`Registry::report_signing_algorithms`].
pub async fn rotate(
    oauth: &OAuth,
    creation: &Creation,
    algorithm: Option<Algorithm>,
    force: bool,
) -> Result<SigningKey> {
    let rotating = || oauth.store.rotate_signing_key(creation, algorithm, force);
    let made = algorithm.or(oauth.store.signing_algorithms().await?.last().copied());
    if made != Some(Algorithm::Rs256) || oauth.store.was_created(creation).await? {
        return rotating().await;
    }
    // Without it the maintenance could report the algorithms of before, after this report.
    let _report = oauth.algorithm_report.lock().await;
    let mut algorithms = oauth.store.signing_algorithms().await?;
    algorithms.push(Algorithm::Rs256);
    oauth.registry.report_signing_algorithms(&algorithms).await?;
    rotating().await
}

/// Reports the algorithms, and rotates as the schedule demands: see [`Store::rotate_signing_key_when_due`]. A key for RS256 waits
/// until the registry has agreed. Without a `period` there is no schedule.
pub async fn maintain(oauth: &OAuth, period: Option<Duration>) -> Result<Option<String>> {
    let _report = oauth.algorithm_report.lock().await;
    let algorithms = oauth.store.signing_algorithms().await?;
    let report = oauth.registry.report_signing_algorithms(&algorithms);
    let reported = timeout(REPORT_TIMEOUT, report).await;
    let reported = reported.unwrap_or(Err(Error::RegistryUnavailable));
    if let Err(error) = &reported {
        log_failure(error);
    }
    // The schedule makes a key of the algorithm of the next one.
    let may_rotate = reported.is_ok() || algorithms.last() != Some(&Algorithm::Rs256);
    match period.filter(|_| may_rotate) {
        Some(period) => oauth.store.rotate_signing_key_when_due(period).await,
        None => Ok(None),
    }
}

fn log_failure(error: &Error) {
    static LIMIT: LogLimit = LogLimit::new(Duration::from_secs(60));
    if let Some(unlogged) = LIMIT.check("") {
        tracing::warn!(%error, unlogged, "the registry did not take the algorithms of the signing keys");
    }
}
