use super::*;
use crate::id::{AuthorId, ProofId};

fn id(n: u8) -> EntryId {
    EntryId::from_bytes([n; 32])
}

fn author(n: u8) -> AuthorId {
    AuthorId::from_bytes([n; 32])
}

fn seq(n: u64) -> SeqNum {
    SeqNum::new(n).unwrap()
}

fn point(n: u64, entry: u8) -> Point {
    Point { seq: seq(n), entry: id(entry) }
}

fn list<T, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    items.try_into().unwrap_or_else(|_| panic!("more than {MAX}"))
}

/// Text of digits, and a byte repeated 32 times where `n*` stands.
fn bytes(text: &str) -> Vec<u8> {
    let one = |part: &str| match part.strip_suffix('*') {
        Some(byte) => vec![u8::from_str_radix(byte, 16).unwrap(); 32],
        None => vec![u8::from_str_radix(part, 16).unwrap()],
    };
    text.split_whitespace().flat_map(one).collect()
}

fn vow() -> Vow {
    let home = HomeNode {
        node: author(2),
        addresses: list(vec!["h:1".parse().unwrap(), "[::1]:2".parse().unwrap()]),
    };
    let head = |log, n| LogPoint { log: LogId::new(log), seq: seq(300), entry: id(n) };
    Vow { epoch: 2, previous: Some(id(1)), home: Some(home), heads: list(vec![head(1024, 3), head(2000, 4)]) }
}

fn resolve() -> Resolve {
    Resolve {
        log: LogId::new(2000),
        seq: seq(7),
        kept: point(9, 1),
        dropped: list(vec![point(8, 3), point(8, 4), point(9, 2)]),
        proof: ProofId::from_bytes([5; 32]),
        epoch: 1,
        replaces: None,
    }
}

fn receipts() -> Receipts {
    let receipt = |log, n| Receipt { log: LogId::new(log), seq: seq(n), entry: id(7), epoch: 300 };
    Receipts { author: author(6), logs: list(vec![receipt(0, 1), receipt(2000, 128)]) }
}

#[test]
fn the_bytes_of_control_statements_are_these() {
    let salvaged = Salvaged { origin: id(2), again: point(10, 3) };
    let register = Control::Register { schema: "post".parse().unwrap(), log: LogId::new(1025) };
    let without = Vow { epoch: 1, previous: None, home: None, heads: list(vec![]) };
    let first = HomeNode { node: author(2), addresses: list(vec!["h:1".parse().unwrap()]) };
    let first = Vow { home: Some(first), ..without.clone() };
    let again = Resolve { replaces: Some(id(6)), dropped: list(vec![]), epoch: 0, ..resolve() };
    let salvage = Salvage { log: LogId::new(2000), resolve: id(1), entries: list(vec![salvaged]) };
    for (control, expected) in [
        (register, "01 00 04 70 6f 73 74 81 08"),
        (Control::Vow(without), "01 01 01 00 00 00"),
        (Control::Vow(first), "01 01 01 00 01 02* 01 03 68 3a 31 00"),
        (
            Control::Vow(vow()),
            "01 01 02 01 01* 01 02* 02 03 68 3a 31 07 5b 3a 3a 31 5d 3a 32 \
             02 80 08 ac 02 03* d0 0f ac 02 04*",
        ),
        (Control::Resolve(resolve()), "01 02 d0 0f 07 09 01* 03 08 03* 08 04* 09 02* 05* 01 00"),
        (Control::Resolve(again), "01 02 d0 0f 07 09 01* 00 05* 00 01 06*"),
        (Control::Recovery { key: author(9) }, "01 03 09*"),
        (Control::Follow { author: author(8), follows: true }, "01 04 08* 01"),
        (Control::Countersign { author: author(8), entry: id(7) }, "01 05 08* 07*"),
        (Control::Salvage(salvage), "01 06 d0 0f 01* 01 02* 0a 03*"),
    ] {
        assert_eq!(control.encode().unwrap(), bytes(expected), "{control:?}");
        assert_eq!(Control::decode(&bytes(expected)).unwrap(), Spoken::Known(control));
    }
}

#[test]
fn the_bytes_of_a_nodes_statements_are_these() {
    let (author, vow) = (author(1), id(2));
    for (statement, expected) in [
        (NodeStatement::Accept { author, vow }, "01 00 01* 02*"),
        (NodeStatement::Release { author, vow, next: None }, "01 01 01* 02* 00"),
        (NodeStatement::Release { author, vow, next: Some(id(3)) }, "01 01 01* 02* 01 03*"),
        (NodeStatement::Object { author, vow }, "01 02 01* 02*"),
        (NodeStatement::Countersign { author, entry: vow }, "01 03 01* 02*"),
    ] {
        assert_eq!(statement.encode().unwrap(), bytes(expected), "{statement:?}");
        assert_eq!(NodeStatement::decode(&bytes(expected)).unwrap(), Spoken::Known(statement));
        assert_eq!(statement.author(), author);
    }
}

#[test]
fn the_bytes_of_receipts_are_these() {
    let expected = bytes("01 00 06* 02 00 01 07* ac 02 d0 0f 80 01 07* ac 02");
    let statement = ReceiptStatement::Receipts(receipts());
    assert_eq!(statement.encode().unwrap(), expected);
    assert_eq!(ReceiptStatement::decode(&expected).unwrap(), Spoken::Known(statement));
}

#[test]
fn later_kinds_are_let_through_and_other_bytes_refused() {
    assert_eq!(Control::decode(&[1, 7, 9, 9]).unwrap(), Spoken::Unknown(7));
    assert_eq!(NodeStatement::decode(&[1, 4]).unwrap(), Spoken::Unknown(4));
    assert_eq!(ReceiptStatement::decode(&[1, 1]).unwrap(), Spoken::Unknown(1));
    assert_eq!(Control::decode(&[]), Err(StatementError::Version));
    assert_eq!(Control::decode(&[2, 0]), Err(StatementError::Version));
    assert!(matches!(Control::decode(&[1, 0, 4]), Err(StatementError::Fields(_))));
    let mut bad_schema = bytes("01 00 04 50 6f 73 74 81 08");
    assert!(matches!(Control::decode(&bad_schema), Err(StatementError::Fields(_))));
    bad_schema[3] = b'p';
    assert!(Control::decode(&bad_schema).is_ok());
    // A long integer where a short one would do.
    assert_eq!(Control::decode(&bytes("01 01 81 00 00 00 00")), Err(StatementError::NotCanonical));
}

/// Every statement with a byte more, a byte less, and each length claimed larger than it is.
#[test]
fn a_rest_and_a_cut_are_refused() {
    let statements = [Control::Vow(vow()), Control::Resolve(resolve())];
    for statement in statements {
        let whole = statement.encode().unwrap();
        for cut in 1..whole.len() {
            assert!(Control::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(Control::decode(&longer), Err(StatementError::NotCanonical));
    }
    let mut longer = ReceiptStatement::Receipts(receipts()).encode().unwrap();
    longer.push(0);
    assert_eq!(ReceiptStatement::decode(&longer), Err(StatementError::NotCanonical));
}

#[test]
fn lists_and_texts_are_bounded() {
    // 65 dropped branches, and a length of 2^63 with nothing behind it.
    assert!(List::<Point, 64>::try_from(vec![point(1, 1); 65]).is_err());
    let head = "01 02 d0 0f 07 09 01*";
    let many = "08 03* ".repeat(65);
    let error = Control::decode(&bytes(&format!("{head} 41 {many} 05* 01 00")));
    assert!(matches!(error, Err(StatementError::Fields(_))), "{error:?}");
    let error = Control::decode(&bytes("01 01 01 00 00 80 80 80 80 80 80 80 80 80 01"));
    assert!(matches!(error, Err(StatementError::Fields(_))), "{error:?}");
    for text in ["", "a b:1", "a,b", "é:1", "a\n", &"x".repeat(256)] {
        assert_eq!(text.parse::<Address>(), Err(AddressError), "{text:?}");
        let length = text.len();
        let mut raw = bytes("01 01 01 00 01 02* 01");
        raw.extend(postcard::to_stdvec(text).unwrap());
        raw.push(0);
        assert!(matches!(Control::decode(&raw), Err(StatementError::Fields(_))), "{text:?} of {length}");
    }
    assert!("x".repeat(255).parse::<Address>().is_ok());
}

#[test]
fn fields_that_do_not_go_together_are_refused_both_ways() {
    let head = |log| LogPoint { log: LogId::new(log), seq: seq(1), entry: id(1) };
    let vows = [
        Vow { epoch: 0, previous: None, ..vow() },
        Vow { epoch: 1, ..vow() },
        Vow { previous: None, ..vow() },
        Vow { heads: list(vec![head(0)]), ..vow() },
        Vow { heads: list(vec![head(2000), head(1024)]), ..vow() },
        Vow { heads: list(vec![head(2000), head(2000)]), ..vow() },
    ];
    for vow in vows {
        refused(&Control::Vow(vow));
    }
    let resolves = [
        Resolve { kept: point(5, 1), ..resolve() },
        Resolve { dropped: list(vec![point(9, 1)]), ..resolve() },
        Resolve { dropped: list(vec![point(9, 2), point(8, 2)]), ..resolve() },
    ];
    for resolve in resolves {
        refused(&Control::Resolve(resolve));
    }
    let again = |n| Salvaged { origin: id(1), again: point(n, 1) };
    refused(&Control::Salvage(Salvage {
        log: LogId::new(9),
        resolve: id(1),
        entries: list(vec![again(2), again(2)]),
    }));
    refused(&NodeStatement::Release { author: author(1), vow: id(2), next: Some(id(2)) });
    let receipt = |log, epoch| Receipt { log: LogId::new(log), seq: seq(1), entry: id(1), epoch };
    for logs in [vec![], vec![receipt(1, 0)], vec![receipt(2, 1), receipt(1, 1)]] {
        refused(&ReceiptStatement::Receipts(Receipts { author: author(1), logs: list(logs) }));
    }
}

/// Neither written nor read.
fn refused<T: Statement + std::fmt::Debug + PartialEq>(statement: &T) {
    assert!(matches!(encode(statement), Err(StatementError::Nonsense(_))), "{statement:?}");
    let raw: Vec<u8> = postcard::to_extend(statement, vec![VERSION]).unwrap();
    assert!(matches!(decode::<T>(&raw), Err(StatementError::Nonsense(_))), "{statement:?}");
}
