//! Files that change while a server runs.

use super::*;

/// What the reloader finds at a look.
fn files(directory: &Path) -> Result<Files, TlsProblem> {
    Files::read(&settings(directory))
}

#[tokio::test]
async fn changed_files_count_once_two_looks_found_the_same() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_tls(&authority, directory.path());
    let mut reloader = Reloader::new(&tls);
    let mut look = |at_once| reloader.reload(files(directory.path()), at_once);
    look(false);
    let first = presented(&tls, &authority).await;
    let next = authority.issue(&Subject::localhost());
    next.write(directory.path(), "server");
    look(false);
    assert_eq!(presented(&tls, &authority).await, first);
    look(false);
    assert_eq!(presented(&tls, &authority).await, der(&next));
    // SIGHUP does not wait.
    let last = authority.issue(&Subject::localhost());
    last.write(directory.path(), "server");
    look(true);
    assert_eq!(presented(&tls, &authority).await, der(&last));
}

#[tokio::test]
async fn files_that_can_not_be_used_change_nothing_until_they_can() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_tls(&authority, directory.path());
    let mut reloader = Reloader::new(&tls);
    let first = presented(&tls, &authority).await;
    let next = authority.issue(&Subject::localhost());
    let at = |name: &str| directory.path().join(name);
    // Half a file, then a pair that does not match, then no file.
    for step in 0..3 {
        match step {
            0 => fs::write(at(CERTIFICATE_FILE), &next.certificate[..300]).unwrap(),
            1 => fs::write(at(CERTIFICATE_FILE), &next.certificate).unwrap(),
            _ => fs::remove_file(at(KEY_FILE)).unwrap(),
        }
        for at_once in [false, false, true] {
            reloader.reload(files(directory.path()), at_once);
            assert_eq!(presented(&tls, &authority).await, first, "{step}");
        }
    }
    next.write(directory.path(), "server");
    reloader.reload(files(directory.path()), false);
    reloader.reload(files(directory.path()), false);
    assert_eq!(presented(&tls, &authority).await, der(&next));
}

#[tokio::test]
async fn authorities_that_can_not_be_used_hold_up_no_certificate() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let at = |name: &str| directory.path().join(name);
    let (partners, others) = (Authority::new("partners"), Authority::new("others"));
    partners.write(directory.path(), "partner-ca.pem");
    server_tls(&authority, directory.path());
    let settings = TlsSettings {
        partner_ca: at("partner-ca.pem"),
        ..settings(directory.path())
    };
    let tls = ServerTls::load(settings.clone(), test_clock()).unwrap().unwrap();
    let mut reloader = Reloader::new(&tls);
    let before = tls.current();
    let id = Subject::spiffe("spiffe://accord.example/gateway");
    // An authority of partners among those of callers, and the reverse; no file, half a file.
    for (name, content) in [
        (CA_FILE, Some(partners.certificate.clone())),
        ("partner-ca.pem", None),
        ("partner-ca.pem", Some(others.certificate[..300].to_owned())),
        ("partner-ca.pem", Some(authority.certificate.clone())),
        (CA_FILE, None),
        (CA_FILE, Some("nothing".to_owned())),
    ] {
        authority.write(directory.path(), CA_FILE);
        partners.write(directory.path(), "partner-ca.pem");
        match &content {
            Some(content) => fs::write(at(name), content).unwrap(),
            None => fs::remove_file(at(name)).unwrap(),
        }
        let next = authority.issue(&Subject::localhost());
        next.write(directory.path(), "server");
        for _ in 0..2 {
            reloader.reload(Files::read(&settings), false);
        }
        assert_eq!(
            presented(&tls, &authority).await,
            der(&next),
            "{name} {content:?}"
        );
        assert_eq!(
            tls.current().authorities,
            before.authorities,
            "{name} {content:?}"
        );
        assert!(!before.retired.is_cancelled(), "{name} {content:?}");
        // SIGHUP says it again.
        assert!(tls.current().put_back.is_some(), "{name} {content:?}");
        let known = client(&authority, Some(&authority.issue(&id)));
        assert!(shake_hands(&tls, known).await.server.is_ok());
    }
    partners.write(directory.path(), "partner-ca.pem");
    others.write(directory.path(), CA_FILE);
    reloader.reload(Files::read(&settings), true);
    let known = client(&authority, Some(&others.issue(&id)));
    assert!(shake_hands(&tls, known).await.server.is_ok());
    assert!(before.retired.is_cancelled());
    assert_eq!(tls.current().put_back, None);
}

#[tokio::test]
async fn files_swapped_by_a_link_above_them_are_noticed() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let at = |name: &str| directory.path().join(name);
    let pairs = [(); 2].map(|()| authority.issue(&Subject::localhost()));
    for (name, pair) in ["..1", "..2"].into_iter().zip(&pairs) {
        fs::create_dir(at(name)).unwrap();
        pair.write(&at(name), "server");
        authority.write(&at(name), CA_FILE);
    }
    symlink("..1", at("..data")).unwrap();
    for name in [CERTIFICATE_FILE, KEY_FILE, CA_FILE] {
        symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let tls = ServerTls::load(settings(directory.path()), test_clock())
        .unwrap()
        .unwrap();
    assert_eq!(presented(&tls, &authority).await, der(&pairs[0]));
    symlink("..2", at("..next")).unwrap();
    fs::rename(at("..next"), at("..data")).unwrap();
    let mut reloader = Reloader::new(&tls);
    reloader.reload(files(directory.path()), false);
    reloader.reload(files(directory.path()), false);
    assert_eq!(presented(&tls, &authority).await, der(&pairs[1]));
}

#[tokio::test]
async fn other_client_authorities_retire_the_old_ones_and_another_certificate_does_not() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_tls(&authority, directory.path());
    let mut reloader = Reloader::new(&tls);
    let before = tls.current().retired.clone();
    authority
        .issue(&Subject::localhost())
        .write(directory.path(), "server");
    reloader.reload(files(directory.path()), true);
    assert!(!before.is_cancelled());
    assert!(!tls.current().retired.is_cancelled());
    let other = Authority::new("other");
    other.write(directory.path(), CA_FILE);
    reloader.reload(files(directory.path()), true);
    assert!(before.is_cancelled());
    assert!(!tls.current().retired.is_cancelled());
    let id = Subject::spiffe("spiffe://accord.example/gateway");
    let old = client(&authority, Some(&authority.issue(&id)));
    assert!(shake_hands(&tls, old).await.server.is_err());
    let new = client(&authority, Some(&other.issue(&id)));
    assert!(shake_hands(&tls, new).await.server.is_ok());
}
