//! What a session with a peer told: kept until the next one, so that an owner can ask why something is not here.

use serde::{Deserialize, Serialize};

/// Things of one kind that are kept by name. The sums count all.
const LISTED: usize = 100;
/// Bytes of the things of one kind that are kept by name.
const LISTED_BYTES: usize = 20 * 1024;
/// Kinds of missing things, with the words of their reasons, that are told apart in sums.
const SUMS: usize = 32;

/// What a session told of things that did not get from one side to the other.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The first of each kind, by name.
    pub items: Vec<Trouble>,
    /// What is missing, summed up by what it is and why.
    pub missing: Vec<Missed>,
    /// What was refused here, all of it.
    pub refused: u64,
    /// What the peer refused, all of it.
    pub refused_by_peer: u64,
}

/// Something that did not get from one side to the other.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// What became of it.
    pub fate: Fared,
    /// What it is: `author`, `log`, `entry`, `payload`, `commit` or `object`.
    pub what: String,
    /// Which one: an entry as `AUTHOR/LOG@SEQ`, a log as `AUTHOR/LOG`, anything else by its id.
    pub id: String,
    /// A word, and after a colon what it means.
    pub reason: String,
}

/// What became of something in a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Fared {
    /// It is wanted here, and did not come.
    Missing,
    /// It came, and was not taken.
    Refused,
    /// It was sent, and the peer did not take it.
    RefusedByPeer,
}

impl Fared {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::RefusedByPeer => "refused-by-peer",
        }
    }
}

/// How many of one sort are missing.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Missed {
    /// What they are.
    pub what: String,
    /// Why they did not come: a word.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl Told {
    /// Adds something; by name if there is room, and what is missing to the sums in any case.
    pub fn add(&mut self, fate: Fared, what: &str, id: &str, reason: &str) {
        if fate == Fared::Missing {
            self.sum(what, reason.split(':').next().unwrap_or_default());
        }
        let of_kind = || self.items.iter().filter(|item| item.fate == fate);
        let weight = |id: &str, reason: &str| id.len() + reason.len();
        let bytes: usize = of_kind().map(|item| weight(&item.id, &item.reason)).sum();
        if of_kind().count() < LISTED && bytes + weight(id, reason) <= LISTED_BYTES {
            let (what, id, reason) = (what.to_owned(), id.to_owned(), reason.to_owned());
            self.items.push(Trouble { fate, what, id, reason });
        }
    }

    fn sum(&mut self, what: &str, reason: &str) {
        let full = self.missing.len() >= SUMS;
        let fits = |sum: &&mut Missed| sum.what == what && sum.reason == reason;
        match self.missing.iter_mut().find(fits) {
            Some(sum) => sum.count += 1,
            None if full => {}
            None => self.missing.push(Missed { what: what.to_owned(), reason: reason.to_owned(), count: 1 }),
        }
    }

    /// The things that were named here and that `about` picks.
    pub fn about<'a>(
        &'a self,
        about: impl Fn(&Trouble) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Trouble> + 'a {
        self.items.iter().filter(move |item| about(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_by_name_is_bounded_and_what_is_summed_up_is_all() {
        let mut told = Told::default();
        for n in 0..1_000 {
            told.add(Fared::Missing, "object", &format!("{n:064}"), "not-there: the peer does not have it");
            told.add(Fared::Refused, "entry", &"x".repeat(512), &"long: ".repeat(80));
        }
        told.add(Fared::Missing, "log", "a/0", "cut-short: offered up to 9, came up to 3");
        told.add(Fared::RefusedByPeer, "author", "a", "not-followed: no");
        let of = |fate| told.about(move |item| item.fate == fate).count();
        assert_eq!(of(Fared::Missing), LISTED);
        assert_eq!(of(Fared::Refused), LISTED_BYTES / (512 + 480));
        assert_eq!(of(Fared::RefusedByPeer), 1);
        let sums: Vec<_> = told.missing.iter().map(|sum| (&*sum.what, &*sum.reason, sum.count)).collect();
        assert_eq!(sums, [("object", "not-there", 1_000), ("log", "cut-short", 1)]);
    }

    #[test]
    fn sums_are_bounded_too() {
        let mut told = Told::default();
        (0..1_000).for_each(|n| told.add(Fared::Missing, "object", "x", &format!("{n}: new")));
        assert_eq!(told.missing.len(), SUMS);
    }
}
