//! A peer that says whatever a test wants it to: the network of a real node, and its words by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use madake_log::{AuthorId, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId, SeqNum};
use madake_node::net::{CloseReason, Connection, DIAL_TIMEOUT, Endpoint, NodeId, Ticket};
use madake_object::{Commit, CommitAuthor, Mode, ObjectId};
use madake_sync::wire::{
    AuthorClock, Class, Clock, Content, Done, Entries, Hello, LogClock, Message, Offer, PROTOCOL, ScopeKind,
    Served, Totals, Want, WantContent, WireEntry, frame_length,
};
use madake_sync::{Bounded, tag};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use super::PATIENCE;

/// A node that keeps no rules but its own.
pub struct Hostile {
    pub key: Arc<AuthorKey>,
    pub endpoint: Endpoint,
    pub runtime: Runtime,
}

/// A connection with its control stream, and the data streams that were opened.
pub struct Wire {
    pub connection: Connection,
    own: NodeId,
    control: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    from: Pin<Box<dyn AsyncRead + Send + Sync>>,
    data: [Option<Pin<Box<dyn AsyncWrite + Send + Sync>>>; 4],
}

/// What a hostile node offers, and what it really gives when it is asked.
#[derive(Clone, Default)]
pub struct Shelf {
    offered: BTreeMap<AuthorId, BTreeMap<LogId, (SeqNum, [u8; 16])>>,
    given: BTreeMap<(AuthorId, LogId), Vec<WireEntry>>,
    /// Logs of which all is given, whatever was asked for.
    spoiled: BTreeSet<(AuthorId, LogId)>,
    objects: BTreeMap<ObjectId, Vec<u8>>,
}

impl Hostile {
    /// Listens on a free port of loopback. The same number is always the same key.
    pub fn new(number: u8) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = Arc::new(key(number));
        let _inside = runtime.enter();
        let endpoint = Endpoint::bind(key.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
        drop(_inside);
        Self { key, endpoint, runtime }
    }

    pub fn node(&self) -> String {
        self.endpoint.id().to_string()
    }

    pub fn ticket(&self) -> String {
        let address = self.endpoint.local_addr().to_string();
        Ticket::new(self.endpoint.id(), [address]).unwrap().to_string()
    }

    /// Runs what is said to the end, or fails.
    pub fn run<T>(&self, what: impl Future<Output = T>) -> T {
        let within = async { tokio::time::timeout(PATIENCE, what).await };
        self.runtime.block_on(within).expect("the hostile peer waited in vain")
    }

    /// Dials a daemon, as `ready.listen` shows it.
    pub async fn connect(&self, node: &str, listen: &str) -> Connection {
        let id: NodeId = node.parse().unwrap();
        self.endpoint.dial(id, &[listen], DIAL_TIMEOUT).await.unwrap()
    }

    /// Dials a daemon and opens the control stream.
    pub async fn dial(&self, node: &str, listen: &str) -> Wire {
        Wire::dialled(self, &self.connect(node, listen).await).await.unwrap()
    }

    /// Waits for somebody who dials, and for its control stream.
    pub async fn accept(&self) -> Wire {
        accept(&self.endpoint).await
    }

    /// Answers the next who dials in the background, until the connection ends; what the peer said in
    /// its last message comes through the channel.
    pub fn serve(&self, shelf: Shelf) -> Receiver<Done> {
        let (sender, receiver) = channel();
        let endpoint = self.endpoint.clone();
        self.runtime.spawn(async move {
            let mut wire = accept(&endpoint).await;
            if let Some(done) = wire.give_all(shelf).await {
                let _ = sender.send(done);
            }
            wire.connection.closed().await;
        });
        receiver
    }

    /// A Hello of this node that gives and takes.
    pub fn hello(&self) -> Hello {
        hello(self.endpoint.id())
    }
}

async fn accept(endpoint: &Endpoint) -> Wire {
    let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
    Wire::accepted(endpoint.id(), connection).await
}

impl Wire {
    /// Waits for the control stream of who dialled.
    pub async fn accepted(own: NodeId, connection: Connection) -> Self {
        let (send, recv) = connection.quinn().accept_bi().await.unwrap();
        Self::new(own, connection, send, recv)
    }

    /// Opens the control stream.
    pub async fn dialled(own: &Hostile, connection: &Connection) -> Result<Self, String> {
        let (send, recv) = connection.quinn().open_bi().await.map_err(|error| error.to_string())?;
        Ok(Self::new(own.endpoint.id(), connection.clone(), send, recv))
    }

    pub fn new(
        own: NodeId,
        connection: Connection,
        send: impl AsyncWrite + Send + Sync + 'static,
        recv: impl AsyncRead + Send + Sync + 'static,
    ) -> Self {
        let (control, from) = (Box::pin(send), Box::pin(recv));
        Self { own, connection, control, from, data: [const { None }; 4] }
    }

    /// Says something on the control stream; whether the other side still listens is found out later.
    pub async fn say(&mut self, message: &Message) {
        self.raw(&message.encode().unwrap()).await;
    }

    /// Writes bytes on the control stream.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.control.write_all(bytes).await;
        let _ = self.control.flush().await;
    }

    /// Ends the control stream.
    pub async fn end(&mut self) {
        let _ = self.control.shutdown().await;
    }

    /// Says something on a data stream, opened if it is not.
    pub async fn give(&mut self, class: Class, message: &Message) {
        self.give_raw(class, &message.encode().unwrap()).await;
    }

    /// Writes bytes on a data stream, opened if it is not.
    pub async fn give_raw(&mut self, class: Class, bytes: &[u8]) {
        let stream = &mut self.data[class as usize];
        if stream.is_none() {
            let Ok(opened) = self.connection.quinn().open_uni().await else { return };
            let mut opened: Pin<Box<dyn AsyncWrite + Send + Sync>> = Box::pin(opened);
            let _ = opened.write_all(&[class as u8]).await;
            *stream = Some(opened);
        }
        if let Some(stream) = stream {
            let _ = stream.write_all(bytes).await;
            let _ = stream.flush().await;
        }
    }

    /// Opens one more stream, writes this and ends it.
    pub async fn new_stream(&mut self, bytes: &[u8]) {
        let Ok(mut stream) = self.connection.quinn().open_uni().await else { return };
        let _ = stream.write_all(bytes).await;
        let _ = stream.finish();
    }

    /// Ends a data stream.
    pub async fn end_data(&mut self, class: Class) {
        if let Some(mut stream) = self.data[class as usize].take() {
            let _ = stream.shutdown().await;
        }
    }

    /// The next message on the control stream; `None` when it has ended.
    pub async fn hear(&mut self) -> Option<Message> {
        read_frame(&mut self.from).await
    }

    /// Hears until the peer's summary is complete: from there on it waits for an offer.
    pub async fn hear_clock(&mut self) {
        while let Some(message) = self.hear().await {
            if matches!(message, Message::Clock(Clock { last: true, .. })) {
                return;
            }
        }
        panic!("the peer ended before its summary was complete");
    }

    /// Why the peer closed the connection: its code, and its words.
    pub async fn closed(&self) -> (u64, String) {
        Self::told(&self.connection).await
    }

    /// As [`closed`](Self::closed), of a connection.
    pub async fn told(connection: &Connection) -> (u64, String) {
        match connection.closed().await {
            CloseReason::ByPeer { code, reason } => (code, reason),
            other => panic!("the peer did not close the connection: {other}"),
        }
    }

    /// Plays the side that gives, with what is on the shelf, until the peer is done.
    pub async fn give_all(&mut self, shelf: Shelf) -> Option<Done> {
        self.give_first(&shelf).await;
        while let Some(message) = self.hear().await {
            match message {
                Message::Want(want) => self.answer(&shelf, &want).await,
                Message::WantContent(want) => {
                    let held = want.ids.iter().filter_map(|id| shelf.objects.get(id).cloned());
                    let items = Bounded::truncated(held.map(Into::into).collect());
                    self.give(Class::Content, &Message::Content(Content { want: want.id, items })).await;
                    self.served(Class::Content, want.id).await;
                }
                Message::Done(done) => return Some(done),
                _ => {}
            }
        }
        None
    }

    /// Answers a request for entries with what is on the shelf.
    pub async fn answer(&mut self, shelf: &Shelf, want: &Want) {
        let class = if want.ranges[0].log.is_system() { Class::System } else { Class::User };
        for range in want.ranges.iter() {
            let mut items = shelf.given.get(&(range.author, range.log)).cloned().unwrap_or_default();
            if !shelf.spoiled.contains(&(range.author, range.log)) {
                let seq = |item: &WireEntry| Entry::decode(&item.entry).unwrap().seq();
                items.retain(|item| (range.from..=range.to).contains(&seq(item)));
            }
            let items = Bounded::truncated(items);
            self.give(class, &Message::Entries(Entries { want: want.id, items })).await;
        }
        self.served(class, want.id).await;
    }

    /// Begins a session that takes, and asks for objects.
    pub async fn ask_for_content(&mut self, ids: &[ObjectId]) {
        let hello = Hello { gives: false, ..hello(self.own) };
        self.say(&Message::Hello(hello)).await;
        self.say(&Message::Clock(Clock { authors: Bounded::default(), last: true })).await;
        let ids = Bounded::truncated(ids.to_vec());
        self.say(&Message::WantContent(WantContent { id: 1, ids })).await;
    }

    /// The objects that come, and the ids of those that don't.
    pub async fn answers(&mut self) -> (Vec<Vec<u8>>, Vec<ObjectId>) {
        let mut stream = self.connection.quinn().accept_uni().await.unwrap();
        let mut class = [0];
        stream.read_exact(&mut class).await.unwrap();
        assert_eq!(class, [Class::Content as u8]);
        let mut objects = Vec::new();
        loop {
            match read_frame(&mut stream).await.expect("an answer") {
                Message::Content(content) => {
                    objects.extend(content.items.into_iter().map(|item| item.into_vec()));
                }
                Message::Served(served) => return (objects, served.lacking.into_vec()),
                other => panic!("{other:?} on a stream of objects"),
            }
        }
    }

    /// Asks for a big object's first range, and gives all that is answered: nothing, if the connection is closed.
    pub async fn ask_for_big(&mut self, id: ObjectId, size: u64) -> Vec<u8> {
        let Ok((mut send, mut recv)) = self.connection.quinn().open_bi().await else { return Vec::new() };
        let request = madake_sync::ranged::RangeRequest { id, size, groups: 0..1 };
        let _ = send.write_all(&request.encode()).await;
        recv.read_to_end(100_000_000).await.unwrap_or_default()
    }

    /// Hello, offer and Done of the side that gives.
    pub async fn give_first(&mut self, shelf: &Shelf) {
        let hello = Hello { receives: false, ..hello(self.own) };
        self.say(&Message::Hello(hello)).await;
        self.hear_clock().await;
        self.say(&Message::Offer(shelf.offer())).await;
        self.say(&Message::Done(Done::default())).await;
    }

    /// Says that a request is answered.
    pub async fn served(&mut self, class: Class, want: u32) {
        self.give(class, &Message::Served(Served { want, lacking: Bounded::default() })).await;
    }
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Message> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut frame = vec![0; frame_length(length).unwrap()];
    stream.read_exact(&mut frame).await.ok()?;
    Some(Message::decode(&frame).unwrap())
}

impl Shelf {
    /// Offers these entries with their payloads, and gives them.
    pub fn put(&mut self, log: &[(Entry, Vec<u8>)]) {
        self.offer_log(&log.last().unwrap().0);
        self.give(log, log.iter().map(|(entry, payload)| item(entry, payload)).collect());
    }

    /// Offers these entries, and gives something else in their place, whatever is asked for.
    pub fn put_as(&mut self, log: &[(Entry, Vec<u8>)], items: Vec<WireEntry>) {
        self.spoiled.insert((log[0].0.author(), log[0].0.log()));
        self.offer_log(&log.last().unwrap().0);
        self.give(log, items);
    }

    /// Gives an object when it is asked for.
    pub fn put_object(&mut self, bytes: &[u8]) {
        self.objects.insert(ObjectId::of(bytes), bytes.to_vec());
    }

    /// Says that the log reaches up to this entry.
    pub fn offer_log(&mut self, head: &Entry) {
        let logs = self.offered.entry(head.author()).or_default();
        logs.insert(head.log(), (head.seq(), tag(&head.id())));
    }

    /// The offer, in one frame.
    pub fn offer(&self) -> Offer {
        let authors = self.offered.iter().map(|(author, logs)| {
            let logs = logs.iter().map(|(log, (seq, tag))| LogClock { log: *log, seq: *seq, tag: *tag });
            AuthorClock { author: *author, logs: Bounded::truncated(logs.collect()) }
        });
        Offer { authors: Bounded::truncated(authors.collect()), totals: Totals::default(), last: true }
    }

    fn give(&mut self, log: &[(Entry, Vec<u8>)], items: Vec<WireEntry>) {
        let first = &log[0].0;
        self.given.insert((first.author(), first.log()), items);
    }
}

/// A key, the same for the same number.
pub fn key(number: u8) -> AuthorKey {
    AuthorKey::from_seed(*blake3::hash(&[number]).as_bytes())
}

/// A Hello that gives and takes, and wants nobody's logs.
pub fn hello(node: NodeId) -> Hello {
    Hello {
        protocol: PROTOCOL,
        node,
        epoch: [7; 16],
        generation: 1,
        incarnation: (1, [8; 16]),
        clock: 0,
        receives: true,
        gives: true,
        scope: ScopeKind::Listed(0),
        schemas: None,
        methods: Bounded::truncated(vec![0]),
        capabilities: 0,
    }
}

/// A well-made log: an entry for each payload.
pub fn log(key: &AuthorKey, log: LogId, payloads: &[&[u8]]) -> Vec<(Entry, Vec<u8>)> {
    let mut made: Vec<(Entry, Vec<u8>)> = Vec::new();
    for payload in payloads {
        let head = made.last().map(|(entry, _)| LogHead::of(entry));
        let lipmaa = lipmaa_of(&made);
        let (id, size) = (PayloadId::of(payload), payload.len() as u64);
        let entry = Entry::sign(key, log, head.as_ref(), lipmaa, id, size, false).unwrap().into_entry();
        made.push((entry, payload.to_vec()));
    }
    made
}

/// What the next entry of this log links to beside the one before it.
pub fn lipmaa_of(made: &[(Entry, Vec<u8>)]) -> Option<EntryId> {
    let target = madake_log::lipmaa(made.len() as u64 + 1);
    made.get(usize::try_from(target).unwrap().checked_sub(1)?).map(|(entry, _)| entry.id())
}

/// A first version of a file.
pub fn commit(author: AuthorId, name: &str, bytes: &[u8]) -> Commit {
    Commit {
        name: name.parse().unwrap(),
        previous: None,
        merges: vec![],
        object: ObjectId::of(bytes),
        size: bytes.len() as u64,
        mode: Mode::File,
        author: CommitAuthor::new(*author.as_bytes()),
        time: 0,
        message: String::new(),
        tags: vec![],
    }
}

/// An entry on the wire, with its payload.
pub fn item(entry: &Entry, payload: &[u8]) -> WireEntry {
    raw_item(entry.as_bytes().to_vec(), payload)
}

/// Any bytes on the wire in the place of an entry.
pub fn raw_item(entry: Vec<u8>, payload: &[u8]) -> WireEntry {
    WireEntry { entry: entry.into(), payload: Some(payload.to_vec().into()) }
}

/// A bundle with these entries and payloads.
pub fn bundle(items: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = madake_log::BundleEncoder::new(&mut out);
    for (entry, payload) in items {
        encoder.entry(entry, &mut out).unwrap();
        encoder.payload(payload, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    out
}
