//! Big objects on streams of their own, in ranges: served from the store, and fetched into it from several peers at
//! once. What is asked of whom is the node's to say; here bytes are read, checked and written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use madake_object::{Encoder, GROUP, Gather, ObjectId, Piece, RangeError, Ranges, Verifier, groups};
use madake_store::engine::{EngineError, PartialBlob};
use madake_store::{NamedBy, NamedObject, Store};
use madake_sync::ranged::{REQUEST_LEN, RangeRequest, RangeStatus};
use madake_sync::{Input, RangeEnd, RequestId};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::driver::Event;
use crate::link::{Link, close, lost};
use crate::work;

/// Ranges that a peer may fetch at a time; more wait.
const SERVING: usize = 8;
/// A peer that gives no byte of a big object for so long does not have it for us, nor has one that lets us open no
/// stream to ask for it; nor one that gives no chunk group of it for so long, times the ranges that it is asked for at a
/// time: they share its line.
const PATIENCE: Duration = Duration::from_secs(30);
/// A range of which a peer takes no byte for so long is not sent on: longer than its disk may need, and it asks again.
const UNTAKEN: Duration = Duration::from_secs(120);
/// Bytes of groups that are read, checked and written at a time; and so long what comes slowly waits for more.
const PIECE: usize = 512 << 10;
const PIECE_AFTER: Duration = Duration::from_secs(2);
/// What has come is made durable after so many bytes, or after so long: what a power cut may take.
const SYNC_BYTES: u64 = 64 << 20;
const SYNC_AFTER: Duration = Duration::from_secs(10);

/// The big objects that are being fetched, for all sessions.
pub(crate) struct OpenObjects {
    store: Arc<Store>,
    /// Weak: the loop that has this ends when nobody else sends to it.
    events: mpsc::WeakSender<Event>,
    objects: Mutex<BTreeMap<ObjectId, Arc<OpenObject>>>,
    cuts: Mutex<BTreeMap<RequestId, Arc<Cuts>>>,
}

/// One of them.
pub(crate) struct OpenObject {
    part: Arc<dyn PartialBlob>,
    /// When it was last made durable; held while it is.
    synced: Mutex<Instant>,
}

/// How much of a request is still wanted.
#[derive(Default)]
pub(crate) struct Cuts {
    end: Mutex<Option<u64>>,
    told: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ours(error: &EngineError) -> String {
    format!("our-store: {error}")
}

impl OpenObjects {
    pub(crate) fn new(store: Arc<Store>, events: mpsc::WeakSender<Event>) -> Self {
        Self { store, events, objects: Mutex::default(), cuts: Mutex::default() }
    }

    /// Looks what is here of an object.
    pub(crate) fn open(self: &Arc<Self>, id: ObjectId, size: u64) {
        self.then(move |objects| {
            let here = match objects.store.engine().blobs().partial(id.as_bytes(), size) {
                Ok(part) => {
                    let here = part.here();
                    let open = OpenObject { part, synced: Mutex::new(Instant::now()) };
                    lock(&objects.objects).insert(id, Arc::new(open));
                    Ok(here)
                }
                Err(error) => Err(ours(&error)),
            };
            Input::ObjectOpened { id, here }
        });
    }

    /// Gives an object its name.
    pub(crate) fn finish(self: &Arc<Self>, id: ObjectId) {
        self.then(move |objects| {
            let open = lock(&objects.objects).remove(&id);
            let result = open.map_or(Ok(()), |open| open.part.finish());
            Input::ObjectFinished { id, result: result.map_err(|error| ours(&error)) }
        });
    }

    /// Makes durable what is here of an object.
    pub(crate) fn close(self: &Arc<Self>, id: ObjectId) {
        self.then(move |objects| {
            let open = lock(&objects.objects).remove(&id);
            if let Some(Err(error)) = open.map(|open| open.part.sync()) {
                tracing::warn!(%id, %error, "a part of an object could not be made durable");
            }
            Input::ObjectClosed { id }
        });
    }

    /// Makes durable what is here of all that are open: for the end, when nobody closes them any more.
    pub(crate) fn close_all(&self) {
        for (id, open) in std::mem::take(&mut *lock(&self.objects)) {
            if let Err(error) = open.part.sync() {
                tracing::warn!(%id, %error, "a part of an object could not be made durable");
            }
        }
    }

    /// The end of a request, which may come nearer.
    pub(crate) fn cuts(&self, request: RequestId) -> Arc<Cuts> {
        lock(&self.cuts).entry(request).or_default().clone()
    }

    /// A request is to end earlier.
    pub(crate) fn cut(&self, request: RequestId, end: u64) {
        if let Some(cuts) = lock(&self.cuts).get(&request) {
            *lock(&cuts.end) = Some(end);
            cuts.told.notify_one();
        }
    }

    /// Does something slow on another thread, and tells the loop what became of it.
    fn then(self: &Arc<Self>, work: impl FnOnce(&Self) -> Input + Send + 'static) {
        let objects = self.clone();
        tokio::spawn(async move {
            let events = objects.events.clone();
            // Nobody waits for it if the runtime or the loop is going down.
            if let Ok(input) = work::beside(move || work(&objects)).await
                && let Some(events) = events.upgrade()
            {
                let _ = events.send(Event::Input(input)).await;
            }
        });
    }
}

impl OpenObject {
    /// Checks a piece, and writes what is right of it; says where that ends, and what is wrong.
    fn take(&self, verifier: &mut Verifier, piece: Piece) -> (Option<u64>, Result<(), RangeEnd>) {
        let (right, checked) = verifier.check_piece(piece);
        if let Err(error) = self.part.take(&right).and_then(|()| self.sync_if_due()) {
            return (None, Err(RangeEnd::Ours(ours(&error))));
        }
        let upto = Some(right.groups().end).filter(|_| !right.data().is_empty());
        (upto, checked.map_err(wrong))
    }

    fn sync_if_due(&self) -> Result<(), EngineError> {
        let Ok(mut synced) = self.synced.try_lock() else { return Ok(()) };
        let unsynced = self.part.unsynced();
        if unsynced < SYNC_BYTES && (unsynced == 0 || synced.elapsed() < SYNC_AFTER) {
            return Ok(());
        }
        let result = self.part.sync();
        *synced = Instant::now();
        result
    }
}

fn wrong(error: RangeError) -> RangeEnd {
    match error {
        RangeError::Wrong { part, .. } => RangeEnd::Wrong(format!("{part} are not what its id says")),
        other => RangeEnd::Wrong(other.to_string()),
    }
}

/// A piece that is being checked and written: where it ended, and whether all of it was right.
type Writing = JoinHandle<(Verifier, Option<u64>, Result<(), RangeEnd>)>;

/// A request for a range on its way.
struct Fetching<'a> {
    link: &'a Link,
    request: RequestId,
    recv: quinn::RecvStream,
    cuts: Arc<Cuts>,
    /// Bytes that came and are not gathered.
    rest: Bytes,
    gather: Gather,
    /// The group after the last that is written.
    upto: u64,
    /// When a chunk group last came whole.
    moved: Instant,
}

/// One of the ranges that are asked of a peer.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(ranges: &'a AtomicU32) -> Self {
        ranges.fetch_add(1, Ordering::Relaxed);
        Self(ranges)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Answers requests for ranges.
    pub(crate) async fn accept_gets(self) {
        let slots = Arc::new(Semaphore::new(SERVING));
        while let Ok((send, recv)) = self.connection.quinn().accept_bi().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let link = self.clone();
            tokio::spawn(async move {
                link.serve_range(send, recv).await;
                drop(slot);
            });
        }
    }

    async fn serve_range(&self, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
        let mut request = [0; REQUEST_LEN];
        let read = tokio::time::timeout(PATIENCE, recv.read_exact(&mut request)).await;
        let Some(wanted) = RangeRequest::decode(&request).filter(|_| matches!(read, Ok(Ok(())))) else {
            let _ = send.reset(close::MISBEHAVED.into());
            return;
        };
        let (id, size) = (wanted.id, wanted.size);
        let (store, gives) = (self.store.clone(), self.gives);
        let opened = work::beside(move || if gives { store.open_named(id) } else { Ok(None) }).await;
        let Ok(opened) = opened else { return };
        let opened = opened.unwrap_or_else(|error| {
            tracing::error!(%id, %error, "a stored object can't be opened");
            None
        });
        let status = match &opened {
            None => RangeStatus::NotHere,
            Some(object) if object.ranged.size != size => RangeStatus::OtherSize(object.ranged.size),
            Some(_) => RangeStatus::Comes,
        };
        if !give(&mut send, status.encode().into()).await {
            return;
        }
        let Some(NamedObject { ranged, named_by }) = opened.filter(|_| status == RangeStatus::Comes) else {
            let _ = send.finish();
            if status == RangeStatus::NotHere {
                self.input(Input::NotServed { session: self.session, id }).await;
            }
            return;
        };
        let last = wanted.groups.end == groups(size);
        let Ok(encoder) = Encoder::new((id, size), ranged.data, ranged.outboard, wanted.groups) else {
            return;
        };
        let read = |mut encoder: Encoder<_, _>| {
            work::beside(move || {
                let bytes = encoder.next(PIECE);
                (encoder, bytes)
            })
        };
        let mut reading = read(encoder);
        let whole = loop {
            let Ok((encoder, bytes)) = reading.await else { return };
            let bytes = match bytes {
                Ok(bytes) if bytes.is_empty() => break true,
                Ok(bytes) => Bytes::from(bytes),
                Err(error) => {
                    // The end before its time says that there is no more.
                    tracing::error!(%id, %error, "a stored object is damaged; `madake fsck` says more");
                    break false;
                }
            };
            reading = read(encoder);
            let length = bytes.len() as u64;
            if !give(&mut send, bytes).await {
                let _ = send.reset(close::SILENT.into());
                return;
            }
            self.input(Input::RangeServed { session: self.session, bytes: length, last: None }).await;
        };
        let _ = send.finish();
        if whole && last {
            let last = Some(named_by == NamedBy::Entry);
            self.input(Input::RangeServed { session: self.session, bytes: 0, last }).await;
        }
    }

    /// Fetches a range, and tells the node how far it came.
    pub(crate) async fn fetch_range(self, request: RequestId, wanted: RangeRequest, cuts: Arc<Cuts>) {
        let mut upto = wanted.groups.start;
        let counted = Counted::new(&self.ranges);
        let end = self.move_range(request, wanted, cuts, &mut upto).await.err().unwrap_or(RangeEnd::Whole);
        drop(counted);
        lock(&self.objects.cuts).remove(&request);
        if end == RangeEnd::BrokenOff && self.connection.close_reason().is_some() {
            // It is not the object that failed: the session ends here.
            self.input(Input::Closed { session: self.session, reason: lost(&self.connection).await }).await;
        }
        self.input(Input::RangeEnded { request, upto, end }).await;
    }

    async fn move_range(
        &self,
        request: RequestId,
        wanted: RangeRequest,
        cuts: Arc<Cuts>,
        upto: &mut u64,
    ) -> Result<(), RangeEnd> {
        let Some(open) = lock(&self.objects.objects).get(&wanted.id).cloned() else {
            return Err(RangeEnd::Ours("our-store: the object is not open".into()));
        };
        let mut ranges = Ranges::EMPTY;
        let fits = ranges.insert(wanted.groups.clone()).is_ok();
        let (Ok(gather), Ok(verifier), true) = (
            Gather::new(wanted.size, wanted.groups.clone()),
            Verifier::new(wanted.id, wanted.size, &ranges),
            fits,
        ) else {
            return Err(RangeEnd::Ours("size: it is too long to come in ranges".into()));
        };
        let recv = match tokio::time::timeout(PATIENCE, self.request_range(&wanted)).await {
            Ok(recv) => recv.ok_or(RangeEnd::BrokenOff)?,
            Err(_) => return Err(RangeEnd::Silence(PATIENCE.as_secs())),
        };
        let mut fetching = Fetching {
            link: self,
            request,
            recv,
            cuts,
            rest: Bytes::new(),
            gather,
            upto: wanted.groups.start,
            moved: Instant::now(),
        };
        let result = fetching.run(&open, verifier).await;
        *upto = fetching.upto;
        result
    }

    /// Opens a stream when the peer admits one, and asks there for a range; the answer's stream.
    async fn request_range(&self, wanted: &RangeRequest) -> Option<quinn::RecvStream> {
        let (mut send, recv) = self.connection.quinn().open_bi().await.ok()?;
        send.write_all(&wanted.encode()).await.ok()?;
        let _ = send.finish();
        Some(recv)
    }
}

/// Hands bytes to the connection; whether the peer takes them.
async fn give(send: &mut quinn::SendStream, bytes: Bytes) -> bool {
    let mut rest = [bytes];
    while rest.iter().any(|bytes| !bytes.is_empty()) {
        match tokio::time::timeout(UNTAKEN, send.write_chunks(&mut rest)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
    }
    true
}

impl Fetching<'_> {
    async fn run(&mut self, open: &Arc<OpenObject>, verifier: Verifier) -> Result<(), RangeEnd> {
        self.status().await?;
        let mut verifier = Some(verifier);
        let mut writing: Option<Writing> = None;
        loop {
            // What comes is gathered while what came before is checked and written.
            let gathered = self.piece().await;
            let piece = self.gather.take(PIECE + GROUP as usize);
            let bytes = piece.len();
            if bytes > 0 {
                self.moved = Instant::now();
            }
            if let Some(written) = writing.take() {
                verifier = Some(self.written(written).await?);
            }
            if !piece.is_empty()
                && let Some(mut verifier) = verifier.take()
            {
                let open = open.clone();
                writing = Some(work::beside(move || {
                    let (upto, result) = open.take(&mut verifier, piece);
                    (verifier, upto, result)
                }));
            }
            if gathered.is_err() || self.gather.is_over() {
                if let Some(written) = writing {
                    self.written(written).await?;
                }
                return gathered;
            }
        }
    }

    /// Waits until a piece is written, and says so.
    async fn written(&mut self, written: Writing) -> Result<Verifier, RangeEnd> {
        let Ok((verifier, upto, result)) = written.await else { return Err(RangeEnd::BrokenOff) };
        if let Some(upto) = upto {
            self.upto = upto;
            self.link.input(Input::RangeMoved { request: self.request, upto }).await;
        }
        result.map(|()| verifier)
    }

    /// Gathers up to a piece, or what comes in a while.
    async fn piece(&mut self) -> Result<(), RangeEnd> {
        let began = Instant::now();
        while !self.gather.is_over() {
            if self.rest.is_empty() {
                if began.elapsed() >= PIECE_AFTER {
                    break;
                }
                self.more().await?;
                continue;
            }
            let taken = self.gather.feed(&self.rest, PIECE);
            self.rest.advance(taken);
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn status(&mut self) -> Result<(), RangeEnd> {
        loop {
            match RangeStatus::decode(&self.rest) {
                Ok(Some((RangeStatus::Comes, length))) => {
                    self.rest.advance(length);
                    return Ok(());
                }
                Ok(Some((RangeStatus::NotHere, _))) => return Err(RangeEnd::NotHere),
                Ok(Some((RangeStatus::OtherSize(size), _))) => return Err(RangeEnd::OtherSize(size)),
                Err(other) => return Err(RangeEnd::Wrong(format!("its answer begins with {other}"))),
                Ok(None) if self.gather.is_over() => return Err(RangeEnd::Cut),
                Ok(None) => {
                    let before = std::mem::take(&mut self.rest);
                    let more = self.more().await;
                    if !before.is_empty() {
                        self.rest = [before, std::mem::take(&mut self.rest)].concat().into();
                    }
                    more?;
                }
            }
        }
    }

    /// Waits for more bytes, or for word that fewer are wanted.
    async fn more(&mut self) -> Result<(), RangeEnd> {
        let (now, ranges) = (Instant::now(), self.link.ranges.load(Ordering::Relaxed).max(1));
        let patience = now + PATIENCE;
        let until = patience.min(self.moved + PATIENCE * ranges);
        tokio::select! {
            biased;
            () = self.cuts.told.notified() => {
                let end = lock(&self.cuts.end).take();
                if let Some(end) = end {
                    let end = self.gather.cut(end);
                    self.link.input(Input::RangeCut { request: self.request, end }).await;
                }
                Ok(())
            }
            read = tokio::time::timeout_at(until, self.recv.read_chunk(PIECE, true)) => match read {
                Ok(Ok(Some(chunk))) => {
                    self.rest = chunk.bytes;
                    self.link.alive(true).await;
                    Ok(())
                }
                Ok(Ok(None)) => Err(RangeEnd::Damaged),
                Ok(Err(_)) => Err(RangeEnd::BrokenOff),
                Err(_) if until == patience => Err(RangeEnd::Silence(PATIENCE.as_secs())),
                Err(_) => Err(RangeEnd::Silence((PATIENCE * ranges).as_secs())),
            },
        }
    }
}
