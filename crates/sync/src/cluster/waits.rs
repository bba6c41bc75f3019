//! Questions and heads that wait for something to come: bounded, and never for safety's sake.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madake_object::{FileName, ObjectId};
use madake_store::{News, NodeId};

use crate::heads::{Body, ClusterId, Config, Look, Need, Packet, Question, StoreEpoch, batches};
use crate::io::Now;

/// Questions that are kept.
const MAX_QUESTIONS: usize = 2_048;
/// For how long: who asked asks again, and gives up in the end.
const KEPT: Duration = Duration::from_secs(10);
/// Names whose decided head is not all here are looked at so often, also if nothing was heard of them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Names that are looked at then.
const MAX_LOOKED: usize = 1_024;

/// About which name who asked.
type Asked = (FileName, NodeId);

/// What can't be answered yet.
#[derive(Clone, Debug)]
struct Kept {
    cluster: ClusterId,
    store: StoreEpoch,
    epoch: u64,
    question: Question,
    until: Duration,
    /// The content that has to come first; `None` if only an entry is missing.
    content: Option<ObjectId>,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    questions: BTreeMap<Asked, Kept>,
    /// Which questions wait for which content, and which only for an entry.
    questions_by_content: BTreeMap<Option<ObjectId>, BTreeSet<Asked>>,
    /// Names whose decided head is not all here, and who told of it.
    names: BTreeMap<FileName, NodeId>,
    /// Which names wait for which content.
    by_content: BTreeMap<ObjectId, BTreeSet<FileName>>,
    look: Option<Duration>,
    /// The name after which the next look begins.
    looked: Option<FileName>,
}

/// What may be answered, or shown, now.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) questions: Vec<(NodeId, Packet)>,
    pub(super) names: Vec<(FileName, NodeId)>,
}

impl Waits {
    /// Keeps the questions of a member's packet that ask to accept what is not here.
    pub(super) fn keep(
        &mut self,
        now: Now,
        from: NodeId,
        packet: &Packet,
        config: &Config,
        look: &impl Look,
    ) {
        let Body::Questions(questions) = &packet.body else { return };
        if !config.votes(&from, packet.store) || packet.epoch != config.epoch {
            return;
        }
        let late = self.questions.iter().filter(|(_, kept)| kept.until <= now.monotonic);
        let late: Vec<Asked> = late.map(|(asked, _)| asked.clone()).collect();
        late.iter().for_each(|asked| drop(self.give_up(asked)));
        for question in questions.iter() {
            let Question::Accept { name, value, need, .. } = question else { continue };
            let missing = value.head.map_or_else(Vec::new, |head| look.missing(&head, need));
            // Of one member the newest question about a name counts.
            let asked = (name.clone(), from);
            self.give_up(&asked);
            if !missing.is_empty() && self.questions.len() < MAX_QUESTIONS {
                let (cluster, store, epoch) = (packet.cluster, packet.store, packet.epoch);
                let (question, until, content) =
                    (question.clone(), now.monotonic + KEPT, content_of(&missing));
                self.wait(asked, Kept { cluster, store, epoch, question, until, content });
            }
        }
    }

    fn wait(&mut self, asked: Asked, kept: Kept) {
        self.questions_by_content.entry(kept.content).or_default().insert(asked.clone());
        self.questions.insert(asked, kept);
    }

    fn give_up(&mut self, asked: &Asked) -> Option<Kept> {
        let kept = self.questions.remove(asked)?;
        if let Some(waiting) = self.questions_by_content.get_mut(&kept.content) {
            waiting.remove(asked);
            if waiting.is_empty() {
                self.questions_by_content.remove(&kept.content);
            }
        }
        Some(kept)
    }

    /// Something was decided, and not all of it is here.
    pub(super) fn want(&mut self, now: Now, name: FileName, need: Vec<Need>, from: NodeId) {
        for need in need {
            let id = match need {
                Need::Commit(id) => id.as_object(),
                Need::Object(id) => id,
                // It comes with its commit, or is looked for again.
                Need::Entry(_) => continue,
            };
            self.by_content.entry(id).or_default().insert(name.clone());
        }
        self.names.insert(name, from);
        self.look.get_or_insert(now.monotonic + LOOK_AGAIN);
    }

    /// What may have come with these news.
    pub(super) fn ready(&mut self, now: Now, news: &News, look: &impl Look) -> Ready {
        let mut ready = Ready::default();
        if news.contents.is_empty() && !news.more_contents && news.grown.is_empty() {
            return ready;
        }
        let mut questions: BTreeMap<(NodeId, ClusterId, StoreEpoch, u64), Vec<Question>> = BTreeMap::new();
        let of = |content: Option<ObjectId>| self.questions_by_content.get(&content).into_iter().flatten();
        let come: Vec<Asked> = match news.more_contents {
            true => self.questions.keys().cloned().collect(),
            false => news.contents.iter().flat_map(|id| of(Some(*id))).chain(of(None)).cloned().collect(),
        };
        for asked in come {
            let Some(mut kept) = self.give_up(&asked) else { continue };
            let Question::Accept { value, need, .. } = &kept.question else { continue };
            if kept.until <= now.monotonic {
                continue;
            }
            let missing = value.head.map_or_else(Vec::new, |head| look.missing(&head, need));
            if !missing.is_empty() {
                kept.content = content_of(&missing);
                self.wait(asked, kept);
                continue;
            }
            let of = (asked.1, kept.cluster, kept.store, kept.epoch);
            questions.entry(of).or_default().push(kept.question);
        }
        // What came together is answered together: with one write.
        for ((from, cluster, store, epoch), questions) in questions {
            for questions in batches(questions) {
                let packet = Packet { cluster, store, epoch, body: Body::Questions(questions) };
                ready.questions.push((from, packet));
            }
        }
        let mut names = BTreeSet::new();
        for id in &news.contents {
            names.extend(self.by_content.remove(id).into_iter().flatten());
        }
        ready.names.extend(names.into_iter().filter_map(|name| self.take(name)));
        ready
    }

    /// Names to be looked at because it is time to.
    pub(super) fn again(&mut self, now: Now) -> Vec<(FileName, NodeId)> {
        if self.look.is_none_or(|at| at > now.monotonic) {
            return Vec::new();
        }
        self.look = (!self.names.is_empty()).then(|| now.monotonic + LOOK_AGAIN);
        let after = |name: &FileName| self.looked.as_ref().is_none_or(|looked| name > looked);
        let names: Vec<FileName> =
            self.names.keys().filter(|name| after(name)).take(MAX_LOOKED).cloned().collect();
        self.looked = names.last().filter(|_| names.len() == MAX_LOOKED).cloned();
        names.into_iter().filter_map(|name| self.take(name)).collect()
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.look.filter(|_| !self.names.is_empty())
    }

    fn take(&mut self, name: FileName) -> Option<(FileName, NodeId)> {
        let from = self.names.remove(&name)?;
        Some((name, from))
    }
}

/// The first content among what is missing: an entry comes with that of its commit, or when its log grows.
fn content_of(missing: &[Need]) -> Option<ObjectId> {
    missing.iter().find_map(|need| match need {
        Need::Commit(id) => Some(id.as_object()),
        Need::Object(id) => Some(*id),
        Need::Entry(_) => None,
    })
}
