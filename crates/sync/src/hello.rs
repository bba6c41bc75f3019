//! How a session begins: Hello and scope, and what follows from the dialler's clock.

use madake_log::Schema;
use madake_store::{PeerStore, StoreError};

use crate::Bounded;
use crate::compare::{Comparing, Held};
use crate::interest::Interest;
use crate::node::{Context, Failure};
use crate::preview::DRY_RUN;
use crate::report::PeerHistory;
use crate::session::{Session, Theirs};
use crate::summary::{Comparison, clock_frames, compare_all, offer_frames};
use crate::wire::{Clock, Hello, MAX_SCOPE, Message, PROTOCOL, Refusal, Scope, ScopeKind, What};

/// The way to compare summaries that every node knows: all heights, with tags.
pub(crate) const FULL_CLOCK: u8 = 0;
/// By digests and cells.
pub(crate) const BY_CELLS: u8 = 1;

impl Session {
    pub(crate) fn on_hello(&mut self, context: &mut Context<'_>, hello: Hello) -> Result<(), Failure> {
        if hello.protocol != PROTOCOL {
            return Err(Failure::Peer(format!("it speaks protocol {}, we speak {PROTOCOL}", hello.protocol)));
        }
        if hello.node != self.peer {
            return Err(Failure::Peer(format!("it says it is {}, and its key is {}", hello.node, self.peer)));
        }
        let ascending = |schemas: &Bounded<Schema, _>| schemas.windows(2).all(|pair| pair[0] < pair[1]);
        if !hello.schemas.as_ref().is_none_or(ascending) {
            return Err(Failure::Peer("schemas that are not in order".into()));
        }
        if !hello.methods.contains(&FULL_CLOCK) {
            return Err(Failure::Peer("it knows no way to compare summaries that we know".into()));
        }
        // The first of the dialler's that the other side names too.
        let (ours, theirs) = (&self.methods, &hello.methods);
        let (first, second) =
            if self.initiator { (&ours[..], &theirs[..]) } else { (&theirs[..], &ours[..]) };
        self.by_cells = first.iter().find(|method| second.contains(method)) == Some(&BY_CELLS);
        // Whoever is dialled has no say in it: else a peer could hide what it does not give.
        self.report.dry_run |= !self.initiator && hello.capabilities & DRY_RUN != 0;
        let said = PeerStore {
            epoch: hello.epoch,
            generation: hello.generation,
            incarnation: hello.incarnation,
            rolled_back: None,
        };
        let history = PeerHistory::of(self.known.as_ref(), &said);
        self.report.peer_store = Some((said, history));
        self.check_clocks(context.now.wall, hello.clock)?;
        let wanted = match hello.scope {
            ScopeKind::All => 0,
            ScopeKind::Listed(count) if count as usize > MAX_SCOPE => {
                return Err(Failure::Peer(format!("a scope of {count} authors; the limit is {MAX_SCOPE}")));
            }
            ScopeKind::Listed(count) => count,
        };
        self.hello = Some(hello);
        if wanted == 0 { self.on_ready(context) } else { Ok(()) }
    }

    pub(crate) fn on_scope(&mut self, context: &mut Context<'_>, scope: Scope) -> Result<(), Failure> {
        let Some(Hello { scope: ScopeKind::Listed(count), .. }) = self.hello else {
            return Err(Failure::Peer("a scope where none was announced".into()));
        };
        if scope.authors.is_empty() {
            return Err(Failure::Peer("an empty part of a scope".into()));
        }
        for author in scope.authors {
            if self.scope_so_far.last().is_some_and(|last| *last >= author) {
                return Err(Failure::Peer("a scope that is not in order".into()));
            }
            self.scope_so_far.insert(author);
        }
        match self.scope_so_far.len().cmp(&(count as usize)) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => self.on_ready(context),
            std::cmp::Ordering::Greater => Err(Failure::Peer("more authors than announced".into())),
        }
    }

    /// The peer's Hello and scope are complete.
    fn on_ready(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(hello) = self.hello.take() else { return Ok(()) };
        let authors = match hello.scope {
            ScopeKind::All => None,
            ScopeKind::Listed(_) => Some(std::mem::take(&mut self.scope_so_far)),
        };
        let schemas = hello.schemas.as_ref().map(|schemas| schemas.iter().cloned().collect());
        let interest = Interest { authors, schemas };
        self.theirs = Some(Theirs { interest, receives: hello.receives, gives: hello.gives });
        self.report.whole = self.we_receive()
            && self.plan.schemas.is_none()
            && self.plan.last.is_none()
            && !self.report.dry_run;
        self.forks.agreed = self.understands_forks(&hello);
        self.agree(context, &hello)?;
        self.report.rounds += 1;
        if !self.initiator {
            return Ok(());
        }
        self.begin_comparing(context)?;
        if self.we_give() && !self.plan.receives {
            self.tell_unwanted(context)?;
        }
        Ok(())
    }

    /// Who begins tells all that it has.
    pub(crate) fn send_clock(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let (we_receive, we_give) = (self.we_receive(), self.we_give() && !self.live.asks);
        let theirs = self.theirs.as_ref().map(|theirs| &theirs.interest).filter(|_| we_give);
        let ours = Some(&self.interest).filter(|_| we_receive);
        let interests: Vec<&Interest> = ours.into_iter().chain(theirs).collect();
        // What this session is about is what the plan names, whoever would want more.
        let frames = if interests.is_empty() {
            vec![Clock { authors: Bounded::default(), last: true }]
        } else {
            let (frames, rows) =
                clock_frames(context.read, &interests, &self.plan.schemas, self.forks.agreed)?;
            context.charge(self.peer, rows);
            frames
        };
        for frame in frames {
            self.tell(context, &Message::Clock(frame));
        }
        self.report.rounds += 1;
        self.all_told(context);
        Ok(())
    }

    /// Who began has told all that it is asked: what comes is the offer, if anything is to come.
    pub(crate) fn all_told(&mut self, context: &mut Context<'_>) {
        self.comparing = Comparing::Clock;
        if !self.we_receive() {
            self.skip_receiving(context);
        }
    }

    /// A part of the dialler's clock: all of it, or what was asked about.
    pub(crate) fn on_clock_part(&mut self, context: &mut Context<'_>, clock: Clock) -> Result<(), Failure> {
        if clock.authors.is_empty() && !clock.last {
            return Err(Failure::Peer("an empty part of a summary".into()));
        }
        let explains = matches!(self.comparing, Comparing::Explaining(_));
        if !explains {
            self.comparing = Comparing::Clock;
        }
        for told in clock.authors.iter() {
            for log in told.logs.iter() {
                if !self.may_be_told(told.author, log.log) {
                    let what = format!("it tells of {}/{}, which nobody asked about", told.author, log.log);
                    return Err(Failure::Peer(what));
                }
            }
        }
        self.clock.extend(clock.authors)?;
        match (clock.last, explains) {
            (false, _) => Ok(()),
            (true, true) => self.settle(context),
            (true, false) if self.waits_its_turn(context, Held::Clock) => {
                self.comparing = Comparing::Settled; // nothing more of it may come meanwhile
                Ok(())
            }
            (true, false) => self.on_clock(context),
        }
    }

    /// Who pushes expects to give what is his own: say so if the peer keeps none of it.
    fn tell_unwanted(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let Some(theirs) = &self.theirs else { return Ok(()) };
        for author in &self.own {
            if theirs.interest.wants_author(author) || context.read.logs_of(*author)?.is_empty() {
                continue;
            }
            let reason = "not-followed: the peer does not keep the logs of this author".into();
            let refusal = Refusal { what: What::Author, id: author.to_string(), reason };
            self.report.refused_by_peer += 1;
            self.report.refusals_by_peer.push(refusal);
        }
        Ok(())
    }

    /// The initiator's clock is complete: offer what it lacks, and ask for what we lack (B8).
    pub(crate) fn on_clock(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.live.compared();
        if self.we_give()
            && let Some(theirs) = &self.theirs
        {
            let manner = self.manner(true);
            let found = compare_all(&self.clock, &theirs.interest, context.read, manner)?;
            context.charge(self.peer, found.looked_at);
            self.offer(context, found)?;
        }
        self.settle(context)
    }

    /// Tells the dialler what it lacks, and notes what has diverged.
    pub(crate) fn offer(&mut self, context: &mut Context<'_>, found: Comparison) -> Result<(), Failure> {
        for (author, log) in found.diverged {
            if self.forks.agreed {
                self.clock.forget(&(author, log));
                self.ask_of_fork(context, (author, log))?;
                continue;
            }
            if !self.told_diverged.insert((author, log)) {
                continue;
            }
            let reason = "diverged: the peer has another entry at a height that we have too".into();
            self.report.refuse(What::Log, format!("{author}/{log}"), reason);
        }
        for frame in offer_frames(found.offer, found.totals) {
            self.tell(context, &Message::Offer(frame));
        }
        Ok(())
    }

    /// All of the dialler's summary is here.
    pub(crate) fn settle(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.comparing = Comparing::Settled;
        if self.we_receive() {
            self.start_receiving(context)?;
        } else {
            self.skip_receiving(context);
        }
        Ok(())
    }
}
