//! Whom the authorities of partners vouch for.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::*;
use crate::{
    testing::{
        TEST_START,
        certificates::{Authority, Pair, Subject},
    },
    tls::pem,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn certificate(pems: &[&str]) -> ClientCertificate {
    let chain: Vec<CertificateDer<'_>> = pems
        .iter()
        .flat_map(|pem| pem::certificates(pem.as_bytes()).unwrap())
        .collect();
    ClientCertificate::read(&chain).unwrap()
}

fn one(pair: &Pair) -> ClientCertificate {
    certificate(&[&pair.certificate])
}

#[test]
fn a_certificate_is_of_these_authorities_for_clients_and_valid_now() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("partners");
    let path = authority.write(directory.path(), "partners.pem");
    let authorities = PartnerAuthorities::load(&path, Path::new("")).unwrap();
    let verify = |pair: &Pair| authorities.verify(&one(pair), TEST_START);
    assert_eq!(verify(&authority.issue(&Subject::default())), Ok(()));
    // The chain may hold the authority too.
    let pair = authority.issue(&Subject::default());
    let chain = certificate(&[&pair.certificate, &authority.certificate]);
    assert_eq!(authorities.verify(&chain, TEST_START), Ok(()));
    for (subject, reason) in [
        (
            Subject {
                not_after: TEST_START.minus(DAY),
                ..Subject::default()
            },
            "the certificate has expired",
        ),
        (
            Subject {
                not_before: TEST_START.plus(DAY),
                ..Subject::default()
            },
            "the certificate is not valid yet",
        ),
        (
            Subject {
                is_for_clients: false,
                ..Subject::default()
            },
            "the certificate is not for clients: its extended key usage lacks clientAuth",
        ),
    ] {
        assert_eq!(verify(&authority.issue(&subject)), Err(reason));
    }
    let imitated = Authority::new("partners").issue(&Subject::default());
    // Its issuer is named like the authority.
    assert_eq!(verify(&imitated), Err(INVALID));
    let unknown = Err("the certificate is from none of the authorities in --partner-ca");
    // Whoever brings its own authority along.
    let stranger = Authority::new("stranger");
    let pair = stranger.issue(&Subject::default());
    let chain = certificate(&[&pair.certificate, &stranger.certificate]);
    assert_eq!(authorities.verify(&chain, TEST_START), unknown);
}

#[test]
fn the_authorities_of_workloads_are_none_of_partners() {
    let directory = tempfile::tempdir().unwrap();
    let (partners, workloads) = (Authority::new("partners"), Authority::new("workloads"));
    let client_ca = workloads.write(directory.path(), "ca.pem");
    let path = partners.write(directory.path(), "partners.pem");
    assert!(PartnerAuthorities::load(&path, &client_ca).is_ok());
    let both = format!("{}{}", partners.certificate, workloads.certificate);
    std::fs::write(&path, both).unwrap();
    let problem = PartnerAuthorities::load(&path, &client_ca).unwrap_err();
    assert!(
        problem
            .to_string()
            .starts_with("--partner-ca holds an authority of --client-ca"),
        "{problem}"
    );
    // One of the same name that nobody else has signed is another one.
    Authority::new("workloads").write(directory.path(), "partners.pem");
    assert!(PartnerAuthorities::load(&path, &client_ca).is_ok());
    let authorities = PartnerAuthorities::load(&path, &client_ca).unwrap();
    let signed = workloads.intermediate("partners");
    for (of_partners, of_callers, rule) in [
        (
            &signed,
            &workloads,
            "holds an authority that one of --client-ca has signed: it would sign workloads too",
        ),
        (
            &workloads,
            &signed,
            "holds an authority that has signed one of --client-ca",
        ),
    ] {
        of_partners.write(directory.path(), "partners.pem");
        of_callers.write(directory.path(), "ca.pem");
        let problem = PartnerAuthorities::load(&path, &client_ca).unwrap_err();
        assert_eq!(problem.to_string(), format!("--partner-ca {rule}"));
        assert_eq!(authorities.reload(), Err(problem));
    }
    std::fs::write(&path, "x").unwrap();
    let problem = PartnerAuthorities::load(&path, &client_ca).unwrap_err();
    assert!(
        problem
            .to_string()
            .starts_with("--partner-ca must hold certificates"),
        "{problem}"
    );
}

#[test]
fn a_changed_file_counts_once_two_looks_found_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let path = old.write(directory.path(), "partners.pem");
    let authorities = PartnerAuthorities::load(&path, Path::new("")).unwrap();
    let (of_old, of_new) = (old.issue(&Subject::default()), new.issue(&Subject::default()));
    let trusted = |authorities: &PartnerAuthorities| {
        [&of_old, &of_new].map(|pair| authorities.verify(&one(pair), TEST_START).is_ok())
    };
    new.write(directory.path(), "partners.pem");
    authorities.reload().unwrap();
    assert_eq!(trusted(&authorities), [true, false]);
    authorities.reload().unwrap();
    assert_eq!(trusted(&authorities), [false, true]);
    std::fs::write(&path, "x").unwrap();
    for _ in 0..2 {
        let _ = authorities.reload();
    }
    assert!(authorities.reload().is_err());
    assert_eq!(trusted(&authorities), [false, true]);
}
