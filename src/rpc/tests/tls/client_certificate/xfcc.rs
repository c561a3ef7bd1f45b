//! What gateways, and those who attack them, write into `X-Forwarded-Client-Cert`.

#![allow(clippy::unwrap_used)]

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use crate::testing::certificates::{Authority, Subject};

fn encoded(pem: &str) -> String {
    utf8_percent_encode(pem, NON_ALPHANUMERIC).to_string()
}

fn read_all(values: &[String]) -> Result<Option<ClientCertificate>, &'static str> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(NAME, value.parse().unwrap());
    }
    read(&headers)
}

fn read_one(value: &str) -> Result<Option<ClientCertificate>, &'static str> {
    read_all(&[value.to_owned()])
}

fn der(pem: &str) -> Vec<u8> {
    pem::certificates(pem.as_bytes()).unwrap()[0].to_vec()
}

#[test]
fn the_certificate_is_that_of_cert_whatever_the_subject_says() {
    let authority = Authority::new("partner");
    let (pem, other) = (
        authority.issue(&Subject::default()).certificate,
        authority.issue(&Subject::default()).certificate,
    );
    let (cert, evil) = (encoded(&pem), encoded(&other));
    for value in [
        format!("Cert={cert}"),
        format!("Cert=\"{cert}\""),
        format!("cert=\"{cert}\";Chain=\"{cert}\""),
        format!("By=spiffe://a/b;Hash=00;Cert=\"{cert}\";Subject=\"CN=x,O=y\";URI=;DNS=a;DNS=b"),
        // What the client's authority wrote into the subject.
        format!("Hash=00;Subject=\"CN=x\\\";Cert={evil};O=\\\"\";Cert=\"{cert}\""),
        format!("Subject=\"CN=\\\\\";Cert=\"{cert}\""),
    ] {
        let certificate = read_one(&value).unwrap().unwrap();
        assert_eq!(certificate.der(), der(&pem), "{value}");
        assert_eq!(certificate.chain().len(), 1);
    }
    let chain = encoded(&format!("{pem}{}", authority.certificate));
    let with_chain = read_one(&format!("Cert=\"{cert}\";Chain=\"{chain}\""))
        .unwrap()
        .unwrap();
    assert_eq!(with_chain.der(), der(&pem));
    assert_eq!(with_chain.chain().len(), 2);
    assert_eq!(read_all(&[]), Ok(None));
}

#[test]
fn what_is_not_one_certificate_is_rejected() {
    let authority = Authority::new("partner");
    let pem = authority.issue(&Subject::default()).certificate;
    let other = encoded(&authority.issue(&Subject::default()).certificate);
    let cert = encoded(&pem);
    let both = encoded(&format!("{pem}{pem}"));
    let good = format!("Cert=\"{cert}\"");
    for (values, rule) in [
        (vec![format!("{good},{good}")], SEVERAL),
        (vec![format!("{good}, By=x")], SEVERAL),
        (vec![format!("Hash=0,{good}")], SEVERAL),
        (vec![good.clone(), good.clone()], SEVERAL),
        (vec![format!("{good};{good}")], WITHOUT),
        (vec!["Hash=00;Subject=\"CN=x\"".to_owned()], WITHOUT),
        (vec![format!("Chain=\"{cert}\"")], WITHOUT),
        (vec![format!("Cert=\"{both}\"")], WITHOUT),
        (vec![format!("{good};Chain=\"{other}\"")], MALFORMED),
        (vec![format!("{good}x")], MALFORMED),
        (vec![format!("Cert=\"{cert}")], MALFORMED),
        (vec![format!("Cert={cert}\"")], MALFORMED),
        (vec![format!("{good};")], MALFORMED),
        (vec!["x".to_owned()], MALFORMED),
        (vec![String::new()], MALFORMED),
        (vec![format!("={cert}")], MALFORMED),
        (vec!["Cert=".to_owned()], NOT_PEM),
        (vec![format!("Cert={}", encoded(&cert))], NOT_PEM),
        (vec![format!("Cert={}", &cert[..cert.len() / 2])], NOT_PEM),
        (vec!["Cert=%ff%fe".to_owned()], NOT_PEM),
        (
            vec![format!("Cert={}", encoded(&pem.replace("MII", "AAA")))],
            NOT_PEM,
        ),
    ] {
        assert_eq!(read_all(&values), Err(rule), "{values:?}");
    }
    let long = encoded(&pem.repeat(9));
    let many = read_one(&format!("{good};Chain=\"{long}\""));
    assert_eq!(many, Err(NOT_PEM), "too long a chain");
}
