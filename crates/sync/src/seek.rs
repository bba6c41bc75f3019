//! What came to be wanted is asked of the session that brought its name, and, if it does not come from there, of all
//! others that are open: their peers may have had it all the time, and say nothing of it.

use std::collections::BTreeSet;

use madake_object::ObjectId;
use madake_store::{News, Read};

use crate::io::Now;
use crate::node::Node;
use crate::session::Session;

/// Contents that are remembered one by one.
const MAX_IDS: usize = 4_096;

/// What came to be wanted, and was not looked for in all sessions since.
#[derive(Default)]
pub(crate) struct Seeking {
    ids: BTreeSet<ObjectId>,
    /// There is more of it.
    more: bool,
    /// A session has nothing left to ask for, or is over.
    due: bool,
    /// Something was written: perhaps nobody is at it.
    look: bool,
}

impl Seeking {
    /// Takes in what became durable.
    pub(crate) fn learn(&mut self, news: &News) {
        self.ids.extend(news.wanted.iter().copied());
        self.ids.retain(|id| !news.contents.contains(id));
        self.more |= news.more_wanted || self.ids.len() > MAX_IDS;
        while self.ids.len() > MAX_IDS {
            self.ids.pop_last();
        }
        self.wrote();
    }

    /// What was written is dealt with.
    pub(crate) fn wrote(&mut self) {
        self.look = true;
    }

    /// A session may have given something up.
    pub(crate) fn gave_up(&mut self, gave_up: bool) {
        self.due |= gave_up;
    }

    /// What it is, by name; `None` if there is more of it than is remembered.
    pub(crate) fn named(&self) -> Option<&BTreeSet<ObjectId>> {
        (!self.more).then_some(&self.ids)
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && !self.more
    }
}

impl Session {
    /// Whether it may yet ask for what it brought the name of.
    fn may_ask(&self) -> bool {
        !self.receiving.is_settled()
            || self.live.applying > 0
            || self.live.look
            || self.live.look_at_all
            || self.live.look_later
    }
}

impl Node {
    /// Lets all sessions that stay open look for what did not come from the one that brought its name.
    pub(crate) fn seek(&mut self, now: Now, read: &dyn Read) {
        let (due, look) = (std::mem::take(&mut self.seeking.due), std::mem::take(&mut self.seeking.look));
        if self.seeking.is_empty() {
            return;
        }
        if !due && (!look || self.sessions.values().any(Session::may_ask)) {
            return; // whoever brought the name is at it
        }
        let Seeking { ids, more, .. } = std::mem::take(&mut self.seeking);
        let here = |id: &ObjectId| matches!(read.content_size(*id), Ok(Some(_)));
        let missing: Vec<ObjectId> = ids.into_iter().filter(|id| !here(id)).collect();
        if !more && missing.is_empty() {
            return;
        }
        self.quietly(now, read, |session, _| {
            match session.we_receive() {
                true if more => session.live.look_at_all = true,
                true => session.receiving.look_for(missing.iter().copied()),
                false => {}
            }
            Ok(())
        });
        self.follow_fetches(now, read);
    }
}
