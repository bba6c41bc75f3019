//! `put`, `get`, `head`, `history`, `show`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Body as _;
use madake_node::api::{ApiError, Body, RecordHeader};
use serde_json::{Value, json};

use super::{given, text};
use crate::call::{Api, Feed, open, reading};
use crate::out::{Out, Table, clean, short};
use crate::progress::{Progress, Unit};

pub(super) async fn put(api: &Api, files: Vec<PathBuf>, out: &Out) -> Result<ExitCode, ApiError> {
    let progress = reading(&files, "storing", out);
    let source = move |feed: &mut Feed| {
        feed.shows(progress);
        for path in &files {
            let label = Some(path.to_string_lossy().into_owned());
            feed.record(&RecordHeader { label, ..RecordHeader::default() }, open(path)?, path)?;
        }
        Ok(())
    };
    api.upload("/v1/objects", &[], source, |object| {
        out.result(&object, || format!("{}  {}", text(&object, "object"), clean(text(&object, "file"))));
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn get(api: &Api, id: &str, output: Option<&Path>, out: &Out) -> Result<ExitCode, ApiError> {
    let (body, id) = api.object(id).await?;
    let Some(path) = output.filter(|path| *path != Path::new("-")) else {
        let size = copy(body, &id, &mut std::io::stdout().lock(), "stdout").await?;
        out.beside(&json!({"object": id, "size": size, "file": "-"}));
        return Ok(ExitCode::SUCCESS);
    };
    let size = write_file(body, &id, path, false, out).await?;
    let value = json!({"object": id, "size": size, "file": path.to_string_lossy()});
    out.result(&value, || format!("{id}  {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn heads(
    api: &Api,
    prefix: Option<String>,
    author: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let query = given(&[("prefix", prefix.as_deref()), ("author", author.as_deref())]);
    let mut answer = api.ask(Method::GET, "/v1/heads", &query).await?;
    let mut table = Table::default();
    while let Some(head) = answer.next().await? {
        if out.json {
            out.result(&head, String::new);
            continue;
        }
        let (name, commit) = (text(&head, "name").to_owned(), short(text(&head, "commit")));
        table.row([name, commit, head["gen"].to_string(), short(text(&head, "author"))]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn head(
    api: &Api,
    name: &str,
    author: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let query = given(&[("name", Some(name)), ("author", author.as_deref())]);
    let head = api.one(Method::GET, "/v1/head", &query).await?;
    out.result(&head, || head_text(&head));
    Ok(ExitCode::SUCCESS)
}

/// A head as a person reads it.
pub(super) fn head_text(head: &Value) -> String {
    let fields = ["name", "commit", "gen", "state", "author", "object", "size", "time", "message"];
    let line = |field| format!("{field:<8}{}", clean(&plain(&head[field])));
    fields.map(line).join("\n")
}

pub(super) async fn show(api: &Api, commit: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let commit = find_commit(api, commit).await?;
    out.result(&commit, || {
        let fields = [
            "commit", "name", "previous", "merges", "object", "size", "mode", "author", "time", "tags",
            "message",
        ];
        let has = |field: &&str| commit[*field].as_array().is_none_or(|list| !list.is_empty());
        let line = |field| format!("{field:<10}{}", clean(&plain(&commit[field])));
        fields.into_iter().filter(has).map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// A commit by its id or the beginning of it.
pub(super) async fn find_commit(api: &Api, id: &str) -> Result<Value, ApiError> {
    if id.is_empty() || !id.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return Err(ApiError::usage(format!("`{id}` is no commit: give its hex digits"))
            .hint("`madake history NAME` lists the commits of a file"));
    }
    api.one(Method::GET, &format!("/v1/commits/{id}"), &[]).await
}

/// Writes a body to a file and says how long it is.
pub(super) async fn write_file(
    body: Body,
    id: &str,
    path: &Path,
    executable: bool,
    out: &Out,
) -> Result<u64, ApiError> {
    let progress = Progress::new(out, "writing", Unit::Bytes, body.size_hint().exact());
    let mode = if executable { 0o777 } else { 0o666 };
    let shown = path.display().to_string();
    write_aside(path, mode, async |file| copy(body, id, &mut Counted { to: file, progress }, &shown).await)
        .await
}

/// Makes a file by what `write` writes: aside first, so that a failure leaves what was there.
pub(super) async fn write_aside<T>(
    path: &Path,
    mode: u32,
    write: impl AsyncFnOnce(&mut std::fs::File) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| cant_write(&path.display().to_string(), &error);
    let name = path.file_name().ok_or_else(|| ApiError::usage(format!("{} is no file", path.display())))?;
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        // A device, a pipe or a link: written as it is.
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).map_err(failed)?;
        return write(&mut file).await;
    }
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}.part", std::process::id()));
    let aside = path.with_file_name(aside);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside).map_err(failed)?;
    let written = write(&mut file).await;
    let renamed = written.and_then(|done| std::fs::rename(&aside, path).map(|()| done).map_err(failed));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    renamed
}

/// Makes the name of a file durable whose bytes are: a backup must not be gone after a power cut.
pub(super) fn sync_name(path: &Path) -> Result<(), ApiError> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied};
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // A folder that we can write to and not read, or one that is on no disk.
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput) => Ok(()),
        synced => synced.map_err(|error| cant_write(&path.display().to_string(), &error)),
    }
}

pub(super) fn cant_write(shown: &str, error: &std::io::Error) -> ApiError {
    ApiError::new(500, "file", format!("can't write {shown}: {error}"))
}

/// A writer whose bytes are counted.
pub(super) struct Counted<W> {
    pub(super) to: W,
    pub(super) progress: Progress,
}

impl<W: std::io::Write> std::io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.progress.add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Writes an object's bytes to `to`, and says how many there were. They are hashed on the way: what is
/// cut short or has changed on the disk does not pass for the object.
pub(super) async fn copy(
    mut body: Body,
    id: &str,
    to: &mut impl std::io::Write,
    shown: &str,
) -> Result<u64, ApiError> {
    let (mut size, mut hasher) = (0, blake3::Hasher::new());
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::new(502, "cut", format!("the object was cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if let Err(error) = to.write_all(&data) {
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                return Ok(size); // nobody wants the rest
            }
            return Err(cant_write(shown, &error));
        }
        hasher.update(&data);
        size += data.len() as u64;
    }
    to.flush().map_err(|error| cant_write(shown, &error))?;
    if hasher.finalize().to_string() != id {
        return Err(ApiError::new(500, "damaged", format!("what is stored of {id} is cut short or damaged"))
            .hint("keep a copy of the home; a peer that has the object can give it to a new one"));
    }
    Ok(size)
}

/// A JSON value as a person would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
