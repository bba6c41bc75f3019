//! Who is told of what became durable: one place for all writers, and no queue that could grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use madake_log::{AuthenticEntry, AuthorId, LogId, SeqNum};
use madake_object::ObjectId;

use crate::cluster::{ClusterChange, ClusterFact};
use crate::outcome::{Change, ContentFate, Fate, Outcome, PayloadFate};
use crate::store::Store;
use crate::tables::Position;

/// Logs, or contents, that are told one by one; of more it is said only that there were more.
const MAX_NEWS: usize = 16_384;

/// What became durable since somebody last asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// Logs that grew: the first and the last of their new entries.
    pub grown: BTreeMap<(AuthorId, LogId), (SeqNum, SeqNum)>,
    /// Logs of whose forks more is known: a better proof, or other tips.
    pub forks: BTreeSet<(AuthorId, LogId)>,
    /// Contents that came, by themselves or with their entries.
    pub contents: BTreeSet<ObjectId>,
    /// There are more of these than are listed.
    pub more_contents: bool,
    /// Contents that came to be wanted and have not come with what names them.
    pub wanted: BTreeSet<ObjectId>,
    /// There are more of these than are listed.
    pub more_wanted: bool,
    /// Whose logs or which schemas are kept may be otherwise now.
    pub interest: bool,
    /// Peers were added, changed or removed.
    pub peers: bool,
    /// There may be room for more of some authors (quotas).
    pub room: bool,
    /// More logs grew than are listed here: whoever needs to know has to look at all.
    pub missed: bool,
}

/// Where news wait until somebody takes them. Nothing is lost: what does not fit is told as
/// [`News::missed`].
pub struct Listener {
    news: Mutex<News>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Those who listen.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<Listener>>>);

/// What a change is about, for when its outcome is known.
pub(crate) enum Topic {
    Entry(Position, ObjectId),
    /// The payloads of a part's entries, in order.
    Part(Vec<ObjectId>),
    Content(ObjectId),
    Interest,
    Peers,
    Room,
    Nothing,
}

impl News {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a list of changes is about.
    pub(crate) fn topics(changes: &[Change]) -> Vec<Topic> {
        let topic = |change: &Change| match change {
            Change::Entry { entry, .. } => {
                Topic::Entry(Position::of(entry), crate::ingest::payload_object(entry))
            }
            Change::Part(part) => {
                let payload = |entry: &AuthenticEntry| crate::ingest::payload_object(entry);
                Topic::Part(part.entries.iter().map(|(entry, _)| payload(entry)).collect())
            }
            Change::Content(object) => Topic::Content(object.id()),
            Change::Blob { id, .. } => Topic::Content(*id),
            // Both at once: of a new peer nothing is known that would have to be told apart.
            Change::Enter(_) | Change::Policy(..) | Change::KeepSchema(_) | Change::DropSchema(_) => {
                Topic::Interest
            }
            Change::Peer(_)
            | Change::Tie(..)
            | Change::Allow(..)
            | Change::Redeem { .. }
            | Change::ForgetPeer(_) => Topic::Peers,
            // Its logs are asked for from now on.
            Change::Cluster(ClusterChange::Writer(_)) => Topic::Interest,
            // Members are kept in touch with.
            Change::Cluster(ClusterChange::Fact(ClusterFact::Member | ClusterFact::Joining, _)) => {
                Topic::Peers
            }
            Change::Quota(..) | Change::Weigh(_) | Change::Freeze(_, None) => Topic::Room,
            _ => Topic::Nothing,
        };
        changes.iter().map(topic).collect()
    }

    /// Takes in what became of changes.
    pub(crate) fn learn(&mut self, topics: Vec<Topic>, outcomes: &[Outcome]) {
        let mut came = Vec::new();
        for (topic, outcome) in topics.into_iter().zip(outcomes) {
            match (topic, outcome) {
                (Topic::Entry(at, id), Outcome::Entry { fate, payload, .. }) => {
                    if *fate == Fate::Appended {
                        self.grew((at.author, at.log), (at.seq, at.seq));
                    }
                    // Also that of a new entry: another one may name it too.
                    if *payload == PayloadFate::Stored {
                        came.push(id);
                    }
                }
                (Topic::Content(id), Outcome::Content { fate: ContentFate::Stored, .. }) => came.push(id),
                // Nobody is told that the log grew: nobody is given any of it.
                (Topic::Part(ids), Outcome::Part(Ok(outcomes))) => {
                    for (id, outcome) in ids.into_iter().zip(outcomes) {
                        if matches!(outcome, Outcome::Entry { payload: PayloadFate::Stored, .. }) {
                            came.push(id);
                        }
                    }
                }
                (Topic::Interest, _) => self.interest = true,
                (Topic::Peers, _) => self.peers = true,
                (Topic::Room, _) => self.room = true,
                _ => {}
            }
        }
        self.all_came(came);
    }

    /// Takes in an entry that was signed here for what others brought.
    pub(crate) fn signed(&mut self, at: &Position) {
        self.grew((at.author, at.log), (at.seq, at.seq));
    }

    fn grew(&mut self, log: (AuthorId, LogId), (from, to): (SeqNum, SeqNum)) {
        if self.grown.len() >= MAX_NEWS && !self.grown.contains_key(&log) {
            self.missed = true;
            return;
        }
        let range = self.grown.entry(log).or_insert((from, to));
        *range = (range.0.min(from), range.1.max(to));
    }

    /// Takes in of which logs' forks more is known.
    pub(crate) fn forked(&mut self, logs: impl IntoIterator<Item = (AuthorId, LogId)>) {
        for log in logs {
            if self.forks.len() >= MAX_NEWS && !self.forks.contains(&log) {
                self.missed = true;
            } else {
                self.forks.insert(log);
            }
        }
    }

    /// Many at once cost less than one after the other.
    fn all_came(&mut self, ids: Vec<ObjectId>) {
        if self.contents.len() + ids.len() <= MAX_NEWS {
            self.contents.append(&mut ids.into_iter().collect());
        } else {
            ids.into_iter().for_each(|id| self.came(id));
        }
    }

    fn came(&mut self, id: ObjectId) {
        if self.contents.len() < MAX_NEWS {
            self.contents.insert(id);
        } else {
            self.more_contents |= !self.contents.contains(&id);
        }
    }

    /// Takes in what came to be wanted.
    pub(crate) fn want(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        for id in ids {
            if self.wanted.len() < MAX_NEWS {
                self.wanted.insert(id);
            } else {
                self.more_wanted |= !self.wanted.contains(&id);
            }
        }
    }

    fn add(&mut self, more: &News) {
        if self.is_empty() {
            return self.clone_from(more);
        }
        more.grown.iter().for_each(|(log, range)| self.grew(*log, *range));
        self.forked(more.forks.iter().copied());
        more.contents.iter().for_each(|id| self.came(*id));
        self.more_contents |= more.more_contents;
        self.want(more.wanted.iter().copied());
        self.more_wanted |= more.more_wanted;
        self.interest |= more.interest;
        self.peers |= more.peers;
        self.room |= more.room;
        self.missed |= more.missed;
    }
}

impl Listener {
    /// What happened since this was last called.
    pub fn take(&self) -> News {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({} logs)", self.lock().grown.len())
    }
}

impl Listeners {
    /// Tells all; called before the writers are told that their changes are durable.
    pub(crate) fn tell(&self, news: &News) {
        if news.is_empty() {
            return;
        }
        let listeners: Vec<Arc<Listener>> = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|listener| listener.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener.lock().add(news);
            (listener.wake)();
        }
    }
}

impl Store {
    /// Tells what becomes durable from now on, whoever writes it. `wake` is called after each round of writes
    /// with news, on the writer's thread, before the writers hear that their changes are durable: it must be
    /// quick, and take no news itself. When the listener is dropped it is told no more.
    pub fn listen(&self, wake: impl Fn() + Send + Sync + 'static) -> Arc<Listener> {
        let listener = Arc::new(Listener { news: Mutex::default(), wake: Box::new(wake) });
        let mut all = self.listeners.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::downgrade(&listener));
        listener
    }
}
