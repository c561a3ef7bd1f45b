//! One-time links. A link works once. For a minute, the call that used it can be repeated and gets the same answer.
//!
//! With `--second-operator` a link opens only with the code of its release, so that its creator alone can't open it.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    text::{
        opaque::{OpaqueToken, sha256},
        release_code::ReleaseCode,
    },
};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// How long after its use a link gives a repeated call the same answer.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(60);
/// How many wrong codes end a link.
pub const MAX_WRONG_CODES: i32 = 5;

/// Whether a link needs a release, and the code of its release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Whether the link opens only with a code. A link that was released always does.
    pub is_needed: bool,
    /// The [`code_mac`] with the version of its key; `None` before the release.
    pub mac: Option<(Vec<u8>, i32)>,
}

/// Why a link does not open, as the audit record says it. The caller learns no more than a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum CodeProblem {
    /// The link needs a release and has none.
    #[strum(serialize = "not released")]
    NotReleased,
    /// The call has no code.
    #[strum(serialize = "no release code")]
    Missing,
    /// The call has another code. Only this counts as a wrong code.
    #[strum(serialize = "wrong release code")]
    Wrong,
}

impl Release {
    /// Checks the code of a call, in constant time. `key` is the one that [`Self::mac`] names; `link` identifies the link.
    ///
    /// # Errors
    /// Why the link does not open.
    pub fn check(
        &self,
        key: Option<&DataKey>,
        link: &[u8],
        code: Option<&ReleaseCode>,
    ) -> Result<(), CodeProblem> {
        if !self.is_needed {
            return Ok(());
        }
        let (Some((mac, _)), Some(key)) = (&self.mac, key) else {
            return Err(CodeProblem::NotReleased);
        };
        let code = code.ok_or(CodeProblem::Missing)?;
        match bool::from(code_mac(key, link, code).ct_eq(mac)) {
            true => Ok(()),
            false => Err(CodeProblem::Wrong),
        }
    }
}

/// Returns the MAC of a release code. A code has few bits: whoever steals the database without its keys could guess it
/// from a plain hash.
pub fn code_mac(key: &DataKey, link: &[u8], code: &ReleaseCode) -> [u8; 32] {
    key.hmac(&[b"release", link, code.expose().as_bytes()])
}

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
