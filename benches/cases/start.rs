//! How long services take to start on databases that are there.

use super::Run;
use crate::options::Case;

/// The longest that the design allows, in milliseconds.
const LIMIT: f64 = 200.0;
const TIMES: usize = 3;

impl Run<'_> {
    /// Ends both services of each stage and starts them again, a few times.
    pub(super) async fn measure_start(&mut self) -> anyhow::Result<()> {
        if !self.options.wants(Case::Start) {
            return Ok(());
        }
        for stage in &mut self.stages {
            self.progress
                .advance(1, Some(&format!("{} on {}", Case::Start.name(), stage.database)));
            for _ in 0..TIMES {
                stage.restart().await?;
                for (service, ready_after) in stage.ready_after() {
                    let what = format!("{service}: ready after, ms");
                    let millis = ready_after.as_secs_f64() * 1e3;
                    self.results.find(&what, stage.database, millis, Some(LIMIT));
                }
            }
        }
        Ok(())
    }
}
