//! The rules: each a struct with a name and a sentence. They look at what nodes say, write and hold, from
//! outside, and say in words what was broken.

mod forks;
mod keeping;
mod live;
mod lost;
mod memory;
mod partial;
mod session;
mod telling;

use std::time::Duration;

pub(super) use forks::{ForksMeet, NeverMarked, ResolutionsEnd, for_each_fork};
pub(super) use keeping::{CollectsNameless, DroppedStays, WholeBatches};
pub(super) use live::Pushing;
pub(super) use memory::{AcknowledgedStays, Impossible, Memory, Note};
pub(super) use partial::PartialStays;
pub(super) use session::{
    Bounded, CreditReturns, DoneIsTrue, NoneStuck, Scope, Serving, Watched, schema_wanted,
};
pub(super) use telling::{Genuine, HeadsGrow, ToldIsDurable};

/// Something that must hold.
pub(super) trait Rule {
    /// A short name.
    const NAME: &'static str;
    /// What must hold.
    const SENTENCE: &'static str;
}

/// A rule that was broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// What must hold.
    pub sentence: &'static str,
    /// What was found instead.
    pub what: String,
    /// When, since the world began.
    pub at: Duration,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rule, sentence, what, at } = self;
        write!(f, "{rule}: {sentence}. After {:.3} s: {what}", at.as_secs_f64())
    }
}

/// A start is told from all before it.
pub(super) struct StartsDiffer;
/// A store opens after whatever happened to it.
pub(super) struct OpensAgain;
/// Without faults every session finishes.
pub(super) struct CalmFinishes;
/// All who keep an author and can reach each other come to hold the same.
pub(super) struct Converges;
/// Where sessions stay open, that happens without anybody asking for it.
pub(super) struct LiveConverges;
/// What is the same already does not travel again.
pub(super) struct SecondIsNothing;
/// What was checked does not come again.
pub(super) struct NotTwice;
/// One peer's failure is not the transfer's.
pub(super) struct OthersComplete;
/// Nobody is said to have an older state of its store who has not.
pub(super) struct NoneAccused;
/// Quotas hold.
pub(super) struct WithinQuotas;
/// Nothing panics.
pub(super) struct NoPanic;

macro_rules! rules {
    ($($rule:ident $name:literal $sentence:literal)*) => {
        $(impl Rule for $rule {
            const NAME: &'static str = $name;
            const SENTENCE: &'static str = $sentence;
        })*
        /// All rules: names and sentences.
        pub const RULES: &[(&str, &str)] = &[$(($name, $sentence)),*];
    };
}

rules! {
    AcknowledgedStays "acknowledged-stays"
        "what a store has acknowledged is there after every crash, unless its owner gave it up since"
    WholeBatches "whole-batches"
        "the rows of a batch are there all or none: logs, statements, wants and objects agree with each other"
    ToldIsDurable "told-is-durable"
        "a node tells nobody what a power cut could still take away"
    HeadsGrow "heads-grow"
        "a log's head, as a node tells it, never goes back and never changes"
    PartialStays "partial-stays"
        "a log that is held in part is not offered, and nobody is given any of it"
    Genuine "genuine"
        "nobody holds what its author did not write, at the place where the author wrote it"
    Scope "scope"
        "a node stores only what its policies, and the session's schemas or the listed ones, want"
    Serving "serving"
        "a node gives only to a session that may have it, only what was asked for, and only what logs name"
    DoneIsTrue "done-is-true"
        "Done is said when all that was asked for is answered and durable, and counts what is"
    CreditReturns "credit-returns"
        "what a session reads is given back when it is dealt with, and never more"
    Bounded "bounded"
        "queues, requests and bytes under way stay within their bounds"
    NoneStuck "none-stuck"
        "a session that hears nothing and has no work ends in time"
    StartsDiffer "starts-differ"
        "each start of a node has another incarnation, with a higher number"
    OpensAgain "opens-again"
        "a store opens after every crash and failure, once its disk works"
    CalmFinishes "calm-finishes"
        "when the faults have ended, every session finishes"
    Converges "converges"
        "when the faults have ended, nobody lacks what they keep and what somebody whom they reach has"
    DroppedStays "dropped-stays"
        "what an owner has dropped is gone and not asked for, until the owner writes or puts it again"
    CollectsNameless "collects-nameless"
        "a collection takes all that nothing names and the logs of blocked authors, and nothing else"
    LiveConverges "live-converges"
        "when the faults have ended, all who keep sessions open come to hold the same, and nobody asks for it"
    Pushing "pushing"
        "what is pushed is wanted, and did not go over the session before"
    SecondIsNothing "second-is-nothing"
        "a session between nodes that hold the same moves nothing and refuses nothing"
    NotTwice "not-twice"
        "no right range of an object comes twice in one life of a node, and after a crash only what was not synced"
    OthersComplete "others-complete"
        "wrong bytes or the end of one peer never end a transfer that others can complete"
    NoneAccused "none-accused"
        "nobody is said to have gone back to an older state of its store who has not"
    ForksMeet "forks-meet"
        "a fork whose sides reach a node is proven there, and when the faults have ended all who want the log have every history of it, and the same proof"
    NeverMarked "never-marked"
        "an author who never used a key in two places is never marked as forked"
    ResolutionsEnd "resolutions-end"
        "when the faults have ended, all who keep a log that its author resolved read the same history of it"
    WithinQuotas "within-quotas"
        "no more of an author is kept than its quota allows, but what was there when it was set"
    NoPanic "no-panic"
        "nothing panics"
}
