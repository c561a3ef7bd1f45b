//! What a Tenant Admin and a partner see in a real browser, and that nobody is kept from using it.

mod access;
mod enrolment;
mod harness_holds;
mod integrations;
mod links;
mod looks;
mod partner_site;
mod screen;
mod setup;
mod stage;
