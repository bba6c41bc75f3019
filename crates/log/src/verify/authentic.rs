//! The one signature rule (`docs/spec.md`, One signature rule for all nodes), for one entry.

use crate::entry::Entry;
use crate::id::AuthorId;
use ed25519_zebra::{Signature, VerificationKey};
use std::ops::Deref;

/// An entry whose signature holds: its author wrote exactly these bytes.
///
/// It can only be made by a check ([`check`](Self::check), [`BatchVerifier`](crate::BatchVerifier)), by signing
/// ([`Entry::sign`]), or by [`assume_checked`](Self::assume_checked). Its links may still point anywhere;
/// see [`VerifiedEntry`](crate::VerifiedEntry).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AuthenticEntry(Entry);

impl AuthenticEntry {
    /// Checks the author's key and the signature over the received bytes.
    ///
    /// The key check costs about as much as the signature; for more than a few entries use
    /// [`BatchVerifier`](crate::BatchVerifier), which does it once per author and gives the same verdict.
    ///
    /// # Errors
    /// [`SignatureError`]; the entry then proves nothing about its author.
    pub fn check(entry: Entry) -> Result<Self, SignatureError> {
        entry.author().check_key()?;
        // The cofactored equation of ZIP 215, as in the batch.
        VerificationKey::try_from(*entry.author().as_bytes())
            .and_then(|key| key.verify(&Signature::from_bytes(entry.signature()), entry.signed_bytes()))
            .map_err(|_| SignatureError::Signature)?;
        Ok(Self(entry))
    }

    /// Takes an entry as authentic without a check.
    ///
    /// Only for bytes read back from one's own storage that were checked before they were written there and are
    /// guarded by the storage's checksum. Never for bytes from a peer, an import or a file that others can write.
    pub fn assume_checked(entry: Entry) -> Self {
        Self(entry)
    }

    /// The entry alone.
    pub fn into_entry(self) -> Entry {
        self.0
    }

    /// The entry that the builder signed just now.
    pub(crate) fn signed(entry: Entry) -> Self {
        Self(entry)
    }

    /// An entry that the batch verifier found good.
    pub(super) fn batch_checked(entry: Entry) -> Self {
        Self(entry)
    }
}

impl Deref for AuthenticEntry {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

impl AuthorId {
    /// Checks that signatures by this key can count: a point of the curve in canonical form, of prime order,
    /// and not the identity.
    ///
    /// Takes some 50 µs; [`BatchVerifier`](crate::BatchVerifier) remembers the keys that passed.
    ///
    /// # Errors
    /// [`SignatureError::AuthorPoint`] if the bytes are no curve point, else [`SignatureError::WeakAuthor`].
    pub fn check_key(&self) -> Result<(), SignatureError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(self.as_bytes())
            .map_err(|_| SignatureError::AuthorPoint)?;
        let point = key.to_edwards();
        let canonical = point.compress().to_bytes() == *self.as_bytes();
        // `is_weak`: of small order, which among torsion-free points is the identity alone.
        if canonical && !key.is_weak() && point.is_torsion_free() {
            Ok(())
        } else {
            Err(SignatureError::WeakAuthor)
        }
    }
}

/// Why an entry is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The author's 32 bytes are no point of the curve.
    #[error("the author is no point of the curve")]
    AuthorPoint,
    /// The author's key is not canonical, not torsion-free or the identity: others could sign for it.
    #[error("the author's key is not canonical, not of prime order, or the identity")]
    WeakAuthor,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
}

impl SignatureError {
    /// The reason as one word, as in the verdicts of the test vectors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AuthorPoint => "author-point",
            Self::WeakAuthor | Self::Signature => "signature",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorKey, LogId, PayloadId};
    use proptest::prelude::*;

    fn author(hex: &str) -> AuthorId {
        hex.parse().unwrap()
    }

    #[test]
    fn weak_and_odd_keys() {
        let zeros = "00".repeat(30);
        let ones = "ff".repeat(30);
        for (key, expected) in [
            (format!("01{zeros}00"), SignatureError::WeakAuthor), // identity
            (format!("01{zeros}80"), SignatureError::WeakAuthor), // identity with a sign
            (format!("ec{ones}7f"), SignatureError::WeakAuthor),  // order 2
            (format!("ecff{}ff", "ff".repeat(29)), SignatureError::WeakAuthor), // order 2 with a sign
            (format!("00{zeros}00"), SignatureError::WeakAuthor), // order 4
            (format!("00{zeros}80"), SignatureError::WeakAuthor), // order 4
            (format!("ed{ones}7f"), SignatureError::WeakAuthor),  // order 4, y = p
            (format!("ee{ones}7f"), SignatureError::WeakAuthor),  // identity, y = p + 1
            (
                "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".into(),
                SignatureError::WeakAuthor,
            ), // order 8
            (
                "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa".into(),
                SignatureError::WeakAuthor,
            ), // order 8
            ("02".repeat(32), SignatureError::AuthorPoint),
        ] {
            assert_eq!(author(&key).check_key(), Err(expected), "{key}");
        }
    }

    #[test]
    fn keys_of_mixed_order_and_not_canonical() {
        // Every non-canonical y that is a point at all is refused, and so are all neighbours with torsion.
        let mut seen = 0;
        for low in 0xed..=0xff {
            for high in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                (bytes[0], bytes[31]) = (low, high);
                assert!(AuthorId::from_bytes(bytes).check_key().is_err());
                seen +=
                    usize::from(AuthorId::from_bytes(bytes).check_key() == Err(SignatureError::WeakAuthor));
            }
        }
        assert!(seen >= 8, "{seen}");
        // One point in eight has no torsion; the check tells them apart.
        let (mut good, mut weak) = (0, 0);
        for n in 0u64..400 {
            let bytes = *blake3::hash(&n.to_le_bytes()).as_bytes();
            match AuthorId::from_bytes(bytes).check_key() {
                Ok(()) => good += 1,
                Err(SignatureError::WeakAuthor) => weak += 1,
                Err(_) => {}
            }
        }
        assert!((8..60).contains(&good) && weak > 100, "{good} {weak}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_changed_byte_is_never_accepted(seed: [u8; 32], log: u64, size: u64, place in 0usize..152, flip in 1u8..) {
            let key = AuthorKey::from_seed(seed);
            prop_assert_eq!(key.author().check_key(), Ok(()));
            let entry = Entry::sign(&key, LogId::new(log), None, None, PayloadId::from_bytes(seed), size, false).unwrap();
            prop_assert!(AuthenticEntry::check((*entry).clone()).is_ok());
            let mut bytes = entry.as_bytes().to_vec();
            let place = place % bytes.len();
            bytes[place] ^= flip;
            if let Ok(changed) = Entry::decode(&bytes) {
                prop_assert!(AuthenticEntry::check(changed).is_err());
            }
        }
    }
}
