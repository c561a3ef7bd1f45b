//! The background task of a [`Checker`](super::Checker): one loop for revocations, one for keys.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Request};

use super::{
    KeySet,
    revocations::Applied,
    shared::{LastRead, Shared},
};
use crate::token::v1 as pb;

/// How often keys are read.
const KEYS_PERIOD: Duration = Duration::from_secs(60);

/// The least time between two reads that tokens with an unknown key cause.
const MIN_REREAD: Duration = Duration::from_secs(5);

/// The keys could not be read.
pub(super) struct NotRead;

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
            Err(code) => {
                if !failing {
                    tracing::warn!(?code, "revocations can't be read");
                }
                failing = true;
            }
        }
        sleep_until(sent_at + shared.poll_every).await;
    }
}

async fn poll(shared: &Shared, sent_at: Instant) -> Result<Applied, Code> {
    let revocations = || shared.revocations.write().unwrap_or_else(PoisonError::into_inner);
    // One request at a time, so that the cursor is that of the last answer.
    let cursor = revocations().cursor().to_owned();
    let mut request = Request::new(pb::ListRevocationsRequest { cursor });
    request
        .metadata_mut()
        .insert("authorization", shared.token.header());
    request.set_timeout(shared.call_timeout);
    // A late answer is never seen: its future is dropped.
    match timeout(
        shared.call_timeout,
        shared.client.clone().list_revocations(request),
    )
    .await
    {
        Ok(Ok(answer)) => Ok(shared.apply(answer.into_inner(), sent_at)),
        Ok(Err(status)) => {
            if status.code() == Code::InvalidArgument {
                // The cursor is of another or an older server.
                revocations().forget_cursor();
            }
            Err(status.code())
        }
        Err(_) => Err(Code::DeadlineExceeded),
    }
}

async fn follow_keys(shared: &Shared) {
    let mut failing = false;
    loop {
        let started = Instant::now();
        let read = {
            let mut last = shared.reading_keys.lock().await;
            read_keys(shared, &mut last).await
        };
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

/// Reads the keys because a token names an unknown one. Concurrent callers share the answer, and so do callers of
/// the next five seconds.
pub(super) async fn read_keys_again(shared: &Shared) -> Result<(), NotRead> {
    let mut last = shared.reading_keys.lock().await;
    let recently = |at: Instant| at.elapsed() < MIN_REREAD;
    if last.started.is_some_and(recently) {
        return if last.failed { Err(NotRead) } else { Ok(()) };
    }
    read_keys(shared, &mut last).await
}

async fn read_keys(shared: &Shared, last: &mut LastRead) -> Result<(), NotRead> {
    let sent_at = Instant::now();
    last.started = Some(sent_at);
    // Until the answer comes: the caller may be dropped.
    last.failed = true;
    let request = Request::new(pb::GetJsonWebKeySetRequest::default());
    let mut client = shared.client.clone();
    let answer = timeout(shared.call_timeout, client.get_json_web_key_set(request)).await;
    let Ok(Ok(answer)) = answer else {
        return Err(NotRead);
    };
    let keys = KeySet::from_answer(answer.get_ref()).map_err(|_| NotRead)?;
    shared.set_keys(keys, sent_at);
    last.failed = false;
    shared.updated.send_replace(());
    Ok(())
}
