//! Making entries: the next one of a log, encoded and signed.

use crate::entry::{Entry, HASH_PREFIX};
use crate::id::{EntryId, LogId, PayloadId, SeqNum};
use crate::key::AuthorKey;
use crate::lipmaa::{has_lipmaa_link, lipmaa as lipmaa_of};
use crate::varu64::encode_varu64;
use crate::verify::{AuthenticEntry, LogHead};

impl Entry {
    /// Encodes and signs the entry that follows `head` in `log` (`docs/spec.md`, Encoding).
    ///
    /// - `head`: the log's last entry, or `None` to begin the log.
    /// - `lipmaa`: the id of entry [`lipmaa(seq)`](crate::lipmaa()) of the new entry's sequence number; needed where
    ///   [`has_lipmaa_link`] says so, ignored elsewhere.
    /// - `payload_id`, `payload_size` (bytes): must be those of the payload. A wrong size breaks the log for everyone.
    /// - `end`: whether this is the end of the log.
    ///
    /// Whoever signs twice on one head forks his log: make sure the head is durable and the last one.
    ///
    /// # Errors
    /// [`SignError`]: the log has ended, the lipmaa link is missing, or no sequence number is left.
    ///
    /// ```
    /// use madake_log::{AuthorKey, Entry, LogHead, LogId, PayloadId};
    /// let key = AuthorKey::from_seed([1; 32]);
    /// let log = LogId::new(2000);
    /// let first = Entry::sign(&key, log, None, None, PayloadId::of(b"one"), 3, false)?;
    /// let second = Entry::sign(&key, log, Some(&LogHead::of(&first)), None, PayloadId::of(b"two"), 3, true)?;
    /// assert_eq!(second.backlink(), Some(first.id()));
    /// # Ok::<(), madake_log::SignError>(())
    /// ```
    pub fn sign(
        key: &AuthorKey,
        log: LogId,
        head: Option<&LogHead>,
        lipmaa: Option<EntryId>,
        payload_id: PayloadId,
        payload_size: u64,
        end: bool,
    ) -> Result<AuthenticEntry, SignError> {
        let seq = match head {
            None => SeqNum::FIRST,
            Some(head) if head.end => return Err(SignError::Ended),
            Some(head) => head.seq.next().ok_or(SignError::SeqExhausted)?,
        };
        let mut bytes = Vec::with_capacity(Entry::MAX_LEN);
        bytes.push(u8::from(end));
        bytes.extend_from_slice(key.author().as_bytes());
        encode_varu64(log.get(), &mut bytes);
        encode_varu64(seq.get(), &mut bytes);
        if has_lipmaa_link(seq.get()) {
            let link = lipmaa.ok_or(SignError::LipmaaMissing { seq, target: lipmaa_of(seq.get()) })?;
            push_hash(link.as_bytes(), &mut bytes);
        }
        if let Some(head) = head {
            push_hash(head.entry.as_bytes(), &mut bytes);
        }
        encode_varu64(payload_size, &mut bytes);
        push_hash(payload_id.as_bytes(), &mut bytes);
        let signature = key.sign_entry(&bytes);
        bytes.extend_from_slice(&signature);
        let entry = Entry::decode(&bytes).expect("what this function encodes is well-formed");
        Ok(AuthenticEntry::signed(entry))
    }
}

/// Why no entry can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The head is an end of log.
    #[error("the log has ended")]
    Ended,
    /// The new entry must carry a lipmaa link and none was given.
    #[error("entry {seq} needs the id of entry {target} for its lipmaa link")]
    LipmaaMissing {
        /// The new entry's sequence number.
        seq: SeqNum,
        /// The sequence number whose entry id is needed.
        target: u64,
    },
    /// The head is at 2^64 − 1.
    #[error("the log has no sequence number left")]
    SeqExhausted,
}

fn push_hash(hash: &[u8; 32], out: &mut Vec<u8>) {
    out.extend_from_slice(&HASH_PREFIX);
    out.extend_from_slice(hash);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let key = AuthorKey::from_seed([1; 32]);
        let sign = |head: LogHead| {
            Entry::sign(&key, LogId::new(3), Some(&head), None, PayloadId::of(b""), 0, false)
                .map(|entry| entry.seq())
        };
        let head =
            |seq, end| LogHead { seq: SeqNum::new(seq).unwrap(), entry: EntryId::from_bytes([9; 32]), end };
        assert_eq!(sign(head(1, true)), Err(SignError::Ended));
        assert_eq!(sign(head(u64::MAX, false)), Err(SignError::SeqExhausted));
        let seq = SeqNum::new(8).unwrap();
        assert_eq!(sign(head(7, false)), Err(SignError::LipmaaMissing { seq, target: 4 }));
        assert_eq!(sign(head(8, false)), Ok(SeqNum::new(9).unwrap()));
    }

    #[test]
    fn what_it_makes_is_authentic() {
        let key = AuthorKey::from_seed([1; 32]);
        let entry = Entry::sign(&key, LogId::new(3), None, None, PayloadId::of(b"x"), 1, true).unwrap();
        let again = Entry::decode(entry.as_bytes()).unwrap();
        assert!(again.is_end() && again.author() == key.author());
        assert_eq!(AuthenticEntry::check(again).unwrap(), entry);
    }
}
