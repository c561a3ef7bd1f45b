#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    store::audit::{Event, IssuedToken, Origin},
    testing::{TEST_START, test_clock, test_random},
    text::{id::ulid_at, opaque::sha256},
};

const UUID: &str = "0b9f2a1e-5d0c-4f4e-9a63-2f1a4c7d8e90";

fn origin(kind: ActorKind, id: &str, request_id: &str) -> Origin {
    Origin {
        actor: Actor {
            kind,
            id: id.to_owned(),
        },
        certificate: None,
        session: None,
        address: None,
        request_id: request_id.to_owned(),
    }
}

fn issued() -> Record {
    let id = |number| ulid_at(TEST_START, number);
    let client_id = ClientId::of(id(1));
    let token = IssuedToken {
        jti: EventId::of(id(2)),
        grant_id: GrantId::of(id(3)),
        user_id: UserId::of(id(4)),
        grant_type: GrantType::ClientCredentials,
        key_thumbprint: [7; 32],
        scope: "contacts.read contacts.write".to_owned(),
    };
    let event = Event::issued(token)
        .tenant(&TenantId::parse("acme").unwrap())
        .client(&client_id);
    let origin = origin(ActorKind::Client, client_id.as_str(), UUID);
    Record::new(&*test_clock(), &*test_random(), origin, event)
}

#[test]
fn an_event_names_the_certificate_and_the_session_of_its_actor() {
    let origin = Origin {
        certificate: Some("CN=ops spiffe://accord.example/ops".to_owned()),
        session: Some("c2Vzc2lvbg".to_owned()),
        ..origin(ActorKind::Operator, "opr_1", UUID)
    };
    let record = Record::new(
        &*test_clock(),
        &*test_random(),
        origin,
        Event::test("tenant.suspend"),
    );
    let detail = decode(&encode(&record)).unwrap().detail;
    let expected = [
        ("certificate", "CN=ops spiffe://accord.example/ops"),
        ("session", "c2Vzc2lvbg"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(detail, expected.into());
}

#[test]
fn an_issued_token_is_read_back_in_full() {
    let record = issued();
    let row = decode(&encode(&record)).unwrap();
    let detail = [
        ("grant_type", "client_credentials"),
        ("jti", record.event_id.as_str()),
        ("kid", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"),
        ("scope", "contacts.read contacts.write"),
        ("sub", UserId::of(ulid_at(TEST_START, 4)).as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = EventRow {
        position: None,
        event_id: record.event_id.clone(),
        occurred_at: TEST_START,
        action: "token.issue".to_owned(),
        outcome: Outcome::Success,
        actor: record.origin.actor.clone(),
        tenant_id: record.event.tenant_id.clone(),
        client_id: record.event.client_id.clone(),
        subject: Some(GrantId::of(ulid_at(TEST_START, 3)).to_string()),
        request_id: UUID.to_owned(),
        address: None,
        detail: detail.into(),
    };
    assert_eq!(row, expected);
}

/// What is stored and proven must not change: older events must still be read, and have their hashes.
#[test]
fn a_part_of_an_event_says_what_the_whole_says() {
    let addresses = [
        None,
        Some(CallerAddress::Forwarded([203, 0, 113, 7].into())),
        Some(CallerAddress::Peer([1; 16].into())),
    ];
    for address in addresses {
        let mut record = issued();
        record.origin.address = address;
        let bytes = encode(&record);
        let whole = decode(&bytes).unwrap();
        assert_eq!(EventId::of(id_and_renewal(&bytes).unwrap().0), whole.event_id);
        let expected = TokenUse {
            tenant_id: whole.tenant_id.unwrap(),
            grant_id: GrantId::parse(&whole.subject.unwrap()).unwrap(),
            issued_at: whole.occurred_at,
            scope: whole.detail["scope"].clone(),
            address,
        };
        assert_eq!(token_use(&bytes).unwrap(), Some(expected));
    }
}

#[test]
fn the_stored_form_stays_the_same() {
    let stored = "ChABm3baqAAAAAAAAAAAAAACEAEYAyoEYWNtZTIQAZt22qgAAAAAAAAAAAAAAToQC58qHl0MT06aYy8aTH2OkEpmChABm3ba\
        qAAAAAAAAAAAAAADEhABm3baqAAAAAAAAAAAAAAEGAMiIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHKhxjb250YWN0\
        cy5yZWFkIGNvbnRhY3RzLndyaXRl";
    assert_eq!(URL_SAFE_NO_PAD.encode(encode(&issued())), stored);
}

/// A build that does not know the field skips it: what it reads begins with what it would have written.
#[test]
fn a_renewal_comes_after_all_that_was_stored_before_and_is_read_back() {
    let mut record = issued();
    let without = encode(&record);
    assert_eq!(id_and_renewal(&without).unwrap().1, None);
    let renewal = Renewal {
        family_id: FamilyId::of(ulid_at(TEST_START, 5)),
        generation: 300,
    };
    record.event.renewal = Some(renewal.clone());
    let bytes = encode(&record);
    let added = URL_SAFE_NO_PAD.encode(bytes.strip_prefix(&*without).unwrap());
    assert_eq!(added, "ggEVChABm3baqAAAAAAAAAAAAAAFEKwC");
    assert_eq!(id_and_renewal(&bytes).unwrap().1, Some(renewal));
    assert_eq!(decode(&bytes).unwrap(), decode(&without).unwrap());
    assert_eq!(token_use(&bytes).unwrap(), token_use(&without).unwrap());
}

#[test]
fn an_address_takes_its_bytes_and_two_more_and_is_read_back() {
    let length = encode(&issued()).len();
    for (address, stored) in [
        (CallerAddress::Forwarded("192.0.2.7".parse().unwrap()), "agTAAAIH"),
        (CallerAddress::Peer("192.0.2.7".parse().unwrap()), "cgTAAAIH"),
        (
            CallerAddress::Forwarded("2001:db8::7".parse().unwrap()),
            "ahAgAQ24AAAAAAAAAAAAAAAH",
        ),
    ] {
        let mut record = issued();
        record.origin.address = Some(address);
        let bytes = encode(&record);
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes[length..]), stored, "{address:?}");
        assert_eq!(decode(&bytes).unwrap().address, Some(address));
    }
    // IPv4 in the form of IPv6 is IPv4.
    let mut record = issued();
    record.origin.address = Some(CallerAddress::Peer("::ffff:192.0.2.7".parse().unwrap()));
    let expected = Some(CallerAddress::Peer("192.0.2.7".parse().unwrap()));
    assert_eq!(decode(&encode(&record)).unwrap().address, expected);
}

#[test]
fn an_address_of_another_length_is_no_event() {
    let mut bytes = encode(&issued());
    bytes.extend([0x6a, 3, 1, 2, 3]);
    assert!(decode(&bytes).is_err());
}

#[test]
fn a_client_that_acts_on_another_is_read_back() {
    let clients = [1, 2].map(|number| ClientId::of(ulid_at(TEST_START, number)));
    for (kind, id) in [
        (ActorKind::Client, clients[0].as_str()),
        (ActorKind::Client, clients[1].as_str()),
        (ActorKind::Anonymous, ""),
        (ActorKind::System, "retention"),
    ] {
        let event = Event::test("client.suspend").client(&clients[0]);
        let record = Record::new(&*test_clock(), &*test_random(), origin(kind, id, ""), event);
        assert_eq!(decode(&encode(&record)).unwrap().actor, record.origin.actor);
    }
}

proptest! {
    #[test]
    fn any_texts_are_read_back(
        request_id in "[A-Za-z0-9_-]{0,64}|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}|[0-9a-fA-F]{32}",
        subject in proptest::option::of("\\PC{1,40}"),
        reason in "\\PC{0,200}",
        is_refused: bool,
    ) {
        let mut event = Event::test("client.suspend").detail("reason", reason.clone());
        event.subject = subject.clone();
        let event = if is_refused { event.refused() } else { event };
        let origin = origin(ActorKind::Operator, "opr_1", &request_id);
        let record = Record::new(&*test_clock(), &*test_random(), origin, event);
        let bytes = encode(&record);
        let row = decode(&bytes).unwrap();
        prop_assert_eq!(&row.request_id, &request_id);
        prop_assert_eq!(&row.subject, &subject);
        prop_assert_eq!(&row.detail["reason"], &reason);
        prop_assert_eq!(row.outcome == Outcome::Refused, is_refused);
        prop_assert_eq!(bytes, encode(&record));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }
}

#[test]
fn the_longest_details_give_way_to_their_hashes_so_that_a_record_stays_below_64_kib() {
    let (clock, random) = (test_clock(), test_random());
    let text = |letter: &str, bytes: usize| letter.repeat(bytes);
    let event = Event::test("integration_request.approve")
        .detail("scopes", text("s", 100_000))
        .detail("redirect_uris", text("r", 40_000))
        .detail("presentation", text("p", 16_000));
    let record = Record::new(
        &*clock,
        &*random,
        origin(ActorKind::Operator, "opr_1", UUID),
        event,
    );
    assert!(encode(&record).len() < 64 * 1024);
    let detail = record.event.detail;
    let hash = hex::encode(sha256(text("s", 100_000).as_bytes()));
    assert_eq!(
        detail["scopes"],
        format!(r#"{{"sha256":"{hash}","bytes":100000}}"#)
    );
    assert_eq!(
        detail["redirect_uris"],
        text("r", 40_000),
        "it fits without the longest one"
    );
    assert_eq!(detail["presentation"], text("p", 16_000));

    // An update of a long list keeps what it added and removed.
    let uris = |letters: &[&str]| {
        letters
            .iter()
            .map(|letter| text(letter, 2_000))
            .collect::<Vec<_>>()
    };
    let (old, new): (Vec<_>, Vec<_>) = (uris(&["a"; 20]), uris(&["a"; 10]));
    let (old, new) = ([uris(&["b"]), old].concat(), [new, uris(&["c"])].concat());
    let replaced = serde_json::json!({ "old": old, "new": new }).to_string();
    let event = Event::test("client.update").detail("redirect_uris", replaced);
    let origin = origin(ActorKind::Operator, "opr_1", UUID);
    let record = Record::new(&*clock, &*random, origin, event);
    let kept = serde_json::json!({ "added": uris(&["c"]), "removed": uris(&["b"]) });
    assert_eq!(record.event.detail["redirect_uris"], kept.to_string());
}
