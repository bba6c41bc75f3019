//! What is known of each kind of thing.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId};
use madake_object::{Commit, CommitId, FileName, ObjectId};
use madake_store::{
    Allowed, Head, PartEntry, Position, Read as _, Verdict, Wanted, WantedSum, payload_object,
};

use super::ApiError;
use super::facts::{Facts, NAMED};
use crate::api::forks::Known;
use crate::net::NodeId;

/// Wanted things that are looked for in what sessions told.
const MATCHED: usize = 1_000;

impl Facts<'_> {
    pub(super) fn peer(&mut self, node: NodeId) -> Result<(), ApiError> {
        if node == self.shell.node() {
            self.say("own", "it is this node");
            return Ok(());
        }
        let found = self.peers.iter().find(|(peer, _)| peer.node == node).cloned();
        let Some((peer, last)) = found else {
            self.say("not-added", "it is no peer of this node: it is turned away, and not asked");
            self.next("madake peer add TICKET");
            return Ok(());
        };
        let name = &peer.name;
        self.say_of("added", format!("{name} was added, and may talk to this node"), node, Some(peer.added));
        match peer.addresses.as_slice() {
            [] => self.say("no-address", "no address of it is known: it has to come by itself"),
            addresses => self.say("addresses", format!("it is looked for at {}", addresses.join(" "))),
        }
        let Allowed { read, write } = self.shell.store().allowed(node)?;
        for (may, what) in [(read, "read"), (write, "write")] {
            if !may {
                self.say(
                    "not-allowed",
                    format!("it may not {what} here (`madake peer allow {name} --{what}`)"),
                );
            }
        }
        if self.shell.is_held_off(node) {
            self.say("held-off", "it broke the protocol a moment ago, and is turned away for a while");
        }
        let pull = format!("madake pull {name}");
        let Some(last) = last else {
            self.say("not-met", "there was no session with it yet");
            self.next(pull);
            return Ok(());
        };
        let (ended, rtt) = (Some(last.ended), last.rtt as f64 / 1000.0);
        let how = match &last.failure {
            None => format!("the last session ended in order; round trip {rtt:.1} ms"),
            Some(failure) => format!("the last session did not end in order: {failure}"),
        };
        self.say_of("last-session", how, node, ended);
        if let Some(difference) = last.clock_difference {
            self.say_of("clock", format!("its clock showed {difference} ms more than ours"), node, ended);
        }
        for sum in &last.told.missing {
            let text = format!("missing after it: {} of {}, {}", sum.count, sum.what, sum.reason);
            self.say_of("missing", text, node, ended);
        }
        for (fact, count, who) in [
            ("refused", last.told.refused, "this node"),
            ("refused-by-peer", last.told.refused_by_peer, name.as_str()),
        ] {
            if count > 0 {
                self.say_of(fact, format!("{who} refused {count}"), node, ended);
            }
        }
        for trouble in last.told.items.iter().take(NAMED) {
            let text = format!("{} {}: {}", trouble.what, trouble.id, trouble.reason);
            self.say_of(trouble.fate.as_str(), text, node, ended);
        }
        if last.failure.is_some() || !last.told.missing.is_empty() {
            self.next(pull);
        }
        Ok(())
    }

    pub(super) fn author(&mut self, author: AuthorId) -> Result<(), ApiError> {
        let kept = self.keeping(author)?;
        let logs = self.shell.store().logs_of(author)?;
        let entries = logs.iter().fold(0_u64, |sum, held| sum.saturating_add(held.head.seq.get()));
        let parts = self.shell.store().held_parts(Some(author))?.len();
        if parts > 0 {
            self.say(
                "partial",
                format!("{parts} logs are here in part (`madake log list` shows from where on)"),
            );
        }
        match logs.len() {
            0 if parts > 0 => {}
            0 => self.say("not-held", "no log of this author is here"),
            count => self.say("held", format!("{count} logs with {entries} entries are here")),
        }
        let missing = self.wants(|wanted| wanted.by.author == author)?;
        let (digits, of) = (author.to_string(), format!("{author}/"));
        let lacks = kept && (!missing.is_empty() || logs.is_empty() && parts == 0);
        self.told(lacks, |trouble| {
            trouble.id == digits || trouble.id.starts_with(&of) || missing.contains(&trouble.id)
        });
        if lacks && !self.shell.is_own(author) {
            self.ask_next();
        }
        Ok(())
    }

    pub(super) fn log(&mut self, author: AuthorId, log: LogId) -> Result<(), ApiError> {
        let store = self.shell.store();
        match store.log_head(author, log)? {
            Some(head) if head.end => {
                self.say("ended", format!("here as a whole: entry {} ends it", head.seq));
            }
            Some(head) => self.say("held", format!("here up to entry {}, {}", head.seq, head.entry)),
            None if store.part(author, log)?.is_some() => {}
            None => self.say("not-held", "nothing of this log is here"),
        }
        let (held, part) = (store.log_head(author, log)?, store.part(author, log)?);
        self.fork(author, log)?;
        if let Some(part) = part {
            let text = format!(
                "here in part: entries {} to {}, and older ones that tie them to the first; a pull without --last brings all",
                part.start, part.head.seq
            );
            self.say("partial", text);
        }
        let kept = self.keeping(author)? && self.schema(author, log)?;
        let missing = self.wants(|wanted| wanted.by.author == author && wanted.by.log == log)?;
        let (flawed, first) = self.shell.store().flaws_of(author, log, NAMED)?;
        if flawed > 0 {
            self.say("flaw", format!("{flawed} of its payloads do not count, though their entries are good"));
            first.iter().for_each(|(at, flaw)| self.say("flaw", format!("{at}: {flaw}")));
        }
        let (whole, of, digits) = (format!("{author}/{log}"), format!("{author}/{log}@"), author.to_string());
        let lacks = kept && (!missing.is_empty() || held.is_none() && part.is_none());
        self.told(lacks, |trouble| {
            let id = &trouble.id;
            *id == whole || *id == digits || id.starts_with(&of) || missing.contains(id)
        });
        let cut_short = self.peers.iter().filter_map(|(_, last)| last.as_ref()).any(|last| {
            last.told
                .about(|trouble| trouble.id == whole)
                .any(|trouble| trouble.reason.starts_with("cut-short"))
        });
        if (lacks || (kept && (cut_short || part.is_some()))) && !self.shell.is_own(author) {
            self.ask_next();
        }
        Ok(())
    }

    /// What is known of a log's fork, and what can be done about it.
    fn fork(&mut self, author: AuthorId, log: LogId) -> Result<(), ApiError> {
        let Some(known) = Known::of(self.shell, (author, log))? else { return Ok(()) };
        let Some(fork) = known.fork() else { return Ok(()) };
        let (proof, at, name) = (fork.proof.id(), fork.at(), format!("{author}/{log}"));
        let own = self.shell.is_own(author);
        if let Some(seen) = fork.seen {
            let (who, peer) = match seen.from {
                Some(node) => ("was told", node),
                None => ("was found here", self.shell.node()),
            };
            self.say_of("fork-seen", format!("its fork {who} first"), peer, Some(seen.at));
        }
        let tips = known.heads().len();
        match (&known.live, known.resolution()) {
            (Some(_), _) => {
                let text =
                    format!("forked at entry {at}: its author's key wrote {tips} histories; proof {proof}");
                self.say("forked", text);
                let command = if own { "resolve" } else { "show" };
                let keep = if own { " --keep ENTRY" } else { "" };
                if let Verdict::Contested(said) = &known.verdict {
                    let text =
                        format!("contested: {} statements of its author contradict each other", said.len());
                    self.say("contested", text);
                }
                if own {
                    self.next(format!("madake fork show {name}"));
                }
                self.next(format!("madake fork {command} {name}{keep}"));
            }
            (None, Some(said)) => {
                let text = format!(
                    "it was forked at entry {at}, and is resolved: entry {} {} and all below it stand, as its {} said",
                    said.kept.seq,
                    said.kept.entry,
                    said.by.as_str()
                );
                self.say("resolved", text);
                let dropped = known.dropped.as_ref().map_or(0, |dropped| dropped.entries);
                if dropped > 0 {
                    self.say("dropped", format!("{dropped} entries of other histories are kept beside it"));
                }
                self.next(format!("madake fork {} {name}", if own { "salvage" } else { "show" }));
            }
            (None, None) => {}
        }
        Ok(())
    }

    pub(super) fn entry(&mut self, at: Position) -> Result<(), ApiError> {
        let store = self.shell.store();
        let Some(PartEntry { entry, ties }) = self.shell.entry_at(&at)? else {
            match store.log_head(at.author, at.log)? {
                Some(head) if head.end => {
                    self.say("not-held", format!("there is none: entry {} ends the log", head.seq));
                    return Ok(());
                }
                Some(head) => self.say("not-held", format!("the log is here up to entry {}", head.seq)),
                None if store.part(at.author, at.log)?.is_some() => {}
                None => self.say("not-held", "nothing of its log is here"),
            }
            if let Some(part) = store.part(at.author, at.log)? {
                let (from, to) = (part.start, part.head.seq);
                let text = format!("its log is here in part: entries {from} to {to}, and not this one");
                self.say("partial", text);
            }
            let kept = self.keeping(at.author)? && self.schema(at.author, at.log)?;
            let (entry, log) = (at.to_string(), format!("{}/{}", at.author, at.log));
            self.told(kept, |trouble| trouble.id == entry || trouble.id == log);
            if kept && !self.shell.is_own(at.author) {
                self.ask_next();
            }
            return Ok(());
        };
        self.say("held", format!("here, {}", entry.id()));
        if ties {
            self.say("partial", "it only ties newer ones to the first: its payload is not wanted for it");
        }
        if entry.is_end() {
            self.say("ended", "it ends its log");
        }
        if let Some(flaw) = self.shell.store().flaw(&at)? {
            self.say("flaw", format!("its payload does not count: {flaw}"));
        }
        let payload = payload_object(&entry);
        if self.content(payload, "its payload")? && at.log == LogId::COMMIT {
            self.linked(CommitId::new(*payload.as_bytes()))?;
        }
        let entry = at.to_string();
        self.told(false, |trouble| trouble.id == entry);
        Ok(())
    }

    pub(super) fn commit(&mut self, commit: CommitId) -> Result<(), ApiError> {
        for (author, seq, _) in self.shell.store().carriers_of(commit, NAMED)? {
            self.say("counts", format!("it counts by {author}/{}@{seq}", LogId::COMMIT));
        }
        self.linked(commit)
    }

    /// The file of a commit that counts.
    fn linked(&mut self, id: CommitId) -> Result<(), ApiError> {
        let Some(commit) = self.shell.store().find_commit(id)? else {
            self.content(id.as_object(), "the commit")?;
            return Ok(());
        };
        self.say("names", format!("a version of {}", commit.name.as_str()));
        self.file_of(id, &commit)
    }

    /// Whether the file of a version is here, and else why not.
    fn file_of(&mut self, id: CommitId, commit: &Commit) -> Result<(), ApiError> {
        let here = self.content(commit.object, "its file")?;
        let store = self.shell.store();
        if here || store.dropped(commit.object)?.is_some() || !store.wanted_for(commit.object, 1)?.is_empty()
        {
            return Ok(());
        }
        let mut kept = false;
        for (author, seq, _) in store.carriers_of(id, NAMED)? {
            kept |= store.keeps_version(author, &commit.name, seq)?;
            if store.is_over(&Position { author, log: LogId::COMMIT, seq })? {
                let (file, size) = (commit.object, commit.size);
                let text =
                    format!("its file {file} is not here: its {size} bytes are over the quota of {author}");
                self.say("quota", text);
                self.next(format!("madake quota {author} --none"));
            }
        }
        if !kept {
            let setting = store.objects()?.as_str();
            let text = format!(
                "its file {} is not here, and not wanted: which are kept is set to `{setting}`",
                commit.object
            );
            self.say("not-kept", text);
            self.next("madake interest --objects all");
        }
        Ok(())
    }

    pub(super) fn object(&mut self, id: ObjectId) -> Result<(), ApiError> {
        let here = self.content(id, "the object")?;
        let store = self.shell.store();
        if here && store.is_pinned(id)? {
            self.say("pinned", "it is kept for its own sake: it was put here (`madake unput` ends that)");
        }
        let commits = store.commits_of(id, NAMED)?;
        for (commit, size) in &commits {
            let name = store.find_commit(*commit)?.map(|commit| commit.name);
            let of = name.map_or_else(String::new, |name| format!(", a version of {}", name.as_str()));
            self.say("named", format!("commit {commit} has it as its file, with {size} bytes{of}"));
        }
        if !here
            && let Some((id, _)) = commits.first()
            && let Some(commit) = store.find_commit(*id)?
            && store.wanted_for(commit.object, 1)?.is_empty()
            && store.dropped(commit.object)?.is_none()
        {
            return self.file_of(*id, &commit);
        }
        if here && commits.is_empty() && store.named_by(id)?.is_some() {
            self.say("named", "an entry has it as its payload");
        }
        Ok(())
    }

    pub(super) fn head(&mut self, head: &Head) -> Result<(), ApiError> {
        let Head { author, name, commit, generation, .. } = head;
        let text = format!("version {generation} of {} of {author}, commit {commit}", name.as_str());
        self.say("newest", text);
        self.linked(*commit)?;
        let log = format!("{author}/{}", LogId::COMMIT);
        self.told(false, |trouble| trouble.id == log || trouble.id.starts_with(&format!("{log}@")));
        Ok(())
    }

    pub(super) fn no_name(&mut self, name: &FileName) -> Result<(), ApiError> {
        self.say("not-held", format!("no version of `{}` is known here", name.as_str()));
        let missing = self.wants(|wanted| wanted.by.log == LogId::COMMIT)?;
        if !missing.is_empty() {
            self.say("hidden", "what is missing of commit logs may hide it");
        }
        let (log, entry) = (format!("/{}", LogId::COMMIT), format!("/{}@", LogId::COMMIT));
        self.told(true, |trouble| {
            let id = &trouble.id;
            id.ends_with(&log) || id.contains(&entry) || missing.contains(id)
        });
        self.ask_next();
        Ok(())
    }

    pub(super) fn unknown(&mut self) {
        self.say(
            "unknown",
            "no author, peer, entry, commit or object with this id is known here, nor named by one",
        );
        self.say("unknown", "of an author who is not followed nothing comes, and nobody is asked");
        self.next("madake follow AUTHOR");
    }

    /// Says what of some logs is wanted and not here, if anything; the ids of the first of them.
    fn wants(&mut self, about: impl Fn(&Wanted) -> bool) -> Result<BTreeSet<String>, ApiError> {
        let WantedSum { objects, bytes, first } = self.shell.store().sum_wanted(MATCHED, about)?;
        if objects > 0 {
            let text = format!("{objects} payloads and files of it are not here, and wanted: {bytes} bytes");
            self.say("wanted", text);
        }
        for wanted in first.iter().take(NAMED) {
            self.say("wanted", format!("{}, {} bytes, named by {}", wanted.id, wanted.size, wanted.by));
        }
        Ok(first.into_iter().map(|wanted| wanted.id.to_string()).collect())
    }
}
