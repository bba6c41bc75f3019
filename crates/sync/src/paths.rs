//! The giving half of what is said of forked logs: the entries of a path, from where it leaves what the asker holds.

use madake_log::{AuthorId, EntryId, LogId, SeqNum};
use madake_store::{Position, Read, SEQ_LIMIT, StoreError, Tip, tag};

use crate::node::{Context, Failure};
use crate::report::Report;
use crate::serve::{FRAME_TARGET, page, to_send};
use crate::session::Session;
use crate::wire::{INLINE_PAYLOAD, MAX_ITEMS_FRAME, WantBranch, WireEntry, are_in_order, ladder};

impl Session {
    /// The peer asks for a path.
    pub(crate) fn on_want_branch(
        &mut self,
        context: &mut Context<'_>,
        want: WantBranch,
    ) -> Result<(), Failure> {
        let fits = want.height < SEQ_LIMIT
            && want.tip.seq.get() < SEQ_LIMIT
            && want.tags.len() <= ladder(want.height).len()
            && are_in_order(&want.tips);
        if !fits {
            return Err(Failure::Peer("a request for a branch that does not fit itself".into()));
        }
        let log = (want.author, want.log);
        let gives = !self.plan.dry_run && self.gives_log(context.read, log)?;
        let from = if gives { first_lacking(context.read, &want)? } else { None };
        Ok(self.serving.want_branch(want.id, log, want.tip, from)?)
    }
}

/// Takes entries of a path until a frame is full; where it goes on then, or `None` at its end.
pub(crate) fn next_of_path(
    log: (AuthorId, LogId),
    tip: Tip,
    from: &mut Option<SeqNum>,
    read: &dyn Read,
    report: &mut Report,
) -> Vec<WireEntry> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(first) = *from {
        let limit = page(items.len(), bytes);
        let entries = read.branch_entries_with_payloads(log, tip, first, limit, INLINE_PAYLOAD);
        let entries = entries.unwrap_or_else(|error| {
            report.damage(format!("{}/{}@{first}: {error}", log.0, log.1));
            Vec::new()
        });
        *from = None; // unless there is more
        for (entry, payload) in entries {
            if bytes >= FRAME_TARGET || items.len() >= MAX_ITEMS_FRAME {
                *from = Some(entry.seq());
                return items;
            }
            items.push(to_send(&entry, payload, &mut bytes, report));
            *from = entry.seq().next().filter(|next| *next <= tip.seq);
        }
    }
    items
}

/// The first place of a path at which the asker does not hold the path's entry, as far as its tips and tags show; `None` if
/// the path is not here, or the asker has all of it. Costs some ten looks at the path, whatever is claimed.
fn first_lacking(read: &dyn Read, want: &WantBranch) -> Result<Option<SeqNum>, StoreError> {
    let (log, tip) = ((want.author, want.log), want.tip);
    if !read.holds(&Position { author: log.0, log: log.1, seq: tip.seq }, tip.entry)? {
        return Ok(None);
    }
    let on_path = |seq: SeqNum| -> Result<Option<EntryId>, StoreError> {
        let entry = read.branch_entries(log, tip, seq, 1)?.into_iter().next();
        Ok(entry.filter(|entry| entry.seq() == seq).map(|entry| entry.id()))
    };
    let rungs = ladder(want.height).into_iter().zip(want.tags.iter());
    let rungs: Vec<_> = rungs.take_while(|(seq, _)| *seq <= tip.seq).collect();
    // Trunks are the same up to some place, and differ above.
    let (mut low, mut high, mut common) = (0, rungs.len(), None);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some((seq, theirs)) = rungs.get(middle) else { break };
        if on_path(*seq)?.is_some_and(|id| tag(&id) == **theirs) {
            (low, common) = (middle + 1, Some(*seq));
        } else {
            high = middle;
        }
    }
    let better = want.tips.iter().rev().filter(|held| held.seq <= tip.seq && Some(held.seq) > common);
    for held in better {
        if on_path(held.seq)? == Some(held.entry) {
            common = Some(held.seq);
            break;
        }
    }
    let from = common.map_or(Some(SeqNum::FIRST), SeqNum::next);
    Ok(from.filter(|from| *from <= tip.seq))
}
