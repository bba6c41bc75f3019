//! The control API: HTTP and JSON (`docs/protocol.md`, "Control API"). The command line is its first client.
//!
//! [`handle`] answers one request. A daemon calls it for what comes over its socket; a command that
//! runs without a daemon calls it directly, so both do the same.
//!
//! Answers are one JSON object a line. An answer that fails after it began ends with a line
//! `{"error":{"code","message","hint"}}`; one that fails before has that as its body, and a status of 4xx or 5xx.

mod body;
mod error;
mod files;
mod logs;
mod node;
mod peers;
mod resolve;
mod sync;
mod upload;

use std::sync::Arc;

use hyper::{Method, Request, Response, StatusCode};

pub use body::{Body, BodyError, Lines, full, lines, streamed};
pub use error::ApiError;
pub(crate) use sync::counts_json;
pub use upload::{RecordHeader, encode_chunk, encode_end, encode_header};

use crate::shell::Shell;

/// Answers one request.
pub async fn handle(shell: Arc<Shell>, request: Request<Body>) -> Response<Body> {
    match route(shell, request).await {
        Ok(response) => response,
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, full(format!("{}\n", error.to_json())))
        }
    }
}

async fn route(shell: Arc<Shell>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
    // Names are looked up before an answer begins, which may read the disk.
    let reading = |answer: &dyn Fn() -> Result<Response<Body>, ApiError>| tokio::task::block_in_place(answer);
    match (&parts.method, path.as_slice()) {
        (&Method::GET, ["v1", "id"]) => reading(&|| node::id(&shell)),
        (&Method::GET, ["v1", "status"]) => node::status(shell).await,
        (&Method::POST, ["v1", "append"]) => logs::append(shell, &query, body),
        (&Method::GET, ["v1", "logs"]) => reading(&|| logs::list(shell.clone(), &query)),
        (&Method::GET, ["v1", "entries"]) => reading(&|| logs::show(shell.clone(), &query)),
        (&Method::GET, ["v1", "verify"]) => reading(&|| logs::verify(shell.clone(), &query)),
        (&Method::POST, ["v1", "objects"]) => Ok(files::put(shell, body)),
        (&Method::GET, ["v1", "objects", id]) => reading(&|| files::get(&shell, id)),
        (&Method::POST, ["v1", "commits"]) => Ok(files::commit(shell, body)),
        (&Method::GET, ["v1", "commits", id]) => reading(&|| files::show(&shell, id)),
        (&Method::GET, ["v1", "heads"]) => reading(&|| files::heads(shell.clone(), &query)),
        (&Method::GET, ["v1", "head"]) => reading(&|| files::head(&shell, &query)),
        (&Method::GET, ["v1", "history"]) => reading(&|| files::history(shell.clone(), &query)),
        (&Method::GET, ["v1", "tree"]) => reading(&|| files::tree(shell.clone(), &query)),
        (&Method::GET, ["v1", "peers"]) => reading(&|| peers::list(&shell)),
        (&Method::POST, ["v1", "peers"]) => peers::add(shell, &query).await,
        (&Method::DELETE, ["v1", "peers"]) => peers::remove(shell, &query).await,
        (&Method::POST, ["v1", "follow"]) => peers::follow(shell, &query).await,
        (&Method::POST, ["v1", "sync"]) => sync::run(shell, &query).await,
        _ => Err(ApiError::not_found(format!("there is no {} {}", parts.method, parts.uri.path()))),
    }
}

/// The parameters of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn need(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::usage(format!("`{name}` is missing")))
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "1")
    }
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/x-ndjson"));
    response
}

/// An answer of one JSON object.
fn object(value: &serde_json::Value) -> Response<Body> {
    respond(StatusCode::OK, full(format!("{value}\n")))
}
