//! Everything of a home's authors in one file: `export`, `import`.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use madake_log::{AuthorId, LogHead, LogId, SeqNum};
use madake_object::{Commit, ObjectId};
use madake_store::{
    Change, GuardReason, META_COPY, META_EPOCH, Objects, Policy, Position, Read as _, ReadForks as _, Store,
    StoreError, payload_object, tables,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::body::octets;
use super::bundle::{Ended, explain, imported_json, pieces, tell, write_branch, write_bundle};
use super::{ApiError, Body, Lines, lines, respond};
use crate::driver::wall_clock;
use crate::export::{Decoder, DroppedAt, Encoder, Event, ExportError, Kind, MAX_SMALL, Settings};
use crate::home::{guards, random};
use crate::import::Importer;
use crate::net::check_address;
use crate::shell::Shell;

/// Entries read at a time.
const PAGE: usize = 512;
/// Bytes handed on at a time, more or less.
const PIECE: usize = 256 * 1024;
/// Sealed keys in a request's body.
const MAX_SEALED: usize = 1024 * 1024;
/// How far an import is, is told whenever so many bytes more have come.
const TELL_EVERY: u64 = 4 * 1024 * 1024;

/// `POST /v1/export`, sealed keys or nothing as the body → the bytes of an export
///
/// An answer without the export's end was cut off: something held can't be read.
pub(super) async fn export(shell: Arc<Shell>, body: Body) -> Result<Response<Body>, ApiError> {
    let (mut given, mut sealed) = (pieces(body), Vec::new());
    while let Some(piece) = given.recv().await {
        sealed.extend_from_slice(&piece?);
        if sealed.len() > MAX_SEALED {
            return Err(ApiError::usage(format!("sealed keys of more than {MAX_SEALED} bytes"))
                .hint("the body of this request is what seals the keys, or nothing"));
        }
    }
    Ok(octets(move |send| write_export(&shell, &sealed, send)))
}

fn write_export(
    shell: &Shell,
    sealed: &[u8],
    mut send: impl FnMut(Vec<u8>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let store = shell.store();
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out);
    if !sealed.is_empty() {
        encoder.item(Kind::Keys, sealed, &mut out);
    }
    let settings = settings(shell)?.encode();
    let settings = settings.map_err(|error| ApiError::new(500, "bug", format!("settings: {error}")))?;
    encoder.item(Kind::Settings, &settings, &mut out);

    let mut heads: Vec<(AuthorId, LogId, LogHead)> = Vec::new();
    for author in shell.own() {
        heads.extend(store.logs_of(author)?.into_iter().map(|held| (author, held.log, held.head)));
    }
    heads.sort_unstable_by_key(|(author, log, _)| (*author, *log));
    encoder.begin(Kind::Bundle, &mut out);
    write_bundle(shell, &heads, |piece| {
        encoder.bytes(&piece, &mut out);
        send(std::mem::take(&mut out))
    })?;
    encoder.end(&mut out);
    write_dropped(store, &heads, &mut encoder, &mut out, &mut send)?;
    for (author, log, _) in &heads {
        for fork in [store.healed(*author, *log)?, store.fork(*author, *log)?].into_iter().flatten() {
            for tip in &fork.tips {
                encoder.begin(Kind::Branch, &mut out);
                write_branch(shell, (*author, *log), *tip, fork.at(), |piece| {
                    encoder.bytes(&piece, &mut out);
                    send(std::mem::take(&mut out))
                })?;
                encoder.end(&mut out);
            }
        }
    }

    let mut written = BTreeSet::new();
    for (author, log, head) in heads {
        if log != LogId::COMMIT {
            continue;
        }
        let mut next = Some(SeqNum::FIRST);
        while let Some(from) = next.filter(|from| *from <= head.seq) {
            let page = store.entries(author, log, from, PAGE)?;
            next = page.last().and_then(|entry| entry.seq().next());
            for entry in page {
                let commit = store.content(payload_object(&entry))?;
                let Some(commit) = commit.and_then(|bytes| Commit::decode(&bytes).ok()) else { continue };
                let held = store.content_size(commit.object)? == Some(commit.size);
                if held && written.insert(commit.object) {
                    write_object(store, Kind::Object, commit.object, &mut encoder, &mut out, &mut send)?;
                }
            }
        }
    }
    for id in store.ids_with_prefix(tables::PINNED, "", usize::MAX)? {
        let id = ObjectId::new(id);
        if store.content_size(id)?.is_some() {
            write_object(store, Kind::Pinned, id, &mut encoder, &mut out, &mut send)?;
        }
    }
    encoder.finish(&mut out);
    send(out)
}

/// Which payloads of these logs were dropped, so that who imports them does not ask for them again.
fn write_dropped(
    store: &Store,
    heads: &[(AuthorId, LogId, LogHead)],
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    send: &mut impl FnMut(Vec<u8>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let all = store.ids_with_prefix(tables::DROPPED, "", 1)?;
    if all.is_empty() {
        return Ok(());
    }
    encoder.begin(Kind::Dropped, out);
    for (author, log, head) in heads {
        let mut next = Some(SeqNum::FIRST);
        while let Some(from) = next.filter(|from| *from <= head.seq) {
            let page = store.entries(*author, *log, from, PAGE)?;
            next = page.last().and_then(|entry| entry.seq().next());
            for entry in page.iter().take_while(|entry| entry.seq() <= head.seq) {
                if let Some(dropped) = store.dropped(payload_object(entry))? {
                    encoder.bytes(&DroppedAt { at: Position::of(entry), dropped }.encode(), out);
                }
            }
            if out.len() >= PIECE {
                send(std::mem::take(out))?;
            }
        }
    }
    encoder.end(out);
    Ok(())
}

fn write_object(
    store: &Store,
    kind: Kind,
    id: ObjectId,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    send: &mut impl FnMut(Vec<u8>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    encoder.begin(kind, out);
    let mut hasher = blake3::Hasher::new();
    if let Some(bytes) = store.content(id)? {
        hasher.update(&bytes);
        encoder.bytes(&bytes, out);
    } else if let Some(mut reader) = store.engine().blobs().open(id.as_bytes())? {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = reader.read(&mut buffer).map_err(|error| {
                ApiError::new(500, "store", format!("the file of {id} can't be read: {error}"))
            })?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
            encoder.bytes(&buffer[..length], out);
            send(std::mem::take(out))?;
        }
    }
    if hasher.finalize() != *id.as_bytes() {
        return Err(ApiError::new(500, "damaged", format!("what is stored of {id} is cut short or damaged")));
    }
    encoder.end(out);
    if out.len() >= PIECE { send(std::mem::take(out)) } else { Ok(()) }
}

fn settings(shell: &Shell) -> Result<Settings, ApiError> {
    let store = shell.store();
    let authors = shell.authors().into_iter().map(|(name, author)| (author.id(), name.to_string()));
    let peers = store.peers()?;
    let wishes = peers.iter().map(|peer| Ok((store.allowed(peer.node)?, store.tie(peer.node)?)));
    Ok(Settings {
        wishes: wishes.collect::<Result<_, StoreError>>()?,
        quotas: store.quotas()?,
        default_quota: shell.home.config.quota(),
        node: shell.node(),
        epoch: store.epoch()?,
        time: wall_clock(),
        authors: authors.collect(),
        peers,
        followed: store.followed()?,
        blocked: store.blocked()?,
        schemas: store.kept_schemas()?,
        objects: store.objects()? as u8,
    })
}

/// `POST /v1/import`, an export as the body → lines `{"progress":{"entries","bytes"}}`, now and then, then
/// `{entries, payloads, bytes, objects, peers, policies, known, refused, refused_count, authors, not_followed, epoch}`
///
/// Into a home without logs, or of the same first author. The home is taken for a restored copy: it has a
/// new store epoch.
pub(super) fn import(shell: Arc<Shell>, body: Body) -> Response<Body> {
    let pieces = pieces(body);
    let body = lines(move |lines| {
        let mut importer = Importer::new(shell.store().clone());
        match read_export(&shell, &mut importer, pieces, lines) {
            Ok(settled) => {
                let mut value = imported_json(&shell, &importer.done)?;
                value["objects"] = json!(importer.done.objects);
                for (field, found) in settled {
                    value[field] = found;
                }
                lines.send(&value)
            }
            Err(error) => Err(explain(error, &importer.done)),
        }
    });
    respond(StatusCode::OK, body)
}

type Settled = Vec<(&'static str, Value)>;

fn read_export(
    shell: &Shell,
    importer: &mut Importer,
    mut pieces: mpsc::Receiver<Result<Bytes, ApiError>>,
    lines: &mut Lines,
) -> Result<Settled, Ended> {
    let (mut decoder, mut item, mut small) = (Decoder::default(), None, Vec::new());
    let (mut settled, mut bundles, mut lists) = (None, 0, 0);
    let (mut taken, mut told) = (0, 0);
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece?;
        let mut rest = piece.as_ref();
        while let Some(event) = decoder.next(&mut rest).map_err(bad_export)? {
            match (event, item) {
                (Event::Begin(kind), _) => {
                    let fits = match kind {
                        Kind::Keys | Kind::Settings => settled.is_none(),
                        Kind::Bundle => settled.is_some() && bundles == 0,
                        Kind::Dropped => bundles == 1 && lists == 0,
                        Kind::Branch | Kind::Object | Kind::Pinned => bundles == 1,
                    };
                    lists += u32::from(kind == Kind::Dropped);
                    if !fits {
                        return Err(bad_export(ExportError::Order).into());
                    }
                    item = Some(kind);
                }
                (Event::Bytes(bytes), Some(Kind::Settings)) => {
                    small.extend_from_slice(bytes);
                    if small.len() > MAX_SMALL {
                        return Err(bad_export(ExportError::TooLong).into());
                    }
                }
                (Event::Bytes(bytes), Some(Kind::Bundle | Kind::Branch)) => importer.bundle(bytes)?,
                (Event::Bytes(bytes), Some(Kind::Dropped)) => {
                    small.extend_from_slice(bytes);
                    take_dropped(shell, &mut small)?;
                }
                (Event::End, Some(Kind::Dropped)) if !small.is_empty() => {
                    return Err(bad_export(ExportError::Dropped).into());
                }
                (Event::Bytes(bytes), Some(Kind::Object | Kind::Pinned)) => importer.object(bytes)?,
                (Event::Bytes(_), _) => {} // sealed keys are the command line's
                (Event::End, Some(Kind::Settings)) => {
                    let settings = Settings::decode(&std::mem::take(&mut small));
                    let settings = settings.ok_or_else(|| bad_export(ExportError::Settings))?;
                    settled = Some(settle(shell, settings)?);
                }
                (Event::End, Some(Kind::Bundle)) => {
                    importer.end_of_bundle()?;
                    bundles += 1;
                }
                (Event::End, Some(Kind::Branch)) => importer.end_of_bundle()?,
                (Event::End, Some(kind @ (Kind::Object | Kind::Pinned))) => {
                    importer.end_of_object(kind == Kind::Pinned)?;
                }
                (Event::End, _) => {}
            }
        }
        taken += piece.len() as u64;
        if taken - told >= TELL_EVERY {
            told = taken;
            tell(lines, importer, taken)?;
        }
    }
    decoder.finish().map_err(bad_export)?;
    importer.finish()?;
    settled.ok_or_else(|| bad_export(ExportError::Settings).into())
}

/// Gives up what was given up where the export was made, and is not here. What is incomplete stays in `bytes`.
fn take_dropped(shell: &Shell, bytes: &mut Vec<u8>) -> Result<(), ApiError> {
    let store = shell.store();
    let (items, rest) = bytes.as_chunks::<{ DroppedAt::LEN }>();
    for some in items.chunks(PAGE) {
        let mut changes = Vec::with_capacity(some.len());
        for item in some {
            let DroppedAt { at, dropped } =
                DroppedAt::decode(item).ok_or_else(|| bad_export(ExportError::Dropped))?;
            let entry = store.entries(at.author, at.log, at.seq, 1)?;
            let payload =
                entry.first().filter(|entry| Position::of(entry) == at).map(|entry| payload_object(entry));
            // What was written here since, or never dropped here, is not taken away.
            if let Some(id) = payload
                && store.content_size(id)?.is_none()
            {
                changes.push(Change::Drop(at, dropped));
            }
        }
        store.apply(changes)?;
    }
    *bytes = rest.to_vec();
    Ok(())
}

/// Takes the settings of an export over, if this home may have them.
fn settle(shell: &Shell, settings: Settings) -> Result<Settled, ApiError> {
    let (store, kept) = (shell.store(), settings.kept());
    let first = settings.authors.first().map(|(author, _)| *author);
    let is_same = first.is_some_and(|first| shell.is_own(first));
    if !is_same && store.counts()?.logs > 0 {
        let first = first.map_or_else(|| "nobody".into(), |first| first.to_string());
        let message = format!("the file is of author {first}, and this home has logs and another author");
        return Err(ApiError::new(409, "other-author", message)
            .hint("import it into a home of its own: madake --home NEW-FOLDER import FILE"));
    }
    let _one_at_a_time = shell.lock_settings();
    let epoch: [u8; 16] = random()?;
    let mut changes = vec![Change::Meta(META_EPOCH, epoch.to_vec())];
    // What was written after the export may be with others only.
    let ours: Vec<_> =
        settings.authors.iter().map(|(author, _)| *author).filter(|author| shell.is_own(*author)).collect();
    changes.extend(guards(&ours, GuardReason::Imported));
    if settings.node == shell.node() {
        changes.push(Change::Meta(META_COPY, vec![1]));
    }
    let known = store.peers()?;
    let mut names: BTreeSet<String> = known.iter().map(|peer| peer.name.clone()).collect();
    let mut peers = 0;
    for (mut peer, (allowed, tie)) in settings.peers.into_iter().zip(settings.wishes) {
        let is_key = peer.node.check_key().is_ok();
        if !is_key || peer.node == shell.node() || known.iter().any(|known| known.node == peer.node) {
            continue;
        }
        peer.addresses.retain(|address| check_address(address).is_ok());
        if super::peers::check_name(&peer.name).is_err() || names.contains(&peer.name) {
            peer.name = peer.node.to_string()[..16].to_owned();
        }
        names.insert(peer.name.clone());
        peers += 1;
        let node = peer.node;
        changes.extend([Change::Peer(peer), Change::Allow(node, allowed), Change::Tie(node, tie)]);
    }
    // An author whose key did not come along is followed: the logs are kept up to date all the same.
    let authors = settings.authors.into_iter().map(|(author, _)| (author, Policy::Follow));
    let followed = settings.followed.into_iter().map(|author| (author, Policy::Follow));
    let blocked = settings.blocked.into_iter().map(|author| (author, Policy::Block));
    let mut policies = BTreeSet::new();
    for (author, policy) in authors.chain(followed).chain(blocked) {
        let new = !shell.is_own(author) && store.policy(author)?.is_none() && author.check_key().is_ok();
        if new && policies.insert(author) {
            changes.push(Change::Policy(author, policy));
        }
    }
    if store.kept_schemas()?.is_empty() {
        changes.extend(settings.schemas.into_iter().map(Change::KeepSchema));
    }
    store.apply(changes)?;
    for (author, limits) in settings.quotas {
        if !shell.is_own(author) && author.check_key().is_ok() && store.quota(author)?.is_none() {
            store.set_quota(author, Some(limits))?;
        }
    }
    if let Some(objects) = kept.filter(|kept| *kept != Objects::All)
        && store.objects()? == Objects::All
    {
        store.set_objects(objects, &shell.kept_whole()?)?;
    }
    let epoch = data_encoding::HEXLOWER.encode(&epoch);
    Ok(vec![("peers", json!(peers)), ("policies", json!(policies.len())), ("epoch", json!(epoch))])
}

fn bad_export(error: ExportError) -> ApiError {
    ApiError::new(400, "bad-export", format!("the file can't be imported: {error}"))
        .hint("take it whole, as `madake export` wrote it; a file of `log export` is for `madake log import`")
}
