//! Any bytes are a bundle that is exactly its own encoding, or an error, in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_log::{Bundle, BundleEncodeError, BundleEncoder, BundleError, BundleVerifier};
use std::num::NonZeroUsize;

fuzz_target!(|input: &[u8]| {
    check(input);
    // The checksum is beyond a fuzzer: the same bytes with a fitting end.
    let mut sealed = input.to_vec();
    sealed.extend([0, 32]);
    let checksum = blake3::derive_key("madake bundle 1", &sealed);
    sealed.extend(checksum);
    check(&sealed);
});

fn check(bytes: &[u8]) {
    let decoded = Bundle::decode(bytes);
    let verified = decoded.as_ref().map_err(|why| *why).and_then(|bundle| bundle.verify(NonZeroUsize::MIN));

    // In pieces whose lengths the bytes say themselves.
    let mut verifier = BundleVerifier::new(NonZeroUsize::MIN);
    let mut rest = bytes;
    let mut failed = None;
    while let (Some(first), None) = (rest.first(), failed) {
        let (piece, tail) = rest.split_at(rest.len().min(usize::from(*first) + 1));
        failed = verifier.push(piece).err();
        rest = tail;
    }
    let in_pieces = failed.map_or_else(|| verifier.finish(), Err);
    match (verified, in_pieces) {
        // In memory all of the form comes before the signatures; in pieces they take turns.
        (Err(BundleError::Form { .. }), Err(_)) => {}
        (whole, pieces) => assert_eq!(whole, pieces),
    }

    let Ok(bundle) = decoded else { return };
    let mut again = Vec::new();
    let mut encoder = BundleEncoder::new(&mut again);
    for item in bundle.items() {
        match encoder.entry(&item.entry, &mut again) {
            Ok(()) => {}
            // Two entries for one place are read, to be named; no encoder writes them.
            Err(BundleEncodeError::Order { .. }) => return,
            Err(other) => panic!("{other}"),
        }
        if let Some(payload) = item.payload {
            encoder.payload(payload, &mut again).expect("a decoded payload fits its entry");
        }
    }
    encoder.finish(&mut again).expect("all payloads are whole");
    assert_eq!(again, bytes);
}
