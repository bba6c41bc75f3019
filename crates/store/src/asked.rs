//! What an owner asks of one thing: what names it, what it names, and what of it is not here.

use madake_log::{AuthorId, EntryId, LogId, SeqNum};
use madake_object::{CommitId, FileName, ObjectId, TreeHasher};

use crate::engine::{Direction, RangedBlob};
use crate::objects::Keeping;
use crate::outcome::{Dropped, Flaw};
use crate::prefix::{for_each_prefix, scan_prefix};
use crate::read::{NamedObject, Read as _, Wanted};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position, parse_u64};

/// Wants read at a time.
const PAGE: usize = 1_000;

/// Content that is named by some logs and is not here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WantedSum {
    /// How many objects.
    pub objects: u64,
    /// Their sizes, as stated by what names them.
    pub bytes: u64,
    /// The first of them.
    pub first: Vec<Wanted>,
}

impl Store {
    /// An object for a peer: of those that are here, only what something held names.
    pub fn open_named(&self, id: ObjectId) -> Result<Option<NamedObject>, StoreError> {
        let Some(named_by) = self.named_by(id)? else { return Ok(None) };
        if let Some(bytes) = self.content(id)? {
            let mut hasher = TreeHasher::new();
            hasher.update(&bytes);
            let (size, outboard) = (bytes.len() as u64, Box::new(hasher.finish().outboard));
            let ranged = RangedBlob { size, data: Box::new(bytes), outboard };
            return Ok(Some(NamedObject { ranged, named_by }));
        }
        let ranged = self.engine().blobs().open_ranged(id.as_bytes())?;
        Ok(ranged.map(|ranged| NamedObject { ranged, named_by }))
    }

    /// By whom and when an object was given up, if it was.
    pub fn dropped(&self, id: ObjectId) -> Result<Option<Dropped>, StoreError> {
        let value = self.engine().get(tables::DROPPED, id.as_bytes())?;
        value.map(|value| Dropped::decode(&value)).transpose()
    }

    /// Why the payload of an entry does not count, if it does not.
    pub fn flaw(&self, at: &Position) -> Result<Option<Flaw>, StoreError> {
        self.engine().get(tables::FLAW, &at.key())?.map(|value| Flaw::decode(&value)).transpose()
    }

    /// Sums up the wants that `about` picks, with the first `limit` of them: reads all wants.
    pub fn sum_wanted(&self, limit: usize, about: impl Fn(&Wanted) -> bool) -> Result<WantedSum, StoreError> {
        let (mut sum, mut after, mut last) = (WantedSum::default(), None, None);
        loop {
            let page = self.wanted(after, PAGE)?;
            let Some(end) = page.last() else { return Ok(sum) };
            after = Some(*end);
            for wanted in page.into_iter().filter(&about) {
                if last.replace(wanted.id) == Some(wanted.id) {
                    continue;
                }
                sum.objects += 1;
                sum.bytes = sum.bytes.saturating_add(wanted.size);
                if sum.first.len() < limit {
                    sum.first.push(wanted);
                }
            }
        }
    }

    /// The entries for which an object is wanted: the first `limit`.
    pub fn wanted_for(&self, id: ObjectId, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let rows = scan_prefix(self.engine(), tables::WANTED, id.as_bytes(), Direction::Forward, limit)?;
        let wanted = |key: &[u8]| tables::parse_wanted_key(key).ok_or(StoreError::broken("a want"));
        rows.iter().map(|(key, _)| wanted(key)).collect()
    }

    /// The commits that have an object as their file, with the size that they state: the first `limit`.
    pub fn commits_of(&self, id: ObjectId, limit: usize) -> Result<Vec<(CommitId, u64)>, StoreError> {
        let rows = scan_prefix(self.engine(), tables::LINKED, id.as_bytes(), Direction::Forward, limit)?;
        let link = |key: &[u8], value: &[u8]| {
            let commit = key.get(32..)?.try_into().ok().map(CommitId::new)?;
            Some((commit, parse_u64(value)?))
        };
        let broken = || StoreError::broken("a link");
        rows.iter().map(|(key, value)| link(key, value).ok_or_else(broken)).collect()
    }

    /// The entries by which a commit counts: the first `limit`.
    pub fn carriers_of(
        &self,
        id: CommitId,
        limit: usize,
    ) -> Result<Vec<(AuthorId, SeqNum, EntryId)>, StoreError> {
        let rows = scan_prefix(self.engine(), tables::COMMIT, id.as_bytes(), Direction::Forward, limit)?;
        let carrier = |key: &[u8], value: &[u8]| {
            let (author, seq) = key.get(32..)?.split_at_checked(32)?;
            let author = AuthorId::from_bytes(author.try_into().ok()?);
            let entry = EntryId::from_bytes(value.try_into().ok()?);
            Some((author, SeqNum::new(parse_u64(seq)?)?, entry))
        };
        let broken = || StoreError::broken("the entry of a commit");
        rows.iter().map(|(key, value)| carrier(key, value).ok_or_else(broken)).collect()
    }

    /// How many entries of a log have a payload that does not count, and the first `limit` of them.
    pub fn flaws_of(
        &self,
        author: AuthorId,
        log: LogId,
        limit: usize,
    ) -> Result<(u64, Vec<(Position, Flaw)>), StoreError> {
        let (mut count, mut first) = (0, Vec::new());
        for_each_prefix(self.engine(), tables::FLAW, &tables::log_key(author, log), |key, value| {
            count += 1;
            if first.len() < limit {
                // Of an entry beside the trunk the key goes on.
                let at = key.get(..48).and_then(Position::from_key).ok_or(StoreError::broken("a flaw"))?;
                first.push((at, Flaw::decode(value)?));
            }
            Ok(())
        })?;
        Ok((count, first))
    }

    /// Whether an object is kept because a person put it here.
    pub fn is_pinned(&self, id: ObjectId) -> Result<bool, StoreError> {
        Ok(self.engine().contains(tables::PINNED, id.as_bytes())?)
    }

    /// Whether the object of this version is kept, by the setting of which are.
    pub fn keeps_version(&self, author: AuthorId, name: &FileName, seq: SeqNum) -> Result<bool, StoreError> {
        Keeping::of(self.engine())?.keeps(self.engine(), author, name, seq)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test reports

    use std::sync::Arc;

    use madake_log::{AuthorKey, LogId, SeqNum};
    use madake_object::{Mode, Object};

    use super::*;
    use crate::engine::MemoryEngine;
    use crate::{Author, Change, NewContent, NewVersion, StoreRows};

    fn store() -> Arc<Store> {
        Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
    }

    #[test]
    fn what_names_an_object_is_found_where_it_is_and_where_it_is_wanted() {
        let (here, there) = (store(), store());
        let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), here.clone());
        let file = Object::new(b"a file".to_vec());
        let name: FileName = "notes/a".parse().unwrap();
        let version = NewVersion {
            name: name.clone(),
            content: NewContent::Bytes(file.clone()),
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        author.commit(&[version]).unwrap();
        let (commit, entry) = here.newest(author.id(), &name).unwrap().unwrap();
        assert_eq!(here.commits_of(file.id(), 9).unwrap(), [(commit, 6)]);
        assert_eq!(here.carriers_of(commit, 9).unwrap(), [(author.id(), SeqNum::FIRST, entry)]);
        assert_eq!(here.sum_wanted(9, |_| true).unwrap(), WantedSum::default());
        assert!(here.keeps_version(author.id(), &name, SeqNum::FIRST).unwrap());
        assert!(!here.is_pinned(file.id()).unwrap());

        // The entry without its payload, then with it: first the commit is wanted, then its file.
        let log = LogId::COMMIT;
        let entry = here.entries(author.id(), log, SeqNum::FIRST, 1).unwrap().remove(0);
        there.apply(vec![Change::Entry { entry: entry.clone(), payload: None }]).unwrap();
        let at = Position { author: author.id(), log, seq: SeqNum::FIRST };
        let size = entry.payload_size();
        let wanted = Wanted { id: commit.as_object(), size, by: at };
        assert_eq!(there.wanted_for(commit.as_object(), 9).unwrap(), [wanted]);
        let payload = Object::new(here.content(commit.as_object()).unwrap().unwrap());
        there.apply(vec![Change::Content(payload)]).unwrap();
        let wanted = Wanted { id: file.id(), size: 6, by: at };
        let sum = WantedSum { objects: 1, bytes: 6, first: vec![wanted] };
        assert_eq!(there.sum_wanted(9, |wanted| wanted.by.log == log).unwrap(), sum);
        assert_eq!(there.sum_wanted(0, |_| true).unwrap().first, []);
        assert_eq!(there.sum_wanted(9, |wanted| wanted.by.log != log).unwrap().objects, 0);
        assert_eq!(there.commits_of(file.id(), 9).unwrap(), [(commit, 6)]);
        assert_eq!(there.flaws_of(author.id(), log, 9).unwrap(), (0, vec![]));
    }
}
