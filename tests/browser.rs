//! What a Tenant Admin and a partner see in a real browser, and that everybody can use it.

pub mod access;
pub mod clicks;
pub mod enrolment;
pub mod harness_holds;
pub mod integrations;
pub mod links;
pub mod looks;
pub mod partner_site;
pub mod screen;
pub mod setup;
mod stage;
