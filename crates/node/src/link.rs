//! The tasks that carry one session's bytes: frames in and out, checks off the loop. Big objects: `ranges`.
//!
//! The dialler opens the control stream, both ways. Each side opens a one-way stream for each class of
//! data that it sends; the stream's first byte is the class. A two-way stream that comes later asks for
//! a range of a big object (`docs/protocol.md`, "Streams").

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madake_store::Store;
use madake_sync::wire::{self, Class, Message, WireError};
use madake_sync::{EndReason, Input, SessionId};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::checks::{Checked, Checkers, Checking, FRAMES, TOGETHER, checks_at_a_time};
use crate::driver::Event;
use crate::net::{CloseReason, Connection};
use crate::ranges::OpenObjects;
use crate::work;

/// Bytes of data frames that were read from a peer and are not dealt with yet.
pub(crate) const CREDIT: usize = 16 * 1024 * 1024;
/// Frames that may wait for a stream. The node's windows keep it far below; a peer that does not read
/// its control stream ends here.
pub(crate) const QUEUE: usize = 1_024;
/// Bytes that may wait for the control stream, which the node's windows don't keep down: the longest summary (a million
/// logs of as many authors) and what is said beside it.
pub(crate) const CONTROL_BYTES: usize = 72 << 20;
/// Likewise for what members of a cluster say to each other: a batch of 10,000 names is some 3 MiB. What is beyond is
/// lost, and asked again.
pub(crate) const HEADS_BYTES: usize = 16 << 20;
/// The node is told this often that bytes are moving.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Codes with which connections are closed (`docs/protocol.md`, "Closing").
pub(crate) mod close {
    pub(crate) const DONE: u32 = 0;
    pub(crate) const NOT_KNOWN: u32 = 1;
    pub(crate) const MISBEHAVED: u32 = 2;
    pub(crate) const STORE_FAILED: u32 = 3;
    pub(crate) const STOPPING: u32 = 4;
    pub(crate) const HELD_OFF: u32 = 5;
    pub(crate) const SILENT: u32 = 6;
    pub(crate) const ANEW: u32 = 7;
    pub(crate) const CROSSED: u32 = 8;
    pub(crate) const CLOCKS: u32 = 9;
    pub(crate) const WELCOME: u32 = 10;
}

/// What all tasks of one session share.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) session: SessionId,
    /// Whether the peer may have anything of ours in this session.
    pub(crate) gives: bool,
    pub(crate) connection: Connection,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) credit: Arc<Semaphore>,
    pub(crate) store: Arc<Store>,
    pub(crate) checkers: Arc<Checkers>,
    pub(crate) objects: Arc<OpenObjects>,
    /// What waits for the control stream.
    pub(crate) waiting: Arc<Waiting>,
    /// Likewise, of what members of a cluster say to each other.
    pub(crate) waiting_heads: Arc<Waiting>,
    /// Ranges that the peer is asked for.
    pub(crate) ranges: Arc<AtomicU32>,
    /// When the node was last told that bytes go to the peer, and that they come from it.
    pub(crate) told_alive: Arc<Mutex<[Instant; 2]>>,
}

/// Bytes that wait for a stream, and how many may.
pub(crate) struct Waiting {
    bytes: AtomicUsize,
    most: usize,
}

impl Waiting {
    pub(crate) fn up_to(most: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), most }
    }

    /// Takes in a frame, if it fits.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        // One thread adds: the loop.
        let fits = self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= self.most;
        self.bytes.fetch_add(if fits { bytes } else { 0 }, Ordering::Relaxed);
        fits
    }

    /// They wait no more.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a stream can't be read on.
enum Broken {
    /// The bytes are no message.
    Wire(WireError),
    /// The peer ended the stream inside a frame.
    Cut,
    /// The connection or the stream is gone.
    Lost,
}

impl Link {
    /// Takes frames from the queue and writes them, until the queue is closed; then waits until the
    /// peer has acknowledged all of them.
    pub(crate) async fn write_control(
        self,
        mut stream: quinn::SendStream,
        mut queue: mpsc::Receiver<Vec<u8>>,
    ) {
        let _ = stream.set_priority(3);
        self.write_frames(Class::Control, &mut stream, &mut queue).await;
    }

    /// Like [`write_control`](Self::write_control) for a class of data; its stream is opened with the
    /// first frame.
    pub(crate) async fn write_class(self, class: Class, mut queue: mpsc::Receiver<Vec<u8>>) {
        let Some(first) = queue.recv().await else { return };
        let Ok(mut stream) = self.connection.quinn().open_uni().await else { return };
        // Members wait for each other; what they say is short.
        let _ = stream.set_priority(if class == Class::Heads { 3 } else { 3 - class as i32 });
        if stream.write_all(&[class as u8]).await.is_err() || !self.write(class, &mut stream, first).await {
            return;
        }
        self.write_frames(class, &mut stream, &mut queue).await;
    }

    async fn write_frames(
        &self,
        class: Class,
        stream: &mut quinn::SendStream,
        queue: &mut mpsc::Receiver<Vec<u8>>,
    ) {
        while let Some(frame) = queue.recv().await {
            if !self.write(class, stream, frame).await {
                return;
            }
        }
        let _ = stream.finish();
        let _ = stream.stopped().await;
    }

    async fn write(&self, class: Class, stream: &mut quinn::SendStream, frame: Vec<u8>) -> bool {
        let bytes = frame.len() as u64;
        let written = stream.write_all(&frame).await.is_ok();
        match class {
            Class::Control => self.waiting.wrote(frame.len()),
            Class::Heads => {
                self.waiting_heads.wrote(frame.len());
                return written;
            }
            _ => {}
        }
        written && self.input(Input::Sent { session: self.session, class, bytes }).await
    }

    /// Reads the control stream to its end, and says why it ended.
    pub(crate) async fn read_control(self, mut stream: quinn::RecvStream) {
        let reason = loop {
            match self.read_frame(&mut stream).await {
                Ok(Some(frame)) => match Message::decode(&frame) {
                    Ok(Message::Fork(fork)) => {
                        let Some(input) = self.check_fork(fork).await else { return };
                        if !self.input(input).await {
                            return;
                        }
                    }
                    Ok(message) if class_of(&message) == Some(Class::Control) => {
                        let input = Input::Message { session: self.session, message, bytes: frame.len() + 4 };
                        if !self.input(input).await {
                            return;
                        }
                    }
                    Ok(message) => break misbehaved(WireError::WrongStream(message.kind())),
                    Err(error) => break misbehaved(error),
                },
                Ok(None) | Err(Broken::Lost) => break lost(&self.connection).await,
                Err(Broken::Cut) => break cut(),
                Err(Broken::Wire(error)) => break misbehaved(error),
            }
        };
        self.input(Input::Closed { session: self.session, reason }).await;
    }

    /// Has a proof checked on another thread, before what follows it on the control stream is handed on. `None`: the
    /// runtime is going down.
    async fn check_fork(&self, fork: wire::Fork) -> Option<Input> {
        let fork = crate::work::beside(move || fork.check()).await.ok()?;
        Some(Input::Fork { session: self.session, fork })
    }

    /// Takes the peer's data streams, one for each class.
    pub(crate) async fn accept_classes(self) {
        let mut seen = [false; 5];
        while let Ok(mut stream) = self.connection.quinn().accept_uni().await {
            let mut class = [0];
            if stream.read_exact(&mut class).await.is_err() {
                continue;
            }
            let fresh = (1..5).contains(&class[0]) && !std::mem::replace(&mut seen[class[0] as usize], true);
            if !fresh {
                let reason =
                    EndReason::PeerMisbehaved(format!("a data stream of class {} too many", class[0]));
                self.input(Input::Closed { session: self.session, reason }).await;
                return;
            }
            if class[0] == Class::Heads as u8 {
                tokio::spawn(self.clone().read_heads(stream));
            } else {
                tokio::spawn(self.clone().read_class(stream));
            }
        }
    }

    /// Reads what a member of a cluster says, one frame after the other.
    async fn read_heads(self, mut stream: quinn::RecvStream) {
        let reason = loop {
            let frame = match self.read_frame(&mut stream).await {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(Broken::Lost) => return,
                Err(Broken::Cut) => break cut(),
                Err(Broken::Wire(error)) => break misbehaved(error),
            };
            let bytes = frame.len();
            let Ok(permit) = self.credit.acquire_many(bytes as u32).await else { return };
            permit.forget(); // given back by the driver when the member has dealt with it
            let message = match Message::decode(&frame) {
                Ok(message) if is_of_heads(&message) => message,
                Ok(message) => break misbehaved(WireError::WrongStream(message.kind())),
                Err(error) => break misbehaved(error),
            };
            let session = self.session;
            if self.events.send(Event::Heads { session, message, bytes }).await.is_err() {
                return;
            }
        };
        self.input(Input::Closed { session: self.session, reason }).await;
    }

    /// Reads a data stream. Frames are checked on other threads, those that wait together, and handed on in their
    /// order.
    async fn read_class(self, mut stream: quinn::RecvStream) {
        let (frames, to_check) = mpsc::channel(FRAMES);
        let (checking, checked) = mpsc::channel(checks_at_a_time());
        let check = tokio::spawn(self.clone().check_frames(to_check, checking));
        let hand_on = tokio::spawn(self.clone().hand_on(checked));
        loop {
            let frame = match self.read_frame(&mut stream).await {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(Broken::Lost) => break,
                Err(broken) => {
                    let reason = match broken {
                        Broken::Wire(error) => misbehaved(error),
                        _ => cut(),
                    };
                    self.input(Input::Closed { session: self.session, reason }).await;
                    break;
                }
            };
            let Ok(permit) = self.credit.acquire_many(frame.len() as u32).await else { break };
            permit.forget(); // given back by the driver when the node has dealt with the frame
            if frames.send(frame).await.is_err() {
                break;
            }
        }
        drop(frames);
        let _ = check.await;
        let _ = hand_on.await;
    }

    /// Has frames checked. While all that may be checked at a time are, more come together.
    async fn check_frames(self, mut frames: mpsc::Receiver<Vec<u8>>, checking: mpsc::Sender<Checking>) {
        while let Some(first) = frames.recv().await {
            let Ok(place) = checking.reserve().await else { return };
            let (mut bytes, mut together) = (first.len(), vec![first]);
            while bytes < TOGETHER
                && let Ok(next) = frames.try_recv()
            {
                bytes += next.len();
                together.push(next);
            }
            let (session, checkers) = (self.session, self.checkers.clone());
            place.send(work::beside(move || checkers.check(session, &together)));
        }
    }

    /// Hands on what was checked.
    async fn hand_on(self, mut checked: mpsc::Receiver<Checking>) {
        while let Some(task) = checked.recv().await {
            let Ok(inputs) = task.await else { return }; // the runtime is going down
            for Checked { input, bytes } in inputs {
                let input = match input {
                    Ok(input) => {
                        if matches!(input, Input::Message { .. } | Input::Fork { .. }) {
                            self.credit.add_permits(bytes); // the node gives back data only
                        }
                        input
                    }
                    Err(error) => Input::Closed { session: self.session, reason: misbehaved(error) },
                };
                if !self.input(input).await {
                    return;
                }
            }
        }
    }

    /// The next frame's kind and body; `None` at the end of the stream.
    async fn read_frame(&self, stream: &mut quinn::RecvStream) -> Result<Option<Vec<u8>>, Broken> {
        use quinn::ReadExactError::{FinishedEarly, ReadError};
        let mut length = [0; 4];
        match stream.read_exact(&mut length).await {
            Ok(()) => {}
            Err(FinishedEarly(0)) => return Ok(None),
            Err(FinishedEarly(_)) => return Err(Broken::Cut),
            Err(ReadError(_)) => return Err(Broken::Lost),
        }
        let length = wire::frame_length(length).map_err(Broken::Wire)?;
        let (mut frame, mut have) = (vec![0; length], 0);
        while have < length {
            match stream.read(&mut frame[have..]).await {
                Ok(Some(read)) => have += read,
                Ok(None) => return Err(Broken::Cut),
                Err(_) => return Err(Broken::Lost),
            }
            self.alive(true).await;
        }
        Ok(Some(frame))
    }

    /// Tells the node, now and then, that bytes are moving: a slow link is not a silent one.
    pub(crate) async fn alive(&self, received: bool) {
        let now = Instant::now();
        let tell = {
            let mut told = self.told_alive.lock().unwrap_or_else(PoisonError::into_inner);
            let told = &mut told[usize::from(received)];
            let tell = now.duration_since(*told) >= SIGN_OF_LIFE;
            if tell {
                *told = now;
            }
            tell
        };
        if tell {
            self.input(Input::Activity { session: self.session, received }).await;
        }
    }

    pub(crate) async fn input(&self, input: Input) -> bool {
        self.events.send(Event::Input(input)).await.is_ok()
    }
}

/// Why a connection is gone.
pub(crate) async fn lost(connection: &Connection) -> EndReason {
    let closed = connection.closed().await;
    match (closed, connection.closed_with()) {
        (CloseReason::ByPeer { code, reason }, _) => match u32::try_from(code).unwrap_or(u32::MAX) {
            close::DONE => EndReason::ConnectionLost("the peer closed it early".into()),
            close::NOT_KNOWN => EndReason::NotKnown,
            close::ANEW => EndReason::Anew,
            close::CROSSED => EndReason::Crossed,
            close::HELD_OFF => EndReason::NotNow(printable(&reason)),
            close::STOPPING => EndReason::EndedByPeer("it is stopping".into()),
            _ => EndReason::EndedByPeer(printable(&reason)),
        },
        (CloseReason::Ourselves, Some((code, words))) => match *code {
            close::NOT_KNOWN => EndReason::EndedHere("the peer is none any more".into()),
            close::ANEW => EndReason::Anew,
            close::CROSSED => EndReason::Crossed,
            _ => EndReason::EndedHere(words.clone()),
        },
        (other, _) => EndReason::ConnectionLost(other.to_string()),
    }
}

/// The stream on which a message belongs; `None` for those of several data streams.
fn class_of(message: &Message) -> Option<Class> {
    match message {
        Message::Entries(_) | Message::Content(_) | Message::Served(_) => None,
        message if is_of_heads(message) => Some(Class::Heads),
        _ => Some(Class::Control),
    }
}

/// Whether members of a cluster say it to each other.
fn is_of_heads(message: &Message) -> bool {
    matches!(
        message,
        Message::Heads(_) | Message::Meet(_) | Message::Join(_) | Message::Welcome(_) | Message::NotYet(_)
    )
}

fn misbehaved(error: WireError) -> EndReason {
    EndReason::PeerMisbehaved(error.to_string())
}

fn cut() -> EndReason {
    EndReason::PeerMisbehaved("it ended a stream in the middle of a frame".into())
}

/// A peer's text, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest summary fits beside other words, and a second one does not, until the first is on its way.
    #[test]
    fn one_summary_waits_for_a_peer_that_does_not_read_and_no_second() {
        let (waiting, frame) = (Waiting::up_to(CONTROL_BYTES), 8_192 * (10 + 7 + 16 + 33));
        for _ in 0..128 {
            assert!(waiting.admits(frame));
        }
        assert!(waiting.admits(1 << 20), "the keys that are asked about, and more");
        let more = (0..).take_while(|_| waiting.admits(frame)).count();
        assert!(more < 16, "{more} frames of a second summary");
        assert!(!waiting.admits(frame), "what is refused does not count");
        waiting.wrote(frame);
        assert!(waiting.admits(frame));
    }
}
