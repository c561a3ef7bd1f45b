//! Values with a text form: ids and opaque tokens; field validation and pages.

use base64::{
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

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

/// Base64 with or without padding: structured fields may lack it (RFC 8941 §4.2.7), and some clients send Basic credentials
/// without it.
pub const BASE64_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
