//! audit_service
