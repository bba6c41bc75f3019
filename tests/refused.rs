//! Bad entries, payloads and objects inside a session: each is refused with its reason, and everything
//! honest of the same session arrives.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::hostile::{Hostile, Shelf, commit, item, key, lipmaa_of, log, raw_item};
use common::{Home, PATIENCE, b3sum, befriend, has_fields, list, noise, number, reasons, text};
use madake_log::{AuthorId, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId, SeqNum, SignatureError};
use madake_object::{Encoder, ObjectId, TreeHasher};
use madake_sync::Bounded;
use madake_sync::ranged::{REQUEST_LEN, RangeRequest, RangeStatus};
use madake_sync::wire::{Class, Content, Message, WireEntry};
use serde_json::{Value, json};

/// The third entry of a log as it should be, and what is sent in its place.
type Spoil = fn(&AuthorKey, &[(Entry, Vec<u8>)]) -> WireEntry;

/// What is done to the third entry; the word with which it is refused; how many entries of the log are
/// kept.
const CASES: [(&str, Spoil, &str, u64); 15] = [
    ("a tag byte of 2", |_, log| changed(log, |bytes| bytes[0] = 2), "tag", 2),
    ("an appended byte", |_, log| changed(log, |bytes| bytes.push(0)), "trailing", 2),
    ("a missing byte", |_, log| changed(log, |bytes| bytes.truncate(169)), "sig-short", 2),
    ("no bytes", |_, log| changed(log, Vec::clear), "empty", 2),
    ("a long log id", |_, log| changed(log, long_log_id), "log-id", 2),
    (
        "a long sequence number",
        |_, log| changed(log, |bytes| drop(bytes.splice(36..37, [0xf8, 3]))),
        "seq",
        2,
    ),
    ("a sequence number of 0", |_, log| changed(log, |bytes| bytes[36] = 0), "seq-zero", 2),
    (
        "a wrong length byte in the backlink",
        |_, log| changed(log, |bytes| bytes[38] = 0x21),
        "backlink-encoding",
        2,
    ),
    (
        "a wrong length byte in the payload hash",
        |_, log| changed(log, |bytes| *from_end(bytes, 97) = 0x21),
        "payload-hash-encoding",
        2,
    ),
    (
        "another hash function in the payload hash",
        |_, log| changed(log, |bytes| *from_end(bytes, 98) = 1),
        "payload-hash-encoding",
        2,
    ),
    (
        "a flipped bit in the signature",
        |_, log| changed(log, |bytes| *from_end(bytes, 40) ^= 1),
        "signature",
        2,
    ),
    (
        "a flipped bit in what is signed",
        |_, log| changed(log, |bytes| *from_end(bytes, 70) ^= 1),
        "signature",
        2,
    ),
    ("a backlink to a wrong place", wrong_backlink, "forked", 2),
    ("an author that is no point of the curve", no_point, "author-point", 2),
    ("a payload one byte off", |_, log| item(&log[2].0, b"thref"), "payload-hash", 3),
];

#[test]
fn bad_entries_are_refused_with_reasons_and_the_rest_of_the_session_goes_on() {
    let (home, peer) = (Home::new(), Hostile::new(1));
    let (mallory, honest) = (key(2), key(3));
    let mut shelf = Shelf::default();
    let mut logs = Vec::new();
    for (number, (_, spoil, _, _)) in CASES.iter().enumerate() {
        let made = log(&mallory, bad_log(number), &[b"one", b"two", b"three"]);
        let items = vec![item(&made[0].0, b"one"), item(&made[1].0, b"two"), spoil(&mallory, &made)];
        shelf.put_as(&made, items);
        logs.push(made);
    }
    let posts: Vec<Vec<u8>> = (0..40).map(|number| format!("post {number}").into_bytes()).collect();
    let posts: Vec<&[u8]> = posts.iter().map(Vec::as_slice).collect();
    // Before and after Mallory's in the order of logs and authors, whatever that is.
    for number in [1_500, 9_000] {
        shelf.put(&log(&honest, LogId::new(number), &posts));
        shelf.put(&log(&mallory, LogId::new(number), &posts));
    }
    let done = peer.serve(shelf);
    for author in [&mallory, &honest] {
        home.ok(["follow", &author.author().to_string()]);
    }
    let result = home.json(["pull", &peer.ticket()]);

    let refused = list(&result, "refused");
    let words: Vec<(String, String)> = reasons(&result["refused"]);
    assert_eq!(refused.len(), CASES.len(), "{result}");
    for (number, (what, spoil, word, kept)) in CASES.iter().enumerate() {
        let sent = spoil(&mallory, &logs[number]);
        let at = format!("{}/{}@3", mallory.author(), bad_log(number));
        let id = match Entry::decode(&sent.entry) {
            Ok(entry) => format!("{}/{}@{}", entry.author(), entry.log(), entry.seq()),
            Err(_) => b3sum(&sent.entry),
        };
        assert!(
            words.contains(&((*word).to_owned(), id.clone())),
            "{what}: no `{word}` of {id} in {words:?}"
        );
        assert_eq!(height(&home, &mallory, bad_log(number)), *kept, "{what}");
        // A log that came less far than was offered is told, by what was refused or by what is missing.
        let log = &at[..at.len() - 2];
        let missing = |missing: &Value| [log, &b3sum(b"three")].contains(&text(missing, "id").as_str());
        let told = id.starts_with(log) || list(&result, "missing").iter().any(missing);
        assert!(told, "{what}: it is not told that {log} is incomplete: {result}");
    }
    for refused in &refused {
        has_fields(refused, "what id from reason");
        assert_eq!(text(refused, "from"), peer.node());
    }
    assert_eq!(number(&result, "refused_count"), CASES.len() as u64);
    let told = done.recv_timeout(PATIENCE).unwrap();
    assert_eq!(told.refused, CASES.len() as u64, "the peer is told what was refused");

    for author in [&mallory, &honest] {
        for log in [1_500, 9_000] {
            assert_eq!(height(&home, author, LogId::new(log)), 40);
        }
    }
    home.verifies();

    // Nothing is poisoned: from an honest peer the same logs come whole.
    let (better, mut shelf) = (Hostile::new(4), Shelf::default());
    for made in &logs {
        shelf.put(made);
    }
    let _done = better.serve(shelf);
    let result = home.json(["pull", &better.ticket()]);
    assert_eq!((list(&result, "refused"), list(&result, "missing")), (vec![], vec![]), "{result}");
    for number in 0..CASES.len() {
        assert_eq!(height(&home, &mallory, bad_log(number)), 3);
    }
    for log in home.lines(["log", "verify"]) {
        assert_eq!((&log["ok"], &log["payloads_missing"]), (&json!(true), &json!(0)), "{log}");
    }
}

#[test]
fn an_author_of_small_order_signs_for_nobody() {
    // With the identity as key, and as R with s = 0, the equation holds for every message.
    let (home, peer, mallory) = (Home::new(), Hostile::new(1), key(2));
    let made = log(&mallory, LogId::new(2000), &[b"one"]);
    let mut bytes = made[0].0.as_bytes().to_vec();
    let identity = [&[1][..], &[0; 31]].concat();
    let length = bytes.len();
    bytes[1..33].copy_from_slice(&identity);
    bytes[length - 64..length - 32].copy_from_slice(&identity);
    bytes[length - 32..].fill(0);
    let mut shelf = Shelf::default();
    shelf.put_as(&made, vec![raw_item(bytes, b"one"), item(&made[0].0, b"one")]);
    let _done = peer.serve(shelf);
    home.ok(["follow", &mallory.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);
    let id = format!("01{}/2000@1", "00".repeat(31));
    assert_eq!(reasons(&result["refused"]), [("signature".to_owned(), id)]);
    assert_eq!(number(&result["received"], "entries"), 1, "the good one after it");
    assert_eq!(home.lines(["log", "list"]).len(), 1);
}

#[test]
fn entries_out_of_order_repeated_or_not_asked_for_do_no_harm() {
    let (home, peer, mallory) = (Home::new(), Hostile::new(1), key(2));
    let stranger = key(5);
    let made = |log_id: u64| log(&mallory, LogId::new(log_id), &[b"1", b"2", b"3", b"4", b"5"]);
    let items = |log: &[(Entry, Vec<u8>)], order: &[usize]| -> Vec<WireEntry> {
        order.iter().map(|at| item(&log[at - 1].0, &log[at - 1].1)).collect()
    };
    let mut shelf = Shelf::default();
    let (backwards, repeated, swapped, sent_late) = (made(2001), made(2002), made(2003), made(2004));
    shelf.put_as(&backwards, items(&backwards, &[5, 4, 3, 2, 1]));
    shelf.put_as(&repeated, items(&repeated, &[1, 1, 2, 2, 1, 3, 4, 5, 5]));
    shelf.put_as(&swapped, items(&swapped, &[1, 3, 2, 4, 5]));
    // Only the first three are offered; and a stranger's entry and one of an unknown log come along.
    let offered = sent_late[..3].to_vec();
    let foreign = log(&stranger, LogId::new(2004), &[b"hello"]);
    let unknown = log(&mallory, LogId::new(7777), &[b"hello"]);
    let more = [items(&sent_late, &[1, 2, 3, 4, 5]), items(&foreign, &[1]), items(&unknown, &[1])].concat();
    shelf.put_as(&offered, more);
    let _done = peer.serve(shelf);
    home.ok(["follow", &mallory.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);

    let words = reasons(&result["refused"]);
    let unasked = |id: String| words.contains(&("unasked".to_owned(), id));
    assert!(unasked(format!("{}/2004@4", mallory.author())), "{words:?}");
    assert!(unasked(format!("{}/2004@5", mallory.author())), "{words:?}");
    assert!(unasked(format!("{}/2004@1", stranger.author())), "{words:?}");
    assert!(unasked(format!("{}/7777@1", mallory.author())), "{words:?}");
    assert_eq!(height(&home, &mallory, LogId::new(2002)), 5, "repeats are no harm");
    assert_eq!(height(&home, &mallory, LogId::new(2004)), 3, "only what was asked for");
    assert!(height(&home, &mallory, LogId::new(2001)) <= 1);
    assert!((1..5).contains(&height(&home, &mallory, LogId::new(2003))));
    assert_eq!(home.lines(["log", "list", "--author", &stranger.author().to_string()]), [Value::Null; 0]);
    home.verifies();

    let (better, mut shelf) = (Hostile::new(4), Shelf::default());
    for made in [&backwards, &repeated, &swapped, &sent_late] {
        shelf.put(made);
    }
    let _done = better.serve(shelf);
    let result = home.json(["pull", &better.ticket()]);
    assert_eq!(list(&result, "refused"), [Value::Null; 0], "{result}");
    for log in 2001..=2004 {
        assert_eq!(height(&home, &mallory, LogId::new(log)), 5);
    }
    home.verifies();
}

#[test]
fn an_entry_after_the_end_of_its_log_and_a_second_history_change_nothing_of_what_is_read() {
    let (home, peer, mallory) = (Home::new(), Hostile::new(1), key(2));
    let sign = |log: u64, made: &[(Entry, Vec<u8>)], payload: &[u8], end: bool| {
        let head = made.last().map(|(entry, _)| LogHead { end: false, ..LogHead::of(entry) });
        let (id, size) = (PayloadId::of(payload), payload.len() as u64);
        let entry = Entry::sign(&mallory, LogId::new(log), head.as_ref(), lipmaa_of(made), id, size, end);
        (entry.unwrap().into_entry(), payload.to_vec())
    };
    let mut ended = vec![sign(2001, &[], b"1", false)];
    ended.push(sign(2001, &ended, b"end", true));
    ended.push(sign(2001, &ended, b"after", false));
    let first = log(&mallory, LogId::new(2002), &[b"a", b"b", b"c"]);
    let mut shelf = Shelf::default();
    shelf.put(&ended);
    shelf.put(&first);
    let _done = peer.serve(shelf);
    home.ok(["follow", &mallory.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);
    // What follows an end is another history: it is kept beside the log, which is forked where it ended.
    assert_eq!(list(&result, "refused"), [Value::Null; 0], "{result}");
    let state = home.lines(["log", "list"]).into_iter().find(|log| log["log"] == 2001).unwrap();
    assert_eq!((number(&state, "seq"), text(&state, "state")), (2, "forked".into()));
    let fork = home.json(["fork", "list"]);
    assert_eq!((number(&fork, "at"), text(&fork, "kind")), (2, "K4".into()));

    // A second history of the other log: as high, and higher.
    for (length, word) in [(3, "diverged"), (4, "")] {
        let payloads: [&[u8]; 4] = [b"a", b"B", b"C", b"D"];
        let second = log(&mallory, LogId::new(2002), &payloads[..length]);
        let (peer, mut shelf) = (Hostile::new(5 + length as u8), Shelf::default());
        shelf.put_as(
            &second,
            second[3.min(length)..].iter().map(|(entry, payload)| item(entry, payload)).collect(),
        );
        let _done = peer.serve(shelf);
        let result = home.json(["pull", &peer.ticket()]);
        let words = reasons(&result["refused"]);
        assert!(!words.is_empty() && words[0].0.contains(word), "{result}");
        assert!(words[0].1.starts_with(&format!("{}/2002", mallory.author())), "{words:?}");
        let held = home.lines(["log", "show", &format!("{}/2002", mallory.author())]);
        let ids: Vec<String> = held.iter().map(|entry| text(entry, "entry")).collect();
        let expected: Vec<String> = first.iter().map(|(entry, _)| entry.id().to_string()).collect();
        assert_eq!(ids, expected, "what was here first stays");
    }
    home.verifies();
}

#[test]
fn a_signed_size_that_is_wrong_is_told_and_the_object_is_not_kept() {
    let (home, peer, mallory) = (Home::new(), Hostile::new(1), key(2));
    let sign = |log: u64, payload: &[u8], size: u64| {
        Entry::sign(&mallory, LogId::new(log), None, None, PayloadId::of(payload), size, false).unwrap()
    };
    let mut shelf = Shelf::default();
    for (log, payload, size) in [(2001, b"abc".as_slice(), 4), (2002, b"defg", 0), (2003, b"h", 1 << 40)] {
        let entry = sign(log, payload, size).into_entry();
        shelf.put(&[(entry, payload.to_vec())]);
        shelf.put_object(payload);
    }
    let _done = peer.serve(shelf);
    home.ok(["follow", &mallory.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);
    let mut expected: Vec<(String, String)> = (2001..=2003)
        .map(|log| ("payload-size".to_owned(), format!("{}/{log}@1", mallory.author())))
        .collect();
    expected.sort();
    let mut words = reasons(&result["refused"]);
    words.sort();
    assert_eq!(words, expected, "{result}");
    let entry = home.json(["log", "show", &format!("{}/2001@1", mallory.author())]);
    assert_eq!(entry["flaw"]["code"], "payload-size", "{entry}");
}

#[test]
fn objects_that_were_not_asked_for_are_refused() {
    let (home, peer, author) = (Home::new(), Hostile::new(1), key(2));
    let wanted = b"the real one".to_vec();
    let commit = commit(author.author(), "file", &wanted).encode().unwrap();
    let mut shelf = Shelf::default();
    shelf.put(&log(&author, LogId::COMMIT, &[&commit]));
    let endpoint = peer.endpoint.clone();
    let serving = peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = common::hostile::Wire::accepted(endpoint.id(), connection).await;
        wire.give_first(&shelf).await;
        loop {
            match wire.hear().await {
                Some(Message::Want(want)) => wire.answer(&shelf, &want).await,
                Some(Message::WantContent(want)) => {
                    let items = [b"not the real one".to_vec(), b"nor this".to_vec()].map(Into::into).to_vec();
                    let content = Content { want: want.id, items: Bounded::truncated(items) };
                    wire.give(Class::Content, &Message::Content(content)).await;
                    wire.served(Class::Content, want.id).await;
                }
                Some(Message::Done(done)) => break done,
                _ => {}
            }
        }
    });
    home.ok(["follow", &author.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);
    let expected =
        [b"not the real one".as_slice(), b"nor this"].map(|bytes| ("unasked".to_owned(), b3sum(bytes)));
    assert_eq!(reasons(&result["refused"]), expected, "{result}");
    assert_eq!(text(&list(&result, "missing")[0], "id"), b3sum(&wanted));
    assert_eq!(home.error(["get", &b3sum(b"nor this")], 1)["code"], "not-found");
    assert_eq!(peer.run(serving).unwrap().refused, 2);
}

#[test]
fn a_big_object_of_wrong_bytes_is_not_kept_and_comes_from_an_honest_peer() {
    let (home, author) = (Home::new(), key(2));
    let honest = Home::new();
    let bytes = noise(1, 3_000_000);
    let commit = commit(author.author(), "big", &bytes).encode().unwrap();
    home.ok(["follow", &author.author().to_string()]);
    honest.ok(["follow", &author.author().to_string()]);
    let size = bytes.len() as u64;
    // (what is stated as the size, how ranges are spoilt, the word in `missing`, how many were wrong)
    let cases = [
        (size + 1, Spoilt::Not, "size", 0),
        (size, Spoilt::All, "hash", 3),
        (size, Spoilt::Last, "hash", 1),
        (size, Spoilt::Cut, "broken-off", 0),
    ];
    for (case, (stated, spoilt, word, wrong)) in cases.into_iter().enumerate() {
        let peer = Hostile::new(10 + case as u8);
        let mut shelf = Shelf::default();
        shelf.put(&log(&author, LogId::COMMIT, &[&commit]));
        serve_big(&peer, shelf, stated, bytes.clone(), spoilt);
        let result = home.json(["pull", &peer.ticket()]);
        let missing = list(&result, "missing");
        assert_eq!(missing.len(), 1, "{word}: {result}");
        assert_eq!(text(&missing[0], "id"), b3sum(&bytes));
        assert!(text(&missing[0], "reason").starts_with(word), "{word}: {result}");
        assert_eq!(
            (number(&result, "wrong_ranges"), number(&result, "refused_count")),
            (wrong, wrong),
            "{result}"
        );
        assert_eq!(result["received"]["objects"], 0, "{result}");
        assert_eq!(home.error(["get", &b3sum(&bytes)], 1)["code"], "missing");
    }
    let peer = Hostile::new(20);
    let mut shelf = Shelf::default();
    shelf.put(&log(&author, LogId::COMMIT, &[&commit]));
    serve_big(&peer, shelf, size, bytes.clone(), Spoilt::Not);
    assert_eq!(number(&honest.json(["pull", &peer.ticket()]), "fetched_bytes"), size);
    let daemon = honest.serve();
    befriend(&home, &honest, &daemon);
    // Of what was right nothing comes again.
    let last = home.json(["pull", "a"]);
    assert_eq!(list(&last, "missing"), [Value::Null; 0], "{last}");
    assert!(number(&last, "fetched_bytes") <= 16 * 1024, "only the one group that was always wrong: {last}");
    assert!(home.feed(["get", &b3sum(&bytes)], b"") == bytes);
}

#[test]
fn only_what_logs_name_is_handed_out() {
    let home = Home::new();
    home.feed(["put", "-"], b"a private note");
    home.feed(["put", "-"], &noise(1, 2_000_000));
    home.feed(["log", "append", "post"], b"public");
    let daemon = home.serve();
    let peer = Hostile::new(1);
    home.ok(["peer", "add", &peer.ticket()]);
    let ids = [b"a private note".as_slice(), &noise(1, 2_000_000), b"public"].map(ObjectId::of);
    let (content, lacking, big) = peer.run(async {
        let mut wire = peer.dial(&home.node(), &daemon.listen()).await;
        wire.ask_for_content(&ids).await;
        let (content, lacking) = wire.answers().await;
        (content, lacking, wire.ask_for_big(ids[1], 2_000_000).await)
    });
    assert_eq!(content, [b"public".to_vec()]);
    assert_eq!(lacking, ids[..2]);
    assert_eq!(big, [1], "not there, and nothing more");
}

/// What is wrong with the ranges that a peer gives.
#[derive(Clone, Copy, PartialEq)]
enum Spoilt {
    Not,
    /// The last byte of each.
    All,
    /// The object's last byte.
    Last,
    /// It ends in the middle of each.
    Cut,
}

/// Gives what is on the shelf, and ranges of these bytes.
fn serve_big(peer: &Hostile, shelf: Shelf, stated: u64, bytes: Vec<u8>, spoilt: Spoilt) {
    let (endpoint, bytes) = (peer.endpoint.clone(), Arc::new(bytes));
    peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = common::hostile::Wire::accepted(endpoint.id(), connection.clone()).await;
        tokio::spawn(async move {
            let mut hasher = TreeHasher::new();
            hasher.update(&bytes);
            let tree = hasher.finish();
            while let Ok((mut send, mut recv)) = connection.quinn().accept_bi().await {
                let mut request = [0; REQUEST_LEN];
                recv.read_exact(&mut request).await.unwrap();
                let wanted = RangeRequest::decode(&request).unwrap();
                if wanted.size != stated {
                    let _ = send.write_all(&RangeStatus::OtherSize(stated).encode()).await;
                    let _ = send.finish();
                    continue;
                }
                let (object, end) = ((tree.id, tree.size), wanted.groups.end);
                let (data, outboard) = (bytes.as_slice(), tree.outboard.as_slice());
                let mut encoder = Encoder::new(object, data, outboard, wanted.groups).unwrap();
                let mut response = encoder.next(4 << 20).unwrap();
                let is_last = end == madake_object::groups(tree.size);
                if spoilt == Spoilt::All || spoilt == Spoilt::Last && is_last {
                    *response.last_mut().unwrap() ^= 1;
                }
                let _ = send.write_all(&RangeStatus::Comes.encode()).await;
                if spoilt == Spoilt::Cut {
                    let _ = send.write_all(&response[..response.len() / 2]).await;
                    let _ = send.reset(0_u32.into());
                } else {
                    let _ = send.write_all(&response).await;
                    let _ = send.finish();
                }
            }
        });
        wire.give_all(shelf).await;
        wire.connection.closed().await;
    });
}

fn bad_log(number: usize) -> LogId {
    LogId::new(2000 + number as u64)
}

fn height(home: &Home, author: &AuthorKey, log: LogId) -> u64 {
    let logs = home.lines(["log", "list", "--author", &author.author().to_string()]);
    let heights: BTreeMap<u64, u64> =
        logs.iter().map(|log| (number(log, "log"), number(log, "seq"))).collect();
    heights.get(&log.get()).copied().unwrap_or(0)
}

/// The third entry with its bytes changed: tag 1, author 32, log id 3 (`f9` and two bytes), sequence
/// number 1, backlink 34, size 1, payload hash 34, signature 64.
fn changed(log: &[(Entry, Vec<u8>)], change: impl FnOnce(&mut Vec<u8>)) -> WireEntry {
    let mut bytes = log[2].0.as_bytes().to_vec();
    assert_eq!((bytes.len(), bytes[33], bytes[36]), (170, 0xf9, 3), "the layout that the changes know");
    change(&mut bytes);
    raw_item(bytes, b"three")
}

/// An author who is nobody's key.
fn no_point(_: &AuthorKey, log: &[(Entry, Vec<u8>)]) -> WireEntry {
    let fits = |byte: &u8| {
        let checked = AuthorId::from_bytes([*byte; 32]).check_key();
        matches!(checked, Err(SignatureError::AuthorPoint))
    };
    let byte = (1..=255).find(fits).expect("half of all bytes are no point");
    changed(log, |bytes| bytes[1..33].fill(byte))
}

fn from_end(bytes: &mut [u8], distance: usize) -> &mut u8 {
    let length = bytes.len();
    &mut bytes[length - distance]
}

/// The log id in three bytes where two would do.
fn long_log_id(bytes: &mut Vec<u8>) {
    let (high, low) = (bytes[34], bytes[35]);
    bytes.splice(33..36, [0xfa, 0, high, low]);
}

/// Well signed, and linked to an entry that is not there.
fn wrong_backlink(key: &AuthorKey, log: &[(Entry, Vec<u8>)]) -> WireEntry {
    let head = LogHead { seq: SeqNum::new(2).unwrap(), entry: EntryId::from_bytes([9; 32]), end: false };
    let entry = Entry::sign(key, log[2].0.log(), Some(&head), None, PayloadId::of(b"three"), 5, false);
    item(&entry.unwrap(), b"three")
}
