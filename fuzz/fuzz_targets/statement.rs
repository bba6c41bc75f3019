//! Any bytes are a commit, or a statement of a system log, that is exactly its own encoding, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_object::Commit;
use madake_store::system::{Control, NodeStatement, ReceiptStatement, Spoken};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(commit.encode().expect("a decoded commit is within its limits"), bytes);
    }
    if let Ok(Spoken::Known(control)) = Control::decode(bytes) {
        assert_eq!(control.encode().expect("a decoded statement has bytes"), bytes);
    }
    if let Ok(Spoken::Known(statement)) = NodeStatement::decode(bytes) {
        assert_eq!(statement.encode().expect("a decoded statement has bytes"), bytes);
    }
    if let Ok(Spoken::Known(receipts)) = ReceiptStatement::decode(bytes) {
        assert_eq!(receipts.encode().expect("a decoded statement has bytes"), bytes);
    }
});
