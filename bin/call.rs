//! Requests to the control API and their answers.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response};
use madake_node::api::{
    ApiError, Body, RecordHeader, encode_chunk, encode_end, encode_header, full, streamed,
};
use madake_node::client::Client;
use madake_node::home::KEY_PREFIX;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::out::Out;
use crate::progress::{Progress, Unit};

/// The code of an upload that the other side stopped reading: its answer says why.
const UNHEARD: &str = "unheard";
/// Pieces of an upload are sent when they are this long, and whenever the source pauses.
const PIECE: usize = 256 * 1024;

/// The control API, as the commands call it.
pub(crate) struct Api {
    client: Client,
}

/// The answer to a request: lines of JSON, as they come.
pub(crate) struct Answer {
    body: Body,
    buffer: BytesMut,
    /// So many bytes of it end no line.
    looked: usize,
}

/// Where an upload's source writes its records. Blocking: for a thread of its own.
pub(crate) struct Feed {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    progress: Option<Progress>,
}

impl Api {
    /// Finds the daemon of this home, or opens the home.
    pub(crate) async fn open(home: &Path) -> Result<Self, ApiError> {
        Ok(Self { client: Client::connect(home).await? })
    }

    /// Asks, and gives the answer's lines.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Answer, ApiError> {
        let response = self.send(method, path, query, full("")).await?;
        Answer::of(response).await
    }

    /// Asks about what a text says.
    pub(crate) async fn ask_about(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        text: String,
    ) -> Result<Answer, ApiError> {
        let response = self.send(method, path, query, full(text)).await?;
        Answer::of(response).await
    }

    /// Asks for what has one object as its answer.
    pub(crate) async fn one(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, ApiError> {
        let mut answer = self.ask(method, path, query).await?;
        let line = answer.next().await?;
        line.ok_or_else(|| ApiError::new(502, "daemon", "the answer was empty"))
    }

    /// Asks for what is no JSON.
    pub(crate) async fn bytes(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Body, ApiError> {
        let response = self.send(method, path, query, full(body)).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        match Answer::of(response).await {
            Err(error) => Err(error),
            Ok(_) => Err(ApiError::new(502, "daemon", "an answer that makes no sense")),
        }
    }

    /// Asks for an object's bytes, and its whole id.
    pub(crate) async fn object(&self, id: &str) -> Result<(Body, String), ApiError> {
        if id.is_empty() || !id.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
            return Err(ApiError::usage(format!("`{id}` is no object: give its hex digits"))
                .hint("`madake head show NAME` and `madake log show LOG` show them"));
        }
        let response = self.send(Method::GET, &format!("/v1/objects/{id}"), &[], full("")).await?;
        if response.status().is_success() {
            let whole = response.headers().get(hyper::header::ETAG).and_then(|tag| tag.to_str().ok());
            let whole = whole.map_or_else(|| id.to_owned(), |tag| tag.trim_matches('"').to_owned());
            return Ok((response.into_body(), whole));
        }
        match Answer::of(response).await {
            Err(error) => Err(error),
            Ok(_) => Err(ApiError::new(502, "daemon", "an answer that makes no sense")),
        }
    }

    /// Uploads what `source` writes, and hands each line of the answer to `line` as it comes.
    ///
    /// If the source fails, that is the error, and what it had not finished is not stored. What the
    /// lines print is flushed whenever the answer pauses, so that an acknowledgement is seen at once.
    pub(crate) async fn upload(
        &self,
        path: &str,
        query: &[(&str, &str)],
        source: impl FnOnce(&mut Feed) -> Result<(), ApiError> + Send + 'static,
        mut line: impl FnMut(Value),
    ) -> Result<(), ApiError> {
        let (sender, body) = streamed();
        let (failed, failure) = std_mpsc::channel();
        let feeding = tokio::task::spawn_blocking(move || {
            let mut feed = Feed { sender, piece: Vec::new(), progress: None };
            let fed = source(&mut feed);
            if let Err(error) = fed {
                // Let the other side see an unfinished record, so that it stores nothing of it.
                let _ = failed.send(error);
                feed.piece.extend(1u32.to_le_bytes());
            }
            let _ = feed.flush();
        });
        let answered = async {
            let response = self.send(Method::POST, path, query, body).await?;
            let mut answer = Answer::of(response).await?;
            while let Some(value) = answer.next().await? {
                line(value);
                if !answer.has_line() {
                    crate::out::flush();
                }
            }
            Ok(())
        }
        .await;
        match (failure.try_recv(), answered) {
            // What the source could not read explains why the other side got no more.
            (Ok(error), _) if error.code != UNHEARD => return Err(error),
            // On an error of the other side the source may wait for input that will not come: leave it.
            (_, Err(error)) => return Err(error),
            (Ok(error), Ok(())) => return Err(error),
            (Err(_), Ok(())) => {}
        }
        let _ = feeding.await;
        failure.try_recv().map_or(Ok(()), Err)
    }

    /// Whether no daemon runs: this process has the home open.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.client, Client::Local(_))
    }

    /// Ends what this process opened.
    pub(crate) async fn close(self) {
        if let Client::Local(shell) = &self.client {
            shell.close().await;
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(hyper::header::HOST, "madake")
            .body(body)
            .map_err(|error| ApiError::usage(format!("that can't be asked for: {error}")))?;
        Ok(self.client.call(request).await?)
    }
}

impl Answer {
    async fn of(response: Response<Body>) -> Result<Self, ApiError> {
        let ok = response.status().is_success();
        let mut answer = Self { body: response.into_body(), buffer: BytesMut::new(), looked: 0 };
        if ok {
            return Ok(answer);
        }
        // `next` finds the error in it.
        answer.next().await?;
        Err(ApiError::new(502, "daemon", "an answer that makes no sense"))
    }

    /// Whether another line is here already.
    fn has_line(&self) -> bool {
        self.buffer.contains(&b'\n')
    }

    /// The next line; an error that the answer ends with is one.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, ApiError> {
        loop {
            // A line may be long, and come in many pieces: each byte is looked at once.
            let rest = self.buffer.iter().skip(self.looked).position(|byte| *byte == b'\n');
            let end = rest.map(|rest| self.looked + rest);
            self.looked = self.buffer.len();
            if let Some(end) = end {
                let line = self.buffer.split_to(end + 1);
                self.looked = 0;
                let value: Value = serde_json::from_slice(&line).map_err(|error| {
                    ApiError::new(502, "daemon", format!("an answer that is no JSON: {error}"))
                })?;
                return match ApiError::from_json(&value) {
                    Some(error) => Err(error),
                    None => Ok(Some(value)),
                };
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ApiError::new(502, "daemon", "the answer was cut off")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(ApiError::new(502, "daemon", format!("the answer was cut off: {error}"))
                        .hint("was the daemon stopped? what it acknowledged is kept"));
                }
            }
        }
    }
}

impl Feed {
    /// Counts the bytes of contents there.
    pub(crate) fn shows(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    /// Begins a record.
    pub(crate) fn begin(&mut self, header: &RecordHeader) {
        encode_header(header, &mut self.piece);
    }

    /// Adds bytes to the record.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        encode_chunk(bytes, &mut self.piece);
        if let Some(progress) = &self.progress {
            progress.add(bytes.len() as u64);
        }
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Ends the record.
    pub(crate) fn end(&mut self) -> Result<(), ApiError> {
        encode_end(&mut self.piece);
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Adds bytes that are in no record.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.piece.extend_from_slice(bytes);
        if let Some(progress) = &self.progress {
            progress.add(bytes.len() as u64);
        }
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// All that a reader has, in no record.
    pub(crate) fn raw_from(&mut self, mut reader: impl std::io::Read, path: &Path) -> Result<(), ApiError> {
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.raw(&buffer[..length])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cant_read(path, &error)),
            }
        }
    }

    /// Sends what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), ApiError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.sender.blocking_send(piece).map_err(|_| ApiError::new(502, UNHEARD, "nobody takes what we send"))
    }

    /// A whole record from a reader. The file of a key is refused: what is stored is given to peers.
    pub(crate) fn record(
        &mut self,
        header: &RecordHeader,
        mut reader: impl std::io::Read,
        path: &Path,
    ) -> Result<(), ApiError> {
        self.begin(header);
        let mut buffer = vec![0; PIECE];
        let mut first = true;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(length) => {
                    if std::mem::take(&mut first) && buffer[..length].starts_with(KEY_PREFIX.as_bytes()) {
                        let message = format!("{} is a secret key of a madake home", path.display());
                        return Err(ApiError::new(403, "secret-key", message)
                            .hint("what is stored here is given to peers: leave it out"));
                    }
                    self.chunk(&buffer[..length])?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cant_read(path, &error)),
            }
        }
    }
}

/// A file that a person named, or stdin for `-`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn std::io::Read + Send>, ApiError> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = std::fs::File::open(path).map_err(|error| cant_read(path, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(ApiError::usage(format!("{} is a folder", path.display()))
            .hint("`madake commit --tree DIR` commits a folder"));
    }
    Ok(Box::new(file))
}

/// A bar for reading these files; none if a person types what is read.
pub(crate) fn reading(files: &[PathBuf], what: &'static str, out: &Out) -> Progress {
    let size = |path: &PathBuf| std::fs::metadata(path).ok().filter(|file| file.is_file()).map(|f| f.len());
    let total = files.iter().map(size).sum::<Option<u64>>();
    let typed = std::io::stdin().is_terminal() && files.iter().any(|path| path == Path::new("-"));
    Progress::new(&Out { quiet: out.quiet || typed, ..*out }, what, Unit::Bytes, total)
}

pub(crate) fn cant_read(path: &Path, error: &std::io::Error) -> ApiError {
    ApiError::new(400, "file", format!("can't read {}: {error}", path.display()))
}

/// The home that is meant: `--home`, `MADAKE_HOME`, or the platform's data folder.
pub(crate) fn home(named: Option<OsString>) -> Result<PathBuf, ApiError> {
    let named = named.filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let platform = || {
        if cfg!(target_os = "macos") {
            return Some(folder("HOME")?.join("Library/Application Support/madake"));
        }
        let data = folder("XDG_DATA_HOME").filter(|path| path.is_absolute());
        Some(data.or_else(|| Some(folder("HOME")?.join(".local/share")))?.join("madake"))
    };
    let home = named.or_else(platform).ok_or_else(|| {
        ApiError::usage("there is no home folder to be found").hint("name one with --home or MADAKE_HOME")
    })?;
    std::path::absolute(&home).map_err(|error| cant_read(&home, &error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        const TEXT: &[u8] = b"{\"a\":1}\n{\"b\":\"as long as it takes\"}\n{}\n";
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for piece in [1, 2, 9, 12, TEXT.len()] {
            let (sender, body) = streamed();
            let mut answer = Answer { body, buffer: BytesMut::new(), looked: 0 };
            let lines = runtime.block_on(async {
                tokio::spawn(async move {
                    for piece in TEXT.chunks(piece) {
                        sender.send(Bytes::from_static(piece)).await.unwrap();
                    }
                });
                let mut lines = Vec::new();
                while let Some(line) = answer.next().await.unwrap() {
                    lines.push(line);
                }
                lines
            });
            assert_eq!(lines, [json!({"a": 1}), json!({"b": "as long as it takes"}), json!({})], "{piece}");
        }
    }
}
