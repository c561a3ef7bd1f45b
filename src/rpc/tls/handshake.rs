//! The handshake of an accepted connection, and what the log says if it fails.

use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    rustls::{AlertDescription, CertificateError, Error},
    server::TlsStream,
};

use super::{acceptor::Acceptor, peer::Peer};

/// The first byte of a connection of TLS: a record of the handshake (RFC 8446 section 5.1).
pub(in crate::rpc) const FIRST_BYTE: u8 = 22;

/// Accepts TLS. Returns the stream, and whose certificate the client presented if it presented one.
///
/// # Errors
/// The reason for the log. It holds nothing that the client sent.
pub(in crate::rpc) async fn accept(
    acceptor: Arc<Acceptor>,
    stream: TcpStream,
) -> Result<(Box<TlsStream<TcpStream>>, Option<Peer>), &'static str> {
    let accepted = acceptor.shake_hands(stream).await;
    let (stream, admits_partners) = accepted.map_err(|error| reason(&error))?;
    let (_, connection) = stream.get_ref();
    let presented = connection.peer_certificates().unwrap_or_default();
    let peer = acceptor.identify(presented, admits_partners);
    let peer = peer.ok_or("the client's certificate can't be read, or is a partner's")?;
    Ok((Box::new(stream), peer))
}

fn reason(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match tls {
        None => "the client ended the connection during the handshake",
        Some(Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate is not valid yet"
            }
            CertificateError::UnknownIssuer => {
                "the client's certificate is from none of the authorities in --client-ca"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the client's certificate is not for clients: its extended key usage lacks clientAuth, as that of many \
                 public authorities does"
            }
            _ => "the client's certificate is not valid",
        },
        Some(Error::AlertReceived(alert)) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate => {
                "the client does not accept this server's certificate: its authority or its names are wrong"
            }
            AlertDescription::CertificateExpired => {
                "the client says that this server's certificate has expired"
            }
            _ => "the client ended the handshake with an alert",
        },
        Some(Error::PeerIncompatible(_)) => "the client offers no version and cipher suite of this server",
        Some(Error::NoApplicationProtocol) => "the client offers no protocol of this listener (ALPN)",
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => "the client sent no valid TLS",
        Some(_) => "the handshake failed",
    }
}
