//! Any bytes are an entry that is exactly its own encoding, or an error; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_log::{AuthenticEntry, Entry, encode_varu64};

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::decode(bytes) else { return };
    assert_eq!(entry.as_bytes(), bytes);
    assert!((Entry::MIN_LEN..=Entry::MAX_LEN).contains(&bytes.len()));

    // Encoding the fields again gives the same bytes: there is one form.
    let mut again = vec![u8::from(entry.is_end())];
    again.extend(entry.author().as_bytes());
    encode_varu64(entry.log().get(), &mut again);
    encode_varu64(entry.seq().get(), &mut again);
    for link in [entry.lipmaa(), entry.backlink()].into_iter().flatten() {
        again.extend([0, 32]);
        again.extend(link.as_bytes());
    }
    encode_varu64(entry.payload_size(), &mut again);
    again.extend([0, 32]);
    again.extend(entry.payload_id().as_bytes());
    again.extend(entry.signature());
    assert_eq!(again, bytes);

    let _ = AuthenticEntry::check(entry);
});
