//! Writes what fuzzing begins with into `fuzz/corpus/`: the entries of the test vectors, good and bad ones, and what can
//! be made of them. `cargo run -p madake-sync --example fuzz_seeds`; what is there already is written again as it was.

#![allow(clippy::disallowed_methods)] // writing files is what it is for

use std::collections::BTreeMap;
use std::path::Path;

use madake_log::system::Control;
use madake_log::{
    AuthenticEntry, AuthorKey, BundleEncoder, Entry, ForkProof, LogHead, LogId, PayloadId, SeqNum,
};
use madake_store::{Tip, tag};
use madake_sync::Bounded;
use madake_sync::wire::{
    AuthorClock, Clock, Entries, Fork, LogClock, Message, Offer, Range, Scope, Totals, Want, WantBranch, Why,
    WireEntry, Word,
};

const VECTORS: &str = include_str!("../../log/tests/vectors/bamboo-yasmf.jsonl");
/// The longest entry of the vectors, in digits, has some 700; hashes have 64, signatures 128.
const DIGITS: std::ops::RangeInclusive<usize> = 200..=2_000;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let written = [
        ("entry", entries()),
        ("bundle", bundles()?),
        ("proof", proofs()?),
        ("statement", statements()?),
        ("wire", messages()?),
    ];
    for (target, seeds) in written {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        println!("{target}: {} seeds", seeds.len());
        for seed in seeds {
            std::fs::write(folder.join(blake3::hash(&seed).to_hex().as_str()), seed)?;
        }
    }
    Ok(())
}

/// All that is as long as an entry and written in hexadecimal digits.
fn entries() -> Vec<Vec<u8>> {
    let texts = VECTORS.split('"').filter(|text| DIGITS.contains(&text.len()));
    texts.filter_map(bytes).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes().iter().map(|digit| char::from(*digit).to_digit(16));
    let digits = digits.collect::<Option<Vec<u32>>>()?;
    digits.chunks(2).map(|pair| u8::try_from(16 * pair[0] + pair.get(1)?).ok()).collect()
}

/// The logs of the vectors, each from its first entry on.
fn logs() -> Vec<Vec<Entry>> {
    let mut logs: BTreeMap<_, BTreeMap<u64, Entry>> = BTreeMap::new();
    for entry in entries().iter().filter_map(|bytes| Entry::decode(bytes).ok()) {
        if AuthenticEntry::check(entry.clone()).is_ok() {
            logs.entry((entry.author(), entry.log())).or_default().insert(entry.seq().get(), entry);
        }
    }
    logs.into_values().map(|log| log.into_values().collect()).collect()
}

fn bundles() -> Result<Vec<Vec<u8>>, Failed> {
    let mut bundles = Vec::new();
    for log in logs() {
        let mut bytes = Vec::new();
        let mut encoder = BundleEncoder::new(&mut bytes);
        log.iter().try_for_each(|entry| encoder.entry(entry, &mut bytes))?;
        encoder.finish(&mut bytes)?;
        bundles.push(bytes);
    }
    Ok(bundles)
}

/// Two entries for one place, a second one after an end, and other links than what is there.
fn forks() -> Result<Vec<[AuthenticEntry; 2]>, Failed> {
    let key = AuthorKey::from_seed([1; 32]);
    let sign = |head: Option<&LogHead>, text: &[u8], end| {
        let id = PayloadId::of(text);
        Entry::sign(&key, LogId::new(2_000), head, None, id, text.len() as u64, end)
    };
    let (one, other) = (sign(None, b"one", false)?, sign(None, b"other", false)?);
    let (above, beside) =
        (sign(Some(&LogHead::of(&one)), b"a", false)?, sign(Some(&LogHead::of(&other)), b"b", false)?);
    Ok(vec![[one.clone(), other.clone()], [above.clone(), beside.clone()], [other, above], [one, beside]])
}

fn proofs() -> Result<Vec<Vec<u8>>, Failed> {
    let mut proofs = Vec::new();
    for [one, other] in forks()? {
        proofs.extend(ForkProof::between(&one, &other).map(|proof| proof.as_bytes().to_vec()));
        // As the target reads two entries.
        let length = u8::try_from(one.as_bytes().len());
        proofs.extend(length.map(|length| [&[length][..], one.as_bytes(), other.as_bytes()].concat()));
    }
    Ok(proofs)
}

fn statements() -> Result<Vec<Vec<u8>>, Failed> {
    let [one, _] = forks()?.swap_remove(0);
    let (key, entry) = (one.author(), one.id());
    let said = [
        Control::Register { schema: "post".parse()?, log: LogId::new(2_000) },
        Control::Recovery { key },
        Control::Follow { author: key, follows: true },
        Control::Countersign { author: key, entry },
    ];
    Ok(said.iter().map(Control::encode).collect::<Result<_, _>>()?)
}

fn messages() -> Result<Vec<Vec<u8>>, Failed> {
    let mut said = vec![Message::Word(Word::Ready), Message::Word(Word::Again)];
    for log in logs() {
        let (Some(first), Some(last)) = (log.first(), log.last()) else { continue };
        let (author, id) = (first.author(), first.log());
        said.push(Message::Scope(Scope { authors: Bounded::truncated(vec![author]) }));
        let clock = LogClock { log: id, seq: last.seq(), tag: tag(&last.id()) };
        let clock = AuthorClock { author, logs: Bounded::truncated(vec![clock]) };
        let authors = Bounded::truncated(vec![clock]);
        said.push(Message::Clock(Clock { authors: authors.clone(), last: true }));
        let totals = Totals { authors: 1, entries: log.len() as u64 };
        said.push(Message::Offer(Offer { authors, totals, last: true }));
        let range = Range { author, log: id, from: SeqNum::FIRST, to: last.seq() };
        said.push(Message::Want(Want { id: 1, ranges: Bounded::truncated(vec![range]) }));
        let bytes = |entry: &Entry| entry.as_bytes().to_vec().into();
        let items = log.iter().map(|one| WireEntry { entry: bytes(one), payload: None });
        said.push(Message::Entries(Entries { want: 1, items: Bounded::truncated(items.take(20).collect()) }));
    }
    for [one, other] in forks()? {
        let (author, log) = (one.author(), one.log());
        let tip = |entry: &Entry| Tip { seq: entry.seq(), entry: entry.id() };
        let mut tips = vec![tip(&one), tip(&other)];
        tips.sort();
        let tips = Bounded::truncated(tips);
        let proof = ForkProof::between(&one, &other);
        let proof = proof.map(|proof| Bounded::truncated(proof.as_bytes().to_vec()));
        said.push(Message::Fork(Fork { author, log, why: Why::Ask, proof, tips: tips.clone() }));
        let (tags, tip) = (Bounded::truncated(vec![tag(&one.id())]), tip(&other));
        said.push(Message::WantBranch(WantBranch { id: 3, author, log, tip, tips, height: 1, tags }));
    }
    // The target reads what follows a frame's length.
    let frames = said.iter().map(|message| Ok(message.encode()?.split_off(4)));
    frames.collect()
}
