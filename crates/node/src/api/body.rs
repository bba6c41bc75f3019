//! Bodies of requests and answers: whole, or streamed through a bounded channel.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::mpsc;

use super::ApiError;

/// A body of either direction.
pub type Body = BoxBody<Bytes, BodyError>;
/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Pieces of a streamed body that may wait for the other side.
const PIECES: usize = 16;
/// Lines are gathered until they are this long, unless they are flushed before.
const PIECE: usize = 32 * 1024;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that is fed piece by piece; it ends when the sender is dropped.
pub fn streamed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Streamed(receiver).boxed())
}

/// A body of JSON lines, written by `write` on a thread where blocking is fine. If it fails, the error
/// is the last line.
pub fn lines(write: impl FnOnce(&mut Lines) -> Result<(), ApiError> + Send + 'static) -> Body {
    let (sender, body) = streamed();
    tokio::task::spawn_blocking(move || {
        let mut lines = Lines { sender, gathered: Vec::new() };
        if let Err(error) = write(&mut lines) {
            let _ = lines.send(&error.to_json());
        }
        let _ = lines.flush();
    });
    body
}

/// An answer of bytes, written by `write` on a thread where blocking is fine. If it fails, the bytes end early.
pub(super) fn octets(
    write: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> Result<(), ApiError>) -> Result<(), ApiError> + Send + 'static,
) -> Response<Body> {
    let (sender, body) = streamed();
    tokio::task::spawn_blocking(move || {
        let mut send = |piece: Vec<u8>| sender.blocking_send(piece.into()).map_err(|_| ApiError::gone());
        match write(&mut send) {
            Err(error) if error.code != "gone" => tracing::error!(%error, "an export was cut off"),
            _ => {}
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    response
}

/// The content type of bytes.
pub(super) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Where a handler writes its lines.
pub struct Lines {
    sender: mpsc::Sender<Bytes>,
    gathered: Vec<u8>,
}

impl Lines {
    /// Writes one object.
    ///
    /// # Errors
    /// When nobody reads any more: the handler may stop.
    pub fn send(&mut self, value: &Value) -> Result<(), ApiError> {
        self.gathered.extend(value.to_string().as_bytes());
        self.gathered.push(b'\n');
        if self.gathered.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Writes one object, unless somebody would have to wait for the reader: for what is of use only now.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn offer(&mut self, value: &Value) -> Result<(), ApiError> {
        if !self.gathered.is_empty() {
            return Ok(());
        }
        match self.sender.try_send(Bytes::from(format!("{value}\n"))) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ApiError::gone()),
        }
    }

    /// Lets what was written so far be seen.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn flush(&mut self) -> Result<(), ApiError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.sender.blocking_send(piece).map_err(|_| ApiError::gone())
    }
}

struct Streamed(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_waits_for_nobody() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut lines = Lines { sender, gathered: Vec::new() };
        for n in 0..10 {
            lines.offer(&serde_json::json!({ "n": n })).unwrap();
        }
        assert_eq!(receiver.try_recv().unwrap(), "{\"n\":0}\n");
        assert_eq!(receiver.try_recv().unwrap(), "{\"n\":1}\n");
        assert!(receiver.try_recv().is_err(), "the others found nobody");
        drop(receiver);
        assert_eq!(lines.offer(&Value::Null).unwrap_err().code, "gone");
    }
}
