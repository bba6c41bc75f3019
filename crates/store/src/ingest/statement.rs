//! What the payloads of control and commit logs say, as rows. Pure, so that a check can ask again.

use madake_log::system::{Control, ControlPayload, Salvaged};
use madake_log::{AuthorId, Entry, LogId};
use madake_object::{Commit, FileName, ObjectId};

use crate::engine::Table;
use crate::outcome::Flaw;
use crate::tables;

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
    matches!(log, LogId::CONTROL | LogId::COMMIT)
}

/// Reads what an entry's payload says; nothing, if its log is not one that says things to us.
///
/// `payload` is `None` if the payload lies in a file of its own: too long for any statement.
pub(crate) fn read_statement(entry: &Entry, payload: Option<&[u8]>) -> Result<Meaning, Flaw> {
    match (entry.log(), payload) {
        (LogId::CONTROL | LogId::COMMIT, None) => Err(Flaw::TooLong),
        (LogId::CONTROL, Some(bytes)) => control(entry, bytes),
        (LogId::COMMIT, Some(bytes)) => commit(entry, bytes),
        _ => Ok(Meaning::default()),
    }
}

fn control(entry: &Entry, bytes: &[u8]) -> Result<Meaning, Flaw> {
    match Control::decode(bytes).map_err(|error| Flaw::Control(error.to_string()))? {
        ControlPayload::Known(Control::Register { schema, log }) => {
            if schema.is_reserved() || log.get() <= LogId::COMMIT.get() {
                return Err(Flaw::Control("it registers a log or schema that is reserved".into()));
            }
            let key = tables::register_key(entry.author(), log, entry.seq()).to_vec();
            let row = (tables::REGISTER, key, schema.as_str().as_bytes().to_vec());
            Ok(Meaning { rows: vec![row], ..Meaning::default() })
        }
        ControlPayload::Known(Control::Resolve(said)) => {
            let key = tables::about_key(entry.author(), said.log, entry.id()).to_vec();
            Ok(Meaning { rows: vec![(tables::RESOLVE, key, bytes.to_vec())], ..Meaning::default() })
        }
        ControlPayload::Known(Control::Salvage(said)) => {
            let row = |one: &Salvaged| {
                let mut key = tables::about_key(entry.author(), said.log, one.origin).to_vec();
                key.extend(entry.seq().get().to_be_bytes());
                (tables::SALVAGED, key, tables::salvaged_value(&one.again))
            };
            Ok(Meaning { rows: said.entries.iter().map(row).collect(), ..Meaning::default() })
        }
        ControlPayload::Known(_) | ControlPayload::Unknown(_) => Ok(Meaning::default()),
    }
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
