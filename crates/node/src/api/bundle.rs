//! Logs in one file: `log export`, `log import`.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Response, StatusCode};
use madake_log::{AuthorId, BundleEncoder, Entry, LogHead, LogId, SeqNum};
use madake_store::{Policy, Read as _, ReadForks as _, Store, Tip, payload_object};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::body::octets;
use super::{ApiError, Body, Lines, Query, lines, respond};
use crate::import::{ImportError, Imported, Importer};
use crate::shell::Shell;

/// Entries read at a time.
const PAGE: usize = 512;
/// Bytes handed on at a time, more or less.
const PIECE: usize = 256 * 1024;
/// Pieces of a request that may wait to be dealt with.
const PIECES: usize = 16;
/// How far an import is, is told whenever so many bytes more have come.
const TELL_EVERY: u64 = 4 * 1024 * 1024;

/// `GET /v1/bundle?log=LOG[&log=LOG…]` → the bytes of a bundle with these logs, as far as they are held now
///
/// An answer without the bundle's end was cut off: something held can't be read.
pub(super) fn export(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let mut logs = BTreeSet::new();
    for text in query.all("log") {
        logs.insert(shell.resolve_log(text)?);
    }
    if logs.is_empty() {
        return Err(ApiError::usage("no log is named").hint("madake log export AUTHOR/LOG -o FILE"));
    }
    let mut heads = Vec::new();
    for (author, log) in logs {
        if let Some(part) = shell.store().part(author, log)? {
            let what = format!("{author}/{log} is here in part only, from entry {} on", part.start);
            return Err(ApiError::new(409, "partial", what).hint("`madake pull PEER` brings all of it"));
        }
        let none = || ApiError::not_found(format!("{author}/{log} is not here")).hint("madake log list");
        heads.push((author, log, shell.store().log_head(author, log)?.ok_or_else(none)?));
    }
    Ok(octets(move |send| write_bundle(&shell, &heads, send)))
}

/// Hands the bytes of a bundle with these logs, up to these heads, to `send`.
pub(super) fn write_bundle(
    shell: &Shell,
    heads: &[(AuthorId, LogId, LogHead)],
    send: impl FnMut(Vec<u8>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let store = shell.store();
    let mut bundle = Writing::new(store, send);
    for (author, log, head) in heads {
        let mut next = Some(SeqNum::FIRST);
        while let Some(from) = next.filter(|from| *from <= head.seq) {
            let page = store.entries(*author, *log, from, PAGE)?;
            next = page.last().and_then(|entry| entry.seq().next());
            page.iter()
                .take_while(|entry| entry.seq() <= head.seq)
                .try_for_each(|entry| bundle.entry(entry))?;
        }
    }
    bundle.finish()
}

/// Hands the bytes of a bundle with what is beside a log's trunk, up to this tip, to `send`: from where it is forked.
pub(super) fn write_branch(
    shell: &Shell,
    log: (AuthorId, LogId),
    tip: Tip,
    from: SeqNum,
    send: impl FnMut(Vec<u8>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let store = shell.store();
    let mut bundle = Writing::new(store, send);
    let mut next = Some(from);
    while let Some(from) = next {
        let page = store.branch_entries(log, tip, from, PAGE)?;
        next = page.last().and_then(|entry| entry.seq().next());
        page.iter().try_for_each(|entry| bundle.entry(entry))?;
    }
    bundle.finish()
}

/// A bundle that is being written, with the payloads that are held.
struct Writing<'a, F> {
    store: &'a Store,
    encoder: BundleEncoder,
    out: Vec<u8>,
    send: F,
}

impl<'a, F: FnMut(Vec<u8>) -> Result<(), ApiError>> Writing<'a, F> {
    fn new(store: &'a Store, send: F) -> Self {
        let mut out = Vec::new();
        Self { store, encoder: BundleEncoder::new(&mut out), out, send }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), ApiError> {
        self.encoder.entry(entry, &mut self.out).map_err(bug)?;
        let id = payload_object(entry);
        // One of another size than is stated is not the entry's payload.
        let held = self.store.content_size(id)?.is_some_and(|size| size == entry.payload_size());
        if held && let Some(bytes) = self.store.content(id)? {
            self.encoder.payload(&bytes, &mut self.out).map_err(bug)?;
        } else if held && let Some(mut reader) = self.store.engine().blobs().open(id.as_bytes())? {
            let mut buffer = vec![0; PIECE];
            loop {
                let length = reader.read(&mut buffer).map_err(|error| {
                    ApiError::new(500, "store", format!("the file of {id} can't be read: {error}"))
                })?;
                if length == 0 {
                    break;
                }
                self.encoder.payload(&buffer[..length], &mut self.out).map_err(bug)?;
                (self.send)(std::mem::take(&mut self.out))?;
            }
        }
        if self.out.len() >= PIECE {
            (self.send)(std::mem::take(&mut self.out))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), ApiError> {
        self.encoder.finish(&mut self.out).map_err(bug)?;
        (self.send)(self.out)
    }
}

fn bug(error: madake_log::BundleEncodeError) -> ApiError {
    ApiError::new(500, "bug", format!("an export that makes no bundle: {error}"))
}

/// `POST /v1/bundle`, a bundle as the body → lines `{"progress":{"entries","bytes"}}`, now and then, then
/// `{entries, payloads, bytes, known, refused, refused_count, authors, not_followed}`
pub(super) fn import(shell: Arc<Shell>, body: Body) -> Response<Body> {
    let pieces = pieces(body);
    let body = lines(move |lines| {
        let mut importer = Importer::new(shell.store().clone());
        let imported = read_bundle(&mut importer, pieces, lines);
        match imported {
            Ok(()) => lines.send(&imported_json(&shell, &importer.done)?),
            Err(error) => Err(explain(error, &importer.done)),
        }
    });
    respond(StatusCode::OK, body)
}

fn read_bundle(
    importer: &mut Importer,
    mut pieces: mpsc::Receiver<Result<Bytes, ApiError>>,
    lines: &mut Lines,
) -> Result<(), Ended> {
    let (mut taken, mut told) = (0, 0);
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece?;
        importer.bundle(&piece)?;
        taken += piece.len() as u64;
        if taken - told >= TELL_EVERY {
            told = taken;
            tell(lines, importer, taken)?;
        }
    }
    Ok(importer.end_of_bundle()?)
}

/// Says how far an import is.
pub(super) fn tell(lines: &mut Lines, importer: &Importer, bytes: u64) -> Result<(), ApiError> {
    lines.send(&json!({"progress": {"entries": importer.done.entries, "bytes": bytes}}))?;
    lines.flush()
}

/// Why an import did not come to its end.
pub(super) enum Ended {
    Import(ImportError),
    Api(ApiError),
}

impl From<ImportError> for Ended {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// The error of an import, with what is kept of it.
pub(super) fn explain(ended: Ended, done: &Imported) -> ApiError {
    let error = match ended {
        Ended::Import(ImportError::Bundle(error)) => ApiError::new(400, "bad-bundle", error.to_string())
            .hint("ask for the file again: whole, as `madake log export` wrote it"),
        Ended::Import(ImportError::Store(error)) => error.into(),
        Ended::Import(ImportError::Engine(error)) => error.into(),
        Ended::Api(error) => error,
    };
    // What a changed bit spoils is known better than by the file's checksum.
    let error = match done.bad_entry.as_deref().filter(|_| error.code == "bad-bundle") {
        Some(bad) => ApiError { message: format!("{}; entry {bad}", error.message), ..error },
        None => error,
    };
    if done.entries + done.objects == 0 {
        return error;
    }
    let kept = format!("; {} entries that came before are verified and kept", done.entries);
    ApiError { message: format!("{}{kept}", error.message), ..error }
}

/// What an import's last line says.
pub(super) fn imported_json(shell: &Shell, done: &Imported) -> Result<Value, ApiError> {
    let mut not_followed = Vec::new();
    for author in &done.authors {
        let policy = shell.store().policy(*author)?;
        if !shell.is_own(*author) && policy != Some(Policy::Follow) && done.entries > 0 {
            not_followed.push(author.to_string());
        }
    }
    Ok(json!({
        "entries": done.entries,
        "payloads": done.payloads,
        "bytes": done.bytes,
        "known": done.known,
        "refused": done.refusals,
        "refused_count": done.refused,
        "authors": done.authors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "not_followed": not_followed,
    }))
}

/// The pieces of a body, for a thread that blocks. When nobody takes them any more, the rest is read and
/// forgotten, so that an early answer is not lost.
pub(super) fn pieces(mut body: Body) -> mpsc::Receiver<Result<Bytes, ApiError>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut wanted = true;
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => {
                    Some(Err(ApiError::new(400, "cut", format!("the request was cut off: {error}"))))
                }
            };
            let Some(piece) = piece.filter(|_| wanted) else { continue };
            let failed = piece.is_err();
            wanted = sender.send(piece).await.is_ok();
            if failed {
                return;
            }
        }
    });
    receiver
}
