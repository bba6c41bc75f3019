use super::*;
use crate::testing::{append, log, payload, pick};
use crate::{
    AuthenticEntry, AuthorKey, LinkError, LogHead, PayloadId, SignatureError, encode_varu64, lipmaa,
};
use proptest::prelude::*;
use std::num::NonZeroUsize;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A bundle of these entries in their order, without any check, with the payloads of branch 0 that exist.
fn raw(entries: &[Entry]) -> Vec<u8> {
    let mut items = Vec::new();
    for entry in entries {
        items.push((KIND_ENTRY, entry.as_bytes().to_vec()));
        let payload = payload(0, entry.seq().get());
        if entry.check_payload(&payload).is_ok() {
            items.push((KIND_PAYLOAD, payload));
        }
    }
    of_items(&items)
}

fn of_items(items: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = header().to_vec();
    for (kind, body) in items {
        bytes.push(*kind);
        encode_varu64(body.len() as u64, &mut bytes);
        bytes.extend(body);
    }
    bytes.extend([KIND_END, CHECKSUM_LEN as u8]);
    seal(bytes)
}

/// Appends the checksum of all before.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::derive_key(CHECKSUM_CONTEXT, &bytes);
    bytes.extend(checksum);
    bytes
}

fn plain(entries: &[AuthenticEntry]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.iter().map(|entry| (**entry).clone()).collect();
    entries.sort_by_key(place);
    entries
}

fn verify(bytes: &[u8]) -> Result<BundleReport, BundleError> {
    let whole = Bundle::decode(bytes).and_then(|bundle| bundle.verify(TWO));
    // Piece by piece the verdict is the same, but for what comes first: form is found before signatures in memory.
    let pieces = in_pieces(bytes, 1000, NonZeroUsize::MIN);
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Err(BundleError::Entry { .. }), _) | (Ok(_), _) = (whole, &pieces) {
        assert_eq!(format!("{:?}", Bundle::decode(bytes).and_then(|b| b.verify(TWO))), format!("{pieces:?}"));
    }
    pieces
}

fn in_pieces(bytes: &[u8], size: usize, threads: NonZeroUsize) -> Result<BundleReport, BundleError> {
    let mut verifier = BundleVerifier::new(threads);
    for piece in bytes.chunks(size) {
        if let Err(why) = verifier.push(piece) {
            assert_eq!(verifier.push(b"more"), Err(why));
            assert_eq!(verifier.finish(), Err(why));
            return Err(why);
        }
    }
    verifier.finish()
}

fn form(result: Result<impl std::fmt::Debug, BundleError>) -> (u64, BundleFormError) {
    match result {
        Err(BundleError::Form { at, why }) => (at, why),
        other => panic!("{other:?}"),
    }
}

fn fault(entries: &[Entry]) -> (u64, EntryFault) {
    match verify(&raw(entries)) {
        Err(BundleError::Entry { seq, why, .. }) => (seq.get(), why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn there_and_back() {
    let logs = [log(1, 5000, 45, 0, false), log(1, 5001, 1, 0, true), log(2, 7, 14, 1, false)];
    let entries = plain(&logs.concat());
    let mut bytes = Vec::new();
    let mut encoder = BundleEncoder::new(&mut bytes);
    for entry in &entries {
        encoder.entry(entry, &mut bytes).unwrap();
        let payload = payload(0, entry.seq().get());
        if entry.check_payload(&payload).is_ok() {
            let (head, tail) = payload.split_at(payload.len() / 2);
            encoder.payload(head, &mut bytes).unwrap();
            encoder.payload(tail, &mut bytes).unwrap();
        }
    }
    encoder.finish(&mut bytes).unwrap();
    assert_eq!(bytes, raw(&entries));

    let bundle = Bundle::decode(&bytes).unwrap();
    assert!(bundle.items().iter().map(|item| &item.entry).eq(&entries));
    let report = verify(&bytes).unwrap();
    assert_eq!((report.logs().len(), report.entries(), report.is_complete()), (3, 60, false));
    for found in report.logs() {
        assert!(found.is_complete());
        let entries =
            logs.iter().find(|log| (log[0].author(), log[0].log()) == (found.author(), found.log()));
        let entries = entries.unwrap();
        assert_eq!(
            (found.entries(), found.head()),
            (entries.len() as u64, LogHead::of(entries.last().unwrap()))
        );
        let missing = if found.log().get() == 7 { &entries[..] } else { &[] };
        assert!(found.missing().iter().map(|m| (m.seq, m.payload, m.size)).eq(missing.iter().map(|e| (
            e.seq(),
            e.payload_id(),
            e.payload_size()
        ))));
    }
}

#[test]
fn a_partial_log_travels() {
    let entries = log(1, 5000, 130, 0, false);
    let (start, head) = (SeqNum::new(125).unwrap(), SeqNum::new(130).unwrap());
    let needed = crate::PartialLog::needed(start, head).map(SeqNum::get);
    let part = crate::PartialLog::new(start, pick(&entries, needed)).unwrap();
    let sent: Vec<Entry> = part.entries().map(|entry| Entry::clone(entry)).collect();
    let bytes = raw(&sent);
    let report = verify(&bytes).unwrap();
    let found = &report.logs()[0];
    assert!(!found.is_complete() && found.start() <= start && found.head() == part.head());
    let bundle = Bundle::decode(&bytes).unwrap();
    let received = bundle.items().iter().map(|item| item.entry.clone()).collect();
    assert_eq!(crate::PartialLog::verify(start, received, TWO), Ok(part));
}

#[test]
fn an_empty_bundle_and_an_empty_payload() {
    let empty = of_items(&[]);
    assert_eq!(empty.len(), HEADER_LEN + 2 + CHECKSUM_LEN);
    assert!(verify(&empty).unwrap().is_complete());

    let key = AuthorKey::from_seed([1; 32]);
    let entry = Entry::sign(&key, LogId::new(9), None, None, PayloadId::of(b""), 0, false).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = BundleEncoder::new(&mut bytes);
    encoder.entry(&entry, &mut bytes).unwrap();
    encoder.payload(b"", &mut bytes).unwrap();
    encoder.finish(&mut bytes).unwrap();
    assert_eq!(Bundle::decode(&bytes).unwrap().items()[0].payload, Some(&b""[..]));
    assert!(verify(&bytes).unwrap().is_complete());
    // Byte by byte, the empty payload comes too.
    assert!(in_pieces(&bytes, 1, TWO).unwrap().is_complete());
}

#[test]
fn every_cut_is_found() {
    let bytes = raw(&plain(&log(1, 5000, 5, 0, false)));
    for cut in 0..bytes.len() {
        assert_eq!(form(verify(&bytes[..cut])).1, BundleFormError::Truncated, "{cut}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert_eq!(form(verify(&longer)), (bytes.len() as u64, BundleFormError::Trailing));
    // Cut between two items and sealed anew it is another, shorter bundle; within an item it is none.
    let ends: Vec<usize> = (0..bytes.len())
        .filter(|&cut| {
            let sealed = seal([&bytes[..cut], &[KIND_END, CHECKSUM_LEN as u8]].concat());
            verify(&sealed).is_ok()
        })
        .collect();
    assert_eq!(ends.len(), 1 + 5 + 5 - 1 + 1, "{ends:?}");
}

#[test]
fn every_changed_byte_is_found() {
    let bytes = raw(&plain(&log(1, 5000, 4, 0, false)));
    for place in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut bad = bytes.clone();
            bad[place] ^= flip;
            let why = form(Bundle::decode(&bad)).1;
            assert!(place >= 8 || why == BundleFormError::Magic);
            if place < bytes.len() - CHECKSUM_LEN {
                bad.truncate(bytes.len() - CHECKSUM_LEN);
                assert!(verify(&seal(bad)).is_err(), "{place}");
            } else {
                assert_eq!(why, BundleFormError::Checksum);
            }
        }
    }
}

#[test]
fn forms() {
    let entries = plain(&log(1, 5000, 3, 0, false));
    let entry = |at: usize| (KIND_ENTRY, entries[at].as_bytes().to_vec());
    let payload = |at: u64| (KIND_PAYLOAD, payload(0, at));
    let why = |items: &[(u8, Vec<u8>)]| form(verify(&of_items(items))).1;
    let seq = SeqNum::FIRST;
    assert_eq!(why(&[(3, vec![])]), BundleFormError::Kind(3));
    assert_eq!(why(&[payload(1)]), BundleFormError::PayloadAlone);
    assert_eq!(why(&[entry(0), payload(1), payload(1)]), BundleFormError::PayloadAlone);
    assert_eq!(
        why(&[entry(0), (KIND_PAYLOAD, b"0/".to_vec())]),
        BundleFormError::PayloadLength { seq, stated: 3, length: 2 }
    );
    assert_eq!(why(&[entry(0), payload(2)]), BundleFormError::PayloadHash { seq });
    assert_eq!(form(Bundle::decode(&of_items(&[entry(1), entry(0)]))).1, BundleFormError::Order);
    assert_eq!(why(&[entry(0), entry(0)]), BundleFormError::Order);
    assert_eq!(why(&[(KIND_ENTRY, vec![0; 133])]), BundleFormError::Length);
    assert_eq!(why(&[(KIND_ENTRY, vec![0; 227])]), BundleFormError::Length);
    assert_eq!(why(&[(KIND_END, vec![0; 31])]), BundleFormError::Length);
    assert_eq!(why(&[(KIND_ENTRY, vec![2; 150])]), BundleFormError::Entry(DecodeError::Tag));
    let at = HEADER_LEN as u64 + 2 + entries[0].as_bytes().len() as u64;
    assert_eq!(form(verify(&of_items(&[entry(0), (9, vec![])]))), (at, BundleFormError::Kind(9)));

    let mut long = header().to_vec();
    long.extend([KIND_ENTRY, 0xf8, 134]);
    assert_eq!(form(verify(&long)), (12, BundleFormError::Length));
    let mut newer = header().to_vec();
    newer[8] = 2;
    assert_eq!(form(verify(&newer)), (0, BundleFormError::Version(2)));
    assert_eq!(form(verify(b"madakeJ1")), (0, BundleFormError::Magic));
    assert_eq!(form(verify(b"madake")), (0, BundleFormError::Truncated));
}

#[test]
fn a_claimed_length_costs_nothing() {
    let key = AuthorKey::from_seed([1; 32]);
    let entry = Entry::sign(&key, LogId::new(9), None, None, PayloadId::of(b""), u64::MAX, false).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = BundleEncoder::new(&mut bytes);
    encoder.entry(&entry, &mut bytes).unwrap();
    encoder.payload(&[7; 50], &mut bytes).unwrap();
    assert_eq!(form(verify(&bytes)).1, BundleFormError::Truncated);
    assert_eq!(
        encoder.finish(&mut bytes),
        Err(BundleEncodeError::PayloadShort { seq: SeqNum::FIRST, left: u64::MAX - 50 })
    );
    for length in [227, u64::MAX] {
        let mut bytes = header().to_vec();
        bytes.push(KIND_ENTRY);
        encode_varu64(length, &mut bytes);
        assert_eq!(form(verify(&bytes)).1, BundleFormError::Length);
    }
}

#[test]
fn the_encoder_refuses() {
    let entries = log(1, 5000, 3, 0, false);
    let other = log(1, 5000, 3, 1, false);
    let (one, three) = (SeqNum::FIRST, SeqNum::new(3).unwrap());
    let mut out = Vec::new();
    let mut encoder = BundleEncoder::new(&mut out);
    assert_eq!(encoder.payload(b"0/1", &mut out), Err(BundleEncodeError::PayloadAlone));
    encoder.entry(&entries[0], &mut out).unwrap();
    let before = out.len();
    for again in [&entries[0], &other[0]] {
        assert_eq!(encoder.entry(again, &mut out), Err(BundleEncodeError::Order { seq: one }));
    }
    assert_eq!(encoder.payload(b"0/1?", &mut out), Err(BundleEncodeError::PayloadLong { seq: one }));
    assert_eq!(out.len(), before);
    encoder.payload(b"0/", &mut out).unwrap();
    assert_eq!(
        encoder.entry(&entries[1], &mut out),
        Err(BundleEncodeError::PayloadShort { seq: one, left: 1 })
    );
    assert_eq!(encoder.payload(b"1?", &mut out), Err(BundleEncodeError::PayloadLong { seq: one }));
    encoder.payload(b"1", &mut out).unwrap();
    assert_eq!(encoder.payload(b"", &mut out), Err(BundleEncodeError::PayloadLong { seq: one }));
    encoder.entry(&entries[2], &mut out).unwrap();
    assert_eq!(encoder.payload(b"0/2", &mut out), Err(BundleEncodeError::PayloadHash { seq: three }));
    assert_eq!(encoder.finish(&mut out), Err(BundleEncodeError::PayloadHash { seq: three }));
}

#[test]
fn bad_entries_are_named() {
    let (good, fork) = (log(1, 5000, 14, 0, false), log(1, 5000, 14, 1, false));
    let mixed = |a: &[u64], b: &[u64]| {
        plain(&[pick(&good, a.iter().copied()), pick(&fork, b.iter().copied())].concat())
    };
    let (seq, why) = fault(&mixed(&[1, 2], &[1]));
    assert!(seq == 1 && matches!(why, EntryFault::Fork { .. }));
    assert_eq!(fault(&mixed(&[1, 2], &[3])), (3, EntryFault::Link(LinkError::Hash(crate::Link::Backlink))));
    assert_eq!(fault(&mixed(&[1], &[2])), (2, EntryFault::Link(LinkError::Hash(crate::Link::Backlink))));
    assert_eq!(fault(&mixed(&[1, 3], &[])), (3, EntryFault::NoPath));
    assert_eq!(fault(&mixed(&[2], &[])), (2, EntryFault::NoPath));

    let mut ended = log(1, 5000, 3, 0, true);
    append(&mut ended, 1, 5000, 0, false);
    let end = SeqNum::new(3).unwrap();
    assert_eq!(fault(&plain(&ended)), (4, EntryFault::AfterEnd { end }));
}

#[test]
fn a_bad_signature_is_named_wherever_it_is() {
    let good = plain(&log(1, 5000, 40, 0, false));
    for bad in [0, 1, 20, 39] {
        let mut entries = good.clone();
        let mut bytes = entries[bad].as_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
        entries[bad] = Entry::decode(&bytes).unwrap();
        assert_eq!(fault(&entries), (bad as u64 + 1, EntryFault::Signature(SignatureError::Signature)));
    }
}

#[test]
fn long_logs_in_little_memory() {
    let entries = log(1, 5000, 3000, 0, false);
    let bytes = raw(&plain(&entries));
    assert_eq!(verify(&bytes).unwrap().logs()[0].entries(), 3000);
    // A gap after so many that the known places were thinned out; the path to 1 is not.
    let seqs =
        (1..=2_500).chain(crate::certificate_pool(SeqNum::new(2990).unwrap()).into_iter().map(SeqNum::get));
    let mut seqs: Vec<u64> = seqs.filter(|&seq| seq <= 2990).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let report = verify(&raw(&plain(&pick(&entries, seqs)))).unwrap();
    assert!(!report.logs()[0].is_complete());
    assert_eq!(report.logs()[0].head().seq.get(), 2990);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_do_not_matter(sizes in proptest::collection::vec(1usize..400, 1..20), n in 1u64..12, harm: Option<(u16, u8)>) {
        let mut bytes = raw(&plain(&[log(1, 5000, n, 0, false), log(2, 3, n, 1, false)].concat()));
        if let Some((place, flip)) = harm {
            let place = usize::from(place) % bytes.len();
            bytes[place] ^= flip;
        }
        let expected = in_pieces(&bytes, bytes.len(), NonZeroUsize::MIN);
        let mut verifier = BundleVerifier::new(TWO);
        let mut rest = &bytes[..];
        let mut failed = None;
        for size in sizes.iter().cycle() {
            if rest.is_empty() || failed.is_some() {
                break;
            }
            let (piece, tail) = rest.split_at(rest.len().min(*size));
            rest = tail;
            failed = verifier.push(piece).err();
        }
        prop_assert_eq!(failed.map_or_else(|| verifier.finish(), Err), expected);
    }

    #[test]
    fn a_part_verifies_if_all_of_it_leads_to_1(seqs in proptest::collection::btree_set(1u64..=45, 0..30)) {
        let entries = log(1, 5000, 45, 0, false);
        let reaches = |seq: u64| {
            let mut todo = vec![seq];
            while let Some(seq) = todo.pop() {
                if seq == 1 {
                    return true;
                }
                todo.extend([seq - 1, lipmaa(seq)].into_iter().filter(|target| seqs.contains(target)));
            }
            false
        };
        let first_bad = seqs.iter().copied().find(|&seq| !reaches(seq));
        match verify(&raw(&plain(&pick(&entries, seqs.iter().copied())))) {
            Ok(report) => {
                prop_assert_eq!(first_bad, None);
                let found = report.logs().first();
                prop_assert_eq!(found.map(|log| log.entries()), (!seqs.is_empty()).then_some(seqs.len() as u64));
                let start = seqs.iter().rev().zip((1..=45).rev().skip_while(|&n| Some(&n) != seqs.last()));
                let start = start.take_while(|(a, b)| *a == b).last().map(|(a, _)| *a);
                prop_assert_eq!(found.map(|log| log.start().get()), start);
                prop_assert_eq!(found.is_none_or(|log| log.is_complete()), start.is_none_or(|start| start == 1));
            }
            Err(BundleError::Entry { seq, why, .. }) => {
                prop_assert_eq!((Some(seq.get()), why), (first_bad, EntryFault::NoPath));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn what_verifies_holds_together(shared in 0usize..30, picks in proptest::collection::btree_map(1u64..=40, any::<bool>(), 0..40)) {
        let one = log(1, 5000, 40, 0, false);
        let mut other = one[..shared].to_vec();
        while other.len() < 40 {
            append(&mut other, 1, 5000, 1, false);
        }
        let entries: Vec<AuthenticEntry> =
            picks.iter().flat_map(|(&seq, &branch)| pick(if branch { &one } else { &other }, [seq])).collect();
        // `link_set` compares links to absent entries too; there is nothing left for it to find.
        if verify(&raw(&plain(&entries))).is_ok() {
            prop_assert!(crate::link_set(entries).is_ok());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), begin: bool) {
        let bytes = if begin { [&header()[..], &bytes].concat() } else { bytes };
        prop_assert!(verify(&bytes).is_err());
    }
}
