//! Values with a text form: ids and opaque tokens; field validation and pages.

pub mod caller;
pub mod id;
pub mod opaque;
pub mod page;
pub mod uri;
pub mod validation;
