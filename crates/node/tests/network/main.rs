//! Whole nodes in a simulated network that loses datagrams and comes apart: the real daemon, driver, endpoint and quinn,
//! over `turmoil`'s sockets and in its time.
//!
//! A seed decides what is lost and how long a datagram travels. `MADAKE_SEED=N` repeats a run; the seed is printed.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod socket;
mod stranger;
mod world;

use std::time::Duration;

use madake_object::{FileName, Mode, Object};
use madake_store::{NewVersion, Read as _};
use serde_json::json;
use socket::lock;
use world::{Answer, Node, Wishes, World};

const SECOND: Duration = Duration::from_secs(1);

fn seed() -> u64 {
    let seed = std::env::var("MADAKE_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("MADAKE_SEED={seed}");
    seed
}

/// Entries with payloads, and a file that travels in ranges.
fn writes(node: &Node, posts: usize, file: usize) {
    node.posts((0..posts).map(|n| format!("{n} {}", "x".repeat(n % 900))));
    let mut bytes = vec![0; file];
    blake3::Hasher::new().update(b"a file").finalize_xof().fill(&mut bytes);
    let content = madake_store::NewContent::Bytes(Object::new(bytes));
    let name: FileName = "big".parse().unwrap();
    let version = NewVersion {
        name,
        content,
        mode: Mode::File,
        message: String::new(),
        time: 0,
        only_if_changed: false,
    };
    node.shell.author.commit(&[version]).unwrap();
}

fn finished(answer: &Answer) {
    let last = answer.last();
    assert_eq!((&last["missing"], &last["refused"]), (&json!([]), &json!([])), "{last}");
}

/// A pull over a line that loses one datagram in `loss`; the line's trace.
fn lossy_pull(seed: u64, loss: u64) -> String {
    let mut world = World::new(seed, loss, Wishes::default());
    writes(&world.nodes[0], 400, 1 << 20);
    let pull = world.nodes[1].asks("/v1/sync?peer=alice&mode=sync");
    let took = world.runs_until("the pull ends", |_| pull.is_over());
    finished(&pull);
    assert_eq!(world.logs(0, 0), world.logs(1, 0));
    assert_eq!(pull.last()["fetched_bytes"], 1 << 20);
    let line = lock(&world.line);
    println!("1 in {loss}: {} datagrams, {} lost, {took:?}", line.sent, line.lost);
    assert_eq!(line.lost > 20, loss > 0);
    line.trace()
}

#[test]
fn nodes_replicate_over_a_line_that_loses_datagrams() {
    let seed = seed();
    for loss in [0, 50, 10] {
        lossy_pull(seed, loss);
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let seed = seed();
    let trace = lossy_pull(seed, 20);
    assert_eq!(lossy_pull(seed, 20), trace, "seed {seed}");
    assert_ne!(lossy_pull(seed + 1, 20), trace, "another seed loses others");
}

/// Both hold the same of both authors, and lack nothing that an entry names.
fn agree(world: &World<'_>) -> bool {
    let lacks_nothing = |node: &Node| node.shell.store().wanted(None, 1).unwrap().is_empty();
    (0..2).all(|author| world.logs(0, author) == world.logs(1, author))
        && world.nodes.iter().all(lacks_nothing)
}

fn number(value: &serde_json::Value, path: &str) -> u64 {
    value.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

/// A pull that is under way when the nodes lose each other: at some moments while entries come, and while the file comes.
/// A short silence the session outlives; a long one ends it, and the next pull goes on where it was.
#[test]
fn a_pull_outlives_a_partition_or_goes_on_after_it() {
    const POSTS: u64 = 3_000;
    const FILE: u64 = 4 << 20;
    let seed = seed();
    for (n, silence) in [5, 25, 5, 25, 25].into_iter().enumerate() {
        let mut world = World::new(seed + n as u64, 100, Wishes::default());
        writes(&world.nodes[0], POSTS as usize, FILE as usize);
        let pull = world.nodes[1].asks("/v1/sync?peer=alice&mode=pull");
        let moment = match n {
            0 | 1 => ("/received/entries", POSTS / 4),
            2 | 3 => ("/fetched_bytes", FILE / 8),
            _ => ("/fetched_bytes", FILE / 2),
        };
        let comes = |pull: &Answer| pull.progress().is_some_and(|told| number(&told, moment.0) >= moment.1);
        world.runs_until("the pull is under way", |_| comes(&pull));
        assert!(!pull.is_over(), "it is not over yet: {}", pull.last());
        world.partition();
        world.runs_for(silence * SECOND);
        // What was told has become durable.
        let told = pull.progress().unwrap();
        let held: u64 = world.logs(1, 0).iter().map(|log| log.head.seq.get()).sum();
        assert!(held >= number(&told, "/received/entries"), "{held} are held: {told}");
        assert!(held > 0 && !agree(&world));
        world.repair();
        if silence < 15 {
            assert!(!pull.is_over(), "{}", pull.last());
            world.runs_until("the pull ends", |_| pull.is_over());
            finished(&pull);
            world.runs_for(SECOND);
            assert_eq!(world.nodes[0].ended(), 1, "it was the same session");
        } else {
            assert!(pull.is_over());
            assert_eq!(pull.last()["error"]["code"], "interrupted", "{}", pull.last());
            let again = world.nodes[1].asks("/v1/sync?peer=alice&mode=pull");
            world.runs_until("the next pull ends", |_| again.is_over());
            finished(&again);
            let [entries, bytes] =
                ["/received/entries", "/fetched_bytes"].map(|path| number(&again.last(), path));
            assert_eq!(held + entries, world.logs(0, 0).iter().map(|log| log.head.seq.get()).sum::<u64>());
            if moment.0 == "/fetched_bytes" {
                assert!(bytes <= FILE - moment.1, "{bytes} bytes were fetched after {moment:?}");
                assert!(number(&told, "/fetched_bytes") + bytes <= FILE, "{told}, and {bytes} after it");
            }
        }
        assert!(agree(&world));
    }
}

/// Two seconds of silence end a link to a server, at both ends. A link to a person goes on after five.
#[test]
fn silence_ends_a_servers_link_soon_and_a_persons_not() {
    let seed = seed();
    for server in [true, false] {
        let wishes = Wishes { live: [false, true], server: [server; 2] };
        let mut world = World::new(seed, 0, wishes);
        world.nodes[0].posts(["before".into()].into_iter());
        world.runs_until("the link is live", |world| world.nodes.iter().all(|node| node.is("live")));
        world.runs_for(10 * SECOND);
        assert!(agree(&world));
        let (before, parted) = (world.nodes[1].states().len(), world.now());
        world.partition();
        world.nodes[0].posts(["meanwhile".into()].into_iter());
        if server {
            for n in 0..2 {
                world.runs_until("the link ends", |world| world.nodes[n].is("unreachable"));
                let after = world.nodes[n].states().last().unwrap().0 - parted;
                println!("{} sees it after {after:?}", world.nodes[n].name);
                // Counted from the last packet that came, or from the first that was sent after it: keep-alives go
                // every third of the two seconds.
                assert!(after > SECOND && after < 3 * SECOND, "{after:?}");
            }
        } else {
            world.runs_for(5 * SECOND);
            world.repair();
            world.runs_until("what was written meanwhile is pushed", agree);
            world.runs_for(20 * SECOND);
            assert_eq!(world.nodes[1].states().len(), before, "it is the same link");
            assert_eq!(world.nodes[0].ended(), 0);
        }
    }
}

/// Links that stay open are dialled again by themselves, and bring what was written on either side meanwhile.
#[test]
fn a_link_that_a_partition_ended_comes_back_by_itself() {
    let seed = seed();
    for (n, (live, server)) in
        [([false, true], [false; 2]), ([true, true], [false; 2]), ([true, true], [true; 2])]
            .into_iter()
            .enumerate()
    {
        let mut world = World::new(seed + n as u64, 50, Wishes { live, server });
        world.runs_until("the link is live", |world| world.nodes.iter().all(|node| node.is("live")));
        for round in 0..3 {
            world.partition();
            for node in &world.nodes {
                node.posts((0..50).map(|post| format!("{round}, {post}")));
            }
            world.runs_for((20 + round) * SECOND);
            assert!(world.nodes.iter().all(|node| !node.is("live")) && !agree(&world));
            world.repair();
            let took = world.runs_until("the link is back", |world| {
                world.nodes.iter().all(|node| node.is("live")) && agree(world)
            });
            println!("live {live:?}, servers {server:?}, round {round}: back after {took:?}");
            // It is left alone for up to 16 s after as many failures, and a dial takes 5 s when nobody answers.
            assert!(took < 22 * SECOND, "{took:?}");
        }
        // And what comes next needs no dial.
        let before = world.nodes[1].states().len();
        world.nodes[0].posts(["after".into()].into_iter());
        let took = world.runs_until("it is pushed", agree);
        assert!(took < SECOND, "{took:?}");
        assert_eq!(world.nodes[1].states().len(), before);
    }
}
