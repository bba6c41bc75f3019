//! What an author's node asks of the author's home, or of a node that is to be it (`docs/protocol.md`, "Homes").
//!
//! A request travels alone, on a one-way stream of its own, as a knock does; the answer comes back on another one. They
//! are no messages of a session: statements and logs travel in those.

use madake_log::{AuthorId, EntryId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Bounded;
use crate::knock::{MAX_ADDRESSES, MAX_CODE};

/// The first byte of the stream that a request comes on, and of the one with its answer.
pub const HOME_STREAM: u8 = 5;
/// The kind of a request's frame.
pub const REQUEST_KIND: u8 = 42;
/// The kind of an answer's frame.
pub const ANSWER_KIND: u8 = 43;
/// The version of both.
const VERSION: u8 = 1;
/// Bytes of a passphrase.
pub const MAX_PASSPHRASE: usize = 256;
/// Addresses of a home that its author moved to: as many as a vow names.
pub const MAX_HOME_ADDRESSES: usize = 8;
/// Bytes of what a refusal says to people.
pub const MAX_WHY: usize = 256;
const MAX_ADDRESS: usize = 255;
/// A stream with a request or an answer is at most so long.
pub const MAX_HOME: usize = 8 * 1024;

/// What is asked of a home.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
pub enum HomeRequest {
    /// Kind 0: may this author have you as home? The only one that a node may ask that is not known.
    Enter {
        /// The author.
        author: AuthorId,
        /// An invite code, or the token of the home; none at an open door.
        code: Option<Bounded<u8, MAX_CODE>>,
        /// The second factor, which the home keeps as a hash.
        passphrase: Option<Bounded<u8, MAX_PASSPHRASE>>,
        /// Where the asker can be reached, as far as it knows: hints.
        addresses: Bounded<String, MAX_ADDRESSES>,
    },
    /// Kind 1: the vow is at the home, and all that it states: accept it.
    Accept {
        /// The author.
        author: AuthorId,
        /// The entry of the vow.
        vow: EntryId,
    },
    /// Kind 2: release the author, so that the next vow is in force.
    Release {
        /// The author.
        author: AuthorId,
        /// The entry of the vow that was accepted.
        vow: EntryId,
        /// The entry of the vow that takes its place.
        next: EntryId,
        /// The second factor, if one was set.
        passphrase: Option<Bounded<u8, MAX_PASSPHRASE>>,
    },
    /// Kind 3: take nothing new of the author's logs for a while, for it is about to move; asked again, it is so from
    /// then on as long.
    Freeze {
        /// The author.
        author: AuthorId,
        /// The second factor, if one was set.
        passphrase: Option<Bounded<u8, MAX_PASSPHRASE>>,
    },
    /// Kind 4: the author, who was about to move, stays.
    Thaw {
        /// The author.
        author: AuthorId,
    },
    /// Kind 5: are these the author's logs, all of them, as they are there?
    Holds {
        /// The author.
        author: AuthorId,
        /// How many logs, as a summary counts them.
        count: u64,
        /// The sum of their items.
        sum: [u8; 32],
    },
    /// Kind 6: who is the author's home?
    Where {
        /// The author.
        author: AuthorId,
    },
}

/// What a home answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum HomeAnswer {
    /// Kind 0: it is so; what was signed for it comes in the next session.
    Done,
    /// Kind 1: it is not.
    Refused {
        /// Which refusal.
        what: HomeRefusal,
        /// What it says to people.
        why: String,
    },
    /// Kind 2: the author, whose home this node was, has moved there.
    Moved {
        /// The home of now.
        node: AuthorId,
        /// Where it can be reached, as the vow says.
        addresses: Bounded<String, MAX_HOME_ADDRESSES>,
        /// The epoch of the vow in force.
        epoch: u64,
    },
}

/// Why a home does not do what it was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum HomeRefusal {
    /// Kind 0: neither a code that is good, nor the token, nor an open door.
    Code,
    /// Kind 1: the second factor is missing, or wrong, or asked too often.
    Passphrase,
    /// Kind 2: this author has not entered here.
    NotHosted,
    /// Kind 3: what was named is not here, or is not what it was said to be: sync first.
    NotHere,
    /// Kind 4: not now; the reason says why.
    NotNow,
}

/// A step of a move from one home to another, as the author's node does it (`docs/forks.md`, "Homes"). Each may be done
/// again, also after whoever was killed in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The new home takes the author.
    Enter,
    /// What the old home has more comes here, all goes to the new one, which says whether it has the same.
    Copy,
    /// The old home takes nothing new from now on.
    Freeze,
    /// What came until then is copied too.
    CopyRest,
    /// The vow is signed, if it is not. From here on there is no way back.
    Vow,
    /// The new home accepts the vow, which counts when the old one has let go: so it is never in force without a home
    /// that stands behind it, and whoever has the author's key can't put another vow behind it meanwhile.
    Accept,
    /// The old home lets go, and the new one hears of it.
    Release,
}

/// The steps of a move that are left; `vowed`: the vow is signed, `old`: there is a home that has to let go.
pub fn steps(vowed: bool, old: bool) -> Vec<Step> {
    let all = [Step::Enter, Step::Copy, Step::Freeze, Step::CopyRest, Step::Vow, Step::Accept, Step::Release];
    let needed = |step: &Step| match step {
        Step::Copy => !vowed,
        Step::Freeze | Step::CopyRest => !vowed && old,
        Step::Release => old,
        Step::Enter | Step::Vow | Step::Accept => true,
    };
    all.into_iter().filter(needed).collect()
}

/// The bytes of a stream that are no request, or no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("these bytes are no question to a home, and no answer of one")]
pub struct NoHomeFrame;

impl HomeRequest {
    /// All bytes of the stream: its first byte, and a frame.
    ///
    /// # Errors
    /// An address is too long.
    pub fn encode(&self) -> Result<Vec<u8>, NoHomeFrame> {
        if let Self::Enter { addresses, .. } = self
            && addresses.iter().any(|address| address.len() > MAX_ADDRESS)
        {
            return Err(NoHomeFrame);
        }
        encode(self, REQUEST_KIND)
    }

    /// Reads all bytes of a stream; only the one shortest encoding is read.
    ///
    /// # Errors
    /// They are no request.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoHomeFrame> {
        let request: Self = decode(bytes)?;
        if request.encode()? == bytes { Ok(request) } else { Err(NoHomeFrame) }
    }
}

impl HomeAnswer {
    /// A refusal; what it says is cut to what fits.
    pub fn refuse(what: HomeRefusal, why: &str) -> Self {
        let mut end = why.len().min(MAX_WHY);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        Self::Refused { what, why: why[..end].to_owned() }
    }

    /// All bytes of the stream: its first byte, and a frame.
    ///
    /// # Errors
    /// The reason, or an address, is too long.
    pub fn encode(&self) -> Result<Vec<u8>, NoHomeFrame> {
        let too_long = match self {
            Self::Done => false,
            Self::Refused { why, .. } => why.len() > MAX_WHY,
            Self::Moved { addresses, .. } => addresses.iter().any(|address| address.len() > MAX_ADDRESS),
        };
        if too_long {
            return Err(NoHomeFrame);
        }
        encode(self, ANSWER_KIND)
    }

    /// Reads all bytes of a stream; only the one shortest encoding is read.
    ///
    /// # Errors
    /// They are no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoHomeFrame> {
        let answer: Self = decode(bytes)?;
        if answer.encode()? == bytes { Ok(answer) } else { Err(NoHomeFrame) }
    }
}

fn encode<T: Serialize>(value: &T, kind: u8) -> Result<Vec<u8>, NoHomeFrame> {
    let start = vec![HOME_STREAM, 0, 0, 0, 0, kind, VERSION];
    let mut bytes = postcard::to_extend(value, start).map_err(|_| NoHomeFrame)?;
    if bytes.len() > MAX_HOME {
        return Err(NoHomeFrame);
    }
    let length = (bytes.len() - 5) as u32;
    bytes[1..5].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NoHomeFrame> {
    let fields = bytes.get(7..).filter(|_| bytes.len() <= MAX_HOME).ok_or(NoHomeFrame)?;
    postcard::from_bytes(fields).map_err(|_| NoHomeFrame)
}

/// Without codes and passphrases: they are secrets.
impl std::fmt::Debug for HomeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enter { author, .. } => write!(f, "Enter({author:?})"),
            Self::Accept { author, vow } => write!(f, "Accept({author:?} {vow:?})"),
            Self::Release { author, vow, next, .. } => write!(f, "Release({author:?} {vow:?} {next:?})"),
            Self::Freeze { author, .. } => write!(f, "Freeze({author:?})"),
            Self::Thaw { author } => write!(f, "Thaw({author:?})"),
            Self::Holds { author, count, .. } => write!(f, "Holds({author:?} {count})"),
            Self::Where { author } => write!(f, "Where({author:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author() -> AuthorId {
        AuthorId::from_bytes([1; 32])
    }

    fn enter() -> HomeRequest {
        HomeRequest::Enter {
            author: author(),
            code: Some(b"code".to_vec().try_into().unwrap()),
            passphrase: Some(b"pw".to_vec().try_into().unwrap()),
            addresses: vec!["a:1".to_owned()].try_into().unwrap(),
        }
    }

    /// The bytes are a format: a change here is a new version of the protocol.
    #[test]
    fn the_bytes_of_requests_and_answers_are_these() {
        let (vow, next) = (EntryId::from_bytes([2; 32]), EntryId::from_bytes([3; 32]));
        let ids = |ids: &[u8]| ids.iter().flat_map(|id| [*id; 32]).collect::<Vec<u8>>();
        let frame = |kind: u8, body: &[&[u8]]| {
            let body = body.concat();
            [&[5, body.len() as u8 + 2, 0, 0, 0, kind, 1], body.as_slice()].concat()
        };
        let release = HomeRequest::Release { author: author(), vow, next, passphrase: None };
        let requests = [
            (enter(), frame(42, &[&[0], &ids(&[1]), b"\x01\x04code\x01\x02pw\x01\x03a:1"])),
            (HomeRequest::Accept { author: author(), vow }, frame(42, &[&[1], &ids(&[1, 2])])),
            (release, frame(42, &[&[2], &ids(&[1, 2, 3]), &[0]])),
            (
                HomeRequest::Freeze { author: author(), passphrase: None },
                frame(42, &[&[3], &ids(&[1]), &[0]]),
            ),
            (HomeRequest::Thaw { author: author() }, frame(42, &[&[4], &ids(&[1])])),
            (
                HomeRequest::Holds { author: author(), count: 300, sum: [9; 32] },
                frame(42, &[&[5], &ids(&[1]), b"\xac\x02", &ids(&[9])]),
            ),
            (HomeRequest::Where { author: author() }, frame(42, &[&[6], &ids(&[1])])),
        ];
        for (request, expected) in requests {
            assert_eq!(request.encode().unwrap(), expected, "{request:?}");
            assert_eq!(HomeRequest::decode(&expected).unwrap(), request);
            for cut in 0..expected.len() {
                assert!(HomeRequest::decode(&expected[..cut]).is_err(), "cut at {cut}");
            }
            for place in 0..7 {
                let mut changed = expected.clone();
                changed[place] ^= 1;
                assert!(HomeRequest::decode(&changed).is_err(), "changed at {place}");
            }
            assert!(HomeRequest::decode(&[expected.as_slice(), b"x"].concat()).is_err());
        }
        let refused = HomeAnswer::refuse(HomeRefusal::NotHosted, "no");
        let addresses = vec!["a:1".to_owned()].try_into().unwrap();
        let moved = HomeAnswer::Moved { node: author(), addresses, epoch: 2 };
        for (answer, expected) in [
            (HomeAnswer::Done, frame(43, &[&[0]])),
            (refused, frame(43, &[b"\x01\x02\x02no"])),
            (moved, frame(43, &[&[2], &ids(&[1]), b"\x01\x03a:1\x02"])),
        ] {
            assert_eq!(answer.encode().unwrap(), expected, "{answer:?}");
            assert_eq!(HomeAnswer::decode(&expected).unwrap(), answer);
            assert!(HomeRequest::decode(&expected).is_err());
        }
        assert!(!format!("{:?}", enter()).contains("pw"));
    }

    #[test]
    fn a_move_goes_step_by_step_and_behind_the_vow_only_forward() {
        use Step::{Accept, Copy, CopyRest, Enter, Freeze, Release, Vow};
        assert_eq!(steps(false, true), [Enter, Copy, Freeze, CopyRest, Vow, Accept, Release]);
        assert_eq!(steps(false, false), [Enter, Copy, Vow, Accept]);
        assert_eq!(steps(true, true), [Enter, Vow, Accept, Release]);
        assert_eq!(steps(true, false), [Enter, Vow, Accept]);
    }

    #[test]
    fn what_a_refusal_says_is_cut_between_letters() {
        let HomeAnswer::Refused { why, .. } = HomeAnswer::refuse(HomeRefusal::NotNow, &"é".repeat(200))
        else {
            panic!("a refusal")
        };
        assert_eq!(why, "é".repeat(128));
        let long = HomeAnswer::Refused { what: HomeRefusal::NotNow, why: "x".repeat(257) };
        assert!(long.encode().is_err());
        let addresses = vec!["x".repeat(256)].try_into().unwrap();
        assert!(HomeAnswer::Moved { node: author(), addresses, epoch: 1 }.encode().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_none(body in proptest::collection::vec(any::<u8>(), 0..200), kind in 42u8..44) {
            let length = (body.len() as u32 + 2).to_le_bytes();
            let bytes = [&[HOME_STREAM], length.as_slice(), &[kind, VERSION], &body].concat();
            if let Ok(request) = HomeRequest::decode(&bytes) {
                prop_assert_eq!(request.encode().unwrap(), bytes.clone());
            }
            if let Ok(answer) = HomeAnswer::decode(&bytes) {
                prop_assert_eq!(answer.encode().unwrap(), bytes);
            }
        }
    }
}
