//! Peers that break the protocol, against a daemon and against a pull: each is told why and held off,
//! and nobody else notices.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::{Hostile, Shelf, Wire, key, log};
use common::{Daemon, Home, befriend, has_fields, number, text};
use madake_log::{AuthorId, LogId, SeqNum};
use madake_sync::Bounded;
use madake_sync::wire::{
    AuthorClock, Class, Clock, Done, Entries, Hello, LogClock, Message, Offer, Range, Scope, ScopeKind,
    Totals, Want,
};

/// Codes with which a connection is closed (`docs/protocol.md`, "Closing").
const NOT_KNOWN: u64 = 1;
const MISBEHAVED: u64 = 2;
const HELD_OFF: u64 = 5;

/// What a hostile dialler writes on its control stream; what it is told has this in it.
struct Case {
    does: &'static str,
    says: fn(&Hostile) -> Vec<u8>,
    told: &'static str,
}

const CASES: [Case; 30] = [
    Case { does: "announces 4 GiB", says: |_| vec![0xff; 4], told: "a frame of 4294967295 bytes" },
    Case {
        does: "announces one byte too many",
        says: |_| frame_of(1024 * 1024 + 1),
        told: "a frame of 1048577 bytes",
    },
    Case { does: "announces nothing", says: |_| vec![0; 4], told: "an empty frame" },
    Case { does: "speaks HTTP", says: |_| b"GET / HTTP/1.1\r\n\r\n".to_vec(), told: "a frame of" },
    Case {
        does: "uses an unknown kind",
        says: |_| vec![2, 0, 0, 0, 100, 1],
        told: "unknown kind of message, 100",
    },
    Case { does: "uses an unknown version", says: |_| vec![2, 0, 0, 0, 1, 9], told: "unknown version" },
    Case { does: "sends noise", says: |_| framed(&[&[1, 1][..], &[0xee; 300]].concat()), told: "kind 1" },
    Case {
        does: "cuts a Hello short",
        says: |h| framed(&hello(h)[4..40]),
        told: "malformed message of kind 1",
    },
    Case {
        does: "appends a byte",
        says: |h| framed(&[&hello(h)[4..], &[0]].concat()),
        told: "not in its shortest form",
    },
    Case { does: "writes a long integer", says: long_integer, told: "not in its shortest form" },
    Case { does: "announces a list of 2^63", says: huge_list, told: "malformed message of kind 6" },
    Case { does: "claims another's id", says: another_id, told: "it says it is" },
    Case {
        does: "claims the daemon's own version of nothing",
        says: other_protocol,
        told: "it speaks protocol 99",
    },
    Case { does: "knows no method", says: no_method, told: "no way to compare summaries" },
    Case { does: "wants too many authors", says: big_scope, told: "a scope of 70000 authors" },
    Case { does: "lists authors twice", says: |h| scope(h, 2, &[1, 1]), told: "not in order" },
    Case { does: "lists authors backwards", says: |h| scope(h, 2, &[2, 1]), told: "not in order" },
    Case {
        does: "lists more than announced",
        says: |h| scope(h, 1, &[1, 2]),
        told: "more authors than announced",
    },
    Case {
        does: "lists what was not announced",
        says: |h| [hello(h), scope_frame(&[1])].concat(),
        told: "out of turn",
    },
    Case { does: "begins with a summary", says: |_| clock(&[(1, 1)]), told: "out of turn" },
    Case { does: "says Hello twice", says: |h| [hello(h), hello(h)].concat(), told: "out of turn" },
    Case {
        does: "offers what nobody asked for",
        says: |h| [hello(h), offer()].concat(),
        told: "out of turn",
    },
    Case {
        does: "names a log twice",
        says: |h| [hello(h), clock(&[(1, 1), (1, 2)])].concat(),
        told: "out of order",
    },
    Case {
        does: "names logs backwards",
        says: |h| [hello(h), clock(&[(2, 1), (1, 1)])].concat(),
        told: "order",
    },
    Case {
        does: "names an author without logs",
        says: |h| [hello(h), empty_clock()].concat(),
        told: "none of its logs",
    },
    Case { does: "wants schemas backwards", says: schemas_backwards, told: "order" },
    Case {
        does: "claims a height over 2^48",
        says: |h| [hello(h), clock(&[(1, 1 << 48)])].concat(),
        told: "2^48",
    },
    Case {
        does: "asks backwards",
        says: |h| [hello(h), clock(&[]), want(&[(2000, 5, 1)])].concat(),
        told: "to a lower",
    },
    Case {
        does: "mixes what it asks for",
        says: |h| [hello(h), clock(&[]), want(&[(0, 1, 1), (2000, 1, 1)])].concat(),
        told: "system logs and others",
    },
    Case {
        does: "puts entries on the control stream",
        says: |h| [hello(h), entries(1)].concat(),
        told: "not for it",
    },
];

#[test]
fn who_breaks_the_protocol_is_told_why_and_held_off_and_others_are_served() {
    let (victim, mut daemon) = serving();
    for (number, case) in CASES.iter().enumerate() {
        let peer = added(&victim, 10 + number as u8);
        let (code, words) = peer.run(async {
            let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
            wire.raw(&(case.says)(&peer)).await;
            wire.closed().await
        });
        assert_eq!(code, MISBEHAVED, "who {}: {words}", case.does);
        assert!(words.contains(case.told), "who {} is told: {words}", case.does);
        let event = daemon.wait_for("session");
        assert_eq!(text(&event, "peer"), peer.node());
        assert!(text(&event, "reason").contains(case.told), "who {}: {event}", case.does);
        is_held_off(&peer, &victim, &daemon);
    }
    assert!(daemon.is_alive());
    is_served(&victim, &daemon);
    assert_eq!(daemon.stop(), 0);
    victim.verifies();
}

#[test]
fn who_misuses_the_data_streams_is_told_why_and_held_off() {
    let (victim, mut daemon) = serving();
    type Streams<'a> = &'a [(u8, Vec<u8>)];
    let cases: [(u8, &str, Streams<'_>); 6] = [
        (1, "class 0", &[(0, vec![])]),
        (2, "class 9", &[(9, vec![])]),
        (3, "too many", &[(2, vec![]), (2, vec![])]),
        (4, "a frame of 4294967295 bytes", &[(2, vec![0xff; 4])]),
        (5, "not for it", &[(2, hello(&Hostile::new(5)))]),
        (6, "which is not open", &[(2, entries(77))]),
    ];
    for (number, told, streams) in cases {
        let peer = added(&victim, number);
        let (code, words) = peer.run(async {
            let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
            wire.raw(&hello(&peer)).await;
            for (class, bytes) in streams {
                wire.new_stream(&[&[*class], bytes.as_slice()].concat()).await;
            }
            wire.closed().await
        });
        assert_eq!((code, words.contains(told)), (MISBEHAVED, true), "{told}: {words}");
        daemon.wait_for("session");
        is_held_off(&peer, &victim, &daemon);
    }
    assert!(daemon.is_alive());
    is_served(&victim, &daemon);
}

#[test]
fn who_ends_a_stream_in_the_middle_of_a_frame_is_told_why() {
    let (victim, daemon) = serving();
    for number in [1, 2, 3] {
        let peer = added(&victim, number);
        let (code, words) = peer.run(async {
            let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
            match number {
                1 => wire.raw(&hello(&peer)[..20]).await,
                2 => wire.raw(&hello(&peer)[..2]).await,
                _ => {
                    wire.raw(&hello(&peer)).await;
                    wire.give_raw(Class::User, &[100, 0, 0, 0, 7, 1]).await;
                    wire.end_data(Class::User).await;
                }
            }
            if number < 3 {
                wire.end().await;
            }
            wire.closed().await
        });
        assert_eq!(code, MISBEHAVED, "{words}");
        assert!(words.contains("in the middle of a frame"), "{words}");
        daemon.wait_for("session");
        is_held_off(&peer, &victim, &daemon);
    }
    is_served(&victim, &daemon);
}

#[test]
fn more_requests_than_the_protocol_needs_are_refused() {
    let (victim, daemon) = serving();
    victim.feed(
        ["log", "append", "big", "--lines"],
        &[vec![b'x'; 60_000], b"\n".to_vec()].concat().repeat(200),
    );
    let log = victim.lines(["log", "list", "--schema", "big"]);
    let log = LogId::new(number(&log[0], "log"));
    let author: AuthorId = victim.author().parse().unwrap();
    let peer = added(&victim, 1);
    let (code, words) = peer.run(async {
        let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
        wire.raw(&[hello(&peer), clock(&[])].concat()).await;
        // It asks for all again and again, and takes nothing.
        for id in 1..=60 {
            let range = Range { author, log, from: SeqNum::FIRST, to: SeqNum::new(200).unwrap() };
            wire.say(&Message::Want(Want { id, ranges: Bounded::truncated(vec![range]) })).await;
        }
        wire.closed().await
    });
    assert_eq!(code, MISBEHAVED, "{words}");
    assert!(words.contains("requests at a time"), "{words}");
    is_served(&victim, &daemon);
}

#[test]
fn peers_that_stop_and_stay_hold_up_nobody() {
    let (victim, mut daemon) = serving();
    let mut stopped: Vec<(Hostile, Wire)> = Vec::new();
    for number in 1..=16 {
        let peer = added(&victim, number);
        let wire = peer.run(async {
            let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
            match number % 4 {
                0 => {} // a control stream that nothing comes on
                1 => wire.raw(&hello(&peer)[..30]).await,
                2 => wire.raw(&[hello(&peer), clock(&[(1, 1)])[..9].to_vec()].concat()).await,
                _ => {
                    wire.raw(&hello(&peer)).await;
                    wire.give_raw(Class::User, &[0, 0, 8, 0, 7, 1]).await; // half a MiB, and 2 bytes of it
                }
            }
            wire
        });
        stopped.push((peer, wire));
    }
    is_served(&victim, &daemon);
    has_fields(&victim.json(["status"]), "node peers");
    victim.feed(["log", "append", "post"], b"meanwhile");
    is_served(&victim, &daemon);
    assert!(daemon.is_alive());
    // Who opens no control stream at all has 10 s, the others 30.
    for (number, (_, wire)) in (1..).zip(&stopped) {
        let there = wire.connection.close_reason().is_none();
        assert!(there || number % 4 == 0, "peer {number} has gone: nobody was held up by it");
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_pull_from_a_peer_that_breaks_the_protocol_says_so_and_the_next_is_fine() {
    let victim = Home::new();
    let author = key(100);
    victim.ok(["follow", &author.author().to_string()]);
    let made = log(&author, LogId::new(2000), &[b"one", b"two", b"three"]);
    let head = made[2].0.clone();
    for case in 0..9u8 {
        let peer = Hostile::new(1 + case);
        let (endpoint, author, head) = (peer.endpoint.clone(), author.author(), head.clone());
        let told = peer.runtime.spawn(async move {
            let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
            let mut wire = Wire::accepted(endpoint.id(), connection).await;
            let mut shelf = Shelf::default();
            shelf.offer_log(&head);
            match case {
                0 => wire.raw(&[0xff; 4]).await,
                1 => wire.raw(&[3, 0, 0, 0, 99, 1, 1]).await,
                2 => {
                    let hello = Hello { node: author, ..common::hostile::hello(endpoint.id()) };
                    wire.say(&Message::Hello(hello)).await;
                }
                3 => {
                    let hello = common::hostile::hello(endpoint.id());
                    wire.say(&Message::Hello(hello)).await;
                    wire.hear_clock().await;
                    let heights =
                        LogClock { log: LogId::new(2000), seq: SeqNum::new(1 << 50).unwrap(), tag: [1; 16] };
                    let authors = vec![AuthorClock { author, logs: Bounded::truncated(vec![heights]) }];
                    wire.say(&offer_of(authors)).await;
                }
                4 => wire.give(Class::User, &Message::decode(&entries(1)[4..]).unwrap()).await,
                _ => {
                    wire.give_first(&shelf).await;
                    let want = loop {
                        if let Some(Message::Want(want)) = wire.hear().await {
                            break want;
                        }
                    };
                    match case {
                        5 => wire.give_raw(Class::User, &framed(&[7, 1, 0xee, 0xee, 0xee])).await,
                        6 => {
                            wire.give_raw(Class::User, &[50, 0, 0, 0, 7, 1, 1]).await;
                            wire.end_data(Class::User).await;
                        }
                        7 => wire.give_raw(Class::User, &entries(want.id + 1)).await,
                        _ => wire.served(Class::User, want.id + 1).await,
                    }
                }
            }
            wire.closed().await
        });
        let error = victim.error(["pull", &peer.ticket()], 1);
        assert_eq!(error["code"], "interrupted", "case {case}: {error}");
        assert!(text(&error, "message").contains("broke the protocol"), "case {case}: {error}");
        let (code, words) = peer.run(told).unwrap();
        assert_eq!(code, MISBEHAVED, "case {case}: {words}");
        assert!(words.contains("you broke the protocol: "), "case {case}: {words}");
    }
    // What the honest one has of it arrives.
    let honest = Hostile::new(99);
    let mut shelf = Shelf::default();
    shelf.put(&made);
    let _done = honest.serve(shelf);
    assert_eq!(number(&victim.json(["pull", &honest.ticket()])["received"], "entries"), 3);
    assert_eq!(victim.verifies(), 3);
}

#[test]
fn who_breaks_the_protocol_while_we_pull_is_held_off_too() {
    let victim = Home::new();
    let daemon = victim.serve();
    let peer = added(&victim, 1);
    let endpoint = peer.endpoint.clone();
    let told = peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = Wire::accepted(endpoint.id(), connection).await;
        wire.raw(&[0xff; 4]).await;
        wire.closed().await
    });
    assert_eq!(victim.error(["pull", &peer.ticket()], 1)["code"], "interrupted");
    assert_eq!(peer.run(told).unwrap().0, MISBEHAVED);
    is_held_off(&peer, &victim, &daemon);
}

#[test]
fn a_pull_from_a_peer_that_stops_in_the_middle_ends_and_keeps_what_came() {
    let victim = Home::new();
    let daemon = victim.serve();
    let author = key(100);
    victim.ok(["follow", &author.author().to_string()]);
    let peer = Hostile::new(1);
    let made = log(&author, LogId::new(2000), &[b"one", b"two", b"three"]);
    let first = common::hostile::item(&made[0].0, b"one");
    let head = made[2].0.clone();
    let endpoint = peer.endpoint.clone();
    let told = peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = Wire::accepted(endpoint.id(), connection).await;
        let mut shelf = Shelf::default();
        shelf.offer_log(&head);
        wire.give_first(&shelf).await;
        loop {
            if let Some(Message::Want(want)) = wire.hear().await {
                let items = Bounded::truncated(vec![first]);
                wire.give(Class::User, &Message::Entries(Entries { want: want.id, items })).await;
                break;
            }
        }
        wire.give_raw(Class::User, &[0, 1, 0, 0, 7, 1, 1]).await;
        wire.closed().await
    });
    let pull = victim.talk(["pull", &peer.ticket()]);
    // Meanwhile the daemon is as quick as ever, for its owner and for others.
    victim.feed(["log", "append", "post"], b"meanwhile");
    is_served(&victim, &daemon);
    assert_eq!(pull.exit_code(), 1);
    let (_, words) = peer.run(told).unwrap();
    assert!(words.contains("silent"), "{words}");
    let held = victim.lines(["log", "show", &format!("{}/2000", author.author())]);
    assert_eq!(held.len(), 1, "what came before is kept");
    assert_eq!(held[0]["held"], true);
}

#[test]
fn kinds_that_later_versions_may_add_are_let_pass() {
    let (victim, daemon) = serving();
    let peer = added(&victim, 1);
    peer.run(async {
        let mut wire = peer.dial(&victim.node(), &daemon.listen()).await;
        let later = framed(&[200, 9, 9, 9]);
        wire.raw(&[hello(&peer), later.clone(), clock(&[]), later].concat()).await;
        loop {
            match wire.hear().await.expect("the session goes on") {
                Message::Offer(offer) if offer.last => return,
                _ => {}
            }
        }
    });
}

#[test]
fn strangers_learn_nothing() {
    let victim = Home::new();
    let daemon = victim.serve();
    victim.feed(["log", "append", "post"], b"x");
    let stranger = Hostile::new(1);
    let told = stranger.run(async {
        let connection = stranger.connect(&victim.node(), &daemon.listen()).await;
        // It may be closed before we get to open a stream.
        if let Ok(mut wire) = Wire::dialled(&stranger, &connection).await {
            wire.raw(&[hello(&stranger), clock(&[])].concat()).await;
            assert_eq!(wire.hear().await, None, "not even a Hello");
        }
        Wire::told(&connection).await
    });
    assert_eq!(told, (NOT_KNOWN, "not known".to_owned()));
    assert_eq!(text(&daemon.wait_for("turned-away"), "peer"), stranger.node());
}

#[test]
fn an_open_node_talks_to_everybody_and_says_so() {
    let victim = Home::new();
    victim.feed(["log", "append", "post"], b"x");
    let daemon = victim.serve_with(&["--listen", "127.0.0.1:0", "--open"]);
    assert_eq!(daemon.ready["open"], true);
    let stranger = Home::new();
    stranger.ok(["follow", &victim.author()]);
    assert_eq!(number(&stranger.json(["pull", &daemon.ticket()])["received"], "entries"), 2);
}

/// A daemon with something to give.
fn serving() -> (Home, Daemon) {
    let victim = Home::new();
    victim.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    let daemon = victim.serve();
    (victim, daemon)
}

/// A hostile node that the victim knows.
fn added(victim: &Home, number: u8) -> Hostile {
    let peer = Hostile::new(number);
    victim.ok(["peer", "add", &peer.ticket(), "--name", &format!("peer{number}")]);
    peer
}

#[track_caller]
fn is_held_off(peer: &Hostile, victim: &Home, daemon: &Daemon) {
    let told = peer.run(async {
        let connection = peer.connect(&victim.node(), &daemon.listen()).await;
        Wire::told(&connection).await
    });
    assert_eq!(told, (HELD_OFF, "held off".to_owned()));
}

/// An honest node gets all that the victim has written.
#[track_caller]
fn is_served(victim: &Home, daemon: &Daemon) {
    let honest = Home::new();
    befriend(&honest, victim, daemon);
    victim.ok(["peer", "remove", "b"]);
    victim.ok(["peer", "add", &honest.ticket(), "--name", &honest.node()[..8]]);
    honest.ok(["follow", &victim.author()]);
    honest.ok(["pull", "a"]);
    let own = victim.lines(["log", "list", "--author", &victim.author()]);
    assert_eq!(honest.lines(["log", "list"]), own);
    honest.verifies();
}

fn hello(peer: &Hostile) -> Vec<u8> {
    Message::Hello(peer.hello()).encode().unwrap()
}

fn with_hello(hello: Hello) -> Vec<u8> {
    Message::Hello(hello).encode().unwrap()
}

fn another_id(peer: &Hostile) -> Vec<u8> {
    with_hello(Hello { node: key(250).author(), ..peer.hello() })
}

fn other_protocol(peer: &Hostile) -> Vec<u8> {
    with_hello(Hello { protocol: 99, ..peer.hello() })
}

fn no_method(peer: &Hostile) -> Vec<u8> {
    with_hello(Hello { methods: Bounded::truncated(vec![7]), ..peer.hello() })
}

fn schemas_backwards(peer: &Hostile) -> Vec<u8> {
    let schemas = vec!["b".parse().unwrap(), "a".parse().unwrap()];
    with_hello(Hello { schemas: Some(Bounded::truncated(schemas)), ..peer.hello() })
}

fn empty_clock() -> Vec<u8> {
    let authors = vec![AuthorClock { author: key(200).author(), logs: Bounded::default() }];
    Message::Clock(Clock { authors: Bounded::truncated(authors), last: true }).encode().unwrap()
}

fn big_scope(peer: &Hostile) -> Vec<u8> {
    with_hello(Hello { scope: ScopeKind::Listed(70_000), ..peer.hello() })
}

fn scope(peer: &Hostile, announced: u32, authors: &[u8]) -> Vec<u8> {
    let hello = with_hello(Hello { scope: ScopeKind::Listed(announced), ..peer.hello() });
    [hello, scope_frame(authors)].concat()
}

fn scope_frame(authors: &[u8]) -> Vec<u8> {
    let authors = authors.iter().map(|number| AuthorId::from_bytes([*number; 32])).collect();
    Message::Scope(Scope { authors: Bounded::truncated(authors) }).encode().unwrap()
}

/// A summary of one author's logs: (log, height).
fn clock(logs: &[(u64, u64)]) -> Vec<u8> {
    let logs: Vec<LogClock> = logs
        .iter()
        .map(|(log, seq)| LogClock { log: LogId::new(*log), seq: SeqNum::new(*seq).unwrap(), tag: [1; 16] })
        .collect();
    let authors = if logs.is_empty() {
        vec![]
    } else {
        vec![AuthorClock { author: key(200).author(), logs: Bounded::truncated(logs) }]
    };
    Message::Clock(Clock { authors: Bounded::truncated(authors), last: true }).encode().unwrap()
}

fn offer_of(authors: Vec<AuthorClock>) -> Message {
    Message::Offer(Offer { authors: Bounded::truncated(authors), totals: Totals::default(), last: true })
}

fn offer() -> Vec<u8> {
    offer_of(vec![]).encode().unwrap()
}

/// A request for (log, from, to).
fn want(ranges: &[(u64, u64, u64)]) -> Vec<u8> {
    let seq = |number: u64| SeqNum::new(number).unwrap();
    let author = key(200).author();
    let ranges = ranges.iter().map(|(log, from, to)| Range {
        author,
        log: LogId::new(*log),
        from: seq(*from),
        to: seq(*to),
    });
    Message::Want(Want { id: 1, ranges: Bounded::truncated(ranges.collect()) }).encode().unwrap()
}

fn entries(want: u32) -> Vec<u8> {
    Message::Entries(Entries { want, items: Bounded::default() }).encode().unwrap()
}

/// Done, with its count of entries written as two bytes where one would do.
fn long_integer(peer: &Hostile) -> Vec<u8> {
    let done = Message::Done(Done::default()).encode().unwrap();
    let long = [&done[4..6], &[0x80, 0x00], &done[7..]].concat();
    [hello(peer), framed(&long)].concat()
}

/// A Want that announces 2^63 ranges.
fn huge_list(peer: &Hostile) -> Vec<u8> {
    let body = [&[6, 1, 1][..], &[0x80; 9], &[1]].concat();
    [hello(peer), framed(&body)].concat()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

fn frame_of(length: u32) -> Vec<u8> {
    length.to_le_bytes().to_vec()
}
