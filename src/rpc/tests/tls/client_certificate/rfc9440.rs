//! What gateways write into `Client-Cert` and `Client-Cert-Chain`.

#![allow(clippy::unwrap_used)]

use base64::engine::general_purpose;

use super::*;
use crate::{
    testing::certificates::{Authority, Subject},
    tls::pem,
};

fn sequence(pem: &str) -> String {
    let der = pem::certificates(pem.as_bytes()).unwrap();
    format!(":{}:", general_purpose::STANDARD.encode(&der[0]))
}

fn read_all(headers: &[(&'static str, &str)]) -> Result<Option<ClientCertificate>, &'static str> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    read(&map)
}

#[test]
fn the_certificate_and_its_chain_are_byte_sequences() {
    let authority = Authority::new("partner");
    let cert = sequence(&authority.issue(&Subject::default()).certificate);
    let ca = sequence(&authority.certificate);
    let alone = read_all(&[("client-cert", &cert)]).unwrap().unwrap();
    assert_eq!(alone.chain().len(), 1);
    let unpadded = cert.trim_end_matches(':').trim_end_matches('=').to_owned() + ":";
    for headers in [
        vec![("client-cert", &*unpadded), ("client-cert-chain", &*ca)],
        vec![("client-cert-chain", &ca), ("client-cert", &cert)],
    ] {
        let with_chain = read_all(&headers).unwrap().unwrap();
        assert_eq!(with_chain.der(), alone.der());
        assert_eq!(with_chain.chain().len(), 2);
    }
    let chain = format!("{ca}, {ca}");
    let headers = [
        ("client-cert", &*cert),
        ("client-cert-chain", &chain),
        ("client-cert-chain", &ca),
    ];
    assert_eq!(read_all(&headers).unwrap().unwrap().chain().len(), 4);
    assert_eq!(read_all(&[]), Ok(None));
}

#[test]
fn what_is_not_one_certificate_is_rejected() {
    let authority = Authority::new("partner");
    let cert = sequence(&authority.issue(&Subject::default()).certificate);
    let list = format!("{cert},{cert}");
    let encoded = cert.replace('+', "%2B").replace(':', "%3A");
    let bare = cert.trim_matches(':').to_owned();
    let parameter = format!("{cert};a=1");
    let cut = format!("{}:", &cert[..200]);
    for (headers, rule) in [
        (vec![("client-cert", &*list)], ONE),
        (vec![("client-cert", &*cert), ("client-cert", &*cert)], ONE),
        (vec![("client-cert-chain", &*cert)], ONE),
        (vec![("client-cert", &*encoded)], MALFORMED),
        (vec![("client-cert", &*bare)], MALFORMED),
        (vec![("client-cert", &*parameter)], MALFORMED),
        (vec![("client-cert", &*cut)], MALFORMED),
        (vec![("client-cert", "::")], MALFORMED),
        (vec![("client-cert", "")], MALFORMED),
        (
            vec![("client-cert", &*cert), ("client-cert-chain", "")],
            MALFORMED_CHAIN,
        ),
        (
            vec![("client-cert", &*cert), ("client-cert-chain", &*bare)],
            MALFORMED_CHAIN,
        ),
    ] {
        assert_eq!(read_all(&headers), Err(rule), "{headers:?}");
    }
}
