//! Finds the certificate that a partner's client presented: on the connection itself, or to the gateway in front, which
//! passes it on in one header.
//!
//! It must not decide what the certificate proves. Bodies never hold a certificate, because gateways pass them on.

use axum::http::{Extensions, HeaderMap};
use tonic::{Code, Status};

use crate::rpc::{
    auth::ConnectionCaller,
    status::{ErrorReason, Problem},
    tls::peer::ClientCertificate,
};

mod rfc9440;
mod xfcc;

/// The header in which a gateway passes on the certificate of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateHeader {
    /// `X-Forwarded-Client-Cert`, as Envoy writes it.
    Xfcc,
    /// `Client-Cert` with `Client-Cert-Chain` (RFC 9440).
    ClientCert,
}

impl CertificateHeader {
    /// Parses `xfcc` or `client-cert`. `none`, and an empty text, mean that no header counts.
    ///
    /// # Errors
    /// The rule that another text breaks.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        match text {
            "" | "none" => Ok(None),
            "xfcc" => Ok(Some(Self::Xfcc)),
            "client-cert" => Ok(Some(Self::ClientCert)),
            _ => Err("must be xfcc, client-cert or none"),
        }
    }

    fn read(self, headers: &HeaderMap) -> Result<Option<ClientCertificate>, &'static str> {
        match self {
            Self::Xfcc => xfcc::read(headers),
            Self::ClientCert => rfc9440::read(headers),
        }
    }
}

/// Finds the certificates of clients. By default, on their connections alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates(Option<CertificateHeader>);

impl ClientCertificates {
    /// Takes certificates from connections and, if `header` is set, from that header of a gateway's connections.
    pub fn new(header: Option<CertificateHeader>) -> Self {
        Self(header)
    }

    /// Returns the certificate of the client that made this request, if it presented one. On a connection that is not
    /// a gateway's, the header is ignored, because anybody can send it there.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a header of a gateway that can't be read, and what the directory of callers answers if it fails.
    pub fn find(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Result<Option<ClientCertificate>, Status> {
        if let Some(certificate) = extensions.get::<ClientCertificate>() {
            return Ok(Some(certificate.clone()));
        }
        let connection = extensions.get::<ConnectionCaller>();
        let Some((header, connection)) = self.0.zip(connection) else {
            return Ok(None);
        };
        match header.read(headers) {
            Ok(None) => Ok(None),
            _ if !connection.is_gateway()? => Ok(None),
            Ok(certificate) => Ok(certificate),
            Err(rule) => Err(Problem::new(Code::InvalidArgument, ErrorReason::InvalidFields, rule).into()),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/tls/client_certificate/mod.rs"]
mod tests;
