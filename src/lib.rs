//! The code that both services of Accord share, and the contracts generated from `proto/`.
//!
//! [`rpc`] accepts calls, enforces deadlines, authenticates callers, and converts errors to statuses. [`store`] is the
//! common part of both databases. [`keys`], [`text`], [`position`] and [`clock`] define the values that they use.
//!
//! Features: `service` (default) is everything; `verify` is what a resource server needs to check access tokens,
//! without database or server; `testing` adds temporary databases.

/// The contract of the audit record, which both services serve.
pub mod audit {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.audit.v1");
    }
}

/// The contract of error reasons.
pub mod error {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.error.v1");
    }
}

/// The contract of registry-service.
pub mod registry {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("accord.registry.v1");
    }
}

/// The contract of token-service.
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

/// The encoded descriptors of every proto file, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/accord.bin"));

#[cfg(feature = "verify")]
pub mod clock;
#[cfg(feature = "verify")]
pub mod dpop;
#[cfg(feature = "service")]
pub mod keys;
#[cfg(feature = "verify")]
pub mod lock;
#[cfg(feature = "service")]
pub mod log_limit;
#[cfg(feature = "service")]
pub mod metrics;
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
pub mod tlog;
#[cfg(feature = "verify")]
pub mod tls;
#[cfg(feature = "verify")]
pub mod verify;
