//! What may be wrong with a peer's bytes.

use super::MAX_FRAME;

/// Why bytes are no message. All of them are the peer's fault.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A frame that announces more than [`MAX_FRAME`].
    #[error("a frame of {0} bytes; the limit is {MAX_FRAME}")]
    TooLong(u32),
    /// A frame that announces nothing, not even a kind.
    #[error("an empty frame")]
    Empty,
    /// A kind that this version does not know.
    #[error("an unknown kind of message, {0}")]
    Kind(u8),
    /// A body's version that this version does not know.
    #[error("an unknown version of a message of kind {0}")]
    Version(u8),
    /// A body that does not hold the message's fields.
    #[error("a malformed message of kind {kind}: {error}")]
    Fields {
        /// The message's kind.
        kind: u8,
        /// What was wrong.
        error: postcard::Error,
    },
    /// A body that is longer than it needs to be, or is followed by something.
    #[error("a message of kind {0} that is not in its shortest form")]
    NotCanonical(u8),
    /// A message too long for a frame.
    #[error("a message of {0} bytes does not fit into a frame")]
    Overflow(usize),
    /// A message on a stream that is not for it.
    #[error("a message of kind {0} on a stream that is not for it")]
    WrongStream(u8),
}
