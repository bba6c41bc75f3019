//! A session between two places, message by message, which may be cut at any of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use madake_log::{AuthenticEntry, Entry};
use madake_object::Object;
use madake_store::{NodeId, Store};

use crate::io::{CompareBy, Config, Input, Now, Output, Plan, Received, RefusedEntry, SessionId};
use crate::node::Node;
use crate::report::{EndReason, Report};
use crate::wire::{Message, WireEntry};

/// One end.
pub(super) struct End {
    pub(super) id: NodeId,
    pub(super) own: Vec<NodeId>,
    pub(super) store: Arc<Store>,
    /// It says nothing of forks.
    pub(super) mute: bool,
}

/// How it went, at each end.
pub(super) struct Went {
    pub(super) reasons: [EndReason; 2],
    pub(super) reports: Vec<Report>,
}

const SESSION: SessionId = SessionId(1);
/// Messages of one session at most.
const MOST: usize = 100_000;

/// Lets the first talk to the second, until both have ended, or so many messages were said. An error is what no node
/// may do.
pub(super) fn talk(ends: &[End; 2], compare_by: CompareBy, cut: Option<usize>) -> Result<Went, String> {
    let now = |at: Duration| Now { monotonic: at, wall: 1_700_000_000_000 };
    let mut at = Duration::ZERO;
    let mut nodes = ends.each_ref().map(|end| {
        let own = end.own.clone();
        Node::new(Config { node: end.id, own, keep_all: false, incarnation: (1, [0; 16]), compare_by })
    });
    for side in 0..2 {
        let (peer, initiator) = (ends[1 - side].id, side == 0);
        let input = Input::Opened { session: SESSION, peer, initiator, plan: Plan::BOTH_WAYS };
        nodes[side].handle(now(at), input, &*ends[side].store);
    }
    let mut inbox: [VecDeque<Option<Message>>; 2] = Default::default();
    let mut went: [Option<(EndReason, Report)>; 2] = [None, None];
    let (mut said, mut is_cut) = (0, false);
    loop {
        let mut quiet = true;
        for side in 0..2 {
            let (node, store) = (&mut nodes[side], &*ends[side].store);
            if let Some(message) = inbox[side].pop_front() {
                quiet = false;
                let lost = || EndReason::ConnectionLost("the connection was lost".into());
                let closed = || Input::Closed { session: SESSION, reason: lost() };
                node.handle(now(at), message.map_or_else(closed, arrived), store);
            }
            while let Some(output) = node.poll_output() {
                quiet = false;
                match output {
                    Output::Send { class, frame, .. } => {
                        let bytes = frame.len() as u64;
                        let message = frame.get(4..).map(Message::decode);
                        let Some(Ok(mut message)) = message else { return Err("what is no message".into()) };
                        said += 1;
                        let mut lost = ends[side].mute && matches!(message, Message::Fork(_));
                        if ends[side].mute
                            && let Message::Hello(hello) = &mut message
                        {
                            hello.capabilities &= !2;
                        }
                        lost |= is_cut;
                        if !lost {
                            inbox[1 - side].push_back(Some(message));
                        }
                        if cut == Some(said) {
                            // What was said before it may have come or not.
                            is_cut = true;
                            inbox.iter_mut().for_each(|inbox| inbox.push_back(None));
                        }
                        node.handle(now(at), Input::Sent { session: SESSION, class, bytes }, store);
                    }
                    Output::Apply { token, changes, .. } => {
                        let outcomes = store.apply(changes);
                        node.handle(now(at), Input::Applied { token, outcomes }, store);
                    }
                    Output::Ended { reason, report, .. } => {
                        inbox[1 - side].push_back(None);
                        went[side] = Some((reason, report));
                    }
                    Output::FetchRange { .. } | Output::OpenObject { .. } => {
                        return Err("a big object, of which there is none".into());
                    }
                    _ => {}
                }
            }
        }
        match went {
            [Some(one), Some(other)] => {
                return Ok(Went { reasons: [one.0, other.0], reports: vec![one.1, other.1] });
            }
            some => went = some,
        }
        if said > MOST {
            return Err(format!("{MOST} messages, and no end"));
        }
        if quiet {
            // Nobody says anything any more: the one who waits for longest gives up.
            let due = nodes.iter().filter_map(Node::poll_timeout).min();
            let Some(due) = due else { return Err("both wait, and for nothing".into()) };
            at = at.max(due);
            for side in 0..2 {
                nodes[side].handle(now(at), Input::Tick, &*ends[side].store);
            }
        }
    }
}

/// What the shell makes of a message before the node sees it.
fn arrived(message: Message) -> Input {
    let session = SESSION;
    match message {
        Message::Entries(entries) => {
            let check = |item: WireEntry| -> Result<Received, RefusedEntry> {
                let refused = |log, reason: &str| {
                    let id = blake3::hash(&item.entry).to_string();
                    RefusedEntry { log, id, reason: reason.into() }
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
        message => Input::Message { session, message, bytes: 0 },
    }
}
