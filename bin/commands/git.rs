//! `import git`: a git history as commits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::process::ExitCode;

use hyper::Method;
use madake_git::{Found, GitError, Graph, Repository, Skipped, Walk, WalkError};
use madake_node::api::{ApiError, RecordHeader};
use madake_node::home::KEY_PREFIX;
use madake_object::{CommitAuthor, DELETED, Mode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::tree::{check_name, settled};
use super::{given, merge::signer, text};
use crate::args::ImportGitArgs;
use crate::call::{Api, Feed};
use crate::out::{Out, short};
use crate::progress::{Progress, Unit};

/// Versions that are sent at a time, at most.
const BATCH: usize = 1_000;
/// Bytes of files that are sent at a time, more or less: a file is in memory as a whole.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What the thread that reads the repository found.
struct Read {
    reference: String,
    tip: String,
    git_commits: usize,
    files: usize,
    deleted: usize,
    skipped: Vec<Skipped>,
}

pub(super) async fn import(api: &Api, args: ImportGitArgs, out: &Out) -> Result<ExitCode, ApiError> {
    let prefix =
        args.prefix.as_deref().map(|prefix| prefix.trim_end_matches('/')).unwrap_or_default().to_owned();
    if !prefix.is_empty() {
        check_name(&prefix)?;
    }
    let author = signer(api, args.author.as_deref()).await?;
    let heads = heads(api, &prefix, &author).await?;
    let before: HashSet<String> = heads.keys().cloned().collect();
    let below = prefix.clone();
    let key: [u8; 32] = data_encoding::HEXLOWER
        .decode(author.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| ApiError::new(502, "daemon", "an answer that makes no sense"))?;
    let (sender, mut batches) = mpsc::channel::<Vec<Found>>(1);
    let progress = Progress::new(out, "reading", Unit::Steps, None);
    let reading = tokio::task::spawn_blocking(move || {
        let reader = Reader { args, prefix, author: CommitAuthor::new(key), heads, sender, progress };
        reader.read()
    });
    // What the members are asked to agree on is only the newest version of each name.
    let query = [("author", author.as_str()), ("keep", "1")];
    let (mut made, mut here, mut failed) = (0, 0, None);
    let mut names = BTreeSet::new();
    while let Some(batch) = batches.recv().await {
        if failed.is_some() {
            continue; // what it follows may not be here
        }
        names.extend(batch.iter().map(|found| found.commit.name.as_str().to_owned()));
        match store(api, &query, batch).await {
            Ok((new, known)) => (made, here) = (made + new, here + known),
            Err(error) => {
                // The reader sees that nobody takes what it finds.
                failed = Some(error);
                batches.close();
            }
        }
    }
    let read =
        reading.await.map_err(|error| ApiError::new(500, "bug", format!("the reader failed: {error}")))?;
    if let Some(error) = failed {
        return Err(error);
    }
    let read = read?;
    let states = propose(api, &below, &author, &before, names).await?;
    show(&read, made, here, &states, out);
    settled(states.pending, &states.contested, out)
}

/// What the cluster made of what was imported.
#[derive(Default)]
struct States {
    agreed: usize,
    pending: usize,
    contested: Vec<String>,
}

/// Has the newest version of each name agreed, if this node is a member of a cluster: of names that are the cluster's,
/// and of those that are new here. What was one's own before stays so until it is published.
async fn propose(
    api: &Api,
    prefix: &str,
    author: &str,
    before: &HashSet<String>,
    mut names: BTreeSet<String>,
) -> Result<States, ApiError> {
    if names.iter().any(|name| before.contains(name)) {
        let mut agreed = HashSet::new();
        let mut heads = api.ask(Method::GET, "/v1/heads", &[("prefix", prefix)]).await?;
        while let Some(head) = heads.next().await? {
            if head.get("agreed").is_some() {
                agreed.insert(text(&head, "name").to_owned());
            }
        }
        names.retain(|name| agreed.contains(name) || !before.contains(name));
    }
    let names: Vec<String> = names.into_iter().collect();
    let (query, mut states) = ([("prefix", prefix), ("author", author)], States::default());
    for some in names.chunks(BATCH) {
        let list: String = some.iter().map(|name| format!("{name}\n")).collect();
        let mut heads = match api.ask_about(Method::POST, "/v1/head/publish", &query, list).await {
            Err(error) if error.code == "no-cluster" => return Ok(states),
            other => other?,
        };
        while let Some(head) = heads.next().await? {
            match text(&head, "state") {
                "pending" => states.pending += 1,
                "contested" => states.contested.push(text(&head, "name").to_owned()),
                _ => states.agreed += 1,
            }
        }
    }
    Ok(states)
}

/// The author's names below the prefix, and of which git commit the head of each was made, if of one.
async fn heads(api: &Api, prefix: &str, author: &str) -> Result<HashMap<String, Option<String>>, ApiError> {
    let query = given(&[("prefix", Some(prefix)), ("author", Some(author)), ("deleted", Some("1"))]);
    let mut answer = match api.ask(Method::GET, "/v1/tree", &query).await {
        Err(error) if error.code == "not-found" => return Ok(HashMap::new()),
        other => other?,
    };
    let mut heads = HashMap::new();
    while let Some(head) = answer.next().await? {
        let tags = head["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let git = tags.filter_map(|tag| tag.strip_prefix("git:")).next().map(str::to_owned);
        heads.insert(text(&head, "name").to_owned(), git);
    }
    Ok(heads)
}

/// Sends those of a batch that are not here yet; how many there were of each kind.
async fn store(api: &Api, query: &[(&str, &str)], batch: Vec<Found>) -> Result<(u64, u64), ApiError> {
    let ids: String = batch.iter().map(|found| format!("{}\n", found.id)).collect();
    let mut answer = api.ask_about(Method::POST, "/v1/commits/missing", &[], ids).await?;
    let mut missing = HashSet::new();
    while let Some(line) = answer.next().await? {
        missing.insert(text(&line, "commit").to_owned());
    }
    let here = batch.len() - missing.len();
    let batch: Vec<Found> =
        batch.into_iter().filter(|found| missing.contains(&found.id.to_string())).collect();
    if batch.is_empty() {
        return Ok((0, here as u64));
    }
    let mut expected = batch.iter().map(|found| found.id.to_string()).collect::<Vec<_>>().into_iter();
    let (mut made, mut astray) = (0, None);
    let source = move |feed: &mut Feed| {
        for found in batch {
            feed.begin(&header(&found));
            feed.chunk(&found.bytes)?;
            feed.end()?;
        }
        Ok(())
    };
    let line = |line: Value| {
        made += u64::from(line["new"] == true);
        let commit = text(&line, "commit");
        if expected.next().as_deref() != Some(commit) {
            astray.get_or_insert(commit.to_owned());
        }
    };
    api.upload("/v1/commits/given", query, source, line).await?;
    match astray {
        // Later versions would name commits that are not there.
        Some(commit) => Err(ApiError::new(500, "bug", format!("commit {commit} is not what was sent"))),
        None => Ok((made, here as u64)),
    }
}

fn header(found: &Found) -> RecordHeader {
    let commit = &found.commit;
    RecordHeader {
        name: Some(commit.name.as_str().to_owned()),
        executable: commit.mode == Mode::Executable,
        symlink: commit.mode == Mode::Symlink,
        deleted: commit.is_deleted(),
        message: commit.message.clone(),
        previous: commit.previous.map(|id| id.to_string()),
        merges: commit.merges.iter().map(ToString::to_string).collect(),
        time: Some(commit.time),
        tags: commit.tags.iter().filter(|tag| *tag != DELETED).cloned().collect(),
        ..RecordHeader::default()
    }
}

/// Reads the repository, in a thread of its own.
struct Reader {
    args: ImportGitArgs,
    prefix: String,
    author: CommitAuthor,
    heads: HashMap<String, Option<String>>,
    sender: mpsc::Sender<Vec<Found>>,
    progress: Progress,
}

impl Reader {
    fn read(self) -> Result<Read, ApiError> {
        let repository = Repository::open(&self.args.repo).map_err(refused)?;
        let tip = repository.resolve(self.args.reference.as_deref().unwrap_or("HEAD")).map_err(refused)?;
        let graph = Graph::read(&repository, &tip).map_err(refused)?;
        let others = others(&self.heads, &graph);
        let is_key = |bytes: &[u8]| bytes.starts_with(KEY_PREFIX.as_bytes());
        let mut walk = Walk::new(&repository, &graph, self.author, &self.prefix, &is_key);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let total = Some(graph.len() as u64);
        let send = |batch: Vec<Found>| {
            let unheard = |_| ApiError::new(502, "daemon", "nobody takes what is read");
            self.sender.blocking_send(batch).map_err(unheard)
        };
        let found = |found: Found| {
            if others.contains(found.commit.name.as_str()) {
                return Err(contested(found.commit.name.as_str()));
            }
            bytes += found.bytes.len() + found.commit.message.len();
            batch.push(found);
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                bytes = 0;
                send(std::mem::take(&mut batch))?;
            }
            Ok(())
        };
        let walked = walk.run(found, |done| self.progress.step("git commits", done as u64, total));
        walked.map_err(|error| match error {
            WalkError::Git(error) => refused(error),
            WalkError::Taker(error) => error,
            other => ApiError::new(500, "bug", chain(&other)),
        })?;
        if !batch.is_empty() {
            send(batch)?;
        }
        let ((files, deleted), skipped) = (walk.count(), walk.take_skipped().into_items());
        Ok(Read { reference: tip.name, tip: tip.commit, git_commits: graph.len(), files, deleted, skipped })
    }
}

/// The names whose heads are none of this history's versions.
fn others(heads: &HashMap<String, Option<String>>, graph: &Graph) -> HashSet<String> {
    let named: HashSet<&str> = heads.values().flatten().map(String::as_str).collect();
    let of_graph: HashSet<String> = if named.is_empty() {
        HashSet::new()
    } else {
        graph.ids().filter(|id| named.contains(id.as_str())).collect()
    };
    let is_other = |git: &Option<String>| git.as_ref().is_none_or(|id| !of_graph.contains(id));
    heads.iter().filter(|(_, git)| is_other(git)).map(|(name, _)| name.clone()).collect()
}

fn contested(name: &str) -> ApiError {
    let message =
        format!("`{name}` has a version that is not of this history: it would not be the newest any more");
    ApiError::new(409, "contested", message).hint(
        "import under another --prefix, or as an author of its own: `madake author new mirror`, then `--author mirror`",
    )
}

fn refused(error: GitError) -> ApiError {
    let (status, code, hint) = match &error {
        GitError::NoRepository(_) => {
            (404, "not-found", "name the folder of a work tree, its .git, or a bare repository")
        }
        GitError::NoReference(_) | GitError::NoCommit(_) => (
            404,
            "not-found",
            "`git -C REPO branch --all` and `git -C REPO tag` list what can be said with --ref",
        ),
        GitError::Unborn(_) => {
            (404, "not-found", "name another branch with --ref: `git -C REPO branch --all` lists them")
        }
        GitError::Missing { .. } => (
            409,
            "missing",
            "`git -C REPO fsck` says what is wrong; in a partial clone `git fetch --refetch` brings all. What was imported \
             so far stays, and the same command goes on",
        ),
        GitError::Damaged { .. } | GitError::Reference { .. } => (
            409,
            "damaged",
            "`git -C REPO fsck` says what is wrong. What was imported so far stays, and the same command goes on",
        ),
        GitError::TooMuch { .. } => {
            (413, "too-much", "docs/decisions/0019-git.md has the limits and where they come from")
        }
        GitError::Io { .. } => (400, "file", "check the path and its rights"),
        _ => (400, "unsupported", "`git clone` makes a repository of the usual kind of it"),
    };
    ApiError::new(status, code, chain(&error)).hint(hint)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut message, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let said = cause.to_string();
        if !message.ends_with(&said) {
            message = format!("{message}: {said}");
        }
        source = cause.source();
    }
    message
}

fn show(read: &Read, made: u64, here: u64, states: &States, out: &Out) {
    let skipped: Vec<Value> = read
        .skipped
        .iter()
        .map(|item| {
            json!({
                "what": item.what,
                "path": item.path,
                "commit": item.commit,
                "reason": item.reason,
                "count": item.count,
            })
        })
        .collect();
    let value = json!({
        "commits": made,
        "files": read.files,
        "skipped": skipped,
        "here": here,
        "deleted": read.deleted,
        "git_commits": read.git_commits,
        "ref": read.reference,
        "tip": read.tip,
        "agreed": states.agreed,
        "pending": states.pending,
        "contested": states.contested.len(),
    });
    if !out.json {
        for item in &read.skipped {
            let times = if item.count > 1 { format!(" ({} times)", item.count) } else { String::new() };
            let what = if item.path.is_empty() { item.what } else { &item.path };
            out.skipped(what, &format!("{}{times}", item.reason));
        }
    }
    out.result(&value, || {
        let known = if here > 0 { format!(", {here} were here") } else { String::new() };
        format!(
            "{made} commits made{known}: {} files, {} deleted names, of {} git commits of {} ({})",
            read.files,
            read.deleted,
            read.git_commits,
            crate::out::clean(&read.reference),
            short(&read.tip),
        )
    });
}
