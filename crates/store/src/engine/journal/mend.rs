//! Rewriting segments that hold something damaged. Their own records cannot tell what is still needed of them; the
//! index and the other segments can: a row that the index has, and that the other segments do not make, is moved;
//! so is the end of a row that they make and the index does not have.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound::Unbounded;

use super::super::batch::derive_rows;
use super::super::{CheckReport, Direction, EngineError, Part, Progress, Reclaimed, Table, Work, Wrong};
use super::check::{Expected, Journal, passes};
use super::key::Key;
use super::merged::{Asked, View};
use super::reading::Values;
use super::reclaim::{Chunk, Counted, MOVE_BYTES, Needed, Ready, Reclaimer};
use super::slot::{IndexRow, Slot};

/// Segments with their lengths.
type Lengths = BTreeMap<u32, u64>;

impl Reclaimer<'_> {
    /// Rewrites the segments that hold something damaged, and nothing damaged that is needed.
    pub(super) fn mend(
        &self,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reclaimed, EngineError> {
        let mut done = Reclaimed::default();
        let (view, lengths, _) = self.as_it_is()?;
        // What the index says is taken for true, so it has to be well.
        if self.core.flow().damaged.is_some() || view.runs.iter().any(|run| run.check().is_err()) {
            return Ok(done);
        }
        let damaged = self.readable(damaged(&self.journal(&view, &lengths), &lengths, progress)?)?;
        let parts: Vec<Part> = damaged.into_iter().map(Part).collect();
        let victims = self.named(&parts, dry_run)?;
        if victims.is_empty() {
            return Ok(done);
        }
        let counted = self.move_by_index(&victims, dry_run, progress)?;
        (done.parts, done.bytes_before) = (victims.len() as u32, victims.values().sum());
        (done.rows_moved, done.bytes_after) = (counted.rows, counted.bytes);
        if !dry_run {
            self.retire(&mut Ready { segments: victims.into_keys().collect(), moved: counted.bytes })?;
        }
        Ok(done)
    }

    /// All rows, the segments, and the generation, at one moment.
    fn as_it_is(&self) -> Result<(View, Lengths, u64), EngineError> {
        let writer = self.lock()?;
        Ok((self.core.view(), writer.lengths(), self.core.read().generation))
    }

    fn journal<'v>(&'v self, view: &'v View, lengths: &'v Lengths) -> Journal<'v> {
        Journal { view, lengths, folder: &self.core.journal, meaning: self.core.meaning() }
    }

    /// Those of the segments of which each value that the index leads to can be read.
    fn readable(&self, mut numbers: HashSet<u32>) -> Result<HashSet<u32>, EngineError> {
        let segments = self.core.read().segments.clone();
        let mut values = Values::new(self.core.meaning(), &segments);
        for table in 0..=u8::MAX {
            if numbers.is_empty() {
                break;
            }
            self.core.each_slot(table, |key, slot| {
                if let Some(number) = slot.segment().filter(|number| numbers.contains(number))
                    && values.read(Table(table), &key, &slot).is_err()
                {
                    numbers.remove(&number);
                }
            })?;
        }
        Ok(numbers)
    }

    /// Moves what the index says, and the journal without these segments does not.
    fn move_by_index(
        &self,
        victims: &Lengths,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Counted, EngineError> {
        let (view, mut lengths, generation) = self.as_it_is()?;
        lengths.retain(|number, _| !victims.contains_key(number));
        let journal = self.journal(&view, &lengths);
        let mut mover = Mover {
            reclaimer: self,
            chunk: Chunk::default(),
            generation,
            dry_run,
            counted: Counted::default(),
        };
        let mut values = Values::new(self.core.meaning(), &view.segments);
        let passes = passes(&view);
        for pass in 0..passes {
            let mut expected = Expected::new(pass, passes);
            journal.read(
                Work::Moving,
                &mut CheckReport::default(),
                &mut |segment, place, rows| expected.note(segment, place, rows),
                progress,
            )?;
            for table in 0..=u8::MAX {
                let asked = Asked { table, from: Unbounded, to: Unbounded, direction: Direction::Forward };
                for row in view.rows(asked, Vec::new()).map_err(|fault| self.core.fault(fault))? {
                    let (key, slot) = row.map_err(|fault| self.core.fault(fault))?;
                    if expected.take(table, &key, &slot) == Some(false) {
                        mover.take(self.needed_row(&mut values, table, key, slot)?)?;
                    }
                }
            }
            let mut gone = expected.left();
            if gone.is_empty() {
                continue;
            }
            let mut failed = None;
            journal.read(
                Work::Moving,
                &mut CheckReport::default(),
                &mut |_, _, rows| {
                    for row in rows {
                        if failed.is_none()
                            && expected.hash(row.table, &row.key).is_some_and(|h| gone.remove(&h))
                        {
                            let needed = Needed::Delete { table: row.table, key: row.key };
                            failed = mover.take(needed).err();
                        }
                    }
                },
                progress,
            )?;
            failed.map_or(Ok(()), Err)?;
        }
        mover.end()
    }

    /// A row of the index, with its value, as something to be moved.
    fn needed_row(
        &self,
        values: &mut Values<'_>,
        table: u8,
        key: Key,
        slot: Slot,
    ) -> Result<Needed, EngineError> {
        let (_, value) = values.read(Table(table), &key, &slot)?;
        let Slot::Record { kind, .. } = slot else {
            return Ok(Needed::Put { row: IndexRow { table, key, slot }, value });
        };
        // The other rows of the record count by themselves.
        let (meaning, mut rows) = (self.core.meaning(), Vec::new());
        let derived = derive_rows(&*meaning.derive, kind, &value, None, &mut rows);
        let bit =
            rows.iter().position(|row| row.table.0 == table && *meaning.shape.kept(table, &row.key) == *key);
        match (derived, bit) {
            (Ok(()), Some(bit)) => {
                let row = IndexRow { table, key, slot };
                Ok(Needed::Record { kind, bytes: value, all: rows.len(), rows: vec![(bit, row)] })
            }
            _ => {
                Err(EngineError::Bug { what: "a record that was read has not the row by which it was found" })
            }
        }
    }
}

/// Segments in which something is damaged or cannot be read. Those of a later version are left alone.
fn damaged(
    journal: &Journal<'_>,
    lengths: &Lengths,
    progress: &mut dyn FnMut(Progress),
) -> Result<HashSet<u32>, EngineError> {
    let (mut damaged, mut done, total) = (HashSet::new(), 0, lengths.values().sum());
    for (number, len) in lengths {
        let mut report = CheckReport::default();
        journal.read_segment(*number, *len, &mut report, &mut |_, _, _| {})?;
        let mut wrong = report.problems.iter().map(|problem| &problem.wrong);
        let mendable = wrong.all(|wrong| matches!(wrong, Wrong::Damaged(_) | Wrong::Unreadable { .. }));
        if !report.is_well() && report.more == 0 && mendable {
            damaged.insert(*number);
        }
        done += len;
        progress(Progress { work: Work::CheckingJournal, done, total });
    }
    Ok(damaged)
}

/// Gathers what is to be moved, and moves it piece by piece.
struct Mover<'r, 'e> {
    reclaimer: &'r Reclaimer<'e>,
    chunk: Chunk,
    /// The engine's when its rows were looked at.
    generation: u64,
    dry_run: bool,
    counted: Counted,
}

impl Mover<'_, '_> {
    fn take(&mut self, needed: Needed) -> Result<(), EngineError> {
        self.chunk.generation = self.generation;
        self.chunk.add(needed);
        if self.chunk.bytes < MOVE_BYTES {
            return Ok(());
        }
        self.reclaimer.settle(&mut self.chunk, self.dry_run, &mut self.counted)
    }

    fn end(mut self) -> Result<Counted, EngineError> {
        self.reclaimer.settle(&mut self.chunk, self.dry_run, &mut self.counted)?;
        Ok(self.counted)
    }
}
