//! Facts, as they are gathered: what is known, who said it and when, and what to type next.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId, Schema};
use madake_object::ObjectId;
use madake_store::{Fared, LastSession, Peer, Policy, Read as _, Trouble};
use madake_sync::Interest;
use serde_json::{Value, json};

use super::ApiError;
use crate::api::node::rfc3339;
use crate::home::Keep;
use crate::net::NodeId;
use crate::shell::Shell;

/// What of one kind is named one by one.
pub(super) const NAMED: usize = 10;

/// What is known of a target.
pub(super) struct Facts<'a> {
    pub(super) shell: &'a Shell,
    /// The peers, each with how the last session went.
    pub(super) peers: Vec<(Peer, Option<LastSession>)>,
    list: Vec<Value>,
    next: Option<String>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(shell: &'a Shell) -> Result<Self, ApiError> {
        let mut peers = Vec::new();
        for peer in shell.store().peers()? {
            let last = shell.store().last_session(peer.node)?;
            peers.push((peer, last));
        }
        Ok(Self { shell, peers, list: Vec::new(), next: None })
    }

    /// The facts, and the command that helps, if one does.
    pub(super) fn done(self) -> (Vec<Value>, Option<String>) {
        (self.list, self.next)
    }

    /// A fact: a word for programs, a sentence for people.
    pub(super) fn say(&mut self, fact: &str, text: impl Into<String>) {
        self.list.push(json!({"fact": fact, "text": text.into(), "peer": null, "at": null}));
    }

    /// A fact that comes of a session with a peer.
    pub(super) fn say_of(&mut self, fact: &str, text: impl Into<String>, peer: NodeId, at: Option<i64>) {
        let (peer, at) = (peer.to_string(), at.map(rfc3339));
        self.list.push(json!({"fact": fact, "text": text.into(), "peer": peer, "at": at}));
    }

    /// What to type next, unless something else has to come first.
    pub(super) fn next(&mut self, command: impl Into<String>) {
        self.next.get_or_insert(command.into());
    }

    /// The command that asks for what is missing: of the peer of whom a session ended in order last.
    pub(super) fn ask_next(&mut self) {
        let met = |(_, last): &&(Peer, Option<LastSession>)| {
            last.as_ref().map(|last| (last.failure.is_none(), last.ended))
        };
        let command = match self.peers.iter().max_by_key(met) {
            Some((peer, _)) => format!("madake pull {}", peer.name),
            None => {
                self.say("no-peers", "there is no peer to ask");
                "madake peer add TICKET".into()
            }
        };
        self.next(command);
    }

    /// What the last session with each peer told of the things that `about` picks, and of a thing that is not
    /// here (`wanted`), which peers were met without a word of it.
    pub(super) fn told(&mut self, wanted: bool, about: impl Fn(&Trouble) -> bool) {
        let mut said = Vec::new();
        for (peer, last) in &self.peers {
            let name = &peer.name;
            let Some(last) = last else {
                if wanted {
                    said.push(("not-met", format!("{name} was not met yet"), peer.node, None));
                }
                continue;
            };
            let mut silent = true;
            for trouble in last.told.about(&about).take(NAMED) {
                let Trouble { fate, what, id, reason } = trouble;
                let text = match fate {
                    Fared::Missing => format!("{name} was asked, and it did not come: {what} {id}: {reason}"),
                    Fared::Refused => format!("what {name} sent was refused: {what} {id}: {reason}"),
                    Fared::RefusedByPeer => format!("{name} did not take it: {what} {id}: {reason}"),
                };
                silent &= *fate == Fared::RefusedByPeer;
                said.push((fate.as_str(), text, peer.node, Some(last.ended)));
            }
            if let Some(failure) = last.failure.as_ref().filter(|_| wanted) {
                let text = format!("the last session with {name} did not end in order: {failure}");
                said.push(("last-session", text, peer.node, Some(last.ended)));
            } else if wanted && silent {
                let text = format!("the last session with {name} said nothing of it");
                said.push(("last-session", text, peer.node, Some(last.ended)));
            }
        }
        for (fact, text, peer, at) in said {
            self.say_of(fact, text, peer, at);
        }
    }

    /// Whether an author's logs are kept here, and why.
    pub(super) fn keeping(&mut self, author: AuthorId) -> Result<bool, ApiError> {
        let policy = self.shell.store().policy(author)?;
        let (kept, fact, text) = match policy {
            _ if self.shell.is_own(author) => (true, "own", "its key is in this home"),
            Some(Policy::Block) => {
                (false, "blocked", "the author is blocked here: nothing is taken or given on")
            }
            Some(Policy::Follow) => (true, "followed", "the author is followed"),
            None if self.shell.home.config.keep == Keep::All => {
                (true, "kept", "this node keeps everybody's logs (`keep = \"all\"` in config.toml)")
            }
            None => (false, "not-kept", "the author is not followed: nobody is asked for these logs"),
        };
        self.say(fact, text);
        if kept {
            self.quota(author)?;
        } else {
            self.next(format!("madake follow {author}"));
        }
        Ok(kept)
    }

    /// How much of an author may be kept, if that is limited.
    fn quota(&mut self, author: AuthorId) -> Result<(), ApiError> {
        let limits = self.shell.store().limits(author)?;
        if limits.is_none() {
            return Ok(());
        }
        let of = |limit: Option<u64>| limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        let Some(used) = self.shell.store().usage(author)? else { return Ok(()) };
        let (entries, bytes) = (of(limits.entries), of(limits.bytes));
        let text =
            format!("its quota: {}{entries} entries and {}{bytes} bytes are taken", used.entries, used.bytes);
        self.say("quota", text);
        if let Err(full) = limits.check(&used, 1, 0) {
            self.say("quota", full.to_string());
            self.next(format!("madake quota {author} --none"));
        }
        Ok(())
    }

    /// Whether a log is kept, if its author is, and what kind of log it is.
    pub(super) fn schema(&mut self, author: AuthorId, log: LogId) -> Result<bool, ApiError> {
        let store = self.shell.store();
        let schema = store.schema(author, log)?;
        let listed: BTreeSet<Schema> = store.kept_schemas()?.into_iter().collect();
        let schemas = (!listed.is_empty()).then_some(listed);
        let kept = Interest { authors: None, schemas }.wants_log(log, schema.as_ref());
        let name = match (log, &schema) {
            (LogId::COMMIT, _) => Some("commit".to_owned()),
            (_, Some(schema)) => Some(schema.to_string()),
            (log, None) if log.is_system() => None,
            (_, None) => {
                self.say("no-schema", "its author's control log, as far as it is here, says no schema of it");
                None
            }
        };
        if let Some(name) = &name {
            self.say("schema", format!("its schema is `{name}`"));
        }
        if !kept {
            let text = "only some schemas are kept (`madake interest list`), and its own is not among them";
            self.say("not-listed", text);
            match name {
                Some(name) => self.next(format!("madake interest add {name}")),
                None => self.next("madake interest all"),
            }
        }
        Ok(kept)
    }

    /// Whether an object is here, and else why not. Whether it is.
    pub(super) fn content(&mut self, id: ObjectId, what: &str) -> Result<bool, ApiError> {
        let store = self.shell.store();
        let (size, dropped) = (store.content_size(id)?, store.dropped(id)?);
        let wanted = store.wanted_for(id, NAMED)?;
        if let Some(size) = size {
            self.say("held", format!("{what} {id} is here, {size} bytes"));
            return Ok(true);
        }
        if let Some(dropped) = dropped {
            let when = rfc3339(dropped.at);
            let text =
                format!("{what} {id} was dropped by {} at {when}, and is not wanted again", dropped.by);
            self.say("dropped", text);
            return Ok(false);
        }
        for wanted in &wanted {
            let (size, by) = (wanted.size, wanted.by);
            self.say(
                "wanted",
                format!("{what} {id} is not here, and wanted: {by} names it, with {size} bytes"),
            );
        }
        if let Some(wanted) = wanted.first() {
            let at = wanted.by;
            if self.keeping(at.author)? && self.schema(at.author, at.log)? {
                let digits = id.to_string();
                self.told(true, |trouble| trouble.id == digits);
                self.ask_next();
            }
        }
        Ok(false)
    }
}
