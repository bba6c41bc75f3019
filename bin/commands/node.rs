//! `init`, `id`, `serve`, `status`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use madake_log::AuthorId;
use madake_node::api::ApiError;
use madake_node::client::open_home;
use madake_node::daemon::{Daemon, DaemonError};
use madake_node::home::{CONFIG, Config, DEFAULT_LISTEN, DEFAULT_LISTEN_V4, Home};
use madake_node::net::BindError;
use madake_node::shell::NetworkError;
use serde_json::{Value, json};

use super::{number, text};
use crate::call::Api;
use crate::out::{Out, Table, bytes, flush};

/// Logs that are held in part that a person is shown in one line; programs get more.
const SHOWN: usize = 5;

/// How long whoever reads our lines may take for the last one.
const LAST_LINE: Duration = Duration::from_millis(500);

pub(super) fn init(
    home: &Path,
    nick: Option<String>,
    recovery: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let recovery = recovery.map(|text| recovery_key(&text)).transpose()?;
    let made = Home::init(home, Config { nick, ..Config::default() })?;
    if let Some(key) = recovery {
        made.name_recovery(key)?;
    }
    show_home(&made, out);
    out.note("`madake serve` runs it; `madake log append post FILE` writes a first entry");
    Ok(ExitCode::SUCCESS)
}

/// The key of another home's author, all of it: nothing here knows its beginning.
fn recovery_key(text: &str) -> Result<AuthorId, ApiError> {
    let wrong = |why: String| {
        ApiError::usage(format!("`{text}` can't be a recovery key: {why}")).hint(
            "the author of a home that is kept in a safe place: `madake id`, there, prints its 64 digits",
        )
    };
    let key: AuthorId = text.parse().map_err(|error: madake_log::IdError| wrong(error.to_string()))?;
    key.check_key().map_err(|error| wrong(error.to_string()))?;
    Ok(key)
}

pub(super) async fn clone(home: &Path, out: &Out) -> Result<ExitCode, ApiError> {
    if !Home::exists(home) {
        return Err(Home::absence(home).into());
    }
    let clone = take_home(home).await?.become_clone()?;
    show_home(&clone, out);
    out.note("it is another node now: its peers have to add it (`madake id` prints the ticket)");
    out.note("both homes sign with one author key: write in one of them only, or the logs fork");
    Ok(ExitCode::SUCCESS)
}

fn show_home(home: &Home, out: &Out) {
    let (author, node) = (home.author_key.author().to_string(), home.node_key.author().to_string());
    let value = json!({"author": author, "node": node, "home": home.path.to_string_lossy()});
    out.result(&value, || format!("home    {}\nauthor  {author}\nnode    {node}", home.path.display()));
}

pub(super) async fn id(api: &Api, out: &Out) -> Result<ExitCode, ApiError> {
    let id = api.one(Method::GET, "/v1/id", &[]).await?;
    let shown = ["author", "node", "ticket", "epoch", "home"];
    out.result(&id, || shown.map(|field| format!("{field:<8}{}", text(&id, field))).join("\n"));
    if !text(&id, "ticket").contains('@') {
        out.note(
            "the node is not running, so the ticket has no address: others can add it, and not reach it",
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(api: &Api, out: &Out) -> Result<ExitCode, ApiError> {
    let status = api.one(Method::GET, "/v1/status", &[]).await?;
    if out.json {
        out.result(&status, String::new);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("node", text(&status, "node").to_owned());
    row("listening", status["listening"].as_str().unwrap_or("no: not running").to_owned());
    for field in ["logs", "entries", "objects", "missing", "forks", "contested"] {
        row(field, number(&status, field).to_string());
    }
    row("disk", bytes(number(&status, "bytes")));
    if number(&status, "partial") > 0 {
        row(
            "partial",
            format!("{} logs: {}", number(&status, "partial"), partial_text(&status["partial_logs"])),
        );
    }
    table.print();
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !peers.is_empty() {
        crate::out::print_line("");
        let mut table = Table::default();
        table.row(["PEER", "STATE", "ROUND TRIP", "LAST SYNC", "MISSING"].map(str::to_owned));
        for peer in peers {
            let rtt = peer["rtt_ms"].as_f64().map_or_else(|| "-".into(), |rtt| format!("{rtt:.1} ms"));
            let last = peer["last_sync"].as_str().unwrap_or("-").to_owned();
            let missing = peer["missing"].as_u64().map_or_else(|| "-".into(), |_| missing_by(peer));
            let mut state = peer["failure"].as_str().unwrap_or(text(peer, "state")).to_owned();
            if let Some(at) = peer["rolled_back"].as_str() {
                state = format!("{state}; its store went back, seen {at}");
            }
            table.row([text(peer, "name").to_owned(), state, rtt, last, missing]);
        }
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs that are held in part, and from where on each is: the first of them.
pub(super) fn partial_text(list: &Value) -> String {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let log = |part: &Value| {
        format!("{}/{} from {}", crate::out::short(text(part, "author")), part["log"], part["from"])
    };
    let more = if list.len() > SHOWN { ", …" } else { "" };
    list.iter().take(SHOWN).map(log).collect::<Vec<_>>().join(", ") + more
}

/// What was missing after the last session with a peer, and why: `0`, or `2 object (not-there)`.
fn missing_by(peer: &Value) -> String {
    let sums = peer["missing_by"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum =
        |sum: &Value| format!("{} {} ({})", number(sum, "count"), text(sum, "what"), text(sum, "reason"));
    match sums {
        [] => number(peer, "missing").to_string(),
        sums => sums.iter().map(sum).collect::<Vec<_>>().join(", "),
    }
}

pub(super) async fn serve(
    path: &Path,
    listen: Option<String>,
    open: bool,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let home_made = !Home::exists(path);
    let home = if !home_made {
        take_home(path).await?
    } else {
        let home = Home::init(path, Config::default())?;
        out.note(&format!("there was no home in {}: a new one was made", path.display()));
        home
    };
    if home.copied {
        out.note("this home is a copy, or was restored from a backup, and has a new store epoch");
        out.note("if the original still runs: `madake init --clone` makes this one another node");
    }
    let addresses = match (listen, &home.config.listen) {
        (Some(address), _) => vec![resolve(&address)?],
        (None, Some(address)) => vec![resolve(address).map_err(|error| {
            ApiError::new(500, "config", format!("`listen` in {}: {error}", path.join(CONFIG).display()))
                .hint("give HOST:PORT there, such as listen = \"127.0.0.1:6232\"")
        })?],
        (None, None) => vec![resolve(DEFAULT_LISTEN)?, resolve(DEFAULT_LISTEN_V4)?],
    };
    let daemon = Daemon::start(home, &addresses, open).map_err(|error| start_error(&error))?;

    // From here on a signal ends the daemon in good order, also while the first line is written.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| ApiError::new(500, "system", format!("no signals: {error}")))?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    let shell = daemon.shell();
    let (node, ticket) = (shell.node().to_string(), shell.ticket().to_string());
    let listening = shell.listening().map(|address| address.to_string()).unwrap_or_default();
    let ready = json!({
        "event": "ready",
        "node": node,
        "listen": listening,
        "ticket": ticket,
        "open": open,
        "home": path.to_string_lossy(),
        "home_made": home_made,
    });
    let ready_text = format!("node    {node}\nlisten  {listening}\nticket  {ticket}");

    let mut events = daemon.events();
    let (printed, done) = tokio::sync::oneshot::channel();
    let out = *out;
    // A thread of its own: who does not read our lines must not hold up anything else.
    std::thread::spawn(move || {
        out.result(&ready, || ready_text);
        flush();
        if open {
            out.note("open: every node that comes is talked to (--open)");
        }
        loop {
            match events.blocking_recv() {
                Ok(event) => {
                    out.result(&event, || event_text(&event));
                    flush();
                    if event["event"] == "stopped" {
                        break;
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            }
        }
        let _ = printed.send(()); // nobody waits any more
    });
    daemon.run(stop).await;
    if tokio::time::timeout(LAST_LINE, done).await.is_err() {
        crate::out::nobody_reads();
    }
    Ok(ExitCode::SUCCESS)
}

fn event_text(event: &Value) -> String {
    let peer = crate::out::short(text(event, "peer"));
    match text(event, "event") {
        "session" => format!(
            "session with {peer}: {}; sent {}, received {} entries, refused {}",
            crate::out::clean(text(event, "reason")),
            number(&event["sent"], "entries"),
            number(&event["received"], "entries"),
            number(event, "refused"),
        ),
        "invited" => format!(
            "{peer} at {} brought an invite code and is a peer now: {}",
            text(event, "address"),
            crate::out::clean(text(event, "name")),
        ),
        "turned-away" => format!(
            "turned away {peer} at {}: not a peer (`madake peer add TICKET` would let it in)",
            text(event, "address")
        ),
        "peer" => {
            let name = event["name"].as_str().filter(|name| !name.is_empty());
            let name = name.map_or(peer, crate::out::clean);
            match event["failure"].as_str() {
                Some(failure) => format!("{name}: {}: {}", text(event, "state"), crate::out::clean(failure)),
                None => format!("{name}: {}", text(event, "state")),
            }
        }
        "stopped" => "stopped".into(),
        _ => event.to_string(),
    }
}

/// The home for this process alone.
async fn take_home(path: &Path) -> Result<Home, ApiError> {
    let opened = open_home(path, false).await?;
    opened.ok_or_else(|| ApiError::new(500, "bug", "a daemon was found where none was looked for"))
}

fn resolve(address: &str) -> Result<SocketAddr, ApiError> {
    let wrong = |why: String| {
        ApiError::usage(format!("can't listen on `{address}`: {why}"))
            .hint("give HOST:PORT, such as 127.0.0.1:6232")
    };
    let found = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.next();
    found.ok_or_else(|| wrong("no such host".into()))
}

fn start_error(error: &DaemonError) -> ApiError {
    let new = |code, hint: &str| ApiError::new(500, code, error.to_string()).hint(hint);
    match error {
        DaemonError::Network(NetworkError::Bind(BindError::InUse { .. })) => new(
            "port-in-use",
            "another program has the port: choose another with --listen HOST:PORT, port 0 for any",
        ),
        DaemonError::Network(NetworkError::Bind(BindError::NotAvailable { .. })) => {
            new("no-such-address", "this machine does not have the address: see --listen")
        }
        DaemonError::Network(NetworkError::Bind(BindError::Permission { .. })) => {
            new("permission", "ports below 1024 need rights: choose another with --listen")
        }
        DaemonError::Control { .. } => new("control-socket", "is the home's folder writable?"),
        _ => ApiError::new(500, "network", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_told_in_words() {
        let peer = "ab".repeat(32);
        let told = |event: Value| event_text(&event);
        let stands = |name: Value, failure: Value| {
            told(
                json!({"event": "peer", "peer": peer, "name": name, "state": "unreachable", "failure": failure}),
            )
        };
        assert_eq!(stands(json!("bob"), Value::Null), "bob: unreachable");
        assert_eq!(
            stands(Value::Null, json!("no \u{1b}answer")),
            "abababababab: unreachable: no \\u{1b}answer"
        );
        let session = json!({"event": "session", "peer": peer, "reason": "in order", "sent": {"entries": 2},
            "received": {"entries": 1}, "refused": 0, "missing": 0});
        assert_eq!(
            told(session),
            "session with abababababab: in order; sent 2, received 1 entries, refused 0"
        );
    }
}
