//! Verifies a bundle of logs that somebody sent: `cargo run -p madake-log --example verify_bundle -- FILE`.
//!
//! Everything is checked from the file alone: form, checksum, signatures, links, payloads.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // files are the example's, not the crate's

use madake_log::{BundleReport, BundleVerifier};
use std::{error::Error, fs::File, io::Read, num::NonZeroUsize, thread::available_parallelism};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say which file")?;
    for log in verify(&path)?.logs() {
        println!("log {} of {}: {} entries up to {}", log.log(), log.author(), log.entries(), log.head().seq);
        println!("  whole: {}; payloads missing: {}", log.is_complete(), log.missing().len());
    }
    Ok(())
}

/// The file may be larger than memory: it is read in pieces.
fn verify(path: &str) -> Result<BundleReport, Box<dyn Error>> {
    let mut verifier = BundleVerifier::new(available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(verifier.finish()?),
            length => verifier.push(&buffer[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madake_log::*;

    #[test]
    fn a_bundle_and_a_damaged_one() {
        let key = AuthorKey::from_seed([1; 32]);
        let payload = vec![7; 3 << 20];
        let id = PayloadId::of(&payload);
        let entry = Entry::sign(&key, LogId::new(2000), None, None, id, payload.len() as u64, false).unwrap();
        let mut bytes = Vec::new();
        let mut encoder = BundleEncoder::new(&mut bytes);
        encoder.entry(&entry, &mut bytes).unwrap();
        encoder.payload(&payload, &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bundle");
        let path = path.to_str().unwrap();
        std::fs::write(path, &bytes).unwrap();
        let report = verify(path).unwrap();
        assert!(report.is_complete() && report.entries() == 1);
        bytes[2 << 20] ^= 1;
        std::fs::write(path, &bytes).unwrap();
        assert!(verify(path).unwrap_err().to_string().contains("another hash"));
        std::fs::write(path, &bytes[..1 << 20]).unwrap();
        assert!(verify(path).unwrap_err().to_string().contains("cut off"));
    }
}
