//! Any bytes are a message, a question to a home or its answer, that is exactly its own encoding, or an error; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_sync::home::{HomeAnswer, HomeRequest};
use madake_sync::wire::Message;

fuzz_target!(|frame: &[u8]| {
    if let Ok(message) = Message::decode(frame)
        && !matches!(message, Message::Unknown(_))
    {
        let again = message.encode().expect("what was decoded fits into a frame");
        assert_eq!(&again[4..], frame);
    }
    if let Ok(request) = HomeRequest::decode(frame) {
        assert_eq!(request.encode().expect("what was decoded fits"), frame);
    }
    if let Ok(answer) = HomeAnswer::decode(frame) {
        assert_eq!(answer.encode().expect("what was decoded fits"), frame);
    }
});
