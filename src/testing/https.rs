//! A web server of one answer, over https on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::certificates::{Authority, Subject};

/// The bytes of an answer with this body.
pub fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Gives the same answer to each request, and ends the connection. It ends with the runtime that it was started on.
#[derive(derive_more::Debug)]
pub struct HttpsServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Vouches for it.
    #[debug(skip)]
    pub authority: Authority,
    #[debug(skip)]
    answer: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

impl HttpsServer {
    /// Starts a server whose certificate has this name and the names of loopback. It answers each request with these bytes, and
    /// then keeps the connection open if `stays` is set.
    pub async fn start(name: &'static str, answer: Vec<u8>, stays: bool) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let authority = Authority::new("public");
        let pair = authority.issue(&Subject {
            dns_names: vec![name, "localhost"],
            ..Subject::localhost()
        });
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.private_key.as_bytes()).unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, answers) = (connections.clone(), answer.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, answer) = (acceptor.clone(), answers.lock().unwrap().clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await.ok()?;
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.flush().await;
                    if stays {
                        std::future::pending::<()>().await;
                    }
                    stream.shutdown().await.ok()
                });
            }
        });
        Self {
            address,
            authority,
            answer,
            connections,
        }
    }

    /// Changes the answer to the requests that follow.
    pub fn set_answer(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
