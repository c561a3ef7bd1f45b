//! The metrics of both services: names, help texts and buckets. Whoever measures imports a name from here, so that this
//! file is the whole list.
//!
//! Units are base units: seconds, and seconds since 1970 for times. The values of a label come from a fixed set: no label
//! holds a tenant, a client, a path that a caller sent, or a token.
//!
//! A handle is made once and kept where it is used. Without a recorder, which `rpc::telemetry::metrics` installs, handles
//! do nothing.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number that only grows while the process lives.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A histogram with these upper bounds.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in a scrape.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// The kind.
    pub kind: Kind,
}

/// Defines the constants and the list of all metrics.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal, $kind:expr;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// All metrics that have a name here, in the order of this file.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            help: concat!($($help),+).trim_ascii(),
            kind: $kind,
        }),+];
    };
}

/// From 50 us, less than the fastest call takes, to 10 s, a third of the longest.
const DURATIONS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Up to the most items in a group.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

metrics! {
    /// Version and service of this process. Always 1.
    BUILD_INFO = "accord_build_info", Kind::Gauge;
    /// 1 if the service is ready, else 0.
    READY = "accord_ready", Kind::Gauge;
    /// Log lines that were dropped because their reader is slow.
    LOG_LINES_DROPPED = "accord_log_lines_dropped", Kind::Gauge;
    /// Batches of spans that could not be exported.
    TRACE_EXPORT_FAILURES = "accord_trace_export_failures_total", Kind::Counter;

    /// Open connections by protocol.
    CONNECTIONS_OPEN = "accord_connections_open", Kind::Gauge;
    /// The most connections of a listener, by protocol.
    CONNECTIONS_MAX = "accord_connections_max", Kind::Gauge;
    /// Calls under way by protocol.
    CALLS_IN_FLIGHT = "accord_calls_in_flight", Kind::Gauge;
    /// How long calls took, by protocol and method. Calls of unknown methods share one.
    CALL_DURATION = "accord_call_duration_seconds", Kind::Histogram(DURATIONS);
    /// Calls that failed, by protocol, method, and code of gRPC or HTTP.
    CALL_FAILURES = "accord_call_failures_total", Kind::Counter;
    /// Calls that failed by a defect, by protocol: those with the codes Internal, Unknown and 500.
    INTERNAL_ERRORS = "accord_internal_errors_total", Kind::Counter;

    /// Access tokens issued, by grant type.
    TOKENS_ISSUED = "accord_tokens_issued_total", Kind::Counter;
    /// Token requests rejected, by grant type and reason of the error.
    TOKENS_REJECTED = "accord_tokens_rejected_total", Kind::Counter;

    /// Refresh tokens and authorization codes that were used a second time, so that their refresh tokens ended, by credential.
    CREDENTIALS_REUSED = "accord_credentials_reused_total", Kind::Counter;

    /// DPoP proofs rejected, by the rule or claim that they break.
    DPOP_PROOFS_REJECTED = "accord_dpop_proofs_rejected_total", Kind::Counter;

    /// Callers that wait for argon2 or whose run has not ended, by queue.
    ARGON2_QUEUE = "accord_argon2_queue_length", Kind::Gauge;
    /// How long callers waited until argon2 ran for them, by queue.
    ARGON2_WAIT = "accord_argon2_wait_seconds", Kind::Histogram(DURATIONS);
    /// Callers that a full queue of argon2 rejected, by queue.
    ARGON2_REJECTED = "accord_argon2_rejected_total", Kind::Counter;

    /// Look-ups in memory by cache and result, `hit` or `miss`. A fact that is not current is a miss.
    CACHE_READS = "accord_cache_reads_total", Kind::Counter;
    /// How long ago the request was sent whose answer brought a feed up to date. Facts in memory count while this is at
    /// most the lease. Infinite before the first answer.
    LEASE_AGE = "accord_lease_age_seconds", Kind::Gauge;
    /// The position of a change feed that this replica of token-service has applied.
    FEED_POSITION = "accord_feed_position", Kind::Gauge;
    /// The position of a change feed's newest change, as its own service last read it. What a replica has not applied of it is
    /// its lag, in changes.
    FEED_HEAD = "accord_feed_head_position", Kind::Gauge;

    /// Items that shared a transaction or a read, by group.
    GROUP_SIZE = "accord_group_size", Kind::Histogram(SIZES);
    /// Items that wait for the end of their transaction or read, by group. Group `audit` is the backlog of the audit
    /// record.
    GROUP_WAITING = "accord_group_waiting", Kind::Gauge;

    /// The leaves of the audit record's log, sealed by this replica.
    AUDIT_LOG_SIZE = "accord_audit_log_size", Kind::Gauge;
    /// When this replica last found the whole audit record sealed. Absent on a replica that never sealed.
    AUDIT_LOG_SEALED = "accord_audit_log_sealed_timestamp_seconds", Kind::Gauge;
    /// 1 if the sealer has found an event that was altered or is missing, else 0.
    AUDIT_LOG_FAULT = "accord_audit_log_fault", Kind::Gauge;
    /// 1 if rows that confer authority are not as the record's events say, else 0.
    AUDIT_ROWS_FAULT = "accord_audit_rows_fault", Kind::Gauge;
    /// Signed heads of the audit record's log that the witness did not take.
    AUDIT_WITNESS_FAILURES = "accord_audit_witness_failures_total", Kind::Counter;

    /// Connections to the database by pool and state, `idle` or `in_use`.
    DATABASE_CONNECTIONS = "accord_database_connections", Kind::Gauge;
    /// The most connections of a pool.
    DATABASE_CONNECTIONS_MAX = "accord_database_connections_max", Kind::Gauge;
    /// Callers that wait for a connection, by pool.
    DATABASE_WAITING = "accord_database_waiting", Kind::Gauge;

    /// When the key that signs began to sign.
    SIGNING_KEY_ACTIVATED = "accord_signing_key_activated_timestamp_seconds", Kind::Gauge;
    /// When the newest data key of each purpose was created.
    DATA_KEY_CREATED = "accord_data_key_created_timestamp_seconds", Kind::Gauge;
    /// When a certificate expires, by use: `listeners` and `registry-client` are those that this process presents,
    /// `client-ca` and `registry-ca` the first one to expire of the authorities that it verifies others by.
    CERTIFICATE_EXPIRY = "accord_certificate_expiry_timestamp_seconds", Kind::Gauge;

    /// When this process started.
    PROCESS_START = "process_start_time_seconds", Kind::Gauge;
    /// Processor time of this process, user and system.
    PROCESS_CPU = "process_cpu_seconds_total", Kind::Gauge;
    /// Resident memory of this process.
    PROCESS_MEMORY = "process_resident_memory_bytes", Kind::Gauge;
    /// Open files of this process.
    PROCESS_FILES = "process_open_fds", Kind::Gauge;
    /// The most open files that this process may have.
    PROCESS_FILES_MAX = "process_max_fds", Kind::Gauge;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for Metric { name, help, kind } in ALL {
            assert!(names.insert(name), "{name} twice");
            assert!(
                name.starts_with("accord_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            // The name of processor time is one that Prometheus itself defines.
            let is_total = name.ends_with("_total") && !name.starts_with("process_");
            assert_eq!(is_total, *kind == Kind::Counter, "{name}");
            for unit in ["_ms", "_millis", "_us", "_minutes"] {
                assert!(!name.ends_with(unit), "{name}");
            }
            if let Kind::Histogram(bounds) = kind {
                assert!(bounds.is_sorted_by(|a, b| a < b), "{name}");
            }
        }
    }
}
