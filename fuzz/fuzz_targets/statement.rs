//! Any bytes are a commit or control statement that is exactly its own encoding, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_object::Commit;
use madake_store::{Control, ControlPayload};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(commit.encode().expect("a decoded commit is within its limits"), bytes);
    }
    if let Ok(ControlPayload::Known(control)) = Control::decode(bytes) {
        assert_eq!(control.encode().expect("a decoded statement has bytes"), bytes);
    }
});
