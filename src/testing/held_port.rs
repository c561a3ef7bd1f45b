//! A port that is reserved for a server which another process starts.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// Reserves a port of the loopback address for a server whose address must be known before its listener exists.
///
/// The socket is bound and never listens. A server that sets `SO_REUSEADDR`, as this socket does, can listen there, and
/// again after a restart. Without it, another process could take the port in between: the kernel gives a port of which no
/// socket is left to whoever asks for any.
#[derive(Debug)]
pub struct HeldPort(TcpSocket);

impl HeldPort {
    /// Takes a free port.
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self(socket)
    }

    /// Returns where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_held_port_goes_only_to_who_names_it() {
        let held = HeldPort::reserve();
        let others: Vec<_> = (0..2_000)
            .map_while(|_| TcpListener::bind("127.0.0.1:0").ok())
            .collect();
        let address = held.address();
        assert!(others.iter().all(|other| other.local_addr().unwrap() != address));
        for _ in 0..2 {
            TcpListener::bind(address).unwrap();
        }
    }
}
