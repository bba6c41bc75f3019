//! Homes in folders that go away, the real program run in them, and daemons that die with their test.
//!
//! Nothing here sleeps: a test waits for a line of output or for a process to end, and a wait that
//! takes longer than [`PATIENCE`] fails the test instead of hanging it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses a part of this

pub mod homes;
pub mod hostile;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// More than any step takes, also on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const MADAKE: &str = env!("CARGO_BIN_EXE_madake");

/// A home folder, and a folder beside it for the files of the test.
pub struct Home {
    folder: TempDir,
    pub path: PathBuf,
    /// What `init` printed.
    pub made: Value,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A running `madake serve`; killed when dropped.
pub struct Daemon {
    child: Child,
    events: Receiver<String>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    /// Its first line.
    pub ready: Value,
}

/// A command whose input is written and whose output is read line by line; killed when dropped.
pub struct Talk {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Home {
    /// A home made by `madake init`.
    pub fn new() -> Self {
        let mut home = Self::none();
        home.made = home.json(["init"]);
        home
    }

    /// A place for a home, and none in it.
    pub fn none() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        Self { folder, path, made: Value::Null }
    }

    /// A place for the test's own files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes one of the test's own files, with the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn author(&self) -> String {
        text(&self.made, "author")
    }

    pub fn node(&self) -> String {
        text(&self.made, "node")
    }

    /// What `madake id` prints as the ticket; it has addresses only while a daemon runs.
    pub fn ticket(&self) -> String {
        text(&self.json(["id"]), "ticket")
    }

    /// The program on this home.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(MADAKE);
        command.env_remove("MADAKE_HOME").arg("--home").arg(&self.path).args(args);
        command
    }

    /// Runs a command without input.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(args), b"")
    }

    /// Runs a command that must do well, with this input, and gives its stdout.
    pub fn feed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Vec<u8> {
        let mut command = self.command(args);
        let ran = run(&mut command, input);
        assert_eq!(ran.code, 0, "{command:?}: {ran}");
        ran.stdout
    }

    /// Runs a command that must do well, for its effect.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) {
        self.feed(args, b"");
    }

    /// The lines that a command prints with `--json`; it must do well.
    pub fn lines<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<Value> {
        self.feed_lines(args, b"")
    }

    /// As [`lines`](Self::lines), with this input.
    pub fn feed_lines<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Vec<Value> {
        json_lines(&self.feed(with_json(args), input))
    }

    /// The one object that a command prints with `--json`.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let mut lines = self.lines(args);
        assert_eq!(lines.len(), 1, "one line was expected: {lines:?}");
        lines.remove(0)
    }

    /// Runs a command that must fail with this exit code, nothing on stdout and one error on stderr.
    pub fn error<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, code: i32) -> Value {
        self.feed_error(args, b"", code)
    }

    /// As [`error`](Self::error), with this input.
    pub fn feed_error<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
        code: i32,
    ) -> Value {
        let mut command = self.command(with_json(args));
        run(&mut command, input).error(code)
    }

    /// Starts a daemon on a free port of loopback and waits until it is ready.
    pub fn serve(&self) -> Daemon {
        self.serve_with(&["--listen", "127.0.0.1:0"])
    }

    /// Starts a daemon with these arguments and waits until it is ready.
    pub fn serve_with(&self, args: &[&str]) -> Daemon {
        self.serve_dying(args, "")
    }

    /// Likewise; it dies by itself when it comes to this moment (`crates/node/src/moments.rs`).
    pub fn serve_dying(&self, args: &[&str], at: &str) -> Daemon {
        let mut child = self
            .command(["--json", "serve"])
            .args(args)
            .env("MADAKE_DIE_AT", at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let events = read_lines(child.stdout.take().unwrap());
        let stderr = Some(drain(child.stderr.take().unwrap()));
        let mut daemon = Daemon { child, events, stderr, ready: Value::Null };
        match daemon.events.recv_timeout(PATIENCE) {
            Ok(line) => daemon.ready = serde_json::from_str(&line).unwrap(),
            Err(_) => {
                let _ = daemon.child.kill();
                let stderr = daemon.stderr.take().unwrap().join().unwrap();
                panic!("the daemon did not get ready: {}", String::from_utf8_lossy(&stderr));
            }
        }
        assert_eq!(daemon.ready["event"], "ready", "{}", daemon.ready);
        daemon
    }

    /// Starts a command that is talked to while it runs.
    pub fn talk<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Talk {
        let mut command = self.command(with_json(args));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        Talk { stdin: child.stdin.take(), child, lines }
    }

    /// `log verify` finds every log good; gives how many entries there are.
    #[track_caller]
    pub fn verifies(&self) -> u64 {
        let logs = self.lines(["log", "verify"]);
        for log in &logs {
            assert_eq!(log["ok"], true, "{log}");
            assert_eq!(log["problems"], serde_json::json!([]), "{log}");
        }
        logs.iter().map(|log| number(log, "seq")).sum()
    }
}

impl Ran {
    /// The error that the command ended with: this exit code, JSON on stderr, nothing on stdout.
    #[track_caller]
    pub fn error(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{self}");
        assert!(self.stdout.is_empty(), "something on stdout beside an error: {self}");
        let last = self.stderr.lines().last().unwrap_or_default().to_owned();
        let value: Value = serde_json::from_str(&last).unwrap_or_else(|_| panic!("no JSON: {self}"));
        let error = value["error"].clone();
        for field in ["code", "message", "hint"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {self}");
        }
        error
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, String::from_utf8_lossy(&self.stdout), self.stderr)
    }
}

impl Daemon {
    /// Where it listens.
    pub fn listen(&self) -> String {
        text(&self.ready, "listen")
    }

    /// The ticket with the bound port.
    pub fn ticket(&self) -> String {
        text(&self.ready, "ticket")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for an event of this name.
    #[track_caller]
    pub fn wait_for(&self, event: &str) -> Value {
        loop {
            let line = self.events.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no event `{event}` came"));
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has died by itself.
    pub fn dies(mut self) {
        let began = std::time::Instant::now();
        while let Ok(_) | Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            self.events.recv_timeout(PATIENCE.saturating_sub(began.elapsed()))
        {
            assert!(began.elapsed() < PATIENCE, "the daemon lives");
        }
        assert_eq!(self.child.wait().unwrap().code(), None, "a signal ended it");
    }

    /// Asks it to stop, and gives its exit code.
    pub fn stop(mut self) -> i32 {
        terminate(&self.child);
        // Its stdout ends when it does.
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the daemon does not stop"),
            }
        }
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Talk {
    /// Writes bytes to its input, and lets them go.
    pub fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().expect("the input is still open");
        stdin.write_all(bytes).and_then(|()| stdin.flush())
    }

    /// The next line of its output; `None` when it has ended.
    #[track_caller]
    pub fn hear(&self) -> Option<Value> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("no answer came"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends its input.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Ends it at once, and gives what it had said.
    pub fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.extend(serde_json::from_str::<Value>(&line).ok());
        }
        rest
    }

    /// Waits for its end.
    pub fn exit_code(mut self) -> i32 {
        self.hang_up();
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two nodes that have added each other; A runs, and B follows A's author.
pub struct Pair {
    pub a: Home,
    pub b: Home,
    pub daemon: Daemon,
}

impl Pair {
    pub fn new() -> Self {
        let (a, b) = (Home::new(), Home::new());
        let daemon = a.serve();
        befriend(&b, &a, &daemon);
        b.ok(["follow", &a.author()]);
        Self { a, b, daemon }
    }

    /// What B's `pull a` prints.
    pub fn pull(&self) -> Value {
        self.b.json(["pull", "a"])
    }
}

/// Both add the other: at `b` the peer is called `a`, at `a` it is called `b`.
pub fn befriend(b: &Home, a: &Home, a_runs: &Daemon) {
    b.ok(["peer", "add", &a_runs.ticket(), "--name", "a"]);
    a.ok(["peer", "add", &b.ticket(), "--name", "b"]);
}

/// Runs the same story with no daemon and with one. The story gets a fresh home each time.
pub fn with_and_without_daemon(story: impl Fn(&Home)) {
    let home = Home::new();
    story(&home);
    let home = Home::new();
    let daemon = home.serve();
    assert_eq!(std::fs::read_to_string(home.path.join("lock")).unwrap(), daemon.pid().to_string());
    story(&home);
    assert_eq!(daemon.stop(), 0);
}

/// Runs a command to its end. One that does not end is killed, and fails the test.
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may end before it has read all.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stderr = drain(child.stderr.take().unwrap());
    let (sender, ended) = channel();
    let mut stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        sender.send(bytes)
    });
    let stdout = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = child.kill();
        panic!("{command:?} does not end")
    });
    let code = child.wait().unwrap().code().unwrap_or(-1);
    feeding.join().unwrap();
    Ran { code, stdout, stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned() }
}

/// Waits until the store's files are so long, or the command has ended.
pub fn wait_for_growth(home: &Home, bytes: u64, command: &mut Talk) {
    let began = std::time::Instant::now();
    // The system has no portable word for "a file grew".
    while disk(&home.path) < bytes && !command.has_ended() {
        assert!(began.elapsed() < PATIENCE, "the store does not grow");
        std::thread::yield_now();
    }
}

/// Bytes of all files of a home. Some may go while we look.
pub fn disk(folder: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(folder) else { return 0 };
    let size = |item: std::fs::DirEntry| match item.metadata() {
        Ok(there) if there.is_dir() => disk(&item.path()),
        Ok(there) => there.len(),
        Err(_) => 0,
    };
    items.flatten().map(size).sum()
}

/// SIGTERM.
pub fn terminate(child: &Child) {
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
}

pub fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not ended: {text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}")))
        .collect()
}

/// A field that must be there and be text.
#[track_caller]
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {value}")).to_owned()
}

/// A field that must be there and be a number.
#[track_caller]
pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {value}"))
}

/// A field that must be there and be a list.
#[track_caller]
pub fn list(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().unwrap_or_else(|| panic!("no list `{field}` in {value}")).clone()
}

/// The fields that the contract (`docs/api.md`) asks for are there.
#[track_caller]
pub fn has_fields(value: &Value, fields: &str) {
    for field in fields.split(' ') {
        assert!(value.get(field).is_some(), "no `{field}` in {value}");
    }
}

/// A full id: 64 lower-case hex digits.
#[track_caller]
pub fn is_id(value: &Value) {
    let id = value.as_str().unwrap_or_else(|| panic!("no id: {value}"));
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(id.len() == 64 && id.chars().all(hex), "no id: {id}");
}

/// What `b3sum` prints for these bytes.
pub fn b3sum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All regular files below a folder, with their bytes and whether they may be executed.
pub fn tree(folder: &Path) -> std::collections::BTreeMap<String, (Vec<u8>, bool)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for item in std::fs::read_dir(next).unwrap() {
            let path = item.unwrap().path();
            let there = std::fs::symlink_metadata(&path).unwrap();
            if there.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                assert!(there.is_file(), "{name} is no regular file");
                let executable = there.permissions().mode() & 0o100 != 0;
                files.insert(name, (std::fs::read(&path).unwrap(), executable));
            }
        }
    }
    files
}

/// The ordinary files of a home with their bytes.
pub fn tree_of_home(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![home.path.clone()]);
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let item = item.unwrap();
            let kind = item.file_type().unwrap();
            if kind.is_dir() {
                folders.push(item.path());
            } else if kind.is_file() {
                files.push((item.path(), std::fs::read(item.path()).unwrap()));
            }
        }
    }
    files
}

/// The words in front of the colons of a list of refusals, with the ids.
pub fn reasons(refused: &Value) -> Vec<(String, String)> {
    let word = |reason: String| reason.split(':').next().unwrap_or_default().to_owned();
    let items = refused.as_array().expect("a list of refusals");
    items.iter().map(|item| (word(text(item, "reason")), text(item, "id"))).collect()
}

fn with_json<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Vec<std::ffi::OsString> {
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    std::iter::once("--json".into()).chain(args).collect()
}

fn read_lines(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits until something is so, asking again and again; says what was so at last.
#[track_caller]
pub fn until<T: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> (bool, T)) {
    let began = std::time::Instant::now();
    loop {
        let (so, found) = ask();
        if so {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {found:?}");
    }
}
