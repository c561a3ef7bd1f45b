//! Certificates as authorities and partners make them.

#![allow(clippy::unwrap_used)]

use accord::testing::certificates::{Authority, DnType, Pair, Subject};

use super::*;

fn subject() -> Subject {
    Subject {
        name: vec![
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "Partner, Inc."),
            (DnType::CommonName, "Api  Client"),
        ],
        dns_names: vec!["api.partner.example", "*.partner.example"],
        uris: vec!["https://partner.example/Client"],
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        emails: vec!["Ops@partner.example"],
        ..Subject::default()
    }
}

fn der(pair: &Pair) -> Vec<u8> {
    pair.der()
}

#[test]
fn a_subject_is_compared_as_its_kind_says() {
    use CertificateSubject::{Dn, Dns, Email, Ip, Uri};
    let certificate = der(&Authority::new("partner").issue(&subject()));
    let ip = |text: &str| Ip(text.parse().unwrap());
    for named in [
        Dn("CN=Api Client,O=Partner\\, Inc.,C=CH".into()),
        Dn("cn=api client,o=PARTNER\\2c inc.,c=ch".into()),
        Dns("API.partner.example".into()),
        Dns("*.partner.example".into()),
        Uri("https://partner.example/Client".into()),
        ip("192.0.2.7"),
        ip("2001:db8::7"),
        Email("Ops@PARTNER.example".into()),
    ] {
        assert!(named.is_of(&certificate), "{named:?}");
    }
    for other in [
        Dn("C=CH,O=Partner\\, Inc.,CN=Api Client".into()),
        Dn("CN=Api Client,O=Partner\\, Inc.".into()),
        Dn("CN=Api Client".into()),
        Dn(String::new()),
        Dn("nonsense".into()),
        Dns("other.partner.example".into()),
        Dns("partner.example".into()),
        // A name of another kind.
        Dns("https://partner.example/Client".into()),
        Dns("192.0.2.7".into()),
        Uri("https://partner.example/client".into()),
        Uri("api.partner.example".into()),
        ip("192.0.2.8"),
        ip("::ffff:192.0.2.7"),
        Email("ops@partner.example".into()),
        Email("partner.example".into()),
    ] {
        assert!(!other.is_of(&certificate), "{other:?}");
    }
    let nameless = der(&Authority::new("partner").issue(&Subject::default()));
    assert!(!Dns("api.partner.example".into()).is_of(&nameless));
    assert!(!Dn("CN=Api Client".into()).is_of(&nameless));
    assert!(!Dns("api.partner.example".into()).is_of(b"x"));
}
