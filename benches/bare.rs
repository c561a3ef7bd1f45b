//! The limits: servers that do the one thing nobody can leave out, signing or verifying, and nothing
//! else. No client is authenticated, no grant is looked up, nothing is kept.

pub mod grpc;
pub mod http;
pub mod signer;
pub mod verifier;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::child::{self, Helper, Role};

/// What a bare server says when it can be called.
#[derive(Serialize, Deserialize)]
struct Listening {
    address: SocketAddr,
}

/// In a bare server: listens, and says where.
async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    child::tell(&Listening {
        address: listener.local_addr()?,
    })?;
    child::end_with_parent();
    Ok(listener)
}

/// A bare server that runs.
pub struct Bare {
    helper: Helper,
    /// Where it listens.
    pub address: String,
}

impl Bare {
    /// Starts one. `configuration` is what it reads first.
    pub async fn start(role: Role, configuration: &impl Serialize) -> anyhow::Result<Self> {
        let mut helper = Helper::start(role)?;
        helper.tell(configuration).await?;
        let Listening { address } = helper.hear().await?;
        Ok(Self {
            helper,
            address: address.to_string(),
        })
    }

    pub fn pid(&self) -> anyhow::Result<u32> {
        self.helper.pid()
    }
}
