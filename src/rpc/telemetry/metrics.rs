//! The recorder of metrics, and what a scrape shows. Names are in [`crate::metrics`].
//!
//! A histogram keeps single values until they are sorted into buckets: at a scrape, and once a second in between, so that
//! memory stays bounded without one. Recording takes no lock.

use std::{
    collections::HashMap,
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use arc_swap::ArcSwap;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::{
    clock::{Clock, SystemClock},
    metrics::{self as names, Kind, Metric},
};

/// How often values are sorted into buckets.
pub(super) const UPKEEP_PERIOD: Duration = Duration::from_secs(1);

/// Installs the recorder of this process. Handles that were made before do nothing. `service` is the name in
/// `accord_build_info`.
///
/// # Errors
/// If this process has a recorder.
pub(super) fn install(service: &str) -> anyhow::Result<PrometheusHandle> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder)?;
    describe();
    record_start();
    let (service, version) = (service.to_owned(), env!("CARGO_PKG_VERSION"));
    gauge!(names::BUILD_INFO, "service" => service, "version" => version).set(1.0);
    Ok(handle)
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    let mut builder = PrometheusBuilder::new();
    for Metric { name, kind, .. } in names::ALL {
        if let Kind::Histogram(bounds) = kind {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

fn describe() {
    for &Metric { name, help, kind } in names::ALL {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, help),
            Kind::Histogram(_) => ::metrics::describe_histogram!(name, help),
        }
    }
}

/// Returns the text of a scrape.
pub(super) fn render(handle: &PrometheusHandle) -> String {
    record_process();
    // The facade has no counter of fractions.
    let text = handle.render();
    text.replace(
        "# TYPE process_cpu_seconds_total gauge",
        "# TYPE process_cpu_seconds_total counter",
    )
}

/// Records what a scrape shows from the start of the process on, also while it waits for its database, or before a failure.
fn record_start() {
    gauge!(names::READY).set(0.0);
    gauge!(names::PROCESS_START).set(SystemClock.now().as_millis() as f64 / 1e3);
    counter!(names::TRACE_EXPORT_FAILURES).increment(0);
}

/// Records what the kernel knows about this process (proc(5)). Only its own files can be read in every confinement, and a gauge
/// whose file can't is missing.
fn record_process() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is in parentheses and may hold blanks.
    if let Some((_, fields)) = stat.rsplit_once(") ") {
        let field = |number: usize| -> f64 {
            let field = fields.split(' ').nth(number - 3);
            field.and_then(|field| field.parse().ok()).unwrap_or_default()
        };
        gauge!(names::PROCESS_CPU).set((field(14) + field(15)) / clock_ticks_per_second() as f64);
        gauge!(names::PROCESS_MEMORY).set(field(24) * page_size() as f64);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        gauge!(names::PROCESS_FILES).set(files.count() as f64);
    }
    let most = getrlimit(Resource::Nofile).current;
    gauge!(names::PROCESS_FILES_MAX).set(most.map_or(f64::INFINITY, |most| most as f64));
}

/// Records when a certificate expires that this process presents. `name` says its use, such as `grpc`, and comes from a
/// fixed set.
pub fn certificate_expires(name: &'static str, when: SystemTime) {
    let seconds = when.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!(names::CERTIFICATE_EXPIRY, "certificate" => name).set(seconds);
}

/// The metrics of a protocol's calls. Clones share them.
#[derive(Clone)]
pub(in crate::rpc) struct Calls(Arc<CallMetrics>);

struct CallMetrics {
    protocol: &'static str,
    in_flight: Gauge,
    /// It begins at zero, so that an alert sees the first one.
    internal_errors: Counter,
    /// By method. Bounded, because methods come from the table of permissions and from the router.
    durations: ArcSwap<HashMap<String, Histogram>>,
}

impl Calls {
    pub(in crate::rpc) fn new(protocol: &'static str) -> Self {
        let internal_errors = counter!(names::INTERNAL_ERRORS, "protocol" => protocol);
        internal_errors.increment(0);
        Self(Arc::new(CallMetrics {
            protocol,
            internal_errors,
            in_flight: gauge!(names::CALLS_IN_FLIGHT, "protocol" => protocol),
            durations: ArcSwap::default(),
        }))
    }

    /// Counts a call that begins.
    pub(in crate::rpc) fn begin(&self) {
        self.0.in_flight.increment(1.0);
    }

    /// Records the end of a call. `method` is a known one, or a name that all unknown ones share.
    pub(in crate::rpc) fn end(&self, method: &str, elapsed: Duration, failure: Option<&str>) {
        self.0.in_flight.decrement(1.0);
        match self.0.durations.load().get(method) {
            Some(durations) => durations.record(elapsed),
            None => self.durations(method).record(elapsed),
        }
        if let Some(code) = failure {
            if ["Internal", "Unknown", "500"].contains(&code) {
                self.0.internal_errors.increment(1);
            }
            let protocol = self.0.protocol;
            let (method, code) = (method.to_owned(), code.to_owned());
            counter!(names::CALL_FAILURES, "protocol" => protocol, "method" => method, "code" => code)
                .increment(1);
        }
    }

    fn durations(&self, method: &str) -> Histogram {
        let protocol = self.0.protocol;
        let durations = histogram!(
            names::CALL_DURATION,
            "protocol" => protocol,
            "method" => method.to_owned()
        );
        self.0.durations.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(method.to_owned(), durations.clone());
            known
        });
        durations
    }
}

#[cfg(test)]
#[path = "../tests/metrics.rs"]
mod tests;
