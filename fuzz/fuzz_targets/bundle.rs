//! Any bytes are a bundle that is exactly its own encoding, or an error, in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_log::{
    Bundle, BundleDecoder, BundleEncodeError, BundleEncoder, BundleError, BundleEvent, BundleVerifier, Entry,
};
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

    // In pieces whose lengths the bytes say themselves: the same events, the same fault.
    let mut decoder = BundleDecoder::new();
    let mut items: Vec<(Entry, Option<Vec<u8>>)> = Vec::new();
    let mut failed = None;
    for mut piece in pieces(bytes) {
        while failed.is_none() {
            match decoder.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(BundleEvent::Entry(entry))) => items.push((entry, None)),
                Ok(Some(BundleEvent::Payload { piece, .. })) => {
                    let (_, payload) = items.last_mut().expect("a payload follows its entry");
                    payload.get_or_insert_default().extend_from_slice(piece);
                }
                Err(why) => failed = Some(why),
            }
        }
    }
    match (&decoded, failed.map_or_else(|| decoder.finish(), Err)) {
        (Ok(bundle), Ok(())) => {
            let whole = bundle.items().iter().map(|item| (&item.entry, item.payload));
            assert!(whole.eq(items.iter().map(|(entry, payload)| (entry, payload.as_deref()))));
        }
        (whole, pieces) => assert_eq!(whole.as_ref().err(), pieces.as_ref().err()),
    }

    // Signatures take a fuzzer's time, so of a few entries only.
    if items.len() < 3 {
        let verified =
            decoded.as_ref().map_err(|why| *why).and_then(|bundle| bundle.verify(NonZeroUsize::MIN));
        let mut verifier = BundleVerifier::new(NonZeroUsize::MIN);
        let failed = pieces(bytes).find_map(|piece| verifier.push(piece).err());
        match (verified, failed.map_or_else(|| verifier.finish(), Err)) {
            // In memory all of the form comes before the signatures; in pieces they take turns.
            (Err(BundleError::Form { .. }), Err(_)) => {}
            (whole, pieces) => assert_eq!(whole, pieces),
        }
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

fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at(rest.len().min(usize::from(*rest.first()?) + 1));
        rest = tail;
        Some(piece)
    })
}
