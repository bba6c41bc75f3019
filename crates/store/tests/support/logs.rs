//! Logs for tests.

use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId};
use madake_object::Object;

/// A log of its own: entries with these payloads, one after the other.
pub(crate) fn chain(key: &AuthorKey, log: LogId, payloads: &[Object]) -> Vec<AuthenticEntry> {
    let (mut entries, mut head): (Vec<AuthenticEntry>, Option<LogHead>) = (Vec::new(), None);
    for payload in payloads {
        let seq = head.map_or(1, |head| head.seq.get() + 1);
        let lipmaa =
            madake_log::has_lipmaa_link(seq).then(|| entries[madake_log::lipmaa(seq) as usize - 1].id());
        let id = PayloadId::from_bytes(*payload.id().as_bytes());
        let size = payload.bytes().len() as u64;
        let entry = Entry::sign(key, log, head.as_ref(), lipmaa, id, size, false).unwrap();
        head = Some(LogHead::of(&entry));
        entries.push(entry);
    }
    entries
}
