//! Facts served from memory for as long as they are known to hold.

mod bounded;
mod follower;
pub mod grants;
pub mod lease;
pub mod registry;
pub mod revocation_index;
