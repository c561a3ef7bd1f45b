//! Authenticates clients, Tenant Admins and callers. The decisions here need argon2 or more than one transaction.

pub mod client;
pub mod tenant_admin;
#[cfg(test)]
mod timing;
