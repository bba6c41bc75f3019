//! The secret half of an author, and the only two kinds of message that it signs.

use crate::id::AuthorId;
use ed25519_dalek::Signer;
use std::fmt;
use zeroize::Zeroizing;

/// An author's (or node's) ed25519 secret key.
///
/// It signs Bamboo entries (first byte 00 or 01; see [`Entry::sign`](crate::Entry::sign)) and TLS 1.3 handshakes
/// (first byte 20), nothing else, ever: so no signature can be taken for one of the other kind
/// (`docs/spec.md`, Keys, homes, sockets). Randomness is the caller's. The secret is wiped on drop and never shown.
///
/// ```
/// use madake_log::AuthorKey;
/// let key = AuthorKey::from_seed([7; 32]);
/// assert_eq!(AuthorKey::from_seed(*key.seed()).author(), key.author());
/// assert!(key.sign_tls13(b"anything else").is_err());
/// ```
pub struct AuthorKey(ed25519_dalek::SigningKey);

impl AuthorKey {
    /// The key made from a 32-byte seed (the "secret key" of RFC 8032). The seed must come from good randomness.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// A copy of the seed that wipes itself, for writing the key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn author(&self) -> AuthorId {
        AuthorId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs the message of a TLS 1.3 CertificateVerify (RFC 8446, 4.4.3): 64 times 20, a context string
    /// of the server or the client, a zero byte, the transcript hash.
    ///
    /// # Errors
    /// [`RefusedToSign`] for a message of any other form.
    pub fn sign_tls13(&self, message: &[u8]) -> Result<[u8; 64], RefusedToSign> {
        match message.split_at_checked(TLS_PADDING.len()) {
            Some((padding, rest))
                if padding == TLS_PADDING && TLS_CONTEXTS.iter().any(|c| rest.starts_with(c)) =>
            {
                Ok(self.0.sign(message).to_bytes())
            }
            _ => Err(RefusedToSign),
        }
    }

    /// Signs an entry's bytes up to the signature. Only the builder calls this, with bytes that it made.
    pub(crate) fn sign_entry(&self, unsigned: &[u8]) -> [u8; 64] {
        assert!(matches!(unsigned.first(), Some(0 | 1)), "an entry begins with its tag");
        self.0.sign(unsigned).to_bytes()
    }
}

impl fmt::Debug for AuthorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorKey(secret of {:?})", self.author())
    }
}

/// The message is neither a Bamboo entry nor a TLS 1.3 handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused to sign: the message is no TLS 1.3 CertificateVerify")]
pub struct RefusedToSign;

const TLS_PADDING: [u8; 64] = [0x20; 64];
const TLS_CONTEXTS: [&[u8]; 2] =
    [b"TLS 1.3, server CertificateVerify\0", b"TLS 1.3, client CertificateVerify\0"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_handshakes_of_both_sides() {
        let key = AuthorKey::from_seed([3; 32]);
        for context in TLS_CONTEXTS {
            let message = [&TLS_PADDING[..], context, &[9; 32]].concat();
            let signature = key.sign_tls13(&message).unwrap();
            let public = ed25519_dalek::VerifyingKey::from_bytes(key.author().as_bytes()).unwrap();
            let signature = ed25519_dalek::Signature::from_bytes(&signature);
            assert!(public.verify_strict(&message, &signature).is_ok());
        }
    }

    #[test]
    fn refuses_all_else() {
        let key = AuthorKey::from_seed([3; 32]);
        let good = [&TLS_PADDING[..], TLS_CONTEXTS[0], &[9; 32]].concat();
        let length = TLS_PADDING.len() + TLS_CONTEXTS[0].len();
        for place in 0..length {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(key.sign_tls13(&bad), Err(RefusedToSign), "byte {place}");
            assert_eq!(key.sign_tls13(&good[..place]), Err(RefusedToSign), "cut at {place}");
        }
        assert_eq!(key.sign_tls13(&good[1..]), Err(RefusedToSign));
        for first in [0u8, 1] {
            let mut entry = vec![first];
            entry.extend([0x20; 200]);
            assert_eq!(key.sign_tls13(&entry), Err(RefusedToSign));
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let key = AuthorKey::from_seed([0xab; 32]);
        let shown = format!("{key:?} {key:#?}");
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
}
