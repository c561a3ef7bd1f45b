//! The `accord` command: the development environment, and the demonstration of the whole process.
//!
//! It is also a library, so that the demonstration is the first end-to-end test.

pub mod audit;
pub mod call;
pub mod certs;
pub mod demo;
pub mod descriptors;
pub mod dev;
pub mod dev_file;
pub mod resource;
