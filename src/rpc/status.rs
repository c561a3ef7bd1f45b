//! The one way in which Accord makes a gRPC status: code, reason, and the details of
//! `google.rpc` (`ErrorInfo`, `BadRequest`, `RetryInfo`).
//!
//! Each service maps its own error enum to a [`Problem`]; nothing else makes a status.

use std::{collections::HashMap, error::Error, time::Duration};

use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

pub use crate::error::v1::ErrorReason;
use crate::{store::StoreError, text::validation::Violations};

/// The domain of every `ErrorInfo` that Accord sends.
pub const DOMAIN: &str = "accord";

/// How long a caller should wait before it tries again, when a source does not answer.
pub const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);
/// The most bytes of violations in an answer: details travel in a header, and callers take 16 KiB of those.
const MAX_VIOLATION_BYTES: usize = 8 * 1024;
/// What a violation takes besides its texts, in bytes.
const VIOLATION_OVERHEAD: usize = 8;

/// What a method of a gRPC service returns.
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
    /// Begins a problem. `message` is for a developer's eyes and holds nothing secret.
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds an entry of `ErrorInfo.metadata`.
    pub fn metadata(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds `RetryInfo`.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// INVALID_ARGUMENT/INVALID_FIELDS with every violation.
    pub fn invalid_fields(violations: Violations) -> Self {
        let mut problem = Self::new(
            Code::InvalidArgument,
            ErrorReason::InvalidFields,
            "one or more fields are not valid; the details list them all",
        );
        let mut room = MAX_VIOLATION_BYTES;
        let violations = violations.into_vec();
        let fit = violations.iter().take_while(|violation| {
            let bytes = violation.field.len() + violation.description.len() + VIOLATION_OVERHEAD;
            room = room.saturating_sub(bytes);
            room > 0
        });
        let fit: Vec<_> = fit
            .map(|violation| FieldViolation::new(&violation.field, &violation.description))
            .collect();
        let left_out = violations.len() - fit.len();
        problem.violations = fit;
        if left_out > 0 {
            let more = format!("{left_out} more are not listed");
            problem.violations.push(FieldViolation::new("", more));
        }
        problem
    }

    /// NOT_FOUND for a resource of this kind.
    pub fn not_found(resource: &str) -> Self {
        Self::new(
            Code::NotFound,
            ErrorReason::NotFound,
            format!("no such {resource}"),
        )
        .metadata("resource", resource)
    }

    /// UNAVAILABLE with `RetryInfo`: a database or another service does not answer.
    pub fn unavailable() -> Self {
        Self::new(
            Code::Unavailable,
            ErrorReason::Unavailable,
            "a service that this call depends on does not answer",
        )
        .retry_after(RETRY_UNAVAILABLE)
    }

    /// DEADLINE_EXCEEDED: the caller's time, or ours, is up.
    pub fn deadline_exceeded() -> Self {
        Self::new(
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            "the deadline passed; a change may or may not have happened",
        )
    }

    /// UNIMPLEMENTED/NOT_AVAILABLE for a part of the contract that is still to come.
    pub fn not_available(what: &str) -> Self {
        Self::new(
            Code::Unimplemented,
            ErrorReason::NotAvailable,
            format!("{what} is not available yet"),
        )
    }

    /// INTERNAL. Logs `source` under an error id, which is all that the caller sees.
    pub fn internal(source: &(dyn Error + 'static)) -> Self {
        let error_id = uuid::Uuid::new_v4().to_string();
        tracing::error!(error_id, error = %ErrorChain(source), "internal error");
        Self::new(
            Code::Internal,
            ErrorReason::Internal,
            format!("internal error {error_id}"),
        )
        .metadata("error_id", error_id)
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

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        Self::invalid_fields(violations)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable => {
                tracing::warn!("the database does not answer");
                Self::unavailable()
            }
            other => Self::internal(&other),
        }
    }
}

/// The reason as `ErrorInfo.reason` holds it: without the `ERROR_REASON_` prefix.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The reason of a status that another service of Accord sent; `None` if it carries none.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}

/// Prints an error and its sources on one line.
struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_violation_and_the_reason_travel_in_the_details() {
        let mut violations = Violations::default();
        violations.add("a", "is bad");
        violations.add("b[1]", "is worse");
        let status: Status = Problem::invalid_fields(violations).into();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason_of(&status), Some(ErrorReason::InvalidFields));
        let bad = status.get_details_bad_request().unwrap();
        let fields: Vec<_> = bad.field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["a", "b[1]"]);
    }

    #[test]
    fn violations_that_no_header_holds_are_counted() {
        let mut violations = Violations::default();
        for index in 0..1_000 {
            violations.add(format!("scopes[{index}].reason"), "must have 1 to 500 characters");
        }
        let status: Status = Problem::invalid_fields(violations).into();
        assert!(status.details().len() < 12 * 1024, "{}", status.details().len());
        let bad = status.get_details_bad_request().unwrap();
        let (last, listed) = bad.field_violations.split_last().unwrap();
        assert!(listed.len() > 100);
        let left_out = 1_000 - listed.len();
        assert_eq!(last.description, format!("{left_out} more are not listed"));
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
    fn unavailable_says_when_to_try_again() {
        let status: Status = Problem::unavailable().into();
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(RETRY_UNAVAILABLE));
    }
}
