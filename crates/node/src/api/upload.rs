//! Records of a request's body: contents of any length, each behind a small header.
//!
//! A record is `length: u32 LE ‖ header: JSON ‖ chunks ‖ 0: u32 LE`; a chunk is `length: u32 LE ‖
//! bytes`, of 1 byte to 1 MiB. Nothing needs to know a content's length before it is sent.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use madake_object::Object;
use madake_store::engine::BlobWriter;
use madake_store::{CONTENT_LIMIT, NewContent, Store};
use serde::{Deserialize, Serialize};

use super::{ApiError, Body};
use crate::work;

/// A header is at most so long: a commit's message and name, escaped.
const MAX_HEADER: u32 = 512 * 1024;
/// A chunk is at most so long.
const MAX_CHUNK: u32 = 1024 * 1024;

/// What is said of a content before its bytes. Which fields matter depends on the request.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordHeader {
    /// The file's name in a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the file may be executed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// What the author says about the commit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Make no commit if the head has the same bytes and mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_if_changed: bool,
    /// A symbolic link, whose target is the content. Of a given version only, as all that follows but `label`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub symlink: bool,
    /// A tombstone: the name is deleted. There is no content then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The commit that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The commits that it merges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merges: Vec<String>,
    /// Only if `previous` is the head.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_head: bool,
    /// When it was made: milliseconds since 1970 UTC. Now, if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the answer calls this content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The bytes in front of a content.
pub fn encode_header(header: &RecordHeader, out: &mut Vec<u8>) {
    let json = serde_json::to_vec(header).unwrap_or_default();
    out.extend((json.len() as u32).to_le_bytes());
    out.extend(json);
}

/// A part of a content; an empty one adds nothing.
pub fn encode_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(MAX_CHUNK as usize) {
        out.extend((chunk.len() as u32).to_le_bytes());
        out.extend(chunk);
    }
}

/// The end of a content.
pub fn encode_end(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}

/// A record that has come whole.
pub(super) struct Record {
    pub(super) header: RecordHeader,
    pub(super) content: NewContent,
    /// Whether it is known to be the body's last.
    pub(super) last: bool,
}

impl Record {
    pub(super) fn of(header: RecordHeader, object: Object) -> Self {
        Self { header, content: NewContent::Bytes(object), last: false }
    }

    /// What the record takes in memory, more or less.
    pub(super) fn weight(&self) -> u32 {
        let content = match &self.content {
            NewContent::Bytes(object) => object.bytes().len(),
            NewContent::Blob { .. } => 0,
        };
        (content + self.header.message.len() + 256) as u32
    }
}

/// Reads records from a body; contents over 1 MiB go to a blob as they come.
pub(super) struct Records {
    body: Body,
    buffer: BytesMut,
    store: Arc<Store>,
}

impl Records {
    pub(super) fn new(body: Body, store: Arc<Store>) -> Self {
        Self { body, buffer: BytesMut::new(), store }
    }

    /// Reads the rest of the body and forgets it: an early answer is not lost that way, since the asker
    /// reads it while what it still sends is taken.
    pub(super) async fn drain(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }

    /// The next record; `None` at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, ApiError> {
        if !self.fill(1).await? {
            return Ok(None);
        }
        let length = self.length(MAX_HEADER, "a header").await?;
        let header = self.take(length as usize).await?;
        let header: RecordHeader = serde_json::from_slice(&header).map_err(|error| {
            ApiError::usage(format!("a record's header: {error}"))
                .hint("`docs/api.md`, \"Records\", has its fields")
        })?;
        let mut small = Vec::new();
        let mut blob: Option<Box<dyn BlobWriter>> = None;
        loop {
            let length = self.length(MAX_CHUNK, "a chunk").await? as usize;
            if length == 0 {
                break;
            }
            let chunk = self.take(length).await?;
            if blob.is_none() && small.len() + length > CONTENT_LIMIT as usize {
                let small = std::mem::take(&mut small);
                let mut writer = self.store.engine().blobs().begin()?;
                work::in_place(|| writer.write(&small))?;
                blob = Some(writer);
            }
            match &mut blob {
                Some(writer) => work::in_place(|| writer.write(&chunk))?,
                None => small.extend_from_slice(&chunk),
            }
        }
        let content = match blob {
            Some(writer) => {
                let (id, size) = work::in_place(|| writer.finish())?;
                NewContent::Blob { id: madake_object::ObjectId::new(id), size }
            }
            None => NewContent::Bytes(Object::new(small)),
        };
        Ok(Some(Record { header, content, last: false }))
    }

    async fn length(&mut self, limit: u32, what: &str) -> Result<u32, ApiError> {
        let mut bytes = self.take(4).await?;
        match bytes.get_u32_le() {
            length if length > limit => {
                Err(ApiError::usage(format!("{what} of {length} bytes; the limit is {limit}"))
                    .hint("`docs/api.md`, \"Records\", has the bytes of a request's body"))
            }
            length => Ok(length),
        }
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, ApiError> {
        if !self.fill(length).await? {
            return Err(ApiError::new(400, "cut", "the request ended in the middle of a record"));
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Reads until `length` bytes are there; false if the body ends before.
    async fn fill(&mut self, length: usize) -> Result<bool, ApiError> {
        while self.buffer.len() < length {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(ApiError::new(400, "cut", format!("the request was cut off: {error}")));
                }
            }
        }
        Ok(true)
    }
}
