#![allow(clippy::unwrap_used)]

use aws_lc_rs::hmac;

use super::*;
use crate::{
    clock::{ManualClock, UnixMillis},
    random::SeededRandom,
    text::id::{ClientId, SecretId},
};

/// A token's text, and whether the parser of its type accepts a text.
type Sample = (String, fn(&str) -> bool);

fn samples() -> Vec<Sample> {
    let random = SeededRandom::new(11);
    let clock = ManualClock::new(UnixMillis::from_millis(1_800_000_000_000));
    let opaque = OpaqueToken::generate(TokenKind::Operator, &random);
    let secret = client_secret(&[7; 32]);
    let refresh = RefreshToken::compose(&FamilyId::generate(&clock, &random), 12, &[0xff; 32]);
    vec![
        (opaque.expose().to_owned(), |t| {
            OpaqueToken::parse(TokenKind::Operator, t).is_ok()
        }),
        (secret.expose().to_owned(), |t| ClientSecret::parse(t).is_ok()),
        (refresh.expose().to_owned(), |t| RefreshToken::parse(t).is_ok()),
    ]
}

fn client_id(seed: u64) -> ClientId {
    let clock = ManualClock::new(UnixMillis::from_millis(1));
    ClientId::generate(&clock, &SeededRandom::new(seed))
}

fn client_secret(bits: &[u8; 32]) -> ClientSecret {
    let clock = ManualClock::new(UnixMillis::from_millis(1));
    let secret_id = SecretId::generate(&clock, &SeededRandom::new(5));
    ClientSecret::compose(&SecretTagKey::new(1, &[1; 32]), &client_id(1), secret_id, bits)
}

#[test]
fn tokens_round_trip() {
    for bytes in [[0; 32], [1; 32], [0xff; 32]] {
        assert_eq!(
            *decode::<32>(&encode(bytes, SECRET_DIGITS), SECRET_DIGITS).unwrap(),
            bytes
        );
    }
    for bits in 0..64_u8 {
        let secret = client_secret(&[bits; 32]);
        let read = ClientSecret::parse(secret.expose()).unwrap();
        assert_eq!(read.secret_id(), secret.secret_id());
        let keys = [SecretTagKey::new(2, &[2; 32]), SecretTagKey::new(1, &[1; 32])];
        assert!(read.is_tagged_for(&client_id(1), &keys));
        assert!(!read.is_tagged_for(&client_id(2), &keys));
        assert!(!read.is_tagged_for(&client_id(1), &keys[..1]));
        assert!(!read.is_tagged_for(&client_id(1), []));
    }
    for (text, accepts) in samples() {
        assert!(accepts(&text), "{text}");
    }
    let clock = ManualClock::new(UnixMillis::from_millis(1));
    let family = FamilyId::generate(&clock, &SeededRandom::new(1));
    let token =
        RefreshToken::parse(RefreshToken::compose(&family, 4_000_000_000, &[3; 32]).expose()).unwrap();
    assert_eq!(
        (token.family(), token.generation(), token.mac()),
        (&family, 4_000_000_000, &[3; 32])
    );
}

#[test]
fn a_tag_covers_label_client_and_text_each_with_its_length() {
    let secret = client_secret(&[7; 32]);
    let tagged = &secret.expose()[..secret.expose().len() - 11 - CHECKSUM_DIGITS];
    let client_id = client_id(1);
    let parts = ["accord client secret tag", client_id.as_str(), tagged];
    let with_length = |part: &str| [&(part.len() as u64).to_be_bytes(), part.as_bytes()].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    let tag = hmac::sign(&key, &parts.map(with_length).concat());
    let mut expected = [0; 8];
    expected.copy_from_slice(&tag.as_ref()[..8]);
    assert!(secret.expose()[tagged.len()..].starts_with(&*encode(expected, 11)));
}

#[test]
fn every_changed_character_and_every_cut_is_rejected() {
    for (text, accepts) in samples() {
        for at in 0..text.len() {
            for other in ALPHABET
                .iter()
                .chain(b"_-\0 \n\x7f")
                .map(|&b| char::from(b))
                .chain(['ä'])
            {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                assert!(!accepts(&changed.iter().collect::<String>()), "{text} at {at}");
            }
            assert!(!accepts(&text[..at]));
        }
        for suffix in ["0", "\0", " ", "\n"] {
            assert!(!accepts(&format!("{text}{suffix}")));
            assert!(!accepts(&format!("{suffix}{text}")));
        }
        assert!(!accepts(&text.repeat(2)));
    }
}

#[test]
fn a_token_of_another_kind_is_rejected() {
    let token = OpaqueToken::generate(TokenKind::Claim, &SeededRandom::new(5));
    assert!(OpaqueToken::parse(TokenKind::Enrolment, token.expose()).is_err());
}

#[test]
fn a_number_of_too_many_bits_is_rejected() {
    assert!(decode::<32>(&"z".repeat(SECRET_DIGITS), SECRET_DIGITS).is_err());
    // 2^64 - 1 and 2^64.
    assert_eq!(*decode::<8>("LygHa16AHYF", 11).unwrap(), [0xff; 8]);
    assert!(decode::<8>("LygHa16AHYG", 11).is_err());
}

#[test]
fn a_tag_covers_every_bit_before_it() {
    let secret = client_secret(&[7; 32]);
    let body = &secret.expose()[..secret.expose().len() - CHECKSUM_DIGITS];
    let key = SecretTagKey::new(1, &[1; 32]);
    for at in "acs_sec_".len()..body.len() {
        let other = if &body[at..=at] == "1" { "2" } else { "1" };
        let changed = with_checksum(&[&body[..at], other, &body[at + 1..]]);
        // With some digits the id or the number is malformed.
        if let Ok(changed) = ClientSecret::parse(&changed) {
            assert!(!changed.is_tagged_for(&client_id(1), [&key]), "{at}");
        }
    }
}

#[test]
fn a_generation_has_one_form() {
    let clock = ManualClock::new(UnixMillis::from_millis(1));
    let family = FamilyId::generate(&clock, &SeededRandom::new(1));
    for generation in ["01", "+1", "-1", "", "4294967296"] {
        let text = with_checksum(&[
            "acr_",
            family.as_str(),
            "_",
            generation,
            "_",
            &encode([1; 32], SECRET_DIGITS),
        ]);
        assert!(RefreshToken::parse(&text).is_err(), "{generation}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let random = SeededRandom::new(5);
    let clock = ManualClock::new(UnixMillis::from_millis(1));
    let token = OpaqueToken::generate(TokenKind::Operator, &random);
    assert_eq!(format!("{token:?}"), "OpaqueToken(Operator, [redacted])");
    let secret = client_secret(&[7; 32]);
    let shown = format!("ClientSecret({}, [redacted])", secret.secret_id());
    assert_eq!(format!("{secret:?}"), shown);
    let family = FamilyId::generate(&clock, &random);
    let token = RefreshToken::compose(&family, 2, &[7; 32]);
    assert_eq!(
        format!("{token:?}"),
        format!("RefreshToken({family} 2, [redacted])")
    );
}

#[test]
fn the_text_form_stays_the_same() {
    let token = OpaqueToken::from_secret(TokenKind::Claim, &[0; 32]);
    let body = format!("acl_{}", "0".repeat(SECRET_DIGITS));
    assert!(token.expose().starts_with(&body));
    assert_eq!(token.expose().len(), 4 + SECRET_DIGITS + CHECKSUM_DIGITS);
    // The check value of CRC-32 (IEEE) is 0xCBF43926 for these nine digits.
    let value = checksum("123456789").iter().fold(0_u64, |value, digit| {
        value * 62 + ALPHABET.iter().position(|letter| letter == digit).unwrap() as u64
    });
    assert_eq!(value, 0xCBF4_3926);
}
