//! What is left out of a history, and why.

use std::collections::HashMap;

use gix_hash::ObjectId as Oid;

use crate::limits;

/// Something that is left out, or is not quite as it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// `file`, `folder`, `message`, `author`, `time`, `parent`, `signature`, `history`, `refs`.
    pub what: &'static str,
    /// Which file; empty if it is about none.
    pub path: String,
    /// The git commit in which it was first met.
    pub commit: Option<String>,
    /// Why.
    pub reason: &'static str,
    /// How often it was met.
    pub count: u64,
}

/// All that was left out, each thing once for each reason; bounded.
#[derive(Debug, Default)]
pub struct SkippedList {
    items: Vec<Skipped>,
    places: HashMap<(&'static str, String, &'static str), usize>,
    more: u64,
}

impl SkippedList {
    pub(crate) fn add(&mut self, what: &'static str, path: &str, commit: Option<Oid>, reason: &'static str) {
        self.add_many(what, path, commit, reason, 1);
    }

    pub(crate) fn add_many(
        &mut self,
        what: &'static str,
        path: &str,
        commit: Option<Oid>,
        reason: &'static str,
        count: u64,
    ) {
        let key = (what, path.to_owned(), reason);
        if let Some(place) = self.places.get(&key) {
            self.items[*place].count += count;
        } else if self.items.len() < limits::SKIPPED {
            self.places.insert(key, self.items.len());
            let (path, commit) = (path.to_owned(), commit.map(|id| id.to_string()));
            self.items.push(Skipped { what, path, commit, reason, count });
        } else {
            self.more += count;
        }
    }

    /// Everything that was noted, in the order in which it was met; at the end, how much more there was.
    pub fn into_items(mut self) -> Vec<Skipped> {
        if self.more > 0 {
            let reason = "more of the same, not listed one by one";
            self.items.push(Skipped {
                what: "more",
                path: String::new(),
                commit: None,
                reason,
                count: self.more,
            });
        }
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_and_counts_what_it_does_not_hold() {
        let mut list = SkippedList::default();
        for i in 0..limits::SKIPPED + 5 {
            list.add("file", &i.to_string(), None, "a reason");
        }
        list.add("file", "0", None, "a reason");
        let items = list.into_items();
        assert_eq!(items.len(), limits::SKIPPED + 1);
        assert_eq!((items[0].count, items.last().unwrap().count), (2, 5));
    }
}
