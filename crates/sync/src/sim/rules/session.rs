//! What is watched of one session, from one side.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, Entry, LogId, Schema};
use madake_object::ObjectId;
use madake_store::{Change, Outcome, PayloadFate, Position, Read};

use super::live::Staying;
use crate::Load;
use crate::interest::Interest;
use crate::io::{Plan, RequestId};
use crate::sim::connection::CREDIT;
use crate::sim::{SECOND, Time};
use crate::wire::{MAX_FRAME, Message, Range, WantBranch, WireEntry};

pub(in crate::sim) struct Scope;
pub(in crate::sim) struct Serving;
pub(in crate::sim) struct DoneIsTrue;
pub(in crate::sim) struct CreditReturns;
pub(in crate::sim) struct Bounded;
pub(in crate::sim) struct NoneStuck;

/// A session, as it looks from outside of the node.
pub(in crate::sim) struct Watched {
    plan: Plan,
    /// Whose logs were wanted when it began; `None` for everybody's.
    wanted: Interest,
    /// Whose logs were not wanted, whatever else is.
    pub(super) blocked: BTreeSet<AuthorId>,
    peer_receives: bool,
    /// What the peer asked for.
    asked: BTreeMap<u32, Vec<Range>>,
    asked_paths: BTreeMap<u32, WantBranch>,
    asked_content: BTreeMap<u32, BTreeSet<ObjectId>>,
    /// What this side asked for, and no end of the answer has come.
    asking: BTreeSet<u32>,
    /// Ranges that are asked for.
    pub(in crate::sim) fetching: BTreeSet<RequestId>,
    /// Writes that are not answered.
    pub(in crate::sim) writing: usize,
    entries: u64,
    payloads: u64,
    done: bool,
    /// What there is to watch if it stays open.
    pub(in crate::sim) staying: Staying,
    /// Bytes that the shell took from its credit and handed to the node, and those given back.
    taken: u64,
    returned: u64,
    /// When anything came that shows the peer to be alive, or objects were asked of it.
    pub(in crate::sim) heard: Time,
}

impl Watched {
    pub(in crate::sim) fn new(
        plan: Plan,
        authors: Option<BTreeSet<AuthorId>>,
        listed: Option<BTreeSet<Schema>>,
        blocked: BTreeSet<AuthorId>,
        now: Time,
    ) -> Self {
        let wanted = Interest { authors, schemas: plan.schemas.clone().or(listed) };
        Self {
            plan,
            wanted,
            blocked,
            peer_receives: false,
            asked: BTreeMap::new(),
            asked_paths: BTreeMap::new(),
            asked_content: BTreeMap::new(),
            asking: BTreeSet::new(),
            fetching: BTreeSet::new(),
            writing: 0,
            entries: 0,
            payloads: 0,
            done: false,
            staying: Staying::default(),
            taken: 0,
            returned: 0,
            heard: now,
        }
    }

    /// The node is handed a message.
    pub(in crate::sim) fn hears(&mut self, message: &Message) {
        self.staying.hears(message);
        match message {
            Message::Hello(hello) => self.peer_receives = hello.receives,
            Message::Want(want) => drop(self.asked.insert(want.id, want.ranges.to_vec())),
            Message::WantContent(want) => {
                self.asked_content.insert(want.id, want.ids.iter().copied().collect());
            }
            Message::WantBranch(want) => drop(self.asked_paths.insert(want.id, want.clone())),
            Message::Served(served) => drop(self.asking.remove(&served.want)),
            _ => {}
        }
    }

    /// The node is handed data of this weight.
    pub(in crate::sim) fn takes(&mut self, bytes: u64) {
        self.taken += bytes;
    }

    pub(in crate::sim) fn fetches(&mut self, request: RequestId) {
        self.fetching.insert(request);
    }

    pub(in crate::sim) fn fetched(&mut self, request: RequestId) {
        self.fetching.remove(&request);
    }

    /// A write of this session was answered.
    pub(in crate::sim) fn applied(&mut self, outcomes: &[Outcome]) {
        self.writing -= 1;
        let of_parts = |outcome: &Outcome| match outcome {
            Outcome::Part(Ok(outcomes)) => outcomes.clone(),
            other => vec![other.clone()],
        };
        for outcome in outcomes.iter().flat_map(of_parts) {
            if let Outcome::Entry { fate, payload, .. } = outcome {
                self.entries += u64::from(fate.is_new());
                let stored = payload == PayloadFate::Stored;
                self.payloads += u64::from(stored);
            }
        }
    }

    /// Whether the session is at work, so that it may be silent.
    pub(in crate::sim) fn at_work(&self) -> bool {
        self.writing > 0 || !self.fetching.is_empty()
    }
}

impl Scope {
    /// A node may write only what the session is about. Of whom its owner has blocked since it asked the store takes
    /// nothing, and of that author's logs it may be known no more what they are: a collection may have taken them.
    pub(in crate::sim) fn writes(watched: &Watched, changes: &[Change], read: &dyn Read) -> Option<String> {
        let refused = read.blocked().unwrap_or_default();
        for change in changes {
            let (author, log) = match change {
                Change::Entry { entry, .. } => (entry.author(), entry.log()),
                Change::Part(part) => (part.author, part.log),
                Change::Proof(proof, _) => (proof.author(), proof.log()),
                _ => continue,
            };
            if refused.contains(&author) {
                continue;
            }
            if watched.blocked.contains(&author) || !watched.wanted.wants_author(&author) {
                return Some(format!("it writes {author}/{log}, and keeps no logs of this author"));
            }
            let schema = read.schema(author, log).ok().flatten();
            if !schema_wanted(watched.wanted.schemas.as_ref(), log, schema.as_ref()) {
                return Some(format!(
                    "it writes {author}/{log} of {schema:?}, which the session is not about"
                ));
            }
        }
        if !watched.plan.receives {
            return Some("it writes in a session in which it receives nothing".into());
        }
        if watched.plan.dry_run {
            return Some("it writes in a dry run of its own".into());
        }
        None
    }
}

/// Written once more, so that it is not the same mistake twice.
pub(in crate::sim) fn schema_wanted(
    wanted: Option<&BTreeSet<Schema>>,
    log: LogId,
    schema: Option<&Schema>,
) -> bool {
    let Some(wanted) = wanted else { return true };
    let commits = wanted.iter().any(|schema| schema.as_str() == "commit");
    log.get() < 1024 || log.get() == 1024 && commits || schema.is_some_and(|schema| wanted.contains(schema))
}

impl Serving {
    /// What goes out must have been asked for.
    pub(in crate::sim) fn says(watched: &Watched, message: &Message, read: &dyn Read) -> Option<String> {
        let data = matches!(message, Message::Entries(_) | Message::Content(_));
        let asks = matches!(message, Message::Want(_) | Message::WantBranch(_) | Message::WantContent(_));
        if watched.plan.dry_run && (data || asks) {
            return Some("it asks or gives in a dry run of its own".into());
        }
        if data && !watched.plan.gives {
            return Some("it gives in a session in which it gives nothing".into());
        }
        if data && !watched.peer_receives {
            return Some("it gives to a peer that receives nothing".into());
        }
        match message {
            Message::Entries(entries) if entries.want == 0 => None, // see `Pushing`
            Message::Entries(entries) if watched.asked_paths.contains_key(&entries.want) => {
                let want = watched.asked_paths.get(&entries.want)?;
                let entry = |item: &WireEntry| Entry::decode(&item.entry).ok();
                let of_it = |entry: &Entry| {
                    (entry.author(), entry.log()) == (want.author, want.log) && entry.seq() <= want.tip.seq
                };
                let all = entries.items.iter().all(|item| entry(item).is_some_and(|entry| of_it(&entry)));
                let blocked = watched.blocked.contains(&want.author);
                (blocked || !all).then(|| format!("it gives what is not of the path that {want:?} asks for"))
            }
            Message::Entries(entries) => {
                let Some(ranges) = watched.asked.get(&entries.want) else {
                    return Some(format!("it answers request {}, which nobody made", entries.want));
                };
                for item in entries.items.iter() {
                    let Ok(entry) = Entry::decode(&item.entry) else {
                        return Some("it gives bytes that are no entry".into());
                    };
                    let at = Position::of(&entry);
                    if watched.blocked.contains(&at.author) {
                        return Some(format!("it gives {at}, whose author it blocks"));
                    }
                    let covers = |range: &Range| {
                        (range.author, range.log) == (at.author, at.log)
                            && (range.from..=range.to).contains(&at.seq)
                    };
                    if !ranges.iter().any(covers) {
                        return Some(format!("it gives {at}, and nobody asked for it"));
                    }
                }
                None
            }
            Message::Content(content) => {
                let Some(ids) = watched.asked_content.get(&content.want) else {
                    return Some(format!("it answers request {}, which nobody made", content.want));
                };
                for item in content.items.iter() {
                    let id = ObjectId::of(item);
                    if !ids.contains(&id) {
                        return Some(format!("it gives object {id}, and nobody asked for it"));
                    }
                    if let Ok(None) = read.named_by(id) {
                        return Some(format!("it gives object {id}, which no log names"));
                    }
                }
                None
            }
            _ => None,
        }
    }
}

impl DoneIsTrue {
    pub(in crate::sim) fn says(watched: &mut Watched, message: &Message) -> Option<String> {
        watched.staying.says(message);
        match message {
            Message::Want(want) => drop(watched.asking.insert(want.id)),
            Message::WantBranch(want) => drop(watched.asking.insert(want.id)),
            Message::WantContent(want) => drop(watched.asking.insert(want.id)),
            Message::Done(done) => {
                if std::mem::replace(&mut watched.done, true) {
                    return Some("it says Done twice".into());
                }
                let (writes, fetches) = (watched.writing - watched.staying.writing(), watched.fetching.len());
                if writes + fetches > 0 {
                    return Some(format!(
                        "it says Done with {writes} writes and {fetches} fetches under way"
                    ));
                }
                if !watched.asking.is_empty() {
                    return Some(format!("it says Done, and waits for {:?}", watched.asking));
                }
                if done.received.entries != watched.entries {
                    let (said, are) = (done.received.entries, watched.entries);
                    return Some(format!("it says that {said} entries are durable, and {are} are"));
                }
                if done.received.payloads < watched.payloads {
                    let (said, are) = (done.received.payloads, watched.payloads);
                    return Some(format!("it says that {said} payloads are durable, and {are} are"));
                }
            }
            _ if watched.staying.agreed && matches!(message.kind(), 4 | 13..=16) => {}
            _ if watched.done && matches!(message.kind(), 1 | 4 | 13..=16) => {
                return Some("it begins again after Done".into());
            }
            _ => {}
        }
        None
    }
}

impl CreditReturns {
    pub(in crate::sim) fn consumed(watched: &mut Watched, bytes: u64) -> Option<String> {
        watched.returned += bytes;
        let (taken, returned) = (watched.taken, watched.returned);
        (returned > taken).then(|| format!("{returned} bytes were given back of {taken} that were read"))
    }

    /// A session that finished has dealt with all that it read.
    pub(in crate::sim) fn finished(watched: &Watched) -> Option<String> {
        let (taken, returned) = (watched.taken, watched.returned);
        (returned != taken).then(|| format!("{returned} bytes were given back of {taken} that were read"))
    }
}

impl Bounded {
    pub(in crate::sim) fn load(
        load: &Load,
        sessions: usize,
        backlog: usize,
        fetches: usize,
    ) -> Option<String> {
        let Load { outputs, writes, .. } = *load;
        let credit = CREDIT * sessions.max(1) as u64;
        let over = [
            ("outputs that wait after they were taken", outputs as u64, 0),
            ("sessions", load.sessions as u64, sessions as u64),
            ("writes under way", writes as u64, credit / 1_000 + 4 * sessions.max(1) as u64),
            ("bytes of writes under way", load.write_bytes, credit),
            ("requests that one peer has waiting", load.most_jobs as u64, 16),
            ("requests that one session has out", load.most_requests as u64, 8),
            ("big objects that one session fetches", load.most_fetches as u64, 8),
            ("ranges that one session is asked for", load.most_ranges as u64, 8),
            ("ranges that are asked for", load.ranges as u64, (fetches + sessions) as u64),
            ("logs that wait to be pushed", load.most_backlog as u64, backlog as u64),
            ("bytes of a class under way", load.most_in_flight, 2 * 1024 * 1024 + 2 * MAX_FRAME as u64),
        ];
        let broken = over.into_iter().find(|(_, is, most)| is > most);
        broken.map(|(what, is, most)| format!("{what}: {is}, and at most {most} may be"))
    }

    pub(in crate::sim) fn queue(length: usize, most: usize) -> Option<String> {
        (length > most).then(|| format!("{length} frames wait for a stream"))
    }
}

impl NoneStuck {
    /// The node's patience is 30 s; a while later it must have acted.
    const BOUND: Time = 40 * SECOND;

    pub(in crate::sim) fn look(watched: &Watched, now: Time, awake: Time) -> Option<String> {
        let silent = now.saturating_sub(watched.heard.max(awake));
        let rests = watched.staying.rests() && watched.asking.is_empty();
        (!watched.at_work() && !rests && silent > Self::BOUND)
            .then(|| format!("a session has heard nothing for {} s and is still open", silent / SECOND))
    }

    pub(in crate::sim) fn spins(ticks: u32) -> Option<String> {
        (ticks > 50).then(|| format!("{ticks} ticks at one moment changed nothing"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use madake_log::AuthorKey;
    use madake_object::Object;
    use madake_store::engine::MemoryEngine;
    use madake_store::{Author, Fate, NewContent, Policy, Store, StoreRows};

    use super::*;

    fn store() -> Arc<Store> {
        Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
    }

    /// It was asked for while its schema was known here; when it comes a collection has taken the registration.
    #[test]
    fn what_comes_of_an_author_who_was_blocked_meanwhile_is_the_stores_to_refuse() {
        let (there, here) = (store(), store());
        let author = Author::new(AuthorKey::from_seed([1; 32]).into(), there.clone());
        let schema: Schema = "post".parse().unwrap();
        let content = NewContent::Bytes(Object::new(b"x".to_vec()));
        author.append(&schema, &[content], false).unwrap();
        let entry =
            there.entries(author.id(), schema.log_id(0), madake_log::SeqNum::FIRST, 1).unwrap().remove(0);
        let changes = [Change::Entry { entry, payload: None }];
        let plan = Plan::BOTH_WAYS;
        let listed = Some(BTreeSet::from([schema]));
        let watched = Watched::new(plan, None, listed, BTreeSet::new(), 0);
        assert!(Scope::writes(&watched, &changes, &*here).is_some(), "nobody knows of what schema it is");
        here.apply(vec![Change::Policy(author.id(), Policy::Block)]).unwrap();
        assert_eq!(Scope::writes(&watched, &changes, &*here), None);
        let outcomes = here.apply(changes.to_vec()).unwrap();
        assert!(matches!(outcomes[..], [Outcome::Entry { fate: Fate::Blocked, .. }]), "{outcomes:?}");
    }
}
