//! One-time links. A link works once. For a minute, the call that used it can be repeated and gets the same answer.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::opaque::{OpaqueToken, sha256},
};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// How long after its use a link gives a repeated call the same answer.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(60);

/// Returns the MAC of a request id, which the link's row stores when the link is used. The key is the link's token,
/// which is not stored.
pub fn use_mac(token: &OpaqueToken, request_id: Uuid) -> [u8; 32] {
    let parts = [&b"link use"[..], token.expose().as_bytes(), request_id.as_bytes()];
    sha256(&parts.concat())
}

/// Returns whether a call repeats the one that used the link: it has the same request id, and comes within
/// [`REPEAT_WINDOW`]. `used_at` and `used_by` are stored in the link's row; `mac` is the [`use_mac`] of the call.
pub fn is_repeat(
    used_at: Option<UnixMillis>,
    used_by: Option<&[u8]>,
    mac: Option<[u8; 32]>,
    now: UnixMillis,
) -> bool {
    let (Some(used_at), Some(used_by), Some(mac)) = (used_at, used_by, mac) else {
        return false;
    };
    bool::from(mac.ct_eq(used_by)) && now.since(used_at) < REPEAT_WINDOW
}

#[cfg(test)]
mod tests {
    use accord::{random::SystemRandom, testing::TEST_START, text::opaque::TokenKind};

    use super::*;

    #[test]
    fn a_repeat_has_the_same_request_id_and_comes_within_a_minute() {
        let token = || OpaqueToken::generate(TokenKind::Claim, &SystemRandom);
        let (link, id) = (token(), Uuid::from_u128(7));
        let mac = use_mac(&link, id);
        let last = TEST_START.plus(REPEAT_WINDOW).minus(Duration::from_millis(1));
        let repeats = |used_by: Option<&[u8]>, mac, now| is_repeat(Some(TEST_START), used_by, mac, now);
        assert!(repeats(Some(&mac), Some(mac), last));
        assert!(!repeats(Some(&mac), Some(mac), TEST_START.plus(REPEAT_WINDOW)));
        assert!(!repeats(
            Some(&mac),
            Some(use_mac(&link, Uuid::from_u128(8))),
            last
        ));
        assert!(!repeats(Some(&mac), Some(use_mac(&token(), id)), last));
        // A call without a request id neither is a repeat nor can be repeated.
        assert!(!repeats(None, None, last) && !repeats(Some(&mac), None, last));
        assert!(!is_repeat(None, Some(&mac), Some(mac), last));
    }
}
