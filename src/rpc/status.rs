//! gRPC statuses: code, reason, and the details of `google.rpc` (`ErrorInfo`, `BadRequest`, `RetryInfo`).
//!
//! Each service maps its error enum to a [`Problem`]. Nothing else creates a status.

use std::{collections::HashMap, error::Error, iter, time::Duration};

use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

pub use crate::error::v1::ErrorReason;
use crate::{store::StoreError, text::validation::Violations};

/// The domain of every `ErrorInfo` that Accord sends.
pub const DOMAIN: &str = "accord";

/// The `RetryInfo` of UNAVAILABLE.
pub const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);
/// The `RetryInfo` before an event is sealed, which takes up to a minute.
pub const RETRY_SEALED: Duration = Duration::from_secs(60);
/// The most bytes of violations in a status. Details are a header in base64, and libraries reject more than 8 KiB of
/// headers.
const MAX_VIOLATION_BYTES: usize = 4 * 1024;
/// The most bytes of a violation besides its texts.
const VIOLATION_OVERHEAD: usize = 9;
/// The most bytes of the message of a status. A header holds it percent-encoded, and the details hold it again.
const MAX_STATUS_MESSAGE_BYTES: usize = 512;

/// The return type of a gRPC method.
pub type Reply<T> = Result<Response<T>, Status>;

/// An error as a caller sees it.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// Creates a problem. `message` is for developers, must hold nothing secret, and is cut after 512 bytes.
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_STATUS_MESSAGE_BYTES));
        Self {
            code,
            reason,
            message,
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds an entry to `ErrorInfo.metadata`.
    pub fn metadata(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Replaces the reason.
    pub fn with_reason(mut self, reason: ErrorReason) -> Self {
        self.reason = reason;
        self
    }

    /// Adds `RetryInfo`.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// NOT_FOUND for a resource of this kind.
    pub fn not_found(resource: &str) -> Self {
        let message = format!("no such {resource}");
        Self::new(Code::NotFound, ErrorReason::NotFound, message).metadata("resource", resource)
    }

    /// INVALID_ARGUMENT/INVALID_FIELDS for a message whose fields can't be read. `rule` says why.
    pub fn unreadable(rule: &str) -> Self {
        let mut problem = Self::new(Code::InvalidArgument, ErrorReason::InvalidFields, rule);
        problem.violations.push(FieldViolation::new("", rule));
        problem
    }

    /// UNAVAILABLE with `RetryInfo`: a database or another service does not answer.
    pub fn unavailable() -> Self {
        let message = "a service that this call depends on does not answer";
        Self::new(Code::Unavailable, ErrorReason::Unavailable, message).retry_after(RETRY_UNAVAILABLE)
    }

    /// UNAVAILABLE with `RetryInfo`: this replica stops, and the call lasted longer than its drain.
    pub fn stopping() -> Self {
        let message = "this replica stops; a change may or may not have happened";
        Self::new(Code::Unavailable, ErrorReason::Unavailable, message).retry_after(RETRY_UNAVAILABLE)
    }

    /// DEADLINE_EXCEEDED: the caller's deadline, or that of the server, has passed.
    pub fn deadline_exceeded() -> Self {
        let message = "the deadline passed; a change may or may not have happened";
        Self::new(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message)
    }

    /// UNAVAILABLE with `RetryInfo`: the event, or any event of the record, is not in the sealed log yet.
    pub fn not_sealed() -> Self {
        let message = "this part of the audit record is not sealed yet; sealing takes up to a minute";
        Self::new(Code::Unavailable, ErrorReason::Unavailable, message).retry_after(RETRY_SEALED)
    }

    /// INTERNAL. Logs `source` with an error id; the caller sees only the id.
    pub fn internal(source: &(dyn Error + 'static)) -> Self {
        let error_id = uuid::Uuid::new_v4().to_string();
        let chain: Vec<_> = iter::successors(Some(source), |error| (*error).source())
            .map(ToString::to_string)
            .collect();
        tracing::error!(error_id, error = %chain.join(": "), "internal error");
        let message = format!("internal error {error_id}");
        Self::new(Code::Internal, ErrorReason::Internal, message).metadata("error_id", error_id)
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason_name(problem.reason), DOMAIN, problem.metadata);
        if !problem.violations.is_empty() {
            details.set_bad_request(problem.violations);
        }
        if let Some(delay) = problem.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(problem.code, problem.message, details)
    }
}

impl From<Violations> for Status {
    fn from(violations: Violations) -> Self {
        Problem::from(violations).into()
    }
}

/// INVALID_ARGUMENT/INVALID_FIELDS with the violations that fit, and the number of the others.
impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        let message = "one or more fields are not valid; the details list them";
        let mut problem = Self::new(Code::InvalidArgument, ErrorReason::InvalidFields, message);
        let (mut bytes, mut left_out) = (0, 0);
        for violation in violations.into_vec() {
            bytes += violation.field.len() + violation.description.len() + VIOLATION_OVERHEAD;
            if bytes <= MAX_VIOLATION_BYTES {
                let violation = FieldViolation::new(violation.field, violation.description);
                problem.violations.push(violation);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            let more = format!("{left_out} more are not listed");
            problem.violations.push(FieldViolation::new("", more));
        }
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_retryable() => Self::unavailable(),
            other => Self::internal(&other),
        }
    }
}

/// Returns the reason as in `ErrorInfo.reason`: without the prefix `ERROR_REASON_`.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// Returns whether a status judges the call. Other failures say nothing about the caller: a limit, a deadline, an outage, a fault.
pub(super) fn is_rejection(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Unauthenticated
    )
}

/// Returns the reason of a status from another service of Accord; `None` if it carries none.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    let name = format!("ERROR_REASON_{}", info.reason);
    ErrorReason::from_str_name(&name).filter(|_| info.domain == DOMAIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_details_hold_the_reason_and_every_violation() {
        let mut violations = Violations::default();
        violations.add("a", "is bad");
        violations.add("b[1]", "is worse");
        let status: Status = violations.into();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason_of(&status), Some(ErrorReason::InvalidFields));
        let bad = status.get_details_bad_request().unwrap();
        let fields: Vec<_> = bad.field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["a", "b[1]"]);
    }

    #[test]
    fn violations_that_do_not_fit_a_header_are_counted() {
        let mut violations = Violations::default();
        for index in 0..1_000 {
            violations.add(format!("scopes[{index}].reason"), "must have 1 to 500 characters");
        }
        let status: Status = violations.into();
        assert!(header_bytes(&status) < 8 * 1024);
        let bad = status.get_details_bad_request().unwrap();
        let (last, listed) = bad.field_violations.split_last().unwrap();
        assert!(listed.len() > 60);
        let left_out = 1_000 - listed.len();
        assert_eq!(last.description, format!("{left_out} more are not listed"));
    }

    #[test]
    fn no_status_exceeds_8_kib_of_headers() {
        for description in ["", "is bad", &"\u{e9}".repeat(200), &"x".repeat(5_000)] {
            let mut violations = Violations::default();
            for index in 0..10_000 {
                violations.add(format!("f[{index}]"), description);
            }
            assert!(header_bytes(&violations.into()) < 8 * 1024, "{description}");
        }
        let long = Problem::new(Code::NotFound, ErrorReason::NotFound, "\u{1f600}".repeat(1_000));
        assert!(header_bytes(&long.into()) < 8 * 1024);
    }

    /// The size of a response's headers as HTTP/2 counts it (RFC 9113 section 6.5.2), with a request id.
    fn header_bytes(status: &Status) -> usize {
        let mut response = status.clone().into_http::<()>();
        let id = "x".repeat(64).parse().unwrap();
        response.headers_mut().insert("x-request-id", id);
        let size =
            |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 32;
        ":status200".len() + 32 + response.headers().iter().map(size).sum::<usize>()
    }

    #[test]
    fn an_internal_error_shows_an_id_and_no_source() {
        let status: Status = Problem::internal(&std::io::Error::other("disk full at sector 7")).into();
        assert!(!status.message().contains("sector"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "INTERNAL");
        assert!(status.message().contains(&info.metadata["error_id"]));
    }

    #[test]
    fn unavailable_has_retry_info() {
        let status: Status = Problem::unavailable().into();
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(RETRY_UNAVAILABLE));
    }
}
