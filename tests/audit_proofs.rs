//! The examples that check a proof of an audit event, each with the log's key and the proof alone.

use accord::tlog::{
    Group, GroupTree, Hash, Origin, ProofFile, Signer, TreeHead, event_leaf, group_leaf, root,
};
use serde_json::{Value, json};

#[path = "../examples/verify_audit_proof.rs"]
#[allow(dead_code)]
mod example;
pub mod python;

tests!(the_rust_example_accepts_good_proofs_alone);

async fn the_rust_example_accepts_good_proofs_alone() {
    let key = signer().verifier_key().to_string();
    for (what, proof) in good() {
        let (event, checkpoint) = example::verify(&(key.clone() + "\n"), &proof.to_string()).expect(what);
        assert_eq!(event, b"event 2", "{what}");
        assert_eq!(checkpoint.head.size, 300, "{what}");
    }
    for (what, key, proof) in broken() {
        assert!(example::verify(&key, &proof.to_string()).is_err(), "{what}");
    }
}

fn signer() -> Signer {
    signer_of("accord.example/token/k7q2", 7)
}

fn signer_of(origin: &str, seed: u8) -> Signer {
    Signer::new(origin.parse::<Origin>().unwrap(), &[seed; 32]).unwrap()
}

/// Proofs of one event: as a leaf of its own, in a group of 35, and in a group of one.
fn good() -> [(&'static str, Value); 3] {
    let group = |count| GroupTree::new((0..count).map(|number| format!("event {number}")));
    let only = GroupTree::new(["event 2"]);
    let place = |tree: &GroupTree, index| Group {
        count: tree.head().size,
        root: tree.head().root,
        index,
        hashes: tree.inclusion_proof(index).unwrap(),
    };
    [
        ("a leaf of its own", proof(event_leaf(b"event 2"), None)),
        (
            "in a group",
            proof(group_leaf(&group(35).head()), Some(place(&group(35), 2))),
        ),
        (
            "in a group of one",
            proof(group_leaf(&only.head()), Some(place(&only, 0))),
        ),
    ]
}

/// Returns the proof of the 277th of 300 leaves.
fn proof(leaf: Hash, group: Option<Group>) -> Value {
    let leaves = (0..300_u32).map(|number| event_leaf(&number.to_be_bytes()));
    let mut leaves: Vec<_> = leaves.collect();
    leaves[276] = leaf;
    let head = TreeHead {
        size: 300,
        root: root(&leaves),
    };
    // From the leaf up: the subtrees of 300 leaves that the path leaves aside.
    let aside = [277..278, 278..280, 272..276, 280..288, 256..272, 288..300, 0..256];
    let hashes = aside.map(|range| root(&leaves[range])).to_vec();
    head.check_inclusion(276, leaf, &hashes).unwrap();
    let mut file = ProofFile::new(b"event 2".to_vec(), 276, hashes, signer().sign(head));
    file.group = group;
    serde_json::from_str(&file.to_json().unwrap()).unwrap()
}

/// What is wrong, the key, and the proof.
fn broken() -> Vec<(&'static str, String, Value)> {
    type Change = fn(&mut Value);
    let [(_, alone), (_, grouped), _] = good();
    let changes: [(&str, &Value, Change); 20] = [
        ("another event", &alone, |proof| {
            proof["event"] = json!("ZXZlbnQgMw==")
        }),
        ("another event in a group", &grouped, |proof| {
            proof["event"] = json!("ZXZlbnQgMw==")
        }),
        ("no base64", &alone, |proof| proof["event"] = json!("ZXZlbnQgMg=")),
        ("another index", &alone, |proof| proof["index"] = json!(277)),
        ("an index beyond the log", &alone, |proof| {
            proof["index"] = json!(300)
        }),
        ("a negative index", &alone, |proof| proof["index"] = json!(-24)),
        ("an index that is a text", &alone, |proof| {
            proof["index"] = json!("276")
        }),
        ("hashes in another order", &alone, |proof| {
            proof["hashes"].as_array_mut().unwrap().swap(0, 1)
        }),
        ("a hash less", &alone, |proof| {
            drop(proof["hashes"].as_array_mut().unwrap().pop())
        }),
        ("a hash more", &alone, |proof| {
            let hash = proof["hashes"][0].clone();
            proof["hashes"].as_array_mut().unwrap().push(hash);
        }),
        ("a hash less in the group", &grouped, |proof| {
            drop(proof["group"]["hashes"].as_array_mut().unwrap().pop());
        }),
        ("another index in the group", &grouped, |proof| {
            proof["group"]["index"] = json!(3)
        }),
        ("another number of events in the group", &grouped, |proof| {
            proof["group"]["count"] = json!(34)
        }),
        ("another root of the group", &grouped, |proof| {
            proof["group"]["root"] = proof["hashes"][0].clone()
        }),
        ("no group", &grouped, |proof| {
            drop(proof.as_object_mut().unwrap().remove("group"))
        }),
        ("another version", &alone, |proof| proof["version"] = json!(2)),
        ("no checkpoint", &alone, |proof| {
            drop(proof.as_object_mut().unwrap().remove("checkpoint"))
        }),
        ("another size", &alone, |proof| {
            replace(proof, "\n300\n", "\n301\n")
        }),
        ("no signature", &alone, |proof| {
            let checkpoint = proof["checkpoint"].as_str().unwrap();
            let (text, _) = checkpoint.split_once('\u{2014}').unwrap();
            proof["checkpoint"] = json!(text);
        }),
        ("the checkpoint of another log", &alone, |proof| {
            let head = TreeHead {
                size: 300,
                root: event_leaf(b""),
            };
            proof["checkpoint"] = json!(signer_of("accord.example/registry/k7q2", 7).sign(head));
        }),
    ];
    let mut all: Vec<_> = changes
        .into_iter()
        .map(|(what, proof, change)| {
            let mut proof = proof.clone();
            change(&mut proof);
            (what, signer().verifier_key().to_string(), proof)
        })
        .collect();
    for (what, origin, seed) in [
        ("another key", "accord.example/token/k7q2", 8),
        ("another log's key", "accord.example/registry/k7q2", 7),
    ] {
        let key = signer_of(origin, seed).verifier_key().to_string();
        all.push((what, key, alone.clone()));
    }
    all.push((
        "no key",
        "accord.example/token/k7q2+00000000+AQ==".to_owned(),
        alone,
    ));
    all
}

fn replace(proof: &mut Value, from: &str, to: &str) {
    let replaced = proof["checkpoint"].as_str().unwrap().replace(from, to);
    assert_ne!(proof["checkpoint"], replaced);
    proof["checkpoint"] = json!(replaced);
}
