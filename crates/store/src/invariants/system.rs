//! Rows that follow from statements of system logs, found out anew.

use madake_log::system::{Control, NodeStatement, ReceiptStatement, Spoken};
use madake_log::{AuthorId, Entry, LogId};

use super::{Invariant, Walk};
use crate::ingest::payload_object;
use crate::store::StoreError;
use crate::tables::{self, Position};

impl Walk<'_, '_> {
    /// Looks for the rows that a statement has; the code of its flaw if it should have one.
    pub(super) fn system(
        &mut self,
        entry: &Entry,
        at: &Position,
        bytes: &[u8],
    ) -> Result<Option<&'static str>, StoreError> {
        match at.log {
            LogId::CONTROL => match Control::decode(bytes) {
                Ok(Spoken::Known(Control::Register { schema, log })) => {
                    if schema.is_reserved() || log <= LogId::COMMIT {
                        return Ok(Some("bad-control"));
                    }
                    let key = tables::register_key(at.author, log, at.seq);
                    let row = self.store.engine().get(tables::REGISTER, &key)?;
                    self.expected.registers += u64::from(row.is_some());
                    if row.as_deref() != Some(schema.as_str().as_bytes()) {
                        let what = format!("{at} registers `{schema}` on {log}, and the row is not there");
                        self.tell(Invariant::Statement, what);
                    }
                }
                Ok(Spoken::Known(Control::Resolve(said))) => {
                    let key = tables::about_key(at.author, said.log, entry.id());
                    if self.store.engine().get(tables::RESOLVE, &key)?.as_deref() != Some(bytes) {
                        let what = format!("{at} resolves {}, and the row is not there", said.log);
                        self.tell(Invariant::Statement, what);
                    }
                    self.expected.resolves += 1;
                }
                Ok(Spoken::Known(Control::Vow(vow))) => {
                    self.stated(entry, at, at.author)?;
                    if let Some(home) = vow.home {
                        self.named(at, home.node)?;
                    }
                }
                Ok(Spoken::Known(Control::Recovery { key })) => {
                    self.stated(entry, at, at.author)?;
                    self.named(at, key)?;
                }
                Ok(Spoken::Known(Control::Countersign { author, .. })) => self.stated(entry, at, author)?,
                Ok(_) => {}
                Err(_) => return Ok(Some("bad-control")),
            },
            LogId::NODE => match NodeStatement::decode(bytes) {
                Ok(Spoken::Known(said)) => self.stated(entry, at, said.author())?,
                Ok(Spoken::Unknown(_)) => {}
                Err(_) => return Ok(Some("bad-control")),
            },
            _ => match ReceiptStatement::decode(bytes) {
                Ok(Spoken::Known(ReceiptStatement::Receipts(receipts))) => {
                    for line in receipts.logs.iter() {
                        let of = Position { author: receipts.author, log: line.log, seq: line.seq };
                        let key = tables::receipt_key(&of, at.author, at.seq);
                        self.expected.receipts += 1;
                        if !self.has(tables::RECEIPT, &key)? {
                            self.tell(
                                Invariant::Statement,
                                format!("{at} is a receipt for {of}, without a row"),
                            );
                        }
                    }
                }
                Ok(_) => {}
                Err(_) => return Ok(Some("bad-control")),
            },
        }
        Ok(None)
    }

    fn stated(&mut self, entry: &Entry, at: &Position, about: AuthorId) -> Result<(), StoreError> {
        self.expected.stated += 1;
        let row = self.store.engine().get(tables::STATED, &tables::stated_key(about, at))?;
        let value = [entry.id().as_bytes().as_slice(), payload_object(entry).as_bytes()].concat();
        if row != Some(value) {
            self.tell(
                Invariant::Statement,
                format!("{at} says something of {about}, and the row is not there"),
            );
        }
        Ok(())
    }

    fn named(&mut self, at: &Position, key: AuthorId) -> Result<(), StoreError> {
        self.expected.named += 1;
        if !self.has(tables::NAMED_KEY, &tables::named_key_key(key, at.author, at.seq))? {
            self.tell(Invariant::Statement, format!("{at} names {key}, and the row is not there"));
        }
        Ok(())
    }
}
