//! Makes and checks fork proofs.
//!
//! `cargo run -p madake-log --example fork_proof -- make FILE` forks a log, and writes the proof.
//! `cargo run -p madake-log --example fork_proof -- check FILE` checks a proof, from the file alone.

#![allow(clippy::disallowed_methods)] // files are the example's, not the crate's

use madake_log::{AuthenticEntry, AuthorKey, Entry, ForkProof, LogHead, LogId, PayloadId, SignError};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", path] => std::fs::write(path, fork()?.as_bytes())?,
        ["check", path] => println!("{}", show(&ForkProof::verify(&std::fs::read(path)?)?)),
        _ => return Err("say `make FILE` or `check FILE`".into()),
    }
    Ok(())
}

/// Two devices with one key write on from the same entry: from then on the log has two histories.
fn fork() -> Result<ForkProof, Box<dyn Error>> {
    let key = AuthorKey::from_seed([1; 32]); // an example's key; yours comes from good randomness
    let first = append(&key, None, "hello")?;
    let at_home = append(&key, Some(&first), "written at home")?;
    let away = append(&key, Some(&first), "written away")?;
    assert!(ForkProof::between(&first, &away).is_none(), "these two are of one history");
    ForkProof::between(&at_home, &away).ok_or("two entries 2 are a fork".into())
}

fn append(key: &AuthorKey, last: Option<&AuthenticEntry>, text: &str) -> Result<AuthenticEntry, SignError> {
    let head = last.map(|entry| LogHead::of(entry));
    let payload = PayloadId::of(text.as_bytes());
    Entry::sign(key, LogId::new(2000), head.as_ref(), None, payload, text.len() as u64, false)
}

fn show(proof: &ForkProof) -> String {
    let mut text =
        format!("{}: author {}, log {}, entry {}\n", proof.kind(), proof.author(), proof.log(), proof.seq());
    for claim in proof.claims() {
        text += &format!("  {} says {} (by {})\n", claim.entry.seq(), claim.hash, claim.by);
    }
    text + &format!("  proof {}", proof.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_and_check() {
        let proof = fork().unwrap();
        let checked = ForkProof::verify(proof.as_bytes()).unwrap();
        assert_eq!(checked, proof);
        assert!(show(&checked).starts_with("K1: author "), "{}", show(&checked));
        assert!(ForkProof::verify(&proof.as_bytes()[1..]).is_err());
    }
}
