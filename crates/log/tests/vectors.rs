//! Runs all cases of the Bamboo test vectors; the first line of the file explains its fields.
//!
//! `MADAKE_VECTORS=FILE cargo test -p madake-log --test vectors` runs another file of the same form (a relative path
//! is looked for from the workspace's root too). A verdict fails if its first word differs; in the public file a
//! differing reason fails too, elsewhere it is only printed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use madake_log::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const PUBLIC: &str = "tests/vectors/bamboo-yasmf.jsonl";
const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

#[test]
fn vectors() {
    let other = std::env::var_os("MADAKE_VECTORS").map(PathBuf::from);
    let strict_reasons = other.is_none();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = match other {
        Some(path) if path.exists() => path,
        Some(path) => root.join("../..").join(path),
        None => root.join(PUBLIC),
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut run = Run { strict_reasons, ..Run::default() };
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let outcome = match serde_json::from_str::<Case>(line) {
            Ok(case) => run.case(&case),
            Err(why) => Err(format!("not understood: {why}")),
        };
        if let Err(why) = outcome {
            run.failures.push(format!("line {}{}: {why}", n + 1, name(line)));
        }
    }
    run.finish_entries();
    println!("{}: {:?}, {} differing reasons", path.display(), run.counts, run.reasons);
    assert!(!run.counts.is_empty(), "no cases in {}", path.display());
    assert!(run.failures.is_empty(), "{} cases failed:\n{}", run.failures.len(), run.failures.join("\n"));
}

/// The id of a case, or what else names it.
fn name(line: &str) -> String {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return String::new() };
    ["id", "log", "seq", "hex", "n", "x"]
        .iter()
        .filter_map(|key| value[key].as_str())
        .map(|v| format!(" {v}"))
        .collect()
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Case {
    Meta {},
    Varu64 {
        hex: String,
        n: String,
    },
    Varu64Bad {
        hex: String,
        why: String,
    },
    Lipmaa {
        n: String,
        lipmaa: String,
        in_entry: bool,
    },
    #[serde(rename = "cert_pool")]
    CertPool {
        x: String,
        pool: Vec<String>,
    },
    Entry(EntryCase),
    Verify {
        entry: String,
        backlink: Option<String>,
        lipmaa: Option<String>,
        payload: Option<Payload>,
        verdict: String,
    },
    Batch {
        entries: Vec<Member>,
        verdict: String,
    },
}

#[derive(Deserialize)]
struct EntryCase {
    author: String,
    end: bool,
    entry: String,
    hash: String,
    lipmaa_in_entry: bool,
    lipmaa_seq: Option<String>,
    log: String,
    log_id: String,
    payload: Option<Payload>,
    seed: String,
    seq: String,
}

#[derive(Deserialize)]
struct Member {
    entry: String,
    payload: Option<Payload>,
}

#[derive(Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
enum Payload {
    Mod251 { len: usize, offset: usize },
    Fill { len: usize, byte: u8 },
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Mod251 { len, offset } => (0..len).map(|i| ((i + offset) % 251) as u8).collect(),
            Self::Fill { len, byte } => vec![byte; len],
        }
    }
}

#[derive(Default)]
struct Run {
    strict_reasons: bool,
    counts: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
    reasons: usize,
    /// The entries of kind "entry" by log name and sequence number.
    logs: BTreeMap<(String, [u8; 32]), BTreeMap<u64, AuthenticEntry>>,
}

impl Run {
    fn case(&mut self, case: &Case) -> Result<(), String> {
        let kind = match case {
            Case::Meta {} => return Ok(()),
            Case::Varu64 { .. } => "varu64",
            Case::Varu64Bad { .. } => "varu64-bad",
            Case::Lipmaa { .. } => "lipmaa",
            Case::CertPool { .. } => "cert_pool",
            Case::Entry(_) => "entry",
            Case::Verify { .. } => "verify",
            Case::Batch { .. } => "batch",
        };
        *self.counts.entry(kind).or_default() += 1;
        match case {
            Case::Meta {} => Ok(()),
            Case::Varu64 { hex, n } => varu64(&unhex(hex)?, number(n)?),
            Case::Varu64Bad { hex, why } => self.varu64_bad(&unhex(hex)?, why),
            Case::Lipmaa { n, lipmaa: far, in_entry } => {
                let n = number(n)?;
                same("lipmaa", lipmaa(n), number(far)?)?;
                same("in entry", has_lipmaa_link(n), *in_entry)
            }
            Case::CertPool { x, pool } => {
                let pool = pool.iter().map(|n| number(n)).collect::<Result<Vec<_>, _>>()?;
                let x = SeqNum::new(number(x)?).ok_or("x is 0")?;
                same("pool", certificate_pool(x).into_iter().map(SeqNum::get).collect(), pool)
            }
            Case::Entry(case) => self.entry(case),
            Case::Verify { entry, backlink, lipmaa, payload, verdict } => {
                let unhex_all = |hex: &Option<String>| hex.as_deref().map(unhex).transpose();
                let (backlink, lipmaa) = (unhex_all(backlink)?, unhex_all(lipmaa)?);
                let payload = payload.as_ref().map(Payload::bytes);
                let got =
                    verify_one(&unhex(entry)?, backlink.as_deref(), lipmaa.as_deref(), payload.as_deref());
                self.compare(got, verdict)
            }
            Case::Batch { entries, verdict } => {
                let got = verify_members(entries)?;
                self.compare(got, verdict)
            }
        }
    }

    /// `got` must begin with the word of `verdict`; and be it, where reasons count.
    fn compare(&mut self, got: Result<Links, String>, verdict: &str) -> Result<(), String> {
        let got = match got {
            Ok(links) => links.verdict().to_owned(),
            Err(reason) => format!("reject:{reason}"),
        };
        if got == verdict {
            return Ok(());
        }
        let word = |verdict: &str| verdict.split(':').next().map(str::to_owned);
        let message = format!("verdict {got}, should be {verdict}");
        if word(&got) != word(verdict) || self.strict_reasons {
            return Err(message);
        }
        self.reasons += 1;
        println!("differing reason: {message}");
        Ok(())
    }

    fn varu64_bad(&mut self, bytes: &[u8], why: &str) -> Result<(), String> {
        let got = match decode_varu64(bytes) {
            Err(VarU64Error::Short) => "short",
            Err(VarU64Error::NonCanonical) => "non-canonical",
            Err(_) => "other",
            Ok((_, len)) if len < bytes.len() => "trailing",
            Ok((n, _)) => return Err(format!("decoded to {n}, should fail: {why}")),
        };
        if got != why {
            if self.strict_reasons {
                return Err(format!("{got}, should be {why}"));
            }
            self.reasons += 1;
            println!("differing reason: {got}, should be {why}");
        }
        Ok(())
    }

    /// Decodes the entry, compares all fields, and signs it anew: the bytes must be the same.
    fn entry(&mut self, case: &EntryCase) -> Result<(), String> {
        let bytes = unhex(&case.entry)?;
        let entry = Entry::decode(&bytes).map_err(|why| format!("decoding: {why}"))?;
        same("author", HEX.encode(entry.author().as_bytes()), case.author.clone())?;
        same("end", entry.is_end(), case.end)?;
        same("hash", entry.id().to_string(), case.hash.clone())?;
        same("log id", entry.log().get(), number(&case.log_id)?)?;
        same("seq", entry.seq().get(), number(&case.seq)?)?;
        same("lipmaa in entry", entry.lipmaa().is_some(), case.lipmaa_in_entry)?;
        let far = lipmaa(entry.seq().get());
        same("lipmaa seq", (far > 0).then_some(far), case.lipmaa_seq.as_deref().map(number).transpose()?)?;
        same("backlink", entry.backlink().is_some(), entry.seq() > SeqNum::FIRST)?;
        if let Some(payload) = &case.payload {
            entry.check_payload(&payload.bytes()).map_err(|why| why.to_string())?;
        }

        let seed: [u8; 32] = unhex(&case.seed)?.try_into().map_err(|_| "a seed has 32 bytes")?;
        let key = AuthorKey::from_seed(seed);
        same("author of the seed", key.author(), entry.author())?;
        let log = self.logs.entry((case.log.clone(), seed)).or_default();
        // From the log rebuilt so far; where the file leaves entries out, by the entry's own links.
        let head = entry.seq().prev().and_then(|seq| match log.get(&seq.get()) {
            Some(before) => Some(LogHead::of(before)),
            None => entry.backlink().map(|entry| LogHead { seq, entry, end: false }),
        });
        let far = log.get(&far).map(|target| target.id()).or(entry.lipmaa());
        let (id, size) = (entry.payload_id(), entry.payload_size());
        let signed = Entry::sign(&key, entry.log(), head.as_ref(), far, id, size, case.end)
            .map_err(|why| why.to_string())?;
        same("bytes of the entry signed anew", HEX.encode(signed.as_bytes()), HEX.encode(&bytes))?;

        let entry = AuthenticEntry::check(entry).map_err(|why| why.to_string())?;
        let at = |seq: u64| log.get(&seq);
        match VerifiedEntry::link(entry.clone(), at(entry.seq().get() - 1), at(lipmaa(entry.seq().get()))) {
            Ok(_) | Err(LinkError::Missing(_)) => {}
            Err(why) => return Err(why.to_string()),
        }
        log.insert(entry.seq().get(), entry);
        Ok(())
    }

    /// All logs of kind "entry" once more: as sets, and all signatures in one batch.
    fn finish_entries(&mut self) {
        let logs = std::mem::take(&mut self.logs);
        let all: Vec<Entry> =
            logs.values().flat_map(|log| log.values()).map(|entry| (**entry).clone()).collect();
        let bad = verify_batch(all, THREADS).into_iter().filter_map(Result::err);
        self.failures.extend(bad.map(|(entry, why)| format!("in one batch: {entry:?}: {why}")));
        for ((name, _), log) in logs {
            let contiguous = log.keys().copied().eq(1..=log.len() as u64);
            match link_set(log.into_values().rev().collect()) {
                Ok(set) if contiguous && set.links() != Links::Complete => {
                    self.failures
                        .push(format!("log {name}: all entries are there, but {}", set.links().verdict()));
                }
                Ok(_) => {}
                Err(why) => self.failures.push(format!("log {name}: {why}")),
            }
        }
    }
}

fn varu64(bytes: &[u8], n: u64) -> Result<(), String> {
    let mut encoded = Vec::new();
    encode_varu64(n, &mut encoded);
    same("encoding", HEX.encode(&encoded), HEX.encode(bytes))?;
    same("length", varu64_len(n), bytes.len())?;
    same("decoding", decode_varu64(bytes), Ok((n, bytes.len())))
}

/// Form, signature, links, payload; the reason if one does not hold.
fn verify_one(
    entry: &[u8],
    backlink: Option<&[u8]>,
    lipmaa: Option<&[u8]>,
    payload: Option<&[u8]>,
) -> Result<Links, String> {
    let entry = authentic(entry)?;
    // A target must be verified itself; one that the entry has no link for is not looked at.
    let target = |link: Option<EntryId>, bytes: Option<&[u8]>, name: &str| match (link, bytes) {
        (Some(_), Some(bytes)) => authentic(bytes).map(Some).map_err(|why| format!("{name}-target:{why}")),
        _ => Ok(None),
    };
    let backlink = target(entry.backlink(), backlink, "backlink")?;
    let lipmaa = target(entry.lipmaa(), lipmaa, "lipmaa")?;
    let links =
        check_links(&entry, backlink.as_deref(), lipmaa.as_deref()).map_err(|why| why.reason().to_owned())?;
    let full = VerifiedEntry::link(entry.clone(), backlink.as_ref(), lipmaa.as_ref());
    assert_eq!(full.is_ok(), links == Links::Complete);
    if let Some(payload) = payload {
        entry.check_payload(payload).map_err(|why| why.reason().to_owned())?;
    }
    Ok(links)
}

fn authentic(bytes: &[u8]) -> Result<AuthenticEntry, String> {
    let entry = Entry::decode(bytes).map_err(|why| why.reason().to_owned())?;
    assert_eq!(entry.as_bytes(), bytes);
    let single = AuthenticEntry::check(entry.clone()).map_err(|why| why.reason().to_owned());
    // The batch must agree, alone and beside good and bad ones.
    for extra in [0, 1, 20] {
        let batch = verify_batch(vec![entry.clone(); 1 + extra], THREADS);
        assert!(batch.into_iter().all(|r| r.map_err(|(_, why)| why.reason().to_owned()) == single));
    }
    single
}

fn verify_members(members: &[Member]) -> Result<Result<Links, String>, String> {
    let mut entries = Vec::new();
    let mut payload_wrong = None;
    for member in members {
        match Entry::decode(&unhex(&member.entry)?) {
            Ok(entry) => {
                let payload = member.payload.as_ref().map(Payload::bytes);
                let checked = payload.map_or(Ok(()), |payload| entry.check_payload(&payload));
                payload_wrong = payload_wrong.or(checked.err());
                entries.push(entry);
            }
            Err(why) => return Ok(Err(why.reason().to_owned())),
        }
    }
    let verdict =
        verify_set(entries.clone(), THREADS).map(|set| set.links()).map_err(|why| why.reason().to_owned());
    // Any order gives the same.
    entries.reverse();
    let reversed = verify_set(entries, THREADS).map(|set| set.links()).map_err(|why| why.reason().to_owned());
    same("verdict on the set in reverse", &reversed, &verdict)?;
    Ok(verdict.and_then(|links| payload_wrong.map_or(Ok(links), |why| Err(why.reason().to_owned()))))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got:?}, should be {expected:?}")) }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|why| format!("{text}: {why}"))
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    HEX.decode(text.as_bytes()).map_err(|why| format!("hex: {why}"))
}
