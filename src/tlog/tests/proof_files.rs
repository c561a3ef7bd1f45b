use proptest::prelude::*;
use serde_json::{Value, json};

use super::{reference::path, *};

/// A log of 300 leaves, of which the 100th is the group of 35 events, and the proof of the group's 20th.
fn grouped() -> ProofFile {
    let events = records(35);
    let tree = GroupTree::new(&events);
    let (mut file, leaves) = log_with(group_leaf(&tree.head()));
    file.event = events[20].clone();
    file.group = Some(Group {
        count: 35,
        root: tree.head().root,
        index: 20,
        hashes: tree.inclusion_proof(20).unwrap(),
    });
    assert_eq!(leaves[100], group_leaf(&tree.head()));
    file
}

/// The proof of an event that is a leaf of its own.
fn alone() -> ProofFile {
    let (mut file, _) = log_with(event_leaf(b"event"));
    file.event = b"event".to_vec();
    file
}

/// Returns the proof of the 100th leaf, without its event.
fn log_with(leaf: Hash) -> (ProofFile, Vec<Hash>) {
    let mut leaves: Vec<_> = records(300).iter().map(|event| event_leaf(event)).collect();
    leaves[100] = leaf;
    let head = TreeHead {
        size: 300,
        root: root(&leaves),
    };
    let hashes = tree::inclusion_proof(&leaves, 100).unwrap();
    (
        ProofFile::new(Vec::new(), 100, hashes, signer().sign(head)),
        leaves,
    )
}

fn verify(file: &ProofFile) -> Result<Checkpoint, ProofError> {
    let read = ProofFile::parse(&file.to_json().unwrap()).unwrap();
    assert_eq!(read, *file);
    read.verify(signer().verifier_key())
}

#[test]
fn a_proof_verifies_with_the_key_alone() {
    for file in [alone(), grouped()] {
        let checkpoint = verify(&file).unwrap();
        assert_eq!((checkpoint.origin, checkpoint.head.size), (origin(), 300));
    }
}

#[test]
fn a_proof_of_anything_else_is_rejected() {
    type Change = fn(&mut ProofFile);
    let changes: [(Change, ProofError); 6] = [
        (|file| file.event[0] ^= 1, ProofError::NotIncluded),
        (|file| file.event.clear(), ProofError::NotIncluded),
        (|file| file.index += 1, ProofError::NotIncluded),
        (|file| file.hashes[3].0[9] ^= 1, ProofError::NotIncluded),
        (|file| file.hashes.truncate(4), ProofError::NotIncluded),
        (
            |file| file.checkpoint = file.checkpoint.replace("\n300\n", "\n301\n"),
            ProofError::WrongSignature,
        ),
    ];
    for (number, (change, error)) in changes.into_iter().enumerate() {
        let mut file = alone();
        change(&mut file);
        assert_eq!(verify(&file), Err(error), "{number}");
    }
    let changes: [(Change, ProofError); 8] = [
        (|file| file.event[0] ^= 1, ProofError::NotInGroup),
        (
            |file| file.group.as_mut().unwrap().index = 21,
            ProofError::NotInGroup,
        ),
        (
            |file| file.group.as_mut().unwrap().index = 35,
            ProofError::NotInGroup,
        ),
        (
            |file| file.group.as_mut().unwrap().hashes[0].0[0] ^= 1,
            ProofError::NotInGroup,
        ),
        (
            |file| file.group.as_mut().unwrap().root.0[0] ^= 1,
            ProofError::NotInGroup,
        ),
        // Leads to the same root within the group, so that only the leaf of the group notices.
        (
            |file| file.group.as_mut().unwrap().count = 34,
            ProofError::NotIncluded,
        ),
        (|file| file.group = None, ProofError::NotIncluded),
        // The group's root is replaced by that of a group which the event makes up alone.
        (
            |file| {
                let head = GroupTree::new([&file.event]).head();
                file.group = Some(Group {
                    count: 1,
                    root: head.root,
                    index: 0,
                    hashes: Vec::new(),
                });
            },
            ProofError::NotIncluded,
        ),
    ];
    for (number, (change, error)) in changes.into_iter().enumerate() {
        let mut file = grouped();
        change(&mut file);
        assert_eq!(verify(&file), Err(error), "{number}");
    }
    let other = Signer::new(origin(), &[8; 32]).unwrap();
    assert_eq!(alone().verify(other.verifier_key()), Err(ProofError::NotSigned));
}

#[test]
fn a_file_has_the_documented_members_and_no_others() {
    let json: Value = serde_json::from_str(&grouped().to_json().unwrap()).unwrap();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut names = members(&json);
    names.sort();
    assert_eq!(
        names,
        ["checkpoint", "event", "group", "hashes", "index", "version"]
    );
    let mut names = members(&json["group"]);
    names.sort();
    assert_eq!(names, ["count", "hashes", "index", "root"]);
    assert_eq!(json["version"], 1);
    assert_eq!(json["event"], "cmVjb3JkIDIw");
    assert!(!alone().to_json().unwrap().contains("group"));

    let good = json;
    for (member, value) in [
        ("version", json!(2)),
        ("version", json!("1")),
        ("version", Value::Null),
        ("event", json!("cmVjb3JkIDIw=")),
        ("event", json!("cmVjb3JkIDI*")),
        ("event", json!([1, 2])),
        ("index", json!(-1)),
        ("index", json!(1.5)),
        ("index", json!("100")),
        ("index", json!(1_u64 << 53)),
        ("hashes", json!(["BQUF"])),
        ("hashes", json!("BQUF")),
        ("hashes", Value::Null),
        ("checkpoint", Value::Null),
        ("group", json!({})),
        ("more", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = value.clone();
        let parsed = ProofFile::parse(&bad.to_string());
        assert_eq!(parsed, Err(ProofError::MalformedProof), "{member} {value}");
    }
    for member in ["version", "event", "index", "hashes", "checkpoint"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(member);
        assert!(ProofFile::parse(&bad.to_string()).is_err(), "{member}");
    }
    for (member, value) in [
        ("count", json!(1_u64 << 53)),
        ("index", json!(1_u64 << 53)),
        ("more", json!(1)),
    ] {
        let mut bad = good.clone();
        bad["group"][member] = value;
        assert!(ProofFile::parse(&bad.to_string()).is_err(), "{member}");
    }
    let text = good.to_string();
    assert!(
        ProofFile::parse(&text.replacen('{', "{\"index\":1,", 1)).is_err(),
        "a member that comes twice"
    );
    assert!(ProofFile::parse(&format!("{text}{}", " ".repeat(1 << 20))).is_err());
    assert!(ProofFile::parse(&format!("{text} x")).is_err());
    let mut large = alone();
    large.index = 1 << 53;
    assert_eq!(large.to_json(), Err(ProofError::MalformedProof));
}

#[test]
fn the_proof_of_a_log_is_that_of_the_rfc() {
    let records = records(300);
    let leaves: Vec<_> = records
        .iter()
        .map(|record| tlog_tiles::record_hash(record))
        .collect();
    for index in [0, 1, 100, 255, 256, 299] {
        assert_eq!(tree::inclusion_proof(&leaves, index), Some(path(index, &records)));
    }
}

proptest! {
    #[test]
    fn no_file_makes_a_check_panic(
        text in "[\\PC\n]{0,60}",
        (from, to) in (0_usize..2000, 0_usize..2000),
    ) {
        prop_assert!(ProofFile::parse(&text).is_err());
        let json = grouped().to_json().unwrap();
        let floor = |at: usize| (0..=at.min(json.len())).rev().find(|at| json.is_char_boundary(*at)).unwrap();
        let (from, to) = (floor(from.min(to)), floor(from.max(to)));
        let spliced = format!("{}{text}{}", &json[..from], &json[to..]);
        if let Ok(file) = ProofFile::parse(&spliced) {
            prop_assert!(file == grouped() || file.verify(signer().verifier_key()).is_err());
        }
    }
}
