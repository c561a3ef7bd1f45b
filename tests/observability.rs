//! What an on-call engineer sees: scrapes, readiness, traces, alerts.

pub mod alerts;
mod chart;
pub mod dashboard;
pub mod scrape;
pub mod traces;
