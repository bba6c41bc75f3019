//! Random small worlds: nodes write, follow and meet; meetings are cut, and messages spoilt, repeated
//! and swapped on their way. Whatever happens, nobody holds anything that its author did not write, and
//! when the mischief ends all who want something have it.
//!
//! `MADAKE_SEEDS=N` runs N worlds (60 without it); `MADAKE_SEED=S` runs one again.
// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{Peer, pull, push, run, run_tampered, sync};
use madake_log::AuthorId;
use madake_store::{Position, Read};
use madake_sync::wire::Message;
use madake_sync::{EndReason, Plan};

/// A generator of numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn worlds_converge() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("MADAKE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MADAKE_SEEDS").unwrap_or(60)).collect(),
    };
    for seed in seeds {
        let lived = std::panic::catch_unwind(|| live(seed));
        if let Err(broken) = lived {
            eprintln!("run it again: MADAKE_SEED={seed} cargo test -p madake-sync --test world");
            std::panic::resume_unwind(broken);
        }
    }
}

fn live(seed: u64) {
    let mut random = Random(seed);
    let count = 2 + random.below(3) as usize;
    let mut peers: Vec<Peer> = (0..count as u64).map(|i| Peer::new(seed * 100 + i, i == 0)).collect();
    for _ in 0..10 + random.below(20) {
        let who = random.below(count as u64) as usize;
        match random.below(6) {
            0 | 1 => write(&peers[who], &mut random),
            2 => {
                let author = peers[random.below(count as u64) as usize].author.id();
                peers[who].follow(author);
            }
            _ => meet(&mut peers, who, &mut random),
        }
        peers.iter().for_each(|peer| holds_only_what_was_written(peer, &peers));
    }

    // The mischief ends; everybody follows everybody and meets everybody, twice.
    let authors: Vec<AuthorId> = peers.iter().map(|peer| peer.author.id()).collect();
    for peer in &peers {
        authors.iter().for_each(|author| peer.follow(*author));
    }
    for _ in 0..2 {
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                let (a, b) = pair(&mut peers, a, b);
                let session = run(a, b, sync());
                assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
            }
        }
    }
    for author in &peers {
        let own = author.store.logs_of(author.author.id()).unwrap();
        for peer in &peers {
            assert_eq!(peer.store.logs_of(author.author.id()).unwrap(), own, "all have all of every log");
        }
    }
    for peer in &peers {
        assert_eq!(peer.store.wanted(None, 10).unwrap(), [], "nothing that is named is missing");
        holds_only_what_was_written(peer, &peers);
    }
    let (a, b) = pair(&mut peers, 0, 1);
    let again = run(a, b, sync());
    for (reason, report) in [again.a, again.b] {
        assert_eq!(reason, EndReason::Finished);
        assert_eq!((report.received, report.sent), Default::default(), "a second time moves nothing");
        assert_eq!((report.refused, report.missing.len()), (0, 0));
    }
}

fn write(peer: &Peer, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let size = [0, 1, 100, 70_000, 300_000][random.below(5) as usize];
        let mut bytes = vec![random.next() as u8; size];
        bytes.extend(random.next().to_le_bytes());
        match random.below(3) {
            0 => {
                peer.commit(&format!("file/{}", random.below(3)), &bytes);
            }
            1 => {
                peer.post("post", &[&format!("{:?}", &bytes[bytes.len() - 8..])]);
            }
            _ => {
                let object = madake_object::Object::new(bytes);
                let payload = madake_store::NewContent::Bytes(object);
                peer.author.append(&common::schema("blob"), &[payload], false).unwrap();
            }
        }
    }
}

/// Two nodes meet; half of the time something goes wrong with their messages.
fn meet(peers: &mut [Peer], who: usize, random: &mut Random) {
    let other = (who + 1 + random.below(peers.len() as u64 - 1) as usize) % peers.len();
    let plan: Plan = [pull(), push(), sync()][random.below(3) as usize].clone();
    let (mischief, when) = (random.below(8), random.below(12));
    let (a, b) = pair(peers, who, other);
    let (mut seen, mut held_back) = (0, None);
    let mut spoil = Random(random.next());
    run_tampered(a, b, plan, &mut |_, message| {
        seen += 1;
        match mischief {
            // The line is cut.
            0 | 1 if seen > when => vec![],
            // One message comes twice.
            2 if seen == when => vec![message.clone(), message],
            // Two messages change places.
            3 if seen == when => {
                held_back = Some(message);
                vec![]
            }
            3 => [Some(message), held_back.take()].into_iter().flatten().collect(),
            // Bytes of entries and objects change.
            4 | 5 => vec![spoilt(message, &mut spoil)],
            _ => vec![message],
        }
    });
}

fn spoilt(message: Message, random: &mut Random) -> Message {
    let mut flip = |bytes: &mut [u8]| {
        if !bytes.is_empty() && random.below(3) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    };
    match message {
        Message::Entries(entries) => {
            let mut items = entries.items.into_vec();
            for item in &mut items {
                flip(&mut item.entry);
                if let Some(payload) = &mut item.payload {
                    flip(payload);
                }
            }
            items.reverse();
            Message::Entries(madake_sync::wire::Entries {
                want: entries.want,
                items: items.try_into().unwrap(),
            })
        }
        Message::Content(content) => {
            let mut items = content.items.into_vec();
            items.iter_mut().for_each(|item| flip(item));
            Message::Content(madake_sync::wire::Content {
                want: content.want,
                items: items.try_into().unwrap(),
            })
        }
        other => other,
    }
}

/// Every log that is held is a beginning of its author's own, and every payload is the one signed for.
fn holds_only_what_was_written(peer: &Peer, peers: &[Peer]) {
    for held in peer.store.logs(None, 1_000).unwrap() {
        let Some(author) = peers.iter().find(|other| other.author.id() == held.author) else {
            panic!("{} holds a log of nobody: {}", peer.id, held.author);
        };
        let at = Position { author: held.author, log: held.log, seq: held.head.seq };
        assert_eq!(
            author.store.entry_id(&at).unwrap(),
            Some(held.head.entry),
            "{at} is what its author wrote"
        );
    }
}

fn pair(peers: &mut [Peer], a: usize, b: usize) -> (&mut Peer, &mut Peer) {
    let [a, b] = peers.get_disjoint_mut([a, b]).unwrap();
    (a, b)
}
