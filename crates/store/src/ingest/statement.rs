//! What the payloads of system and commit logs say, as rows. Pure, so that a check can ask again.

use madake_log::system::{Control, NodeStatement, ReceiptStatement, Receipts, Salvaged, Spoken};
use madake_log::{AuthorId, Entry, LogId};
use madake_object::{Commit, FileName, ObjectId};

use crate::engine::Table;
use crate::ingest::payload_object;
use crate::outcome::Flaw;
use crate::tables::{self, Position};

/// What a statement means.
#[derive(Default)]
pub(crate) struct Meaning {
    /// The rows that follow from it: table, key, value.
    pub(crate) rows: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// The file that a commit names, and its size.
    pub(crate) file: Option<(ObjectId, u64)>,
    /// The name that a commit gives it.
    pub(crate) name: Option<FileName>,
}

/// Whether payloads of this log are statements that the store reads.
pub(crate) fn says_something(log: LogId) -> bool {
    matches!(log, LogId::CONTROL | LogId::NODE | LogId::RECEIPTS | LogId::COMMIT)
}

/// Reads what an entry's payload says; nothing, if its log is not one that says things to us.
///
/// `payload` is `None` if the payload lies in a file of its own: too long for any statement.
pub(crate) fn read_statement(entry: &Entry, payload: Option<&[u8]>) -> Result<Meaning, Flaw> {
    let Some(bytes) = payload else {
        return if says_something(entry.log()) { Err(Flaw::TooLong) } else { Ok(Meaning::default()) };
    };
    match entry.log() {
        LogId::CONTROL => control(entry, bytes),
        LogId::NODE => node(entry, bytes),
        LogId::RECEIPTS => receipts(entry, bytes),
        LogId::COMMIT => commit(entry, bytes),
        _ => Ok(Meaning::default()),
    }
}

/// A statement that we know; nothing, if it is of a later version.
fn known<T>(said: Result<Spoken<T>, madake_log::system::StatementError>) -> Result<Option<T>, Flaw> {
    match said.map_err(|error| Flaw::Control(error.to_string()))? {
        Spoken::Known(said) => Ok(Some(said)),
        Spoken::Unknown(_) => Ok(None),
    }
}

fn control(entry: &Entry, bytes: &[u8]) -> Result<Meaning, Flaw> {
    let (author, seq) = (entry.author(), entry.seq());
    let names = |key: AuthorId| (tables::NAMED_KEY, tables::named_key_key(key, author, seq), Vec::new());
    let rows = match known(Control::decode(bytes))? {
        Some(Control::Register { schema, log }) => {
            if schema.is_reserved() || log.get() <= LogId::COMMIT.get() {
                return Err(Flaw::Control("it registers a log or schema that is reserved".into()));
            }
            let key = tables::register_key(author, log, seq).to_vec();
            vec![(tables::REGISTER, key, schema.as_str().as_bytes().to_vec())]
        }
        Some(Control::Vow(vow)) => {
            let home = vow.home.map(|home| names(home.node));
            home.into_iter().chain([stated(author, entry)]).collect()
        }
        Some(Control::Recovery { key }) => vec![names(key), stated(author, entry)],
        Some(Control::Countersign { author: of, .. }) => vec![stated(of, entry)],
        Some(Control::Resolve(said)) => {
            let key = tables::about_key(author, said.log, entry.id()).to_vec();
            vec![(tables::RESOLVE, key, bytes.to_vec())]
        }
        Some(Control::Salvage(said)) => {
            let row = |one: &Salvaged| {
                let mut key = tables::about_key(author, said.log, one.origin).to_vec();
                key.extend(seq.get().to_be_bytes());
                (tables::SALVAGED, key, tables::salvaged_value(&one.again))
            };
            said.entries.iter().map(row).collect()
        }
        _ => Vec::new(),
    };
    Ok(Meaning { rows, ..Meaning::default() })
}

fn node(entry: &Entry, bytes: &[u8]) -> Result<Meaning, Flaw> {
    let said = known(NodeStatement::decode(bytes))?;
    let rows = said.map(|said| stated(said.author(), entry)).into_iter().collect();
    Ok(Meaning { rows, ..Meaning::default() })
}

fn receipts(entry: &Entry, bytes: &[u8]) -> Result<Meaning, Flaw> {
    let Some(ReceiptStatement::Receipts(Receipts { author, logs })) = known(ReceiptStatement::decode(bytes))?
    else {
        return Ok(Meaning::default());
    };
    let row = |receipt: &madake_log::system::Receipt| {
        let of = Position { author, log: receipt.log, seq: receipt.seq };
        let value = [receipt.entry.as_bytes().as_slice(), &receipt.epoch.to_be_bytes()].concat();
        (tables::RECEIPT, tables::receipt_key(&of, entry.author(), entry.seq()), value)
    };
    Ok(Meaning { rows: logs.iter().map(row).collect(), ..Meaning::default() })
}

/// The row that leads from an author to an entry that says something of its home.
fn stated(author: AuthorId, entry: &Entry) -> (Table, Vec<u8>, Vec<u8>) {
    let value = [entry.id().as_bytes().as_slice(), payload_object(entry).as_bytes()].concat();
    (tables::STATED, tables::stated_key(author, &Position::of(entry)), value)
}

fn commit(entry: &Entry, bytes: &[u8]) -> Result<Meaning, Flaw> {
    let commit = Commit::decode(bytes).map_err(|error| Flaw::Commit(error.to_string()))?;
    let author = entry.author();
    if commit.author.as_bytes() != author.as_bytes() {
        return Err(Flaw::CommitOfAnother { named: AuthorId::from_bytes(*commit.author.as_bytes()) });
    }
    let id = Commit::id_of(bytes);
    let rows = vec![
        (
            tables::VERSION,
            tables::version_key(author, &commit.name, entry.seq()),
            tables::version_value(id, entry.id()),
        ),
        (tables::COMMIT, tables::commit_key(id, author, entry.seq()), entry.id().as_bytes().to_vec()),
        (tables::LINKED, tables::linked_key(commit.object, id), commit.size.to_be_bytes().to_vec()),
    ];
    Ok(Meaning { rows, file: Some((commit.object, commit.size)), name: Some(commit.name) })
}
