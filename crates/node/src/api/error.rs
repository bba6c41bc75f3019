//! Errors as programs and people see them.

use madake_log::AuthorId;
use madake_store::engine::EngineError;
use madake_store::{AppendError, StoreError};
use serde_json::{Value, json};

use crate::home::COPY_IT;

/// An error of the control API: a code for programs, a message and what to type next for people.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// A word that stays the same.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to type next.
    pub hint: Option<String>,
}

impl ApiError {
    /// An error with a code of its own.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), hint: None }
    }

    /// The request makes no sense: exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(400, "usage", message)
    }

    /// What was asked for is not here.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not-found", message)
    }

    /// A peer can't be reached: exit 6.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(502, "unreachable", message)
    }

    /// The asker went away.
    pub(super) fn gone() -> Self {
        Self::new(499, "gone", "the asker went away")
    }

    /// Several authors have what was asked for.
    pub fn ambiguous(what: &str, authors: &[AuthorId]) -> Self {
        let list: Vec<String> = authors.iter().map(ToString::to_string).collect();
        Self::usage(format!("several authors have {what}: {}", list.join(", ")))
            .hint("say whose with --author")
    }

    /// Adds what to type next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to type next: as it was said where the error was made, else what helps with errors of its kind.
    pub fn next(&self) -> &str {
        if let Some(hint) = &self.hint {
            return hint;
        }
        match self.code.as_str() {
            "usage" => "`madake --help` lists the commands, `madake COMMAND --help` says what each takes",
            "not-found" => "`madake log list`, `madake head list` and `madake peer list` show what is here",
            "bug" => "this is a mistake of madake's own: please report it with what `madake -vv` says",
            "store" | "damaged" => {
                "keep a copy of the home before anything else; `madake fsck` says what is wrong, and where"
            }
            "daemon" | "cut" | "gone" => {
                "was the daemon stopped? type the command again: what it acknowledged is kept"
            }
            "network" => "`madake status` shows how the node and its peers are",
            "file" | "stdout" | "system" | "home" => "check the path, its rights and the room on the disk",
            _ => "`madake status` shows how the node is; `madake -v` says more of what happens",
        }
    }

    /// `{"error":{"code","message","hint"}}`
    pub fn to_json(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message, "hint": self.next()}})
    }

    /// Reads what [`to_json`](Self::to_json) wrote; `None` if the value is no error.
    pub fn from_json(value: &Value) -> Option<Self> {
        let error = value.get("error")?;
        let text = |name| error.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self { status: 500, code: text("code")?, message: text("message")?, hint: text("hint") })
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.code.as_str() {
            "usage" | "confirm" => 2,
            "forked" => 3,
            "contested" => 4,
            "guard" => 5,
            "unreachable" => 6,
            _ => 1,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        if let StoreError::Unmet(_) = &error {
            return Self::new(409, "meanwhile", message).hint("type the command again");
        }
        let StoreError::Engine(engine) = &error else { return Self::new(500, "store", message) };
        match **engine {
            EngineError::DiskFull { .. } => {
                Self::new(500, "disk-full", message).hint("free some space; what was acknowledged is kept")
            }
            EngineError::ReadOnly { .. } => Self::new(403, "read-only", message).hint(COPY_IT),
            EngineError::Stopped => {
                Self::new(503, "stopping", message).hint("type the command again: what was acknowledged is kept")
            }
            EngineError::Index { .. } => Self::new(500, "index", message)
                .hint("stop the daemon if one runs, then `madake fsck --repair`"),
            EngineError::Refusing { .. } => Self::new(500, "store", message).hint(
                "see to what failed; then stop `madake serve` and start it again: what was acknowledged is kept",
            ),
            EngineError::Disk { ref source, .. } => {
                let error = Self::new(500, "store", message);
                match denied(source) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            _ => Self::new(500, "store", message),
        }
    }
}

/// What helps where the system does not let us.
pub(crate) fn denied(error: &std::io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "check who owns the folder and what is in it, and its rights; another home can be named with --home"
        }
        std::io::ErrorKind::ReadOnlyFilesystem => COPY_IT,
        _ => return None,
    })
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(error) => error.into(),
            AppendError::Reserved(_) => Self::usage(error.to_string()).hint("madake commit NAME FILE"),
            AppendError::Commit(_) => {
                Self::usage(error.to_string()).hint("`madake commit --help` says what a commit may have")
            }
            AppendError::NoParent(..) => Self::new(404, "not-found", error.to_string())
                .hint("`madake history NAME` lists the commits of a file; `madake pull PEER` asks for what is missing"),
            AppendError::OtherName { ref of, .. } => {
                let hint = format!("`madake history {of}` lists the commits of that file");
                Self::usage(error.to_string()).hint(hint)
            }
            AppendError::Moved(ref name) => Self::new(409, "moved", error.to_string())
                .hint(format!("look at it (`madake history {name}`), and type the command again")),
            AppendError::Contended => Self::new(409, "contended", error.to_string())
                .hint("write in one home only, or the logs fork; `madake log list` shows how far they are"),
            AppendError::Blocked => {
                Self::new(403, "blocked", error.to_string()).hint("`madake follow AUTHOR` undoes it")
            }
            AppendError::Partial { .. } => {
                Self::new(409, "partial", error.to_string()).hint("`madake pull PEER` brings all of it")
            }
            AppendError::Quota(_) => Self::new(403, "quota", error.to_string())
                .hint("`madake quota AUTHOR --none` takes the limit away"),
            AppendError::Guarded { .. } => Self::new(409, "guard", error.to_string())
                .hint("`madake home status` says of whom an answer is waited for"),
            AppendError::Fenced { .. } => Self::new(409, "fenced", error.to_string())
                .hint("if the author is to write on this device from now on: madake home marry HOME (its name or ticket, as in `madake home status`)"),
            AppendError::Forked { author, log, .. } => Self::new(409, "forked", error.to_string())
                .hint(format!("`madake fork show {author}/{log}` shows its branches side by side")),
            AppendError::NotForked { .. } => {
                Self::new(409, "not-forked", error.to_string()).hint("madake fork list")
            }
            AppendError::NotResolved { author, log } => Self::new(409, "not-resolved", error.to_string())
                .hint(format!("madake fork resolve {author}/{log} --keep ENTRY")),
            AppendError::CantKeep { author, log, .. } => Self::new(409, "cant-keep", error.to_string())
                .hint(format!("`madake fork show {author}/{log}` shows what can be kept")),
            AppendError::Ended { author, log } => Self::new(409, "ended", error.to_string())
                .hint(format!("`madake fork show {author}/{log}` shows what is dropped; it stays readable")),
            AppendError::TooManyLogs | AppendError::TooManyGenerations(_) => {
                Self::new(409, "append", error.to_string())
                    .hint("write to a schema that is there: `madake log list` shows them")
            }
            other => Self::new(500, "append", other.to_string())
                .hint("`madake log list` shows how far the logs are; `madake log verify` checks them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::home::HomeError;

    #[test]
    fn where_the_system_does_not_let_us_the_hint_is_about_that() {
        let refused = |kind: io::ErrorKind| HomeError::Io {
            doing: "open",
            path: "home/lock".into(),
            source: io::Error::from(kind),
        };
        let hint = |error: HomeError| ApiError::from(error).next().to_owned();
        assert!(hint(refused(io::ErrorKind::ReadOnlyFilesystem)).contains("copy it to a place"));
        assert!(hint(refused(io::ErrorKind::PermissionDenied)).contains("rights"));
        assert!(hint(refused(io::ErrorKind::Other)).contains("rights"));
        let cause = EngineError::Bug { what: "a test" }.into();
        let refusing = ApiError::from(EngineError::Refusing { cause });
        assert!(refusing.next().contains("start it again"), "{refusing:?}");
    }
}
