//! The one loop that drives the protocol: inputs in, outputs carried out.
//!
//! It has a thread of its own, since the node reads the store while it decides. Writes go to another
//! thread, which makes one durable round of all that wait; their outcomes come back as inputs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use madake_log::AuthorId;
use madake_store::{Change, News, Store, StoreError};
use madake_sync::cluster::{AskNumber, Cluster, Reply, Request};
use madake_sync::ranged::RangeRequest;
use madake_sync::wire::{Class, Message};
use madake_sync::{
    Config, EndReason, Input, Node, Now, Output, Plan, RangeEnd, Report, SessionId, Standing, Token, cluster,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::api::rfc3339;
use crate::checks::Checkers;
use crate::inputs::{Applied, Inputs, Whose};
use crate::link::{CONTROL_BYTES, CREDIT, HEADS_BYTES, Link, QUEUE, Waiting, close};
use crate::net::Connection;
use crate::ranges::OpenObjects;
use crate::work;

/// Inputs that may wait for the loop.
const EVENTS: usize = 256;
/// Data that is made durable in one round, more or less.
const ROUND_BYTES: u64 = 32 * 1024 * 1024;
/// How long the control stream may take to be opened, by who dials.
pub(crate) const OPENING: Duration = Duration::from_secs(10);
/// How long the last frames of a session may take to be acknowledged before its connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The loop's other end: starts sessions. Clones drive the same loop.
#[derive(Clone)]
pub struct Driver {
    events: mpsc::Sender<Event>,
    next_session: Arc<AtomicU64>,
    store: Arc<Store>,
    checkers: Arc<Checkers>,
    objects: Arc<OpenObjects>,
    /// Closed when the loop and its writer are gone.
    pub(crate) gone: watch::Receiver<()>,
}

/// What comes to the loop.
pub(crate) enum Event {
    /// Something for the node.
    Input(Input),
    /// A session begins.
    Open(Box<Opening>),
    /// These keys are in this home.
    Own(Vec<AuthorId>),
    /// Members of a cluster said something.
    Heads {
        /// In whose session.
        session: SessionId,
        /// What.
        message: Message,
        /// What its frame weighs: given back when it is dealt with.
        bytes: usize,
    },
    /// A write of the member of a cluster is durable, or failed.
    ClusterApplied(Token, Result<(), StoreError>),
    /// The owner wants something of the cluster.
    Ask(Box<Request>, oneshot::Sender<Reply>),
    /// The loop is to end, though others can still send to it.
    Stop,
}

/// How far a session is that both sides wish to keep open.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stage {
    /// Both wish it; and in which of its starts the peer is.
    pub agreed: Option<(u64, [u8; 16])>,
    /// What the peer had is here.
    pub caught_up: bool,
    /// How it stands with the peer.
    pub standing: Option<Standing>,
}

/// To whom a session tells how far it is.
#[derive(Default)]
pub struct Watchers {
    /// What has moved so far.
    pub progress: Option<watch::Sender<Option<Report>>>,
    /// Whether it stays open.
    pub stage: Option<watch::Sender<Stage>>,
}

/// A session about to begin: its streams, and where its end is told.
pub(crate) struct Opening {
    link: Link,
    initiator: bool,
    plan: Plan,
    control: (quinn::SendStream, quinn::RecvStream),
    watchers: Watchers,
    ended: oneshot::Sender<(EndReason, Report)>,
}

/// A session that is under way, as the loop knows it.
struct Open {
    link: Link,
    queues: [mpsc::Sender<Vec<u8>>; 5],
    writers: Vec<tokio::task::JoinHandle<()>>,
    watchers: Watchers,
    ended: oneshot::Sender<(EndReason, Report)>,
}

/// A write: whose, its number, what its data weighs, and what is to be written.
type Write = (Whose, Token, u64, Vec<Change>);

/// What the loop drives.
struct Loop {
    node: Node,
    cluster: Cluster,
    store: Arc<Store>,
    objects: Arc<OpenObjects>,
    writes: mpsc::UnboundedSender<Vec<Write>>,
    /// What one event has caused to be written: it goes in one round, and so with one sync.
    planned: Vec<Write>,
    open: BTreeMap<SessionId, Open>,
    /// Who waits for the member's answers.
    asked: BTreeMap<AskNumber, oneshot::Sender<Reply>>,
    last_ask: u64,
    began: Instant,
}

impl Driver {
    /// Starts the loop and its writer, on threads of their own; they end when the last clone is gone.
    pub fn start(config: Config, cluster: Cluster, store: Arc<Store>) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS);
        let checkers = Arc::new(Checkers::default());
        let objects = Arc::new(OpenObjects::new(store.clone(), events.downgrade()));
        let ours = objects.clone();
        let (alive, gone) = watch::channel(());
        let driver =
            Self { events, next_session: Arc::default(), store: store.clone(), checkers, objects, gone };
        work::in_a_loop(async move {
            drive(Node::new(config), cluster, store, ours, inbox).await;
            drop(alive);
        });
        driver
    }

    /// Ends the loop and all sessions, and waits until what was to be written is durable, for so long at most. Says
    /// whether that was enough.
    pub(crate) async fn stop(&self, at_most: Duration) -> bool {
        let stopped = async {
            let _ = self.events.send(Event::Stop).await; // a loop that is gone has stopped
            while self.gone.clone().changed().await.is_ok() {}
        };
        tokio::time::timeout(at_most, stopped).await.is_ok()
    }

    /// Asks the member of a cluster; `None` if this node is stopping.
    pub async fn ask(&self, request: Request) -> Option<Reply> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Ask(Box::new(request), answer)).await.ok()?;
        answered.await.ok()
    }

    /// Tells which keys are in this home, for the sessions to come.
    pub async fn set_own(&self, own: Vec<AuthorId>) {
        let _ = self.events.send(Event::Own(own)).await; // a loop that is gone needs it no more
    }

    /// Runs a session over this connection to its end. `control` is the control stream, if the peer dialled and
    /// opened it; without one it is opened from here.
    ///
    /// `watchers` are told how far it is. Dropping the future does not end the session.
    pub async fn session(
        &self,
        connection: Connection,
        control: Option<(quinn::SendStream, quinn::RecvStream)>,
        plan: Plan,
        watchers: Watchers,
    ) -> (EndReason, Report) {
        let initiator = control.is_none();
        let peer = connection.peer();
        let ended = |reason: EndReason| (reason, Report::empty(peer));
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let link = Link {
            session,
            gives: plan.gives && !plan.dry_run,
            connection: connection.clone(),
            events: self.events.clone(),
            credit: Arc::new(Semaphore::new(CREDIT)),
            store: self.store.clone(),
            checkers: self.checkers.clone(),
            objects: self.objects.clone(),
            waiting: Arc::new(Waiting::up_to(CONTROL_BYTES)),
            waiting_heads: Arc::new(Waiting::up_to(HEADS_BYTES)),
            ranges: Arc::default(),
            told_alive: Arc::new(Mutex::new([Instant::now(); 2])),
        };
        let streams = async {
            match control {
                Some(control) => Ok(control),
                None => connection.quinn().open_bi().await,
            }
        };
        let control = match tokio::time::timeout(OPENING, streams).await {
            Ok(Ok(control)) => control,
            Ok(Err(_)) => return ended(crate::link::lost(&connection).await),
            Err(_) => {
                connection.close(close::SILENT, "no control stream");
                return ended(EndReason::PeerStalled(OPENING.as_secs()));
            }
        };
        let (tell, end) = oneshot::channel();
        let opening = Opening { link, initiator, plan, control, watchers, ended: tell };
        if self.events.send(Event::Open(Box::new(opening))).await.is_err() {
            return ended(EndReason::ConnectionLost("this node is stopping".into()));
        }
        end.await.unwrap_or_else(|_| ended(EndReason::ConnectionLost("this node is stopping".into())))
    }
}

async fn drive(
    node: Node,
    cluster: Cluster,
    store: Arc<Store>,
    objects: Arc<OpenObjects>,
    inbox: mpsc::Receiver<Event>,
) {
    // Both are bounded by the credit of the open sessions: a frame is written once, and only after its
    // bytes were taken out of the credit.
    let (writes, to_write) = mpsc::unbounded_channel();
    let (written, applied) = mpsc::unbounded_channel();
    let writer = work::in_a_loop(write(store.clone(), to_write, written));

    let mut inputs = Inputs::new(&store, applied, inbox);
    let (open, asked, began) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
    let (planned, last_ask) = (Vec::new(), 0);
    let mut driven = Loop { node, cluster, store, objects, writes, planned, open, asked, last_ask, began };
    driven.carry_out();
    loop {
        let timeout = driven.node.poll_timeout().into_iter().chain(driven.cluster.next_wake()).min();
        match inputs.next(timeout.map(|at| began + at)).await {
            Some(Event::Stop) | None => break,
            Some(event) => driven.handle(event),
        }
        driven.carry_out();
    }
    let Loop { open, writes, objects, .. } = driven;
    // Nobody takes what is still to be read, and nobody waits for its credit.
    open.into_values().for_each(|session| session.link.credit.close());
    drop((inputs, writes));
    // A writer that panicked has said so.
    let _ = writer.await;
    objects.close_all();
}

impl Loop {
    fn handle(&mut self, event: Event) {
        let now = now(self.began);
        let input = match event {
            Event::Input(input) => input,
            Event::Open(opening) => begin(*opening, &mut self.open),
            Event::Own(own) => {
                self.node.set_own(own);
                Input::Changed(News { interest: true, ..News::default() })
            }
            Event::Heads { session, message, bytes } => {
                self.cluster.hear(now, session, message, &self.store);
                if let Some(open) = self.open.get(&session) {
                    open.link.credit.add_permits(bytes);
                }
                return;
            }
            Event::ClusterApplied(token, result) => {
                return self.cluster.applied(now, token, result, &self.store);
            }
            Event::Ask(request, answer) => {
                self.last_ask += 1;
                let number = AskNumber(self.last_ask);
                self.asked.insert(number, answer);
                return self.cluster.ask(now, number, *request, &self.store);
            }
            Event::Stop => return,
        };
        match &input {
            Input::Changed(news) => self.cluster.learn(now, news, &self.store),
            Input::Tick => self.cluster.tick(now, &self.store),
            _ => {}
        }
        self.node.handle(now, input, &*self.store);
    }

    /// Does what node and member say, until they say nothing more.
    fn carry_out(&mut self) {
        loop {
            let now = now(self.began);
            if let Some(output) = self.node.poll_output() {
                let output = match output {
                    Output::Reaches { session, peer, store, history } => {
                        self.cluster.reached(now, session, peer, store, &history, &self.store);
                        continue;
                    }
                    Output::Ended { session, .. } => {
                        self.cluster.left(session);
                        output
                    }
                    output => output,
                };
                if let Some(lost) = carry_out(output, &mut self.open, &self.objects, &mut self.planned) {
                    self.node.handle(now, lost, &*self.store);
                }
            } else if let Some(output) = self.cluster.poll_output() {
                self.carry_out_of_cluster(output);
            } else {
                break;
            }
        }
        if !self.planned.is_empty() {
            // The writer goes only after the loop.
            let _ = self.writes.send(std::mem::take(&mut self.planned));
        }
    }

    fn carry_out_of_cluster(&mut self, output: cluster::Output) {
        match output {
            cluster::Output::Send { session, message } => {
                let Some(Open { link, queues, .. }) = self.open.get(&session) else { return };
                let frame = match message.encode() {
                    Ok(frame) => frame,
                    Err(error) => return tracing::error!(%error, "a message to a member has no bytes"),
                };
                // What does not fit is lost, as on the way: who asks asks again.
                let bytes = frame.len();
                if link.waiting_heads.admits(bytes) && queues[Class::Heads as usize].try_send(frame).is_err()
                {
                    link.waiting_heads.wrote(bytes);
                }
            }
            cluster::Output::Apply { token, changes } => {
                self.planned.push((Whose::Cluster, token, 0, changes));
            }
            cluster::Output::Reply(number, reply) => {
                if let Some(answer) = self.asked.remove(&number) {
                    let _ = answer.send(reply); // who asked may be gone
                }
            }
            cluster::Output::Moved { name, generation, .. } => {
                tracing::debug!(%name, generation, "a head was agreed");
            }
        }
    }
}

/// Starts a session's tasks.
fn begin(opening: Opening, open: &mut BTreeMap<SessionId, Open>) -> Input {
    let Opening { link, initiator, plan, control: (send, recv), watchers, ended } = opening;
    let (session, peer) = (link.session, link.connection.peer());
    let (control, control_queue) = mpsc::channel(QUEUE);
    let (system, system_queue) = mpsc::channel(QUEUE);
    let (user, user_queue) = mpsc::channel(QUEUE);
    let (content, content_queue) = mpsc::channel(QUEUE);
    let (heads, heads_queue) = mpsc::channel(QUEUE);
    let writers = vec![
        tokio::spawn(link.clone().write_control(send, control_queue)),
        tokio::spawn(link.clone().write_class(Class::System, system_queue)),
        tokio::spawn(link.clone().write_class(Class::User, user_queue)),
        tokio::spawn(link.clone().write_class(Class::Content, content_queue)),
        tokio::spawn(link.clone().write_class(Class::Heads, heads_queue)),
    ];
    tokio::spawn(link.clone().read_control(recv));
    tokio::spawn(link.clone().accept_classes());
    tokio::spawn(link.clone().accept_gets());
    let queues = [control, system, user, content, heads];
    open.insert(session, Open { link, queues, writers, watchers, ended });
    Input::Opened { session, peer, initiator, plan }
}

/// Does what the node says. What comes back is an input that follows from it at once.
fn carry_out(
    output: Output,
    open: &mut BTreeMap<SessionId, Open>,
    objects: &Arc<OpenObjects>,
    planned: &mut Vec<Write>,
) -> Option<Input> {
    match output {
        Output::Send { session, class, frame } => {
            let Open { link, queues, .. } = open.get(&session)?;
            if class != Class::Control || link.waiting.admits(frame.len()) {
                match queues[class as usize].try_send(frame) {
                    Err(mpsc::error::TrySendError::Full(_)) => {}
                    // A writer that is gone has lost the connection: the reader says why.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return None,
                }
            }
            let reason = EndReason::ConnectionLost("the peer does not read what we send".into());
            Some(Input::Closed { session, reason })
        }
        Output::Apply { token, bytes, changes } => {
            planned.push((Whose::Node, token, bytes, changes));
            None
        }
        Output::OpenObject { id, size } => {
            objects.open(id, size);
            None
        }
        Output::FetchRange { session, request, id, size, groups } => {
            let Some(session) = open.get(&session) else {
                return Some(Input::RangeEnded { request, upto: groups.start, end: RangeEnd::BrokenOff });
            };
            let wanted = RangeRequest { id, size, groups };
            tokio::spawn(session.link.clone().fetch_range(request, wanted, objects.cuts(request)));
            None
        }
        Output::CutRange { request, end } => {
            objects.cut(request, end);
            None
        }
        Output::FinishObject { id } => {
            objects.finish(id);
            None
        }
        Output::CloseObject { id } => {
            objects.close(id);
            None
        }
        Output::Consumed { session, bytes } => {
            open.get(&session)?.link.credit.add_permits(bytes as usize);
            None
        }
        Output::Progress { session, report } => {
            if let Some(progress) = &open.get(&session)?.watchers.progress {
                progress.send_replace(Some(report));
            }
            None
        }
        Output::Live { session, start, caught_up } => {
            if let Some(stage) = &open.get(&session)?.watchers.stage {
                stage.send_modify(|stage| (stage.agreed, stage.caught_up) = (Some(start), caught_up));
            }
            None
        }
        // The loop tells the member.
        Output::Reaches { .. } => None,
        Output::Standing { session, standing } => {
            if let Some(stage) = &open.get(&session)?.watchers.stage {
                stage.send_modify(|stage| stage.standing = Some(standing));
            }
            None
        }
        Output::Ended { session, reason, report } => {
            let Open { link, queues, writers, watchers, ended } = open.remove(&session)?;
            drop((queues, watchers)); // the writers finish their streams
            link.credit.close(); // and the readers stop
            tracing::debug!(peer = %report.peer, %reason, "a session ended");
            tokio::spawn(async move {
                let (code, words) = last_words(&reason);
                if code != close::STORE_FAILED {
                    let all = async {
                        for writer in writers {
                            let _ = writer.await;
                        }
                    };
                    let _ = tokio::time::timeout(LAST_WORDS, all).await;
                }
                link.connection.close(code, &words);
                let _ = ended.send((reason, report));
            });
            None
        }
    }
}

/// Makes writes durable, all that wait in one round, in their order.
async fn write(
    store: Arc<Store>,
    mut to_write: mpsc::UnboundedReceiver<Vec<Write>>,
    written: mpsc::UnboundedSender<Applied>,
) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(more) = to_write.recv().await else { return };
            waiting.extend(more);
        }
        let (mut tokens, mut bytes, mut groups) = (Vec::new(), 0, Vec::new());
        while bytes < ROUND_BYTES {
            if waiting.is_empty()
                && let Ok(more) = to_write.try_recv()
            {
                waiting.extend(more);
            }
            let Some((whose, token, more, changes)) = waiting.pop_front() else { break };
            tokens.push((whose, token));
            bytes += more;
            groups.push(changes);
        }
        for ((whose, token), result) in tokens.into_iter().zip(store.apply_all(groups)) {
            if written.send((whose, token, result)).is_err() {
                return;
            }
        }
    }
}

/// What a peer is told when its connection is closed.
fn last_words(reason: &EndReason) -> (u32, String) {
    match reason {
        EndReason::Finished => (close::DONE, String::new()),
        EndReason::PeerMisbehaved(what) => (close::MISBEHAVED, format!("you broke the protocol: {what}")),
        EndReason::PeerStalled(_) => (close::SILENT, "you were silent for too long".into()),
        EndReason::StoreFailed(_) => (close::STORE_FAILED, "our store failed".into()),
        EndReason::ClocksApart { ours, theirs } => {
            let (ours, theirs) = (rfc3339(*ours), rfc3339(*theirs));
            (close::CLOCKS, format!("servers' clocks differ: yours shows {theirs}, ours {ours}"))
        }
        EndReason::Anew => (close::ANEW, "what is kept has changed: dial again".into()),
        _ => (close::DONE, String::new()),
    }
}

fn now(began: Instant) -> Now {
    Now { monotonic: began.elapsed(), wall: wall_clock() }
}

/// Milliseconds since 1970 UTC.
pub fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
