//! Follows the files of the listeners' TLS while the service runs.
//!
//! The contents count, not the times of the files: Kubernetes swaps a symbolic link above them. New files count once two
//! looks found the same contents, so that none is used that is still being written; SIGHUP makes one look enough.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    TlsProblem,
    server::{CurrentConfig, Digests, Files, ServerTls},
};

/// How often the files are read. New ones count after one to two such periods.
const PERIOD: Duration = Duration::from_secs(2);

/// What a look found: the contents, or why they can't be read.
type ReadResult = Result<Digests, TlsProblem>;

const OLD_AUTHORITIES: &str = "the changed authorities can't be used, and the old ones count";

/// The state between two looks.
pub(super) struct Reloader<'a> {
    tls: &'a ServerTls,
    /// What the last look found.
    last: Option<ReadResult>,
    /// What the log has called unusable.
    rejected: Option<ReadResult>,
}

impl ServerTls {
    /// Uses changed files for new connections until `stop`. `reload` makes it look at once.
    ///
    /// Files that can't be used change nothing, and the log says so once. Authorities that can't be used hold up no certificate: the
    /// old ones count. If other client authorities count, connections
    /// that the old ones have admitted end when their calls have.
    pub(in crate::rpc) async fn follow(&self, reload: &Notify, stop: &CancellationToken) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reloader = Reloader::new(self);
        let looks = async {
            loop {
                let at_once = tokio::select! {
                    () = reload.notified() => true,
                    _ = ticks.tick() => false,
                };
                let settings = self.settings.clone();
                // Only a panic makes it fail.
                if let Ok(files) = spawn_blocking(move || Files::read(&settings)).await {
                    reloader.reload(files, at_once);
                }
            }
        };
        stop.run_until_cancelled(looks).await;
    }
}

impl<'a> Reloader<'a> {
    pub(super) fn new(tls: &'a ServerTls) -> Self {
        Self {
            tls,
            last: None,
            rejected: None,
        }
    }

    /// Uses the files if their contents are new, and if `at_once` is set or the last look found the same.
    pub(super) fn reload(&mut self, files: Result<Files, TlsProblem>, at_once: bool) {
        let found = match &files {
            Ok(files) => Ok(files.digests()),
            Err(problem) => Err(problem.clone()),
        };
        let current = self.tls.current();
        let is_settled = at_once || self.last.as_ref() == Some(&found);
        self.last = Some(found.clone());
        if found.as_ref() == Ok(&current.digests) {
            match &current.put_back {
                Some(reason) if at_once => tracing::warn!(reason, "{OLD_AUTHORITIES}"),
                None if at_once => tracing::info!("the files of certificates have not changed"),
                _ => {}
            }
            self.rejected = None;
            return;
        }
        if !is_settled {
            return;
        }
        let is_new = at_once || self.rejected.as_ref() != Some(&found);
        match files.and_then(|files| self.build(files, &current, is_new)) {
            Ok(mut next) => {
                if next.authorities == current.authorities {
                    next.retired = current.retired.clone();
                } else {
                    current.retired.cancel();
                }
                self.rejected = None;
                if next.digests[..2] != current.digests[..2] {
                    let days = next.not_after.since(self.tls.clock.now()).as_secs() / (24 * 3600);
                    tracing::info!(
                        days,
                        "new connections get the changed certificate, valid for these days"
                    );
                } else if next.authorities != current.authorities {
                    tracing::info!("the changed authorities count");
                }
                self.tls.current.send_replace(Arc::new(next));
            }
            Err(problem) => {
                if is_new {
                    let reason = problem.to_string();
                    tracing::warn!(
                        reason,
                        "the changed certificate files can't be used, and the old ones count"
                    );
                }
                self.rejected = Some(found);
            }
        }
    }

    /// Builds what counts by the files, with the old authorities in the place of such that can't be used. `log` says which.
    fn build(
        &self,
        mut files: Files,
        current: &CurrentConfig,
        log: bool,
    ) -> Result<CurrentConfig, TlsProblem> {
        let (digests, mut put_back) = (files.digests(), None);
        let build = |files: &Files| files.build(&self.tls.settings, &self.tls.clock);
        let mut built = build(&files);
        // The second time both: each may be unusable, or those of callers may not go with those of partners.
        for both in [false, true] {
            let Err(problem) = &built else { break };
            if !files.put_back(problem, current, both) {
                break;
            }
            let reason = problem.to_string();
            if log {
                tracing::warn!(reason, "{OLD_AUTHORITIES}");
            }
            put_back.get_or_insert(reason);
            built = build(&files);
        }
        built.map(|built| CurrentConfig {
            digests,
            put_back,
            ..built
        })
    }
}
