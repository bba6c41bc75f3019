//! From what a person types to what is meant.

use std::sync::Arc;

use madake_log::{AuthorId, LogId, Schema, SeqNum};
use madake_object::{CommitId, FileName, ObjectId};
use madake_store::engine::Table;
use madake_store::{Author, Head, Read as _, tables};

use super::ApiError;
use crate::net::ticket::PREFIX;
use crate::net::{NodeId, Ticket};
use crate::shell::Shell;

/// A prefix of an id has at least so many digits (`docs/api.md`).
const MIN_DIGITS: usize = 6;
/// Ids that are looked at to see whether a prefix is unique.
const LOOKED_AT: usize = 8;

impl Shell {
    /// An author: 64 digits, the unique beginning of one that is known here, or the name of one whose key
    /// is here.
    pub(super) fn resolve_author(&self, text: &str) -> Result<AuthorId, ApiError> {
        if let Ok(author) = text.parse::<AuthorId>() {
            return Ok(author);
        }
        let own = self.authors();
        if let Some((_, author)) = own.iter().find(|(name, _)| name.as_str() == text) {
            return Ok(author.id());
        }
        let own = own.iter().map(|(_, author)| author.id()).chain([self.node()]);
        let own: Vec<[u8; 32]> = own.map(|id| *id.as_bytes()).collect();
        self.resolve_prefix("author", text, &[tables::LOG_HEAD, tables::PART, tables::POLICY], &own)
            .map(AuthorId::from_bytes)
    }

    /// The author who is to sign: the first, unless another one is named.
    pub(super) fn resolve_writer(&self, text: Option<&str>) -> Result<Arc<Author>, ApiError> {
        let Some(text) = text else { return Ok(self.author.clone()) };
        let id = self.resolve_author(text)?;
        let held = self.authors().into_iter().find(|(_, author)| author.id() == id);
        let no_key = || {
            ApiError::new(403, "no-key", format!("the key of {id} is not in this home"))
                .hint("`madake author list` shows whose are; `madake author new NAME` makes one")
        };
        held.map(|(_, author)| author).ok_or_else(no_key)
    }

    /// A log: `AUTHOR/LOG`, where LOG is a number or a registered schema.
    pub(super) fn resolve_log(&self, text: &str) -> Result<(AuthorId, LogId), ApiError> {
        let wrong = || {
            ApiError::usage(format!("`{text}` is no log")).hint("a log is AUTHOR/LOG; see `madake log list`")
        };
        let (author, log) = text.split_once('/').ok_or_else(wrong)?;
        let author = self.resolve_author(author)?;
        let number = log.parse::<u64>().ok().map(LogId::new);
        if let Some(log) = number
            && self.shown(author, log)?.is_some()
        {
            return Ok((author, log));
        }
        let schema: Schema = log.parse().map_err(|_| wrong())?;
        if let Some(log) = schema.reserved_log() {
            return Ok((author, log));
        }
        let registered = self.store().registrations(author)?;
        let newest = registered.into_iter().filter(|(_, other)| *other == schema).max_by_key(|(log, _)| {
            let whole = self.store().log_head(author, *log).ok().flatten();
            let part = self.store().part(author, *log).ok().flatten().map(|part| part.head);
            let head = part.or(whole);
            (head.is_some_and(|head| !head.end), head.map(|head| head.seq))
        });
        // A schema may look like a number.
        let found = newest.map(|(log, _)| log).or(number);
        let none = || {
            ApiError::not_found(format!("{author} has no log of `{schema}` here"))
                .hint(format!("madake log list --author {author}"))
        };
        found.map(|log| (author, log)).ok_or_else(none)
    }

    /// Entries: `LOG`, `LOG@SEQ` or `LOG@SEQ..SEQ`; without an end, all from the first on.
    pub(super) fn resolve_entries(
        &self,
        text: &str,
    ) -> Result<(AuthorId, LogId, SeqNum, Option<SeqNum>), ApiError> {
        let Some((log, range)) = text.rsplit_once('@') else {
            let (author, log) = self.resolve_log(text)?;
            return Ok((author, log, SeqNum::FIRST, None));
        };
        let (author, log) = self.resolve_log(log)?;
        let number = |text: &str| {
            let number = text.parse().ok().and_then(SeqNum::new);
            number.ok_or_else(|| {
                ApiError::usage(format!("`{text}` is no sequence number: they begin at 1"))
                    .hint("such as: madake log show AUTHOR/LOG@1..20")
            })
        };
        let (from, to) = match range.split_once("..") {
            None => (number(range)?, number(range)?),
            Some((from, to)) => (number(from)?, number(to)?),
        };
        if from > to {
            return Err(ApiError::usage(format!("`{range}` runs backwards"))
                .hint(format!("the lower number comes first: {to}..{from}")));
        }
        Ok((author, log, from, Some(to)))
    }

    /// An object: 64 digits, or the unique beginning of one that is here.
    pub(super) fn resolve_object(&self, text: &str) -> Result<ObjectId, ApiError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        self.resolve_prefix("object", text, &[tables::CONTENT, tables::BLOB], &[]).map(ObjectId::new)
    }

    /// A commit: 64 digits, or the unique beginning of one that is here.
    pub(super) fn resolve_commit(&self, text: &str) -> Result<CommitId, ApiError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        self.resolve_prefix("commit", text, &[tables::COMMIT], &[]).map(CommitId::new)
    }

    /// A peer: a ticket, a peer's name, or the unique beginning of its id; with where it may be.
    pub(super) fn resolve_peer(&self, text: &str) -> Result<(NodeId, Vec<String>), ApiError> {
        let peers = self.store().peers()?;
        if text.trim_start().to_ascii_lowercase().starts_with(PREFIX) {
            let ticket: Ticket = text.parse().map_err(|error| super::peers::no_ticket(text, &error))?;
            let (node, mut addresses) = ticket.into_parts();
            let known = peers.into_iter().find(|peer| peer.node == node);
            addresses.extend(known.into_iter().flat_map(|peer| peer.addresses));
            addresses.dedup();
            return Ok((node, addresses));
        }
        let named = peers.iter().find(|peer| peer.name == text);
        let by_id = || {
            let begins = text.len() >= MIN_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            let digits = text.to_ascii_lowercase();
            let mut found = peers.iter().filter(|peer| begins && peer.node.to_string().starts_with(&digits));
            found.next().filter(|_| found.next().is_none())
        };
        let unknown = || {
            ApiError::not_found(format!("no peer is called `{text}`"))
                .hint("`madake peer list` shows them; `madake peer add TICKET` adds one")
        };
        let peer = named.or_else(by_id).ok_or_else(unknown)?;
        Ok((peer.node, peer.addresses.clone()))
    }

    /// Whose version of `name` is meant: `author`'s, else the cluster's, else one's own, else the one followed author's.
    pub(super) fn resolve_head(&self, name: &str, author: Option<&str>) -> Result<Head, ApiError> {
        let (name, author) = split_owner(name, author);
        let parsed: FileName = name.parse().map_err(|error| {
            ApiError::usage(format!("`{name}` is no name: {error}"))
                .hint("`madake head list` shows the names")
        })?;
        if author.is_none()
            && let Some(head) = self.cluster_version(&parsed)?
        {
            return Ok(head);
        }
        let authors = match author {
            Some(author) => [vec![self.resolve_author(author)?], Vec::new(), Vec::new()],
            None => self.candidates()?,
        };
        let mut found = Vec::new();
        for tier in authors {
            for candidate in tier {
                found.extend(self.store().head(candidate, &parsed)?);
            }
            if !found.is_empty() {
                break;
            }
        }
        match found.len() {
            0 => Err(ApiError::not_found(format!("nothing is called `{name}` here")).hint(
                "`madake head list` shows what is; a payload that is wanted and missing hides its name",
            )),
            1 => Ok(found.remove(0)),
            _ => {
                let authors: Vec<AuthorId> = found.iter().map(|head| head.author).collect();
                Err(ApiError::ambiguous(&format!("`{name}`"), &authors))
            }
        }
    }

    /// The heads below `prefix` (whole parts): of one author, chosen as for a single name; and the cluster's, which come
    /// before those of the home's first author.
    pub(super) fn resolve_tree(&self, prefix: &str, author: Option<&str>) -> Result<Vec<Head>, ApiError> {
        let (prefix, author) = split_owner(prefix.trim_end_matches('/'), author);
        let authors = match author {
            Some(author) => [vec![self.resolve_author(author)?], Vec::new(), Vec::new()],
            None => self.candidates()?,
        };
        let mut found: Vec<Vec<Head>> = Vec::new();
        let search = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        if author.is_none() {
            let mut agreed = self.cluster_versions(&search)?;
            if !agreed.is_empty() {
                for head in self.store().heads(self.author.id(), &search)? {
                    agreed.entry(head.name.clone()).or_insert(Some(head));
                }
                return Ok(agreed.into_values().flatten().collect());
            }
        }
        for tier in authors {
            for candidate in tier {
                let heads = self.store().heads(candidate, &search)?;
                found.extend((!heads.is_empty()).then_some(heads));
            }
            if !found.is_empty() {
                break;
            }
        }
        match found.len() {
            0 => Err(ApiError::not_found(format!("nothing is below `{prefix}` here"))
                .hint("`madake head list` shows what is")),
            1 => Ok(found.remove(0)),
            _ => {
                let authors: Vec<AuthorId> = found.iter().map(|heads| heads[0].author).collect();
                Err(ApiError::ambiguous(&format!("names below `{prefix}`"), &authors))
            }
        }
    }

    /// Whose names are looked at, those of the next only if none of these has any: the first author,
    /// the others whose keys are here, the followed ones.
    fn candidates(&self) -> Result<[Vec<AuthorId>; 3], ApiError> {
        let own: Vec<AuthorId> = self.authors().into_iter().map(|(_, author)| author.id()).collect();
        let mut followed = self.store().followed()?;
        followed.retain(|author| !own.contains(author));
        Ok([own[..1].to_vec(), own[1..].to_vec(), followed])
    }

    fn resolve_prefix(
        &self,
        what: &str,
        text: &str,
        tables: &[Table],
        more: &[[u8; 32]],
    ) -> Result<[u8; 32], ApiError> {
        if text.len() < MIN_DIGITS || text.len() > 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            let message =
                format!("`{text}` is no {what}: give its 64 hex digits, or the first {MIN_DIGITS} or more");
            return Err(ApiError::usage(message).hint(where_shown(what)));
        }
        let mut ids: Vec<[u8; 32]> = Vec::new();
        for table in tables {
            ids.extend(self.store().ids_with_prefix(*table, &text.to_ascii_lowercase(), LOOKED_AT)?);
        }
        let digits = text.to_ascii_lowercase();
        ids.extend(more.iter().filter(|id| AuthorId::from_bytes(**id).to_string().starts_with(&digits)));
        ids.sort_unstable();
        ids.dedup();
        match ids.as_slice() {
            [] => {
                Err(ApiError::not_found(format!("no {what} begins with {text} here")).hint(where_shown(what)))
            }
            [id] => Ok(*id),
            _ => {
                let message = format!("more than one {what} begins with {text}: give more digits");
                Err(ApiError::usage(message).hint(where_shown(what)))
            }
        }
    }
}

/// The command that shows whole ids of this kind.
fn where_shown(what: &str) -> &'static str {
    match what {
        "author" => "`madake log list --json` shows whose logs are here, `madake author list` whose keys",
        "object" => "`madake head show NAME` and `madake log show LOG` show the objects of files and entries",
        _ => "`madake history NAME` shows the commits of a file",
    }
}

/// `~AUTHOR/NAME` is always that author's own.
fn split_owner<'a>(name: &'a str, author: Option<&'a str>) -> (&'a str, Option<&'a str>) {
    match name.strip_prefix('~').and_then(|rest| rest.split_once('/')) {
        Some((owner, name)) => (name, Some(owner)),
        None => (name, author),
    }
}
