use madake_log::EntryId;
use madake_store::Tip;
use proptest::prelude::*;

use super::*;

fn author(byte: u8) -> AuthorId {
    AuthorId::from_bytes([byte; 32])
}

fn there_and_back(message: Message) {
    let frame = message.encode().unwrap();
    let length = frame_length(frame[..4].try_into().unwrap()).unwrap();
    assert_eq!(length, frame.len() - 4);
    assert_eq!(Message::decode(&frame[4..]).unwrap(), message);
    for cut in 4..frame.len() {
        assert!(Message::decode(&frame[4..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = frame[4..].to_vec();
    longer.push(0);
    assert!(Message::decode(&longer).is_err());
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        node: author(1),
        epoch: [2; 16],
        generation: 300,
        incarnation: (1, [3; 16]),
        clock: -1,
        receives: true,
        gives: false,
        scope: ScopeKind::Listed(7),
        schemas: Some(vec!["post".parse().unwrap()].try_into().unwrap()),
        methods: vec![0].try_into().unwrap(),
        capabilities: 0,
    }
}

#[test]
fn messages_there_and_back() {
    let clock = AuthorClock {
        author: author(4),
        logs: vec![LogClock { log: LogId::new(1024), seq: SeqNum::FIRST, tag: [5; 16] }].try_into().unwrap(),
    };
    let range =
        Range { author: author(1), log: LogId::CONTROL, from: SeqNum::FIRST, to: SeqNum::new(300).unwrap() };
    let refusal = Refusal { what: What::Entry, id: "x".into(), reason: "signature: no".into() };
    there_and_back(Message::Hello(hello()));
    there_and_back(Message::Scope(Scope { authors: vec![author(1), author(2)].try_into().unwrap() }));
    there_and_back(Message::Clock(Clock { authors: vec![clock.clone()].try_into().unwrap(), last: true }));
    there_and_back(Message::Offer(Offer {
        authors: vec![clock].try_into().unwrap(),
        totals: Totals { authors: 1, entries: 1 },
        last: false,
    }));
    there_and_back(Message::Want(Want { id: 1, ranges: vec![range].try_into().unwrap() }));
    let item = WireEntry { entry: ByteBuf::from(vec![1, 2]), payload: Some(ByteBuf::from(vec![])) };
    there_and_back(Message::Entries(Entries { want: 1, items: vec![item].try_into().unwrap() }));
    let ids: Bounded<_, MAX_WANTS_FRAME> = vec![ObjectId::of(b"x")].try_into().unwrap();
    there_and_back(Message::Served(Served { want: 1, lacking: ids.clone() }));
    there_and_back(Message::WantContent(WantContent { id: 2, ids: ids.clone() }));
    there_and_back(Message::Have(Have { ids }));
    let tip = |seq| Tip { seq: SeqNum::new(seq).unwrap(), entry: EntryId::from_bytes([8; 32]) };
    let said = Fork {
        author: author(1),
        log: LogId::new(2_000),
        why: Why::Ask,
        proof: Some(Bounded::truncated(vec![1; 300])),
        tips: vec![tip(3), tip(300)].try_into().unwrap(),
    };
    there_and_back(Message::Fork(said.clone()));
    there_and_back(Message::Fork(Fork { why: Why::Answer, proof: None, tips: Bounded::default(), ..said }));
    there_and_back(Message::WantBranch(WantBranch {
        id: 3,
        author: author(1),
        log: LogId::new(2_000),
        tip: tip(300),
        tips: vec![tip(3)].try_into().unwrap(),
        height: 2,
        tags: vec![[1; 16], [2; 16]].try_into().unwrap(),
    }));
    there_and_back(Message::Content(Content {
        want: 2,
        items: vec![ByteBuf::from(b"x".to_vec())].try_into().unwrap(),
    }));
    there_and_back(Message::Working(Working {}));
    there_and_back(Message::Digest(Digest { count: 1_000_000, sum: [6; 32], only: true }));
    there_and_back(Message::Grant(Grant { cells: 300 }));
    there_and_back(Message::Cells(cells()));
    there_and_back(Message::Differ(Differ { keys: vec![[1; 10], [2; 10]].try_into().unwrap(), last: true }));
    there_and_back(Message::Done(Done {
        received: Counts { entries: 1, payloads: 2, objects: 3, bytes: 4 },
        refused: 1,
        refusals: vec![refusal].try_into().unwrap(),
        missing: 0,
    }));
}

/// The bytes are a format: a change here is a new version of the protocol.
#[test]
fn the_bytes_of_a_hello_are_these() {
    let mut expected = vec![1, 1, 1];
    expected.extend([1; 32]);
    expected.extend([2; 16]);
    expected.extend([0xac, 0x02, 1]);
    expected.extend([3; 16]);
    expected.extend([1, 1, 0, 1, 7, 1, 1, 4]);
    expected.extend(b"post");
    expected.extend([1, 0, 0]);
    assert_eq!(Message::Hello(hello()).encode().unwrap()[4..], expected);
}

fn cells() -> Cells {
    let cell = WireCell { sum: [7; 32], check: [8; 8], extra: -3 };
    Cells { moved: Some((5, [9; 32])), cells: vec![cell].try_into().unwrap() }
}

#[test]
fn the_bytes_of_a_comparison_are_these() {
    let bytes = |message: Message| message.encode().unwrap()[4..].to_vec();
    let digest = bytes(Message::Digest(Digest { count: 300, sum: [6; 32], only: false }));
    assert_eq!(digest, [[13, 1, 0xac, 0x02].as_slice(), &[6; 32], &[0]].concat());
    assert_eq!(bytes(Message::Grant(Grant { cells: 8 })), [14, 1, 8]);
    let expected = [[15, 1, 1, 5].as_slice(), &[9; 32], &[1], &[7; 32], &[8; 8], &[5]].concat();
    assert_eq!(bytes(Message::Cells(cells())), expected);
    let differ = Differ { keys: vec![[1; 10]].try_into().unwrap(), last: true };
    assert_eq!(bytes(Message::Differ(differ)), [[16, 1, 1].as_slice(), &[1; 10], &[1]].concat());
}

#[test]
fn the_bytes_of_what_is_said_of_forks_are_these() {
    let bytes = |message: Message| message.encode().unwrap()[4..].to_vec();
    let tip = Tip { seq: SeqNum::new(300).unwrap(), entry: EntryId::from_bytes([8; 32]) };
    let (author, log) = (author(1), LogId::new(2_000));
    let (proof, tips) = (Some(Bounded::truncated(vec![1, 2])), vec![tip].try_into().unwrap());
    let fork = Fork { author, log, why: Why::Ask, proof, tips };
    let named = [[1; 32].as_slice(), &[0xd0, 0x0f]].concat();
    let tip_bytes = [[0xac, 0x02].as_slice(), &[8; 32]].concat();
    let expected = [[40, 1].as_slice(), &named, &[1, 1, 2, 1, 2, 1], &tip_bytes].concat();
    assert_eq!(bytes(Message::Fork(fork)), expected);
    let tags = vec![[9; 16]].try_into().unwrap();
    let want = WantBranch { id: 3, author, log, tip, tips: Bounded::default(), height: 1, tags };
    let expected = [[41, 1, 3].as_slice(), &named, &tip_bytes, &[0, 1, 1], &[9; 16]].concat();
    assert_eq!(bytes(Message::WantBranch(want)), expected);
}

/// A proof that is too long, and one tip too many, are refused before anything is looked at.
#[test]
fn what_is_said_of_forks_is_bounded() {
    let named = [[1; 32].as_slice(), &[0xd0, 0x0f]].concat();
    let long = [[40, 1].as_slice(), &named, &[1, 1, 0xc9, 0x03], &[0; 457], &[0]].concat();
    assert!(matches!(Message::decode(&long), Err(WireError::Fields { kind: 40, .. })));
    let tips = vec![Tip { seq: SeqNum::FIRST, entry: EntryId::from_bytes([8; 32]) }; MAX_TIPS + 1];
    let tips = postcard::to_allocvec(&tips).unwrap();
    let many = [[40, 1].as_slice(), &named, &[0, 0], &tips].concat();
    assert!(matches!(Message::decode(&many), Err(WireError::Fields { kind: 40, .. })));
    let why = [[40, 1].as_slice(), &named, &[3, 0, 0]].concat();
    assert!(matches!(Message::decode(&why), Err(WireError::Fields { kind: 40, .. })));
}

/// The longest frames of cells and keys fit.
#[test]
fn full_frames_fit() {
    let cell = WireCell { sum: [255; 32], check: [255; 8], extra: i64::MIN };
    let cells = vec![cell; MAX_CELLS_FRAME].try_into().unwrap();
    Message::Cells(Cells { moved: Some((u64::MAX, [255; 32])), cells }).encode().unwrap();
    let keys = vec![[255; 10]; MAX_KEYS_FRAME].try_into().unwrap();
    Message::Differ(Differ { keys, last: false }).encode().unwrap();
}

#[test]
fn a_frame_of_4_gib_is_refused_by_its_first_bytes() {
    assert_eq!(frame_length([0xff; 4]), Err(WireError::TooLong(u32::MAX)));
    assert_eq!(frame_length([0; 4]), Err(WireError::Empty));
    assert_eq!(frame_length((MAX_FRAME as u32).to_le_bytes()), Ok(MAX_FRAME));
}

#[test]
fn unknown_kinds_versions_and_long_integers_are_refused() {
    assert_eq!(Message::decode(&[]), Err(WireError::Empty));
    assert_eq!(Message::decode(&[100, 1]), Err(WireError::Kind(100)));
    assert_eq!(Message::decode(&[200, 9, 9]), Ok(Message::Unknown(200)), "later versions may say more");
    assert_eq!(Message::decode(&[8, 2, 0, 0]), Err(WireError::Version(8)));
    assert!(Message::decode(&[8, 1, 5, 0]).is_ok());
    assert_eq!(Message::decode(&[8, 1, 0x85, 0x00, 0]), Err(WireError::NotCanonical(8)));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(kind in 0u8..45, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frame = [&[kind, 1], body.as_slice()].concat();
        if let Ok(message) = Message::decode(&frame) {
            prop_assert_eq!(&message.encode().unwrap()[4..], frame.as_slice());
        }
    }
}
