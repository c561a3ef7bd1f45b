//! Values with a text form: ids and opaque tokens; field validation and pages.

pub mod account_name;
pub mod caller;
pub mod distinguished_name;
pub mod id;
pub mod jwk;
pub mod network;
pub mod opaque;
pub mod page;
pub mod parts;
pub mod person;
pub mod release_code;
pub mod uri;
pub mod validation;
mod visible;
