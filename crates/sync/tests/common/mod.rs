//! Nodes in one process: real state machines over model stores, messages passed by hand.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use madake_log::{AuthenticEntry, AuthorId, AuthorKey, Entry, LogId, ProofId, Schema};
use madake_object::{FileName, Mode, Object, Ranges};
use madake_store::engine::{FakeDisk, JournalEngine, JournalOptions, MemoryEngine};
use madake_store::{
    Appended, Author, Change, Committed, NewContent, NewVersion, Policy, Read as _, ReadForks as _, Store,
    StoreRows, Tip,
};
use madake_sync::wire::{Class, Message};
use madake_sync::{
    CompareBy, Config, EndReason, Input, Node, Now, Output, Plan, RangeEnd, Received, RefusedEntry, Report,
    SessionId,
};

/// A node with its store and one author.
pub struct Peer {
    pub node: Node,
    pub store: Arc<Store>,
    pub author: Author,
    pub id: AuthorId,
}

/// How a message may be changed on its way: what is returned is delivered instead.
pub type Tamper<'a> = dyn FnMut(&str, Message) -> Vec<Message> + 'a;

/// What a session came to, from both sides, and what was said in it.
pub struct Session {
    pub a: (EndReason, Report),
    pub b: (EndReason, Report),
    /// Who said it (`"a"` or `"b"`), and what.
    pub said: Vec<(&'static str, Message)>,
    /// How many messages, one because of the other, led to each: two are a round trip.
    pub hops: Vec<u32>,
}

pub const NOW: Now = Now { monotonic: Duration::ZERO, wall: 1_700_000_000_000 };

pub fn key(number: u64) -> AuthorKey {
    AuthorKey::from_seed(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

pub fn store() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
}

/// A store on the real engine, for many logs: the model looks at every row.
pub fn large_store() -> Arc<Store> {
    let options = JournalOptions::create([7; 16], [8; 16]);
    let disk = Arc::new(FakeDisk::new(1));
    let engine = JournalEngine::open_on(disk, Path::new("/store"), &options, Arc::new(StoreRows)).unwrap();
    Arc::new(Store::new(Arc::new(engine)))
}

pub fn schema(name: &str) -> Schema {
    name.parse().unwrap()
}

pub fn pull() -> Plan {
    Plan { gives: false, ..Plan::BOTH_WAYS }
}

pub fn sync() -> Plan {
    Plan::BOTH_WAYS
}

pub fn push() -> Plan {
    Plan { receives: false, ..Plan::BOTH_WAYS }
}

impl Peer {
    pub fn new(number: u64, keep_all: bool) -> Self {
        Self::comparing(number, keep_all, CompareBy::Cheapest)
    }

    /// A peer that compares in a certain way.
    pub fn comparing(number: u64, keep_all: bool, compare_by: CompareBy) -> Self {
        Self::with(number, keep_all, compare_by, store())
    }

    /// A peer with this store.
    pub fn with(number: u64, keep_all: bool, compare_by: CompareBy, store: Arc<Store>) -> Self {
        let node_key = key(1_000_000 + number);
        let key = Arc::new(key(number));
        let id = node_key.author();
        let author = Author::new(key, store.clone());
        let own = vec![author.id(), id];
        let config = Config { node: id, own, keep_all, incarnation: (1, [0; 16]), compare_by };
        Self { node: Node::new(config), store, author, id }
    }

    pub fn post(&self, schema_name: &str, texts: &[&str]) -> Vec<Appended> {
        let payloads: Vec<_> =
            texts.iter().map(|text| NewContent::Bytes(Object::new(text.as_bytes().to_vec()))).collect();
        self.author.append(&schema(schema_name), &payloads, false).unwrap()
    }

    pub fn commit(&self, name: &str, bytes: &[u8]) -> Committed {
        let version = NewVersion {
            name: name.parse::<FileName>().unwrap(),
            content: NewContent::Bytes(Object::new(bytes.to_vec())),
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        self.author.commit(&[version]).unwrap().remove(0)
    }

    /// Somebody writes posts at this node with a key that may be used elsewhere too.
    pub fn device(&self, number: u64, texts: &[&str]) -> (AuthorId, LogId) {
        let author = Author::new(key(number).into(), self.store.clone());
        let contents: Vec<_> =
            texts.iter().map(|text| NewContent::Bytes(Object::new(text.as_bytes().to_vec()))).collect();
        author.append(&schema("post"), &contents, false).unwrap();
        (author.id(), schema("post").log_id(0))
    }

    /// What a summary says of a log here, and its proof's id if it is forked.
    pub fn state(&self, (author, log): (AuthorId, LogId)) -> (Option<ProofId>, Vec<Tip>) {
        let head = self.store.log_head(author, log).unwrap().unwrap();
        match self.store.fork(author, log).unwrap() {
            Some(fork) => (Some(fork.proof.id()), fork.heads(&head)),
            None => (None, vec![(&head).into()]),
        }
    }

    pub fn follow(&self, author: AuthorId) {
        self.store.apply(vec![Change::Policy(author, Policy::Follow)]).unwrap();
    }
}

/// Runs a session in which `a` dials `b`, to its end.
pub fn run(a: &mut Peer, b: &mut Peer, plan: Plan) -> Session {
    run_tampered(a, b, plan, &mut |_, message| vec![message])
}

/// Like [`run`], with a hand on the wire.
pub fn run_tampered(a: &mut Peer, b: &mut Peer, plan: Plan, tamper: &mut Tamper<'_>) -> Session {
    let session = SessionId(1);
    let (a_id, b_id) = (a.id, b.id);
    a.node.handle(NOW, Input::Opened { session, peer: b_id, initiator: true, plan }, &*a.store);
    b.node.handle(NOW, Input::Opened { session, peer: a_id, initiator: false, plan: sync() }, &*b.store);
    let (mut ends, mut said) = ([None, None], Vec::new());
    let (mut hops, mut heard) = (Vec::new(), [0; 2]);
    // `None` is the end of the connection: it comes after all that was said before.
    let mut inbox: [VecDeque<Option<(u32, Message)>>; 2] = Default::default();
    loop {
        let mut quiet = true;
        for side in 0..2 {
            let name = ["a", "b"][side];
            let (me, other) = if side == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            if let Some(message) = inbox[side].pop_front() {
                quiet = false;
                let lost = EndReason::ConnectionLost("closed by the other side".into());
                heard[side] = message.as_ref().map_or(0, |(hops, _)| *hops).max(heard[side]);
                let closed = Input::Closed { session, reason: lost };
                let input = message.map_or(closed, |(_, message)| arrived(session, message));
                me.node.handle(NOW, input, &*me.store);
            }
            while let Some(output) = me.node.poll_output() {
                quiet = false;
                match output {
                    Output::Send { class, frame, .. } => {
                        let message = Message::decode(&frame[4..]).unwrap();
                        assert!(class_fits(class, &message), "{message:?} on {class:?}");
                        said.push((name, message.clone()));
                        let hop = heard[side] + 1;
                        hops.push(hop);
                        inbox[1 - side].extend(tamper(name, message).into_iter().map(|m| Some((hop, m))));
                        let bytes = frame.len() as u64;
                        me.node.handle(NOW, Input::Sent { session, class, bytes }, &*me.store);
                    }
                    Output::Apply { token, changes, .. } => {
                        let outcomes = me.store.apply(changes);
                        me.node.handle(NOW, Input::Applied { token, outcomes }, &*me.store);
                    }
                    Output::FetchRange { .. }
                    | Output::OpenObject { .. }
                    | Output::CutRange { .. }
                    | Output::FinishObject { .. }
                    | Output::CloseObject { .. } => {
                        for input in shell(&output, &other.store, &me.store) {
                            me.node.handle(NOW, input, &*me.store);
                        }
                    }
                    Output::Consumed { .. }
                    | Output::Progress { .. }
                    | Output::Live { .. }
                    | Output::Standing { .. }
                    | Output::Reaches { .. } => {}
                    Output::Ended { reason, report, .. } => {
                        inbox[1 - side].push_back(None);
                        ends[side] = Some((reason, report));
                    }
                }
            }
        }
        if let [Some(a), Some(b)] = &ends {
            return Session { a: a.clone(), b: b.clone(), said, hops };
        }
        if quiet {
            // Nobody says anything any more: the one who waits for longest gives up.
            for peer in [&mut *a, &mut *b] {
                if let Some(at) = peer.node.poll_timeout() {
                    peer.node.handle(Now { monotonic: at, ..NOW }, Input::Tick, &*peer.store);
                }
            }
        }
    }
}

/// What the shell makes of a message before the node sees it.
pub fn arrived(session: SessionId, message: Message) -> Input {
    match message {
        Message::Entries(entries) => {
            let check = |item: madake_sync::wire::WireEntry| -> Result<Received, RefusedEntry> {
                let refused = |log, reason: &str| RefusedEntry {
                    log,
                    id: blake3::hash(&item.entry).to_string(),
                    reason: reason.into(),
                };
                let entry = Entry::decode(&item.entry).map_err(|error| refused(None, error.reason()))?;
                let log = Some((entry.author(), entry.log()));
                let entry = AuthenticEntry::check(entry).map_err(|error| refused(log, error.reason()))?;
                Ok(Received { entry, payload: item.payload.map(|payload| Object::new(payload.into_vec())) })
            };
            let items = entries.items.into_iter().map(check).collect();
            Input::Entries { session, want: entries.want, items, bytes: 0 }
        }
        Message::Content(content) => {
            let objects = content.items.into_iter().map(|bytes| Object::new(bytes.into_vec())).collect();
            Input::Objects { session, want: content.want, objects, bytes: 0 }
        }
        Message::Fork(fork) => Input::Fork { session, fork: fork.check() },
        message => Input::Message { session, bytes: message.encode().unwrap().len(), message },
    }
}

fn class_fits(class: Class, message: &Message) -> bool {
    match message {
        Message::Entries(_) => matches!(class, Class::System | Class::User),
        Message::Content(_) => class == Class::Content,
        Message::Served(_) => class != Class::Control,
        Message::Fork(_) => class != Class::Content,
        _ => class == Class::Control,
    }
}

/// What the shell makes of an output about a big object: it comes at once, in one piece.
pub fn shell(output: &Output, from: &Store, to: &Store) -> Vec<Input> {
    match output {
        Output::OpenObject { id, .. } => vec![Input::ObjectOpened { id: *id, here: Ok(Ranges::EMPTY) }],
        Output::FetchRange { request, id, size, groups, .. } => {
            let end = match madake_store::Read::content_size(from, *id).unwrap() {
                None => RangeEnd::NotHere,
                Some(other) if other != *size => RangeEnd::OtherSize(other),
                Some(_) => RangeEnd::Whole,
            };
            let upto = if end == RangeEnd::Whole { groups.end } else { groups.start };
            vec![Input::RangeEnded { request: *request, upto, end }]
        }
        Output::FinishObject { id } => {
            copy_blob(from, to, *id);
            vec![Input::ObjectFinished { id: *id, result: Ok(()) }]
        }
        Output::CloseObject { id } => vec![Input::ObjectClosed { id: *id }],
        _ => Vec::new(),
    }
}

fn copy_blob(from: &Store, to: &Store, id: madake_object::ObjectId) {
    use std::io::Read as _;
    let mut bytes = madake_store::Read::content(from, id).unwrap().unwrap_or_default();
    if bytes.is_empty() {
        from.engine().blobs().open(id.as_bytes()).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    }
    let mut writer = to.engine().blobs().begin().unwrap();
    writer.write(&bytes).unwrap();
    writer.finish().unwrap();
}
