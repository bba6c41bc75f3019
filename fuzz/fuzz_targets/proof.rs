//! Any bytes are a fork proof that is exactly its own encoding, or an error; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_log::{Accusation, AuthenticEntry, Entry, ForkProof};
use madake_store::system::StatementProof;

fuzz_target!(|bytes: &[u8]| {
    // As they came; no signature will hold.
    if let Ok(accusation) = Accusation::decode(bytes) {
        assert_eq!(accusation.as_bytes(), bytes);
        assert!(bytes.len() <= ForkProof::MAX_LEN);
        let key = accusation.key();
        assert!(key.hashes[0] < key.hashes[1]);
        let again = Accusation::decode(accusation.as_bytes()).expect("decoded before");
        assert_eq!((again.key(), again.id()), (key, accusation.id()));
    }
    // The same of what statements say.
    if let Ok(proof) = StatementProof::verify(bytes) {
        assert_eq!(proof.as_bytes(), bytes);
    }
    assert_eq!(ForkProof::verify(bytes).is_ok(), Accusation::decode(bytes).is_ok_and(|a| a.check().is_ok()));

    // As two entries, whatever they are: what they prove is found in both orders, and reads back.
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((one, other)) = rest.split_at_checked(usize::from(length)) else { return };
    let (Ok(one), Ok(other)) = (Entry::decode(one), Entry::decode(other)) else { return };
    let [one, other] = [one, other].map(AuthenticEntry::assume_checked);
    let proof = ForkProof::between(&one, &other);
    assert_eq!(proof, ForkProof::between(&other, &one));
    if let Some(proof) = proof {
        let read = Accusation::decode(proof.as_bytes()).expect("a proof reads back");
        assert_eq!(read.key(), proof.key());
    }
});
