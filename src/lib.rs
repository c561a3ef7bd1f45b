//! What both services of Accord share: the contracts generated from `proto/`, and the code that every call passes.
//!
//! [`rpc`] accepts a call, bounds it in time, authenticates its caller, and turns errors into statuses. [`store`] is
//! what both databases hold. [`keys`], [`text`], [`position`] and [`clock`] are the values that they are built on.
//!
//! Features: `service` (default) is all of it; `verify` is what a resource server needs to check
//! access tokens, without database or server; `testing` adds throw-away databases.

/// Contract of the audit record that both services serve.
pub mod audit {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.audit.v1");
    }
}

/// Contract of error reasons.
pub mod error {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.error.v1");
    }
}

/// Contract of registry-service.
pub mod registry {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.registry.v1");
    }
}

/// Contract of token-service.
pub mod token {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.token.v1");
    }
}

include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));

// The generated clients and servers name their codec by this path.
#[cfg(feature = "service")]
use rpc::codec::Codec;
#[cfg(not(feature = "service"))]
use tonic_prost::ProstCodec as Codec;

/// Whether a message's JSON leaves a field out.
fn is_unset<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// The descriptors of every proto file, encoded, as reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/accord.bin"));

#[cfg(feature = "verify")]
pub mod clock;
#[cfg(feature = "service")]
pub mod keys;
#[cfg(feature = "service")]
pub mod position;
#[cfg(feature = "service")]
pub mod random;
#[cfg(feature = "service")]
pub mod rpc;
#[cfg(feature = "service")]
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "service")]
pub mod text;
#[cfg(feature = "verify")]
pub mod verify;
