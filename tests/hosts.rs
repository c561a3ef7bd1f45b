//! Accord on several hosts, as network namespaces: the three-host form of OPERATIONS.

pub mod faults;
mod gateway;
mod identities;
mod installation;
mod load;
pub mod network;
mod node;
mod postgres;
pub mod resource_server;
mod settings;
pub mod six_steps;
