//! How a [`Checker`](super::Checker) learns: two loops of one task, for revocations and for keys.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Request};

use super::{KeySet, checker::Shared, revocations::Applied};
use crate::token::v1 as pb;

/// How often keys are read without cause.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// How often keys are read at most because of a token with an unknown one.
const KEYS_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The last attempt to read the keys.
#[derive(Default)]
pub(super) struct LastRead {
    began_at: Option<Instant>,
    failed: bool,
}

/// The keys could not be read.
pub(super) struct NotRead;

/// Keeps a checker up to date; never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::join!(follow_revocations(&shared), follow_keys(&shared));
}

async fn follow_revocations(shared: &Shared) {
    let mut failing = false;
    loop {
        let asked_at = Instant::now();
        match ask(shared, asked_at).await {
            Ok(applied) => {
                if failing {
                    tracing::info!("revocations can be read again");
                }
                failing = false;
                if applied.new_epoch || applied.key_revoked {
                    shared.keys_changed.notify_one();
                }
                shared.learnt.send_replace(());
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
        sleep_until(asked_at + shared.poll_every).await;
    }
}

async fn ask(shared: &Shared, asked_at: Instant) -> Result<Applied, Code> {
    let revocations = || shared.revocations.write().unwrap_or_else(PoisonError::into_inner);
    // One question at a time, so that the cursor is that of the answer before.
    let cursor = revocations().cursor().to_owned();
    let mut request = Request::new(pb::ListRevocationsRequest { cursor });
    request
        .metadata_mut()
        .insert("authorization", shared.token.header());
    request.set_timeout(shared.call_timeout);
    // An answer that comes later than this is never seen: its future is gone.
    match timeout(
        shared.call_timeout,
        shared.client.clone().list_revocations(request),
    )
    .await
    {
        Ok(Ok(answer)) => Ok(shared.apply(answer.into_inner(), asked_at)),
        Ok(Err(status)) => {
            if status.code() == Code::InvalidArgument {
                // Of another server's making, or of an older one's.
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
        let began_at = Instant::now();
        let read = {
            let mut last = shared.reading_keys.lock().await;
            read_keys(shared, &mut last).await
        };
        if read.is_err() && !failing {
            tracing::warn!("the authority's keys can't be read");
        }
        failing = read.is_err();
        let pause = if failing { shared.poll_every } else { KEYS_EVERY };
        tokio::select! {
            () = sleep_until(began_at + pause) => {}
            () = shared.keys_changed.notified() => {}
        }
    }
}

/// Reads the keys because a token names one that is not there. Those who come while they are read wait for
/// the same answer, and for five seconds nobody reads again.
///
/// # Errors
/// [`NotRead`] when the last attempt failed.
pub(super) async fn read_keys_again(shared: &Shared) -> Result<(), NotRead> {
    let mut last = shared.reading_keys.lock().await;
    let lately = |at: Instant| at.elapsed() < KEYS_AGAIN_AFTER;
    if last.began_at.is_some_and(lately) {
        return if last.failed { Err(NotRead) } else { Ok(()) };
    }
    read_keys(shared, &mut last).await
}

async fn read_keys(shared: &Shared, last: &mut LastRead) -> Result<(), NotRead> {
    let asked_at = Instant::now();
    last.began_at = Some(asked_at);
    // Until it is known better: whoever waits may be dropped.
    last.failed = true;
    let request = Request::new(pb::GetJsonWebKeySetRequest::default());
    let mut client = shared.client.clone();
    let answer = timeout(shared.call_timeout, client.get_json_web_key_set(request)).await;
    let Ok(Ok(answer)) = answer else {
        return Err(NotRead);
    };
    let keys = KeySet::from_answer(answer.get_ref()).map_err(|_| NotRead)?;
    shared.set_keys(keys, asked_at);
    last.failed = false;
    shared.learnt.send_replace(());
    Ok(())
}
