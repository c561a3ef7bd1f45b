//! The background task of a [`Checker`](super::Checker): one loop for revocations, one for keys.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Request};

use super::{
    KeySet, VerifyError, bearer,
    revocations::Applied,
    shared::{LastRead, Shared},
};
use crate::{tls, token::v1 as pb};

/// How often keys are read.
const KEYS_PERIOD: Duration = Duration::from_secs(60);

/// The shortest time between two reads that tokens with an unknown key cause.
const MIN_REREAD: Duration = Duration::from_secs(5);

/// Keeps a checker up to date. Never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::join!(follow_revocations(&shared), follow_keys(&shared));
}

async fn follow_revocations(shared: &Shared) {
    let mut failing = false;
    loop {
        let sent_at = Instant::now();
        match poll(shared, sent_at).await {
            Ok(applied) => {
                if failing {
                    tracing::info!("revocations can be read again");
                }
                failing = false;
                if applied.new_epoch || applied.key_revoked {
                    shared.keys_changed.notify_one();
                }
                shared.updated.send_replace(());
                if applied.more {
                    continue;
                }
            }
            Err((code, cause)) => {
                // No answer, or one of a replica that has lost its database.
                if matches!(
                    code,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
                ) {
                    shared.connection.renew();
                }
                if !failing {
                    tracing::warn!(?code, cause, "revocations can't be read");
                }
                failing = true;
            }
        }
        sleep_until(sent_at + shared.poll_every).await;
    }
}

/// # Errors
/// The code, and for the log what an operator can mend.
async fn poll(shared: &Shared, sent_at: Instant) -> Result<Applied, (Code, String)> {
    let revocations = || shared.revocations.write().unwrap_or_else(PoisonError::into_inner);
    // One request at a time, so that the cursor is that of the last response.
    let cursor = revocations().cursor().to_owned();
    let mut request = Request::new(pb::ListRevocationsRequest { cursor });
    if !shared.token.is_empty() {
        let authorization = bearer::header(&shared.token);
        request.metadata_mut().insert("authorization", authorization);
    }
    request.set_timeout(shared.call_timeout);
    let mut client = shared.connection.client().await;
    // Drops a late response.
    match timeout(shared.call_timeout, client.list_revocations(request)).await {
        Ok(Ok(response)) => Ok(shared.apply(response.into_inner(), sent_at)),
        Ok(Err(status)) => {
            if status.code() == Code::InvalidArgument {
                // The cursor is that of another or an older server.
                revocations().forget_cursor();
            }
            Err((status.code(), tls::cause(&status)))
        }
        Err(_) => Err((Code::DeadlineExceeded, String::new())),
    }
}

async fn follow_keys(shared: &Shared) {
    let mut failing = false;
    loop {
        let started = Instant::now();
        let read = read_keys(shared, &mut *shared.last_read.lock().await).await;
        if read.is_err() && !failing {
            tracing::warn!("the authority's keys can't be read");
        }
        failing = read.is_err();
        let pause = if failing { shared.poll_every } else { KEYS_PERIOD };
        tokio::select! {
            () = sleep_until(started + pause) => {}
            () = shared.keys_changed.notified() => {}
        }
    }
}

/// Reads the keys because a token names an unknown one. Concurrent callers, and those of the next five seconds, share
/// the result.
pub(super) async fn read_keys_again(shared: &Shared) -> Result<(), VerifyError> {
    let mut last = shared.last_read.lock().await;
    match *last {
        Some((started, result)) if started.elapsed() < MIN_REREAD => result,
        _ => read_keys(shared, &mut last).await,
    }
}

/// # Errors
/// [`VerifyError::NoKeys`].
async fn read_keys(shared: &Shared, last: &mut LastRead) -> Result<(), VerifyError> {
    let sent_at = Instant::now();
    // The caller may be dropped before the response arrives.
    *last = Some((sent_at, Err(VerifyError::NoKeys)));
    let request = Request::new(pb::GetJsonWebKeySetRequest::default());
    let mut client = shared.connection.client().await;
    let response = timeout(shared.call_timeout, client.get_json_web_key_set(request)).await;
    let Ok(Ok(response)) = response else {
        return Err(VerifyError::NoKeys);
    };
    let keys = KeySet::from_response(response.get_ref()).or(Err(VerifyError::NoKeys))?;
    shared.set_keys(keys, sent_at);
    *last = Some((sent_at, Ok(())));
    shared.updated.send_replace(());
    Ok(())
}
