//! Work that must be completed although its caller disconnects.

use tracing::Instrument;

use crate::error::{Error, Result};

/// Runs `work` in its own task, so that it completes although the caller disconnects.
pub async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = tokio::spawn(work.in_current_span());
    task.await.map_err(|panic| Error::Internal(panic.into()))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_completes_although_its_caller_goes_away() {
        let ((resume, resumed), (finish, finished)) = (oneshot::channel(), oneshot::channel());
        let mut call = Box::pin(run_to_completion(async move {
            resumed.await.unwrap();
            finish.send(()).unwrap();
            Ok(())
        }));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        resume.send(()).unwrap();
        finished.await.unwrap();
    }
}
