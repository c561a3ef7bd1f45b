use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

/// A key and notes of the tests of Go's `sumdb/note`.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETERS_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETERS: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCHS: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn head(size: u64) -> TreeHead {
    TreeHead {
        size,
        root: Hash([5; 32]),
    }
}

fn open(note: &str) -> Result<Checkpoint, ProofError> {
    Checkpoint::open(note, signer().verifier_key())
}

#[test]
fn keys_and_notes_of_go_verify() {
    let key: VerifierKey = PETER.parse().unwrap();
    assert_eq!(key.to_string(), PETER);
    let seed = STANDARD.decode(PETERS_SEED).unwrap()[1..].try_into().unwrap();
    let signer = Signer::new("PeterNeumann".parse().unwrap(), &seed).unwrap();
    assert_eq!(*signer.verifier_key(), key);
    for signatures in [
        PETERS.to_owned(),
        [PETERS, ENOCHS].concat(),
        [ENOCHS, PETERS].concat(),
        PETERS.repeat(3),
    ] {
        let note = format!("{TEXT}\n{signatures}");
        assert_eq!(key.open(&note), Ok(TEXT), "{note}");
    }
    let altered = PETERS.replace("UG/Sff", "UG/Sfg");
    let misnamed = PETERS.replace("PeterNeumann", "CarmenSandiego");
    let other_id = PETERS.replace("x08g", "x08h");
    for (signatures, error) in [
        (ENOCHS.to_owned(), ProofError::NotSigned),
        (misnamed, ProofError::NotSigned),
        (other_id, ProofError::NotSigned),
        (altered.clone(), ProofError::WrongSignature),
        ([PETERS, &altered].concat(), ProofError::WrongSignature),
        (PETERS.repeat(33), ProofError::MalformedCheckpoint),
        (PETERS.trim_end().to_owned(), ProofError::MalformedCheckpoint),
        (PETERS.replace("nAM=", "nAM"), ProofError::MalformedCheckpoint),
        (PETERS.replace("nAM=", "nAN="), ProofError::MalformedCheckpoint),
        (PETERS.replace("Peter", "Peter "), ProofError::MalformedCheckpoint),
        (PETERS.replace("Peter", "Peter+"), ProofError::MalformedCheckpoint),
        (PETERS.replace('—', "-"), ProofError::MalformedCheckpoint),
        ([PETERS, "\n"].concat(), ProofError::MalformedCheckpoint),
        (PETERS.replace('\n', "\r\n"), ProofError::MalformedCheckpoint),
        ("— PeterNeumann \n".to_owned(), ProofError::MalformedCheckpoint),
        (String::new(), ProofError::MalformedCheckpoint),
    ] {
        assert_eq!(
            key.open(&format!("{TEXT}\n{signatures}")),
            Err(error),
            "{signatures}"
        );
    }
    let long = "x".repeat(20_000);
    for text in [&TEXT[1..], "", "\u{1}", &long] {
        assert!(key.open(&format!("{text}\n{PETERS}")).is_err());
    }
}

#[test]
fn a_verifier_key_has_one_form() {
    let text = signer().verifier_key().to_string();
    assert!(text.starts_with("accord.example/registry/k7q2+"), "{text}");
    assert_eq!(text.parse::<VerifierKey>().unwrap(), *signer().verifier_key());
    let (name, rest) = text.split_once('+').unwrap();
    let (hash, key) = rest.split_once('+').unwrap();
    for bad in [
        String::new(),
        name.to_owned(),
        format!("{name}+{hash}"),
        format!("{name}+{hash}+"),
        format!("{name}+00000000+{key}"),
        format!("{name}+{}+{key}", hash.to_uppercase() + "0"),
        format!("{name}++{key}"),
        format!("+{hash}+{key}"),
        format!("other+{hash}+{key}"),
        format!("{name}+{hash}+{key}="),
        format!("{name}+{hash}+{key}\n"),
        format!(" {text}"),
        format!("{name}+{hash}+{}", STANDARD.encode([2; 33])),
        format!("{name}+{hash}+{}", STANDARD.encode([1; 32])),
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
    }
}

#[test]
fn an_origin_is_a_name_of_a_key() {
    let second = Origin::of_log("accord.example:8443", "token", "k7q2", 2).unwrap();
    assert_eq!(second.as_str(), "accord.example:8443/token/k7q2/2");
    let longest = "x".repeat(255);
    assert!(longest.parse::<Origin>().is_ok());
    for bad in ["", " ", "a b", "a+b", "a\nb", "ä", &(longest + "x")] {
        assert_eq!(bad.parse::<Origin>(), Err(ProofError::MalformedOrigin), "{bad:?}");
    }
}

#[test]
fn a_signed_head_opens_with_its_key_alone() {
    let note = signer().sign(head(42));
    let checkpoint = open(&note).unwrap();
    assert_eq!(checkpoint.origin, origin());
    assert_eq!(checkpoint.head, head(42));
    assert_eq!(
        checkpoint.text(),
        "accord.example/registry/k7q2\n42\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n"
    );
    assert_eq!(signer().sign(head(42)), note, "two sealers store the same text");
    let other_seed = Signer::new(origin(), &[8; 32]).unwrap();
    let other_origin = Signer::new("accord.example/token/k7q2".parse().unwrap(), &[7; 32]).unwrap();
    for other in [other_seed, other_origin] {
        let opened = Checkpoint::open(&note, other.verifier_key());
        assert_eq!(opened, Err(ProofError::NotSigned));
    }
    assert_eq!(
        format!("{:?}", signer()),
        "Signer(accord.example/registry/k7q2, [redacted])"
    );
}

#[test]
fn every_altered_byte_of_a_checkpoint_is_noticed() {
    let note = signer().sign(head(42));
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut altered = note.clone().into_bytes();
            altered[at] ^= 1 << bit;
            if let Ok(altered) = String::from_utf8(altered) {
                assert!(open(&altered).is_err(), "{altered}");
            }
        }
        if note.is_char_boundary(at) {
            assert!(open(&note[..at]).is_err(), "{at}");
            assert!(open(&note[at..]).is_err() || at == 0, "{at}");
        }
    }
}

/// What the log's own key signs is still read strictly.
#[test]
fn a_signed_text_that_is_no_checkpoint_is_rejected() {
    use aws_lc_rs::signature::Ed25519KeyPair;

    let key = signer().verifier_key().to_string();
    let id = key.split('+').nth(1).unwrap().to_owned();
    let id = u32::from_str_radix(&id, 16).unwrap().to_be_bytes();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let sign = |text: &str| {
        let signature = STANDARD.encode([&id[..], pair.sign(text.as_bytes()).as_ref()].concat());
        format!("{text}\n— {} {signature}\n", origin())
    };
    let root = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";
    let extended = sign(&format!("{}\n42\n{root}\nmore\nand more\n", origin()));
    assert_eq!(open(&extended).unwrap().head, head(42));
    for (text, error) in [
        (
            format!("accord.example/token/k7q2\n42\n{root}\n"),
            ProofError::OtherOrigin,
        ),
        (
            format!("{}\n042\n{root}\n", origin()),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n+42\n{root}\n", origin()),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n-42\n{root}\n", origin()),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n18446744073709551616\n{root}\n", origin()),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n42\n{}\n", origin(), &root[..43]),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n42\nBQUF\n", origin()),
            ProofError::MalformedCheckpoint,
        ),
        (
            format!("{}\n42\n{}V=\n", origin(), &root[..42]),
            ProofError::MalformedCheckpoint,
        ),
        (format!("{}\n42\n", origin()), ProofError::MalformedCheckpoint),
        (format!("\n42\n{root}\n"), ProofError::MalformedCheckpoint),
        (
            format!("{}\n42\n{root} \n", origin()),
            ProofError::MalformedCheckpoint,
        ),
    ] {
        assert_eq!(open(&sign(&text)), Err(error), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(
        text in "(\\PC|\n|\n\n|— |\\+){0,80}",
        (from, to) in (0_usize..300, 0_usize..300),
    ) {
        let _ = text.parse::<VerifierKey>();
        let _ = text.parse::<Origin>();
        prop_assert!(open(&text).is_err());
        // A part of a good note replaced.
        let note = signer().sign(head(42));
        let floor = |at: usize| (0..=at.min(note.len())).rev().find(|at| note.is_char_boundary(*at)).unwrap();
        let (from, to) = (floor(from.min(to)), floor(from.max(to)));
        let spliced = format!("{}{text}{}", &note[..from], &note[to..]);
        prop_assert!(spliced == note || open(&spliced).is_err());
        let key = signer().verifier_key().to_string();
        let _ = format!("{}{text}", &key[..from.min(key.len())]).parse::<VerifierKey>();
    }
}
