use super::*;
use crate::testing::{append, log, pick};
use crate::{AuthorKey, LogHead, PayloadId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The bytes of a proof, without any check.
fn raw(kind: u8, one: &Entry, other: &Entry) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    for entry in [one, other] {
        bytes.push(entry.as_bytes().len() as u8);
        bytes.extend(entry.as_bytes());
    }
    bytes
}

/// Two logs of `n` entries that are one up to entry `shared`.
fn branches(shared: usize, n: usize) -> [Vec<AuthenticEntry>; 2] {
    let one = log(1, 5000, n as u64, 0, false);
    let mut other = one[..shared].to_vec();
    while other.len() < n {
        append(&mut other, 1, 5000, 1, false);
    }
    [one, other]
}

/// One proof of every kind, with the disputed number.
fn samples() -> Vec<(ForkKind, u64, ForkProof)> {
    let [one, other] = branches(6, 40);
    let at = |branch: &[AuthenticEntry], seq: u64| pick(branch, [seq]).remove(0);
    let mut ended = one[..13].to_vec();
    append(&mut ended, 1, 5000, 0, true);
    append(&mut ended, 1, 5000, 0, false);
    let sample = |kind, seq, a: AuthenticEntry, b: AuthenticEntry| {
        let proof = ForkProof::between(&a, &b).unwrap();
        assert_eq!(ForkProof::between(&b, &a).unwrap(), proof);
        (kind, seq, proof)
    };
    vec![
        sample(ForkKind::Entries, 7, at(&one, 7), at(&other, 7)),
        sample(ForkKind::Backlink, 7, at(&one, 7), at(&other, 8)),
        sample(ForkKind::Lipmaa, 8, at(&one, 8), at(&other, 12)),
        sample(ForkKind::AfterEnd, 14, at(&ended, 14), at(&ended, 15)),
        sample(ForkKind::AfterEnd, 14, at(&ended, 14), at(&one, 39)),
        sample(ForkKind::Links, 7, at(&one, 8), at(&other, 8)),
        sample(ForkKind::Links, 8, at(&one, 9), at(&other, 12)),
    ]
}

#[test]
fn every_kind() {
    for (kind, seq, proof) in samples() {
        assert_eq!((proof.kind(), proof.seq().get()), (kind, seq), "{proof:?}");
        assert_eq!(ForkProof::verify(proof.as_bytes()), Ok(proof.clone()));
        assert_eq!(ForkKind::from_number(kind.number()), Some(kind));
        assert!(proof.as_bytes().len() < 700);
        assert_eq!((proof.author(), proof.log().get()), (AuthorKey::from_seed([1; 32]).author(), 5000));
        let [one, other] = proof.claims();
        assert_ne!(one.hash, other.hash);
        let key = proof.key();
        assert!(
            key.hashes.is_sorted() && [one.hash, other.hash].iter().all(|hash| key.hashes.contains(hash))
        );
        for claim in [one, other].into_iter().filter(|_| kind != ForkKind::AfterEnd) {
            assert!(stated(claim.entry).any(|found| found == (proof.seq(), claim.by, claim.hash)));
        }
        let bytes = blake3::derive_key("madake fork proof 1", proof.as_bytes());
        assert_eq!(proof.id().as_bytes(), &bytes);
        let [first, second] = proof.entries();
        assert_eq!(proof.as_bytes(), raw(kind.number(), &first, &second));
    }
}

#[test]
fn the_longest() {
    let key = AuthorKey::from_seed([1; 32]);
    let some = EntryId::from_bytes([7; 32]);
    let head = LogHead { seq: SeqNum::MAX.prev().unwrap(), entry: some, end: false };
    let sign = |payload: u8| {
        let payload = PayloadId::of(&[payload]);
        Entry::sign(&key, LogId::new(u64::MAX), Some(&head), Some(some), payload, u64::MAX, true).unwrap()
    };
    let proof = ForkProof::between(&sign(1), &sign(2)).unwrap();
    assert_eq!((proof.as_bytes().len(), proof.kind()), (ForkProof::MAX_LEN, ForkKind::Entries));
    const { assert!(ForkProof::MAX_LEN < 700) };
    assert_eq!(ForkProof::verify(proof.as_bytes()), Ok(proof));
}

#[test]
fn refusals() {
    let [one, other] = branches(6, 14);
    let at = |seq: usize| &one[seq - 1];
    let verify = |kind, a: &Entry, b: &Entry| ForkProof::verify(&raw(kind, a, b)).unwrap_err();
    let [first, second] = ForkProof::between(at(7), &other[6]).unwrap().entries();

    for kind in [1, 2, 3, 4, 9] {
        assert_eq!(verify(kind, at(7), at(7)), ProofError::SameEntry);
        assert_eq!(
            verify(kind, at(7), at(8)),
            ProofError::NoContradiction,
            "two numbers in a K1, and all else"
        );
        assert_eq!(verify(kind, at(7), &log(2, 5000, 7, 0, false)[6]), ProofError::TwoAuthors);
        assert_eq!(verify(kind, at(7), &log(1, 5001, 7, 0, false)[6]), ProofError::TwoLogs);
    }
    assert_eq!(verify(1, &second, &first), ProofError::Order);
    // Two entries 8 after a fork at 7 differ themselves, and their backlinks below: only that is valid.
    let [a, b] = ForkProof::between(at(8), &other[7]).unwrap().entries();
    let wrong = ProofError::WrongKind { stated: ForkKind::Entries, proved: ForkKind::Links };
    assert_eq!(verify(1, &a, &b), wrong);
    assert!(ForkProof::verify(&raw(9, &a, &b)).is_ok());

    for (kind, seq, proof) in samples() {
        let good = proof.as_bytes();
        let [a, b] = proof.entries();
        for stated in
            [ForkKind::Entries, ForkKind::Backlink, ForkKind::Lipmaa, ForkKind::AfterEnd, ForkKind::Links]
        {
            let expected = ProofError::WrongKind { stated, proved: kind };
            let result = ForkProof::verify(&raw(stated.number(), &a, &b));
            assert_eq!(result.err(), (stated != kind).then_some(expected), "{seq}");
        }
        assert_eq!(ForkProof::verify(&raw(kind.number(), &b, &a)), Err(ProofError::Order));
        assert_eq!(ForkProof::verify(&raw(5, &a, &b)), Err(ProofError::Kind(5)));
        assert_eq!(ForkProof::verify(&[good, &[0]].concat()), Err(ProofError::Trailing));
        for cut in 0..good.len() {
            assert!(ForkProof::verify(&good[..cut]).is_err());
        }
        let mut newer = good.to_vec();
        newer[0] = 2;
        assert_eq!(ForkProof::verify(&newer), Err(ProofError::Version(2)));
        // Either signature.
        for which in [1u8, 2] {
            let mut bad = good.to_vec();
            let end = if which == 1 { 3 + usize::from(good[2]) } else { good.len() };
            bad[end - 1] ^= 0x80;
            // Another id may turn the entries round, or agree with nothing: then it is refused even sooner.
            match ForkProof::verify(&bad) {
                Err(ProofError::Signature { which: found, source }) => {
                    assert_eq!((found, source), (which, SignatureError::Signature));
                }
                Err(ProofError::Order | ProofError::WrongKind { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // A log id in a longer form, with its length byte mended.
    let mut long = raw(1, &first, &second);
    assert_eq!(long[3 + 33], 0xf9);
    long.splice(36..37, [0xfa, 0]);
    long[2] += 1;
    assert_eq!(ForkProof::verify(&long), Err(ProofError::Entry { which: 1, source: DecodeError::LogId }));
    // A tag byte: the entry is another one then, and not signed.
    let mut tag = raw(1, &first, &second);
    tag[3] = 1;
    assert!(ForkProof::verify(&tag).is_err());
    tag[3] = 2;
    assert_eq!(ForkProof::verify(&tag), Err(ProofError::Entry { which: 1, source: DecodeError::Tag }));
}

#[test]
fn a_forged_signature_is_named() {
    // The entries' order does not hang on the id here, so what is left is the signature.
    let (_, _, proof) = samples().remove(1);
    for which in [1u8, 2] {
        let mut bad = proof.as_bytes().to_vec();
        let end = if which == 1 { 3 + usize::from(bad[2]) } else { bad.len() };
        bad[end - 1] ^= 0x80;
        let source = SignatureError::Signature;
        assert_eq!(ForkProof::verify(&bad), Err(ProofError::Signature { which, source }));
        assert!(Accusation::decode(&bad).is_ok());
    }
}

#[test]
fn any_changed_byte_fails() {
    for (_, _, proof) in samples() {
        for place in 0..proof.as_bytes().len() {
            let mut bad = proof.as_bytes().to_vec();
            bad[place] ^= 1 << (place % 8);
            assert!(ForkProof::verify(&bad).is_err(), "byte {place} of {proof:?}");
        }
    }
}

#[test]
fn the_order_of_proofs() {
    let samples = samples();
    let mut keys: Vec<ProofKey> = samples.iter().map(|(_, _, proof)| proof.key()).collect();
    keys.sort();
    assert!(keys.is_sorted_by_key(|key| (key.seq, key.kind)));
    let [low, high] = [1, 2].map(|n| EntryId::from_bytes([n; 32]));
    let id = |n| ProofId::from_bytes([n; 32]);
    let seq = |n| SeqNum::new(n).unwrap();
    let ascending = [
        ProofKey { seq: seq(1), kind: ForkKind::Links, hashes: [high, high], id: id(9) },
        ProofKey { seq: seq(2), kind: ForkKind::Entries, hashes: [low, low], id: id(9) },
        ProofKey { seq: seq(2), kind: ForkKind::Entries, hashes: [low, high], id: id(1) },
        ProofKey { seq: seq(2), kind: ForkKind::Entries, hashes: [low, high], id: id(2) },
        ProofKey { seq: seq(2), kind: ForkKind::AfterEnd, hashes: [low, low], id: id(1) },
        ProofKey { seq: seq(2), kind: ForkKind::Links, hashes: [low, low], id: id(1) },
    ];
    assert!(ascending.windows(2).all(|pair| pair[0] < pair[1]));
}

/// What an entry states: a map from places to hashes.
fn model(entry: &Entry) -> BTreeMap<u64, EntryId> {
    let seq = entry.seq().get();
    let links = [(lipmaa_of(seq), entry.lipmaa()), (seq - 1, entry.backlink()), (seq, Some(entry.id()))];
    links.into_iter().filter_map(|(seq, hash)| Some((seq, hash?))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn honest_logs_prove_nothing(seed in 1u8.., n in 1u64..45, end: bool, logs in proptest::array::uniform2(0u64..3)) {
        let entries = logs.map(|number| log(seed, number, n, 0, end));
        for one in entries.iter().flatten() {
            for other in entries.iter().flatten() {
                prop_assert_eq!(ForkProof::between(one, other), None);
            }
        }
    }

    #[test]
    fn conflicts_prove_a_fork(shared in 0usize..40, a in 1usize..=40, b in 1usize..=40, ends in any::<[bool; 2]>(), flip in 1u8.., place: prop::sample::Index) {
        let mut branches = branches(shared, 40);
        // Any entry may be turned into an end of log, and what follows it stays.
        for ((branch, seq), end) in branches.iter_mut().zip([a, b]).zip(ends) {
            if end {
                branch.truncate(seq - 1);
                append(branch, 1, 5000, 2, true);
            }
        }
        let (one, other) = (&branches[0][a - 1], &branches[1][b - 1]);
        let (low, high) = if a <= b { (one, other) } else { (other, one) };
        let (states, against) = (model(one), model(other));
        let differ: Vec<u64> = states.iter().filter(|(at, hash)| against.get(at).is_some_and(|h| h != *hash)).map(|(at, _)| *at).collect();
        let after_end = (low.is_end() && low.seq() < high.seq()).then_some(low.seq().get());
        let lowest = differ.iter().copied().chain(after_end).min();

        let proof = ForkProof::between(one, other);
        prop_assert_eq!(proof.as_ref().map(|proof| proof.seq().get()), lowest);
        prop_assert_eq!(&proof, &ForkProof::between(other, one));
        if let Some(proof) = proof {
            if !differ.contains(&proof.seq().get()) {
                prop_assert_eq!(proof.kind(), ForkKind::AfterEnd);
            }
            prop_assert_eq!(&ForkProof::verify(proof.as_bytes()).unwrap(), &proof);
            let mut bad = proof.as_bytes().to_vec();
            let place = place.index(bad.len());
            bad[place] ^= flip;
            prop_assert!(ForkProof::verify(&bad).is_err(), "byte {}", place);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), kind in 1u8..10) {
        let _ = ForkProof::verify(&bytes);
        prop_assert!(ForkProof::verify(&[&[1, kind, 134][..], &bytes].concat()).is_err());
    }
}
