//! Calling the control API: over the socket of a running daemon, or directly in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::api::{self, ApiError, Body};
use crate::home::{Home, HomeError, HomeLock, SOCKET};
use crate::shell::Shell;
use crate::work;

/// How long a command waits for another one that has the home open (`docs/spec.md`).
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether the lock or a daemon's socket is there: neither tells when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Paths of sockets longer than this need a detour (`sockaddr_un` holds 108 bytes with the NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Whatever answers the control API.
pub enum Client {
    /// A running daemon.
    Daemon {
        /// Its home.
        home: PathBuf,
    },
    /// This process has the home open itself.
    Local(Arc<Shell>),
}

/// Why the control API can't be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The home can't be opened.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The daemon went away, or never spoke.
    #[error("the daemon does not answer: {0}")]
    Daemon(String),
}

impl Client {
    /// Finds a running daemon, or opens the home; waits a little for another command to end.
    pub async fn connect(home: &Path) -> Result<Self, ClientError> {
        if !Home::exists(home) {
            // A home that is not finished, or none: `open` would make a lock file in it.
            let unreadable = std::fs::symlink_metadata(home.join(crate::home::CONFIG));
            if let Err(source) = unreadable
                && source.kind() == std::io::ErrorKind::PermissionDenied
            {
                return Err(HomeError::Io { doing: "read", path: home.into(), source }.into());
            }
            return Err(Home::absence(home).into());
        }
        match open_home(home, true).await? {
            Some(opened) => Ok(Self::Local(Arc::new(Shell::new(opened)))),
            None => Ok(Self::Daemon { home: home.into() }),
        }
    }

    /// Makes one request.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        let gone = |error: &dyn std::fmt::Display| ClientError::Daemon(error.to_string());
        match self {
            Self::Local(shell) => Ok(api::handle(shell.clone(), request).await),
            Self::Daemon { home } => {
                let socket = open_socket(home).await.map_err(|error| gone(&error))?;
                let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
                let (mut sender, connection) = handshake.map_err(|error| gone(&error))?;
                tokio::spawn(connection);
                let response = sender.send_request(request).await.map_err(|error| gone(&error))?;
                Ok(response.map(|body| body.map_err(Into::into).boxed()))
            }
        }
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Home(error) => error.into(),
            ClientError::Daemon(_) => Self::new(502, "daemon", error.to_string())
                .hint("was it stopped? the same command also works without it"),
        }
    }
}

impl From<HomeError> for ApiError {
    fn from(error: HomeError) -> Self {
        let code = match &error {
            HomeError::Missing(_) => "no-home",
            HomeError::Exists(_) => "home-exists",
            HomeError::InUse { .. } => "in-use",
            HomeError::Config { .. } => "config",
            HomeError::AuthorExists(_) => "author-exists",
            _ if error.is_read_only_store() => "read-only",
            HomeError::Engine(_) | HomeError::Store(_) => "store",
            _ => "home",
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        let hint = error.hint();
        let error = Self::new(500, code, message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Opens a home, when whoever has it lets go; waits a little. With `or_daemon`, `None` as soon as a daemon
/// answers for it; and one that can't be written to is opened for reading only.
pub async fn open_home(home: &Path, or_daemon: bool) -> Result<Option<Home>, HomeError> {
    let began = Instant::now();
    loop {
        if or_daemon && open_socket(home).await.is_ok() {
            return Ok(None);
        }
        let taken = match HomeLock::take(home) {
            Err(error) if or_daemon && error.is_read_only(home) => {
                return work::in_place(|| Home::open_read_only(home)).map(Some);
            }
            taken => taken?,
        };
        if let Some(lock) = taken {
            return work::in_place(|| Home::open(home, lock)).map(Some);
        }
        if began.elapsed() >= PATIENCE {
            let process = HomeLock::holder(home);
            return Err(HomeError::InUse { path: home.into(), process });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Opens a daemon's socket; works for paths of any length.
pub(crate) async fn open_socket(home: &Path) -> std::io::Result<UnixStream> {
    let (path, _folder) = socket_path(home)?;
    UnixStream::connect(path).await
}

/// A path by which the socket can be bound or reached, and the folder that must stay open for it.
pub(crate) fn socket_path(home: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd as _;
    let path = home.join(SOCKET);
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((path, None));
    }
    // A descriptor of the folder gives a short path to it.
    let folder = std::fs::File::open(home)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((path, Some(folder)))
}
