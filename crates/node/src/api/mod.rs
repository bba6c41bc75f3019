//! The control API: HTTP and JSON (`docs/api.md`). The command line is its first client.
//!
//! [`handle`] answers one request. A daemon calls it for what comes over its socket; a command that
//! runs without a daemon calls it directly, so both do the same.
//!
//! Answers are one JSON object a line. An answer that fails after it began ends with a line
//! `{"error":{"code","message","hint"}}`; one that fails before has that as its body, and a status of 4xx or 5xx.

mod body;
mod bundle;
mod cluster;
mod error;
mod export;
mod files;
mod forks;
mod given;
mod graph;
mod heads;
mod heal;
mod homes;
mod invites;
mod logs;
mod merge;
mod moving;
mod node;
mod partial;
mod peers;
mod policy;
mod preview;
mod quota;
mod resolve;
mod routes;
mod sync;
mod upkeep;
mod upload;
mod why;

use std::sync::Arc;

use hyper::{Request, Response, StatusCode};

pub use body::{Body, BodyError, Lines, full, lines, streamed};
pub use error::ApiError;
pub(crate) use error::denied;
pub(crate) use node::rfc3339;
pub use routes::{ROUTES, Route};
pub(crate) use sync::counts_json;
pub use upload::{RecordHeader, encode_chunk, encode_end, encode_header};

use crate::shell::Shell;

/// Answers one request.
pub async fn handle(shell: Arc<Shell>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let found = routes::find(&parts.method, path);
    let answer = match found {
        Ok((route, id)) => {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            route.answer(Call { shell, query, id: id.to_owned(), body }).await
        }
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond(status, full(format!("{}\n", error.to_json())))
    })
}

/// A request, taken apart.
struct Call {
    shell: Arc<Shell>,
    query: Query,
    /// What stands in the path for `{id}`; empty where the route has none.
    id: String,
    body: Body,
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
        let missing = || {
            ApiError::usage(format!("the parameter `{name}` is missing"))
                .hint("`docs/api.md` has the parameters of every request")
        };
        self.get(name).ok_or_else(missing)
    }

    /// What is wished, if anything: 1 or 0.
    fn wish(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("1") => Ok(Some(true)),
            Some("0") => Ok(Some(false)),
            Some(other) => {
                Err(ApiError::usage(format!("`{other}` is none of 1 and 0, which `{name}` may be"))
                    .hint("`docs/api.md` has the parameters of every request"))
            }
        }
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
