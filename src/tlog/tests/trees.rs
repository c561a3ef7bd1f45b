use proptest::prelude::*;
use tlog_tiles::record_hash;

use super::{
    reference::{mth, path, proof},
    *,
};

/// Every size up to this one, and in it every index.
const SIZES: usize = 70;

fn head(records: &[Vec<u8>]) -> TreeHead {
    TreeHead {
        size: records.len() as u64,
        root: mth(records),
    }
}

/// Every proof that differs from this one in one bit of a byte, or in its number of hashes.
fn altered(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for hash in 0..proof.len() {
        for byte in 0..32 {
            let mut altered = proof.to_vec();
            altered[hash].0[byte] ^= 1 << (byte % 8);
            all.push(altered);
        }
        let mut shorter = proof.to_vec();
        shorter.remove(hash);
        all.push(shorter);
    }
    all.push([proof, &[Hash::default()]].concat());
    all.push([proof, proof].concat());
    all.retain(|altered| altered != proof);
    all
}

#[test]
fn every_leaf_of_every_small_tree_is_proven_and_nothing_else() {
    for size in 1..=SIZES {
        let records = records(size);
        let head = head(&records);
        for (index, record) in records.iter().enumerate() {
            let proof = path(index, &records);
            let check = |head: TreeHead, index: usize, leaf: Hash, proof: &[Hash]| {
                head.check_inclusion(index as u64, leaf, proof)
            };
            let leaf = record_hash(record);
            assert_eq!(check(head, index, leaf, &proof), Ok(()), "{index} of {size}");
            let refused = Err(ProofError::NotIncluded);
            for other in (0..size + 2).filter(|other| *other != index) {
                assert_eq!(
                    check(head, other, leaf, &proof),
                    refused,
                    "{index} as {other} of {size}"
                );
            }
            for altered in altered(&proof) {
                assert_eq!(check(head, index, leaf, &altered), refused, "{index} of {size}");
            }
            for byte in 0..32 {
                let (mut other_leaf, mut other_head) = (leaf, head);
                other_leaf.0[byte] ^= 0x10;
                other_head.root.0[byte] ^= 0x10;
                assert_eq!(
                    check(head, index, other_leaf, &proof),
                    refused,
                    "{index} of {size}"
                );
                assert_eq!(
                    check(other_head, index, leaf, &proof),
                    refused,
                    "{index} of {size}"
                );
            }
        }
    }
}

#[test]
fn every_beginning_of_every_small_tree_is_proven_and_nothing_else() {
    let all = records(SIZES);
    let heads: Vec<_> = (1..=SIZES).map(|size| head(&all[..size])).collect();
    for size in 1..=SIZES {
        let newer = heads[size - 1];
        for first in 1..=size {
            let older = heads[first - 1];
            let proof = proof(first, &all[..size]);
            assert_eq!(
                newer.check_consistency(&older, &proof),
                Ok(()),
                "{first} of {size}"
            );
            let refused = Err(ProofError::NotConsistent);
            for altered in altered(&proof) {
                assert_eq!(
                    newer.check_consistency(&older, &altered),
                    refused,
                    "{first} of {size}"
                );
            }
            for byte in 0..32 {
                let (mut other_older, mut other_newer) = (older, newer);
                other_older.root.0[byte] ^= 0x10;
                other_newer.root.0[byte] ^= 0x10;
                assert_eq!(
                    newer.check_consistency(&other_older, &proof),
                    refused,
                    "{first} of {size}"
                );
                assert_eq!(
                    other_newer.check_consistency(&older, &proof),
                    refused,
                    "{first} of {size}"
                );
            }
            for other in heads.iter().filter(|other| other.size != older.size) {
                let checked = newer.check_consistency(other, &proof);
                assert_eq!(checked, refused, "{first} of {size}");
            }
        }
        assert_eq!(
            newer.check_consistency(&TreeHead::EMPTY, &[]),
            Err(ProofError::NotConsistent)
        );
    }
}

#[test]
fn a_tree_of_a_group_is_the_tree_of_the_rfc() {
    assert_eq!(TreeHead::EMPTY.root, mth(&[]));
    assert_eq!(GroupTree::new(Vec::<Vec<u8>>::new()).head(), TreeHead::EMPTY);
    for size in 1..=SIZES {
        let records = records(size);
        let tree = GroupTree::new(&records);
        assert_eq!(tree.head(), head(&records), "{size}");
        for index in 0..size {
            let proof = tree.inclusion_proof(index as u64);
            assert_eq!(proof, Some(path(index, &records)), "{index} of {size}");
        }
        assert_eq!(tree.inclusion_proof(size as u64), None);
        assert_eq!(tree.inclusion_proof(u64::MAX), None);
    }
}

/// The records, roots and proofs of the tests of Google's certificate-transparency.
#[test]
fn known_trees_have_their_roots_and_proofs() {
    let hash = |hex: &str| {
        let byte = |at: usize| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap();
        Hash(std::array::from_fn(byte))
    };
    let records: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    for (size, root) in (1..).zip(roots) {
        assert_eq!(GroupTree::new(&records[..size]).head().root, hash(root), "{size}");
    }
    let first_of_eight = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    let proof = GroupTree::new(records).inclusion_proof(0).unwrap();
    assert_eq!(proof, first_of_eight.map(hash));
}

#[test]
fn leaves_of_events_and_groups_have_the_documented_bytes() {
    let head = TreeHead {
        size: 0x0102,
        root: Hash([9; 32]),
    };
    assert_eq!(event_leaf(b"event"), record_hash(b"\x00event"));
    let group = [&[1, 0, 0, 0, 0, 0, 0, 1, 2][..], &[9; 32]].concat();
    assert_eq!(group_leaf(&head), record_hash(&group));
    // An event with the bytes of a group is no group.
    assert_ne!(event_leaf(&group), group_leaf(&head));
    assert_ne!(event_leaf(&group[1..]), group_leaf(&head));
}

proptest! {
    #[test]
    fn no_proof_makes_a_check_panic(
        (size, other, index) in (any::<u64>(), any::<u64>(), any::<u64>()),
        hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let hashes: Vec<_> = hashes.into_iter().map(Hash).collect();
        for size in [size, size % 100, u64::MAX, 1 << 63] {
            let head = TreeHead { size, root: Hash([1; 32]) };
            for index in [index, index % 100, u64::MAX, size.wrapping_sub(1)] {
                prop_assert!(head.check_inclusion(index, Hash([2; 32]), &hashes).is_err());
            }
            for other in [other, other % 100, u64::MAX, 1, size.wrapping_sub(1)] {
                let older = TreeHead { size: other, root: Hash([2; 32]) };
                prop_assert!(head.check_consistency(&older, &hashes).is_err());
            }
        }
    }
}
