//! Keys under a passphrase: argon2id makes a key of it, XChaCha20-Poly1305 seals.
//!
//! `madakeK1`, salt (16 bytes), memory in KiB, passes, lanes (u32 LE each), nonce (24 bytes), and what is
//! sealed. All before what is sealed is authenticated with it.

use std::collections::BTreeSet;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use madake_log::{AuthorId, AuthorKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::home::{HomeError, random};

const MAGIC: &[u8; 8] = b"madakeK1";
const HEADER_LEN: usize = 8 + 16 + 12 + 24;
/// What RFC 9106 advises where memory is short: 64 MiB, 3 passes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// What a foreign file may ask of this machine.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// The seeds of a home's keys.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// The node's.
    pub node: [u8; 32],
    /// The first author's.
    pub author: [u8; 32],
    /// Those of further authors, with their names.
    pub more: Vec<(String, [u8; 32])>,
}

impl Keys {
    /// The keys that lie in a home.
    pub fn of_home(home: &std::path::Path) -> Result<Self, HomeError> {
        crate::keys::seeds(home)
    }

    /// The authors whose keys they are.
    pub fn authors(&self) -> BTreeSet<AuthorId> {
        let seeds = self.more.iter().map(|(_, seed)| seed).chain([&self.author]);
        seeds.map(|seed| AuthorKey::from_seed(*seed).author()).collect()
    }
}

/// Why keys can't be sealed or taken out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Not what [`seal`] made.
    #[error("the keys in the file are not in a form that is known here")]
    Form,
    /// They can't be opened with this passphrase; or they were changed, which looks the same.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// Opening them would take more than it may.
    #[error("the keys in the file ask for {memory} KiB of memory and {passes} passes: more than is allowed")]
    TooCostly {
        /// KiB.
        memory: u32,
        /// Passes.
        passes: u32,
    },
    /// The machine can't do it: not enough memory, most likely.
    #[error("no key can be made of the passphrase: {0}")]
    Derive(argon2::Error),
    /// No random bytes.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Seals keys under a passphrase.
pub fn seal(keys: &Keys, passphrase: &str) -> Result<Vec<u8>, SealError> {
    let mut sealed = MAGIC.to_vec();
    sealed.extend(random::<16>()?);
    for parameter in [MEMORY_KIB, PASSES, LANES] {
        sealed.extend(parameter.to_le_bytes());
    }
    sealed.extend(random::<24>()?);
    // Room for all of it at once: a list that grows leaves copies behind.
    let plain = Vec::with_capacity(128 + keys.more.len() * 96);
    let plain = Zeroizing::new(postcard::to_extend(keys, plain).map_err(|_| SealError::Form)?);
    let cipher = cipher(&sealed, passphrase)?;
    let nonce = nonce(&sealed)?;
    let payload = Payload { msg: &plain, aad: &sealed };
    let bytes = cipher.encrypt(&nonce, payload).map_err(|_| SealError::Form)?;
    sealed.extend(bytes);
    Ok(sealed)
}

/// Takes keys out.
pub fn unseal(sealed: &[u8], passphrase: &str) -> Result<Keys, SealError> {
    let (header, bytes) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Form)?;
    if !header.starts_with(MAGIC) {
        return Err(SealError::Form);
    }
    let cipher = cipher(header, passphrase)?;
    let payload = Payload { msg: bytes, aad: header };
    let plain = cipher.decrypt(&nonce(header)?, payload).map_err(|_| SealError::Passphrase)?;
    postcard::from_bytes(&Zeroizing::new(plain)).map_err(|_| SealError::Form)
}

fn nonce(header: &[u8]) -> Result<XNonce, SealError> {
    let bytes: [u8; 24] = header[36..HEADER_LEN].try_into().map_err(|_| SealError::Form)?;
    Ok(bytes.into())
}

fn cipher(header: &[u8], passphrase: &str) -> Result<XChaCha20Poly1305, SealError> {
    let number = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    let (memory, passes, lanes) = (number(24), number(28), number(32));
    if memory > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(SealError::TooCostly { memory, passes });
    }
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(|_| SealError::Form)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &header[8..24], &mut *key)
        .map_err(SealError::Derive)?;
    XChaCha20Poly1305::new_from_slice(&*key).map_err(|_| SealError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_with_the_right_passphrase_only() {
        let keys = Keys { node: [1; 32], author: [2; 32], more: vec![("work".into(), [3; 32])] };
        let sealed = seal(&keys, "correct horse").unwrap();
        assert_eq!(unseal(&sealed, "correct horse").unwrap(), keys);
        assert!(matches!(unseal(&sealed, "correct horse "), Err(SealError::Passphrase)));
        assert!(!sealed.windows(8).any(|part| [[1; 8], [2; 8], [3; 8]].iter().any(|seed| part == seed)));
        assert_ne!(seal(&keys, "correct horse").unwrap(), sealed, "another salt and nonce each time");
        // A changed byte of header or seal, a cut, and what asks for too much.
        for at in [10, 40, HEADER_LEN, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(matches!(unseal(&changed, "correct horse"), Err(SealError::Passphrase)), "byte {at}");
        }
        assert!(matches!(unseal(&sealed[..HEADER_LEN - 1], "x"), Err(SealError::Form)));
        assert!(matches!(unseal(&sealed[..HEADER_LEN], "correct horse"), Err(SealError::Passphrase)));
        let mut costly = sealed.clone();
        costly[27] = 0xff;
        assert!(matches!(unseal(&costly, "x"), Err(SealError::TooCostly { .. })));
        costly[24..36].fill(0);
        assert!(matches!(unseal(&costly, "x"), Err(SealError::Form)));
    }
}
