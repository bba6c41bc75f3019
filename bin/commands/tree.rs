//! `commit` and `checkout`, of one file and of folders.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::{ApiError, RecordHeader};
use madake_object::FileName;

use super::diff::version;
use super::files::{Counted, copy, write_file};
use super::heads::agreed_head;
use super::merge::own_head;
use super::{given, number, text};
use crate::args::{CheckoutArgs, CommitArgs};
use crate::call::{Api, Feed, cant_read, open};
use crate::checkout::Target;
use crate::out::{Out, clean, short};
use crate::progress::{Progress, Unit};

pub(super) async fn commit(
    api: &Api,
    home: &Path,
    args: CommitArgs,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let message = args.message;
    let risk = args.accept_fork_risk.then_some("1");
    let query = given(&[("author", args.author.as_deref()), ("accept_fork_risk", risk)]);
    let mut made = 0;
    // Names whose heads a cluster agrees on, and that are not agreed.
    let (mut pending, mut contested) = (0, Vec::new());
    let mut show = |commit: serde_json::Value| {
        made += 1;
        match text(&commit, "state") {
            "pending" => pending += 1,
            "contested" => contested.push(text(&commit, "name").to_owned()),
            _ => {}
        }
        out.result(&commit, || {
            let state = match text(&commit, "state") {
                "local" | "" => String::new(),
                state => format!("  {state}"),
            };
            format!("{}  {}{state}", short(text(&commit, "commit")), clean(text(&commit, "name")))
        });
    };
    if let (Some(name), Some(file)) = (args.name, args.file) {
        check_name(&name)?;
        let executable = std::fs::metadata(&file).is_ok_and(|there| is_executable(&there));
        let mut header =
            RecordHeader { name: Some(name.clone()), executable, message, ..RecordHeader::default() };
        let mut path = "/v1/commits";
        if !args.merge.is_empty() {
            path = "/v1/commits/given";
            follow(api, &mut header, &name, &args.merge, args.author.as_deref()).await?;
        }
        let source = move |feed: &mut Feed| feed.record(&header, open(&file)?, &file);
        api.upload(path, &query, source, show).await?;
        return settled(pending, &contested, out);
    }
    let Some(root) = args.tree else { return Ok(ExitCode::from(2)) };
    let prefix = args.prefix.as_deref().map(|prefix| prefix.trim_end_matches('/')).unwrap_or_default();
    if !prefix.is_empty() {
        check_name(prefix)?;
    }
    // The whole folder is looked through before anything is committed, so that a name that can't be
    // used is known in time.
    let mut found = Vec::new();
    let home = std::fs::metadata(home).map_err(|error| cant_read(home, &error))?;
    let walk = Walk { prefix, home: (home.dev(), home.ino()), out };
    walk.folder(&root, "", &mut found)?;
    let count = found.len();
    let total = found.iter().map(|file| file.size).sum();
    let progress = Progress::new(out, "committing", Unit::Bytes, Some(total));
    let source = move |feed: &mut Feed| {
        feed.shows(progress);
        for Found { name, path, .. } in found {
            let file = File::options()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(&path)
                .map_err(|error| cant_read(&path, &error))?;
            let executable = file.metadata().is_ok_and(|there| is_executable(&there));
            let (name, message) = (Some(name), message.clone());
            let only_if_changed = true;
            let header =
                RecordHeader { name, executable, message, only_if_changed, ..RecordHeader::default() };
            feed.record(&header, file, &path)?;
        }
        Ok(())
    };
    api.upload("/v1/commits", &query, source, &mut show).await?;
    out.note(&format!("{made} of {count} files have a new version"));
    settled(pending, &contested, out)
}

/// What the cluster made of commits. What is contested is kept, on side branches: the heads are others'.
pub(super) fn settled(pending: usize, contested: &[String], out: &Out) -> Result<ExitCode, ApiError> {
    if pending > 0 {
        out.note(&format!(
            "{pending} not agreed yet: kept here, and proposed again by itself while `madake serve` runs \
             (`madake cluster status` shows who is in reach)"
        ));
    }
    let Some(first) = contested.first() else { return Ok(ExitCode::SUCCESS) };
    let message = format!("another version of `{first}` was agreed: this one lies on a side branch");
    let message = match contested.len() {
        1 => message,
        more => format!("{message}, and so with {} more names", more - 1),
    };
    Err(ApiError::new(409, "contested", message).hint(format!("madake head show {first}")))
}

/// Has a version follow the head that a cluster agrees on, or else the author's, and these commits.
async fn follow(
    api: &Api,
    header: &mut RecordHeader,
    name: &str,
    merges: &[String],
    author: Option<&str>,
) -> Result<(), ApiError> {
    for commit in merges {
        header.merges.push(text(&version(api, name, commit).await?, "commit").to_owned());
    }
    let agreed = agreed_head(api, name).await;
    header.on_head = agreed.is_none();
    let head = match agreed {
        Some(head) => Some(head),
        None => own_head(api, name, author).await?,
    };
    header.previous = head.and_then(|head| head["commit"].as_str().map(str::to_owned));
    Ok(())
}

pub(super) async fn checkout(api: &Api, args: CheckoutArgs, out: &Out) -> Result<ExitCode, ApiError> {
    let author = args.author.as_deref();
    if let Some(name) = args.name {
        let query = given(&[("name", Some(&name)), ("author", author)]);
        let head = api.one(Method::GET, "/v1/head", &query).await?;
        if head["state"] == "deleted" {
            let message = format!("`{name}` is deleted since {}", text(&head, "time"));
            return Err(ApiError::new(404, "deleted", message).hint(format!(
                "`madake history {name}` lists its versions, and `madake get OBJECT -o FILE` writes one"
            )));
        }
        if head["mode"] == "symlink" {
            return Err(ApiError::new(
                400,
                "symlink",
                format!("`{name}` is a symbolic link, which checkout never makes"),
            )
            .hint(format!("madake get {}", text(&head, "object"))));
        }
        if args.output.is_dir() {
            return Err(ApiError::usage(format!("{} is a folder", args.output.display()))
                .hint("name the file to write, or check out a --tree"));
        }
        let (body, id) = api.object(text(&head, "object")).await?;
        if args.output == Path::new("-") {
            copy(body, &id, &mut std::io::stdout().lock(), "stdout").await?;
            out.beside(&head);
            return Ok(ExitCode::SUCCESS);
        }
        write_file(body, &id, &args.output, head["mode"] == "executable", out).await?;
        out.result(&head, || format!("{}  {}", short(text(&head, "commit")), args.output.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(prefix) = args.tree else { return Ok(ExitCode::from(2)) };
    let query = given(&[("prefix", Some(&prefix)), ("author", author)]);
    let mut answer = api.ask(Method::GET, "/v1/tree", &query).await?;
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    while let Some(file) = answer.next().await? {
        if file["mode"] == "symlink" {
            out.skipped(text(&file, "path"), "a symbolic link: checkout never makes one");
        } else if file["held"] == true {
            files.push(file);
        } else {
            missing.push(clean(text(&file, "name")));
        }
    }
    if !missing.is_empty() {
        let some: Vec<&str> = missing.iter().take(5).map(String::as_str).collect();
        let message = format!(
            "{} of {} files are not here yet: {}{}",
            missing.len(),
            missing.len() + files.len(),
            some.join(", "),
            if missing.len() > some.len() { ", …" } else { "" }
        );
        return Err(
            ApiError::new(404, "missing", message).hint("`madake pull PEER` asks for what is missing")
        );
    }
    let target = Target::open(&args.output, args.force)?;
    let paths: BTreeSet<&str> = files.iter().map(|file| text(file, "path")).collect();
    let mut clashing = 0;
    let total = files.iter().map(|file| number(file, "size")).sum();
    let progress = Progress::new(out, "writing", Unit::Bytes, Some(total));
    for file in &files {
        let path = text(file, "path");
        // A name may be a file of one commit and a folder of another: both can't be on a disk.
        let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
        if let Some(file) = above.find(|folder| paths.contains(folder)) {
            out.skipped(path, &format!("`{}` is a file", clean(file)));
            clashing += 1;
            continue;
        }
        // Names are checked where they are signed and where they come in; a third time where they are used.
        check_name(path)?;
        let (body, id) = api.object(text(file, "object")).await?;
        let to = target.create(path, file["mode"] == "executable")?;
        let mut to = Counted { to, progress: progress.clone() };
        copy(body, &id, &mut to, path).await?;
        out.result(file, || format!("{}  {}", short(text(file, "commit")), clean(path)));
    }
    out.note(&format!("{} files in {}", files.len() - clashing, args.output.display()));
    if clashing > 0 {
        let message = format!("{clashing} files were left out: another name is where their folder would be");
        return Err(ApiError::new(409, "clash", message)
            .hint("check them out one by one: madake checkout NAME -o FILE"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is to be committed.
struct Found {
    name: String,
    path: PathBuf,
    size: u64,
}

/// How a folder is looked through.
struct Walk<'a> {
    prefix: &'a str,
    /// Device and inode of the home folder: its keys are nobody else's.
    home: (u64, u64),
    out: &'a Out,
}

impl Walk<'_> {
    /// All regular files below a folder, in the order of their names; what is left out is told.
    fn folder(&self, folder: &Path, relative: &str, found: &mut Vec<Found>) -> Result<(), ApiError> {
        let Self { prefix, out, .. } = self;
        let here = std::fs::metadata(folder).map_err(|error| cant_read(folder, &error))?;
        if (here.dev(), here.ino()) == self.home {
            out.skipped(if relative.is_empty() { "." } else { relative }, "the home folder, with its keys");
            return Ok(());
        }
        let failed = |error: std::io::Error| cant_read(folder, &error);
        let mut items =
            std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        items.sort_by_key(std::fs::DirEntry::file_name);
        if items.is_empty() {
            out.skipped(if relative.is_empty() { "." } else { relative }, "an empty folder");
        }
        for item in items {
            let path = item.path();
            let Some(name) = item.file_name().to_str().map(str::to_owned) else {
                return Err(ApiError::usage(format!("the name of {} is not UTF-8", path.display()))
                    .hint("rename the file: names in commits are text. Nothing was committed"));
            };
            let relative = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
            let kind = item.file_type().map_err(|error| cant_read(&path, &error))?;
            if name == ".git" {
                out.skipped(&relative, "a `.git` is never committed");
            } else if kind.is_dir() {
                self.folder(&path, &relative, found)?;
            } else if kind.is_symlink() {
                out.skipped(&relative, "a symbolic link");
            } else if kind.is_file() {
                let full = if prefix.is_empty() { relative } else { format!("{prefix}/{relative}") };
                check_name(&full)?;
                let size = item.metadata().map_or(0, |file| file.len()); // for the bar only
                found.push(Found { name: full, path, size });
            } else {
                out.skipped(&relative, "not a regular file");
            }
        }
        Ok(())
    }
}

pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    match name.parse::<FileName>() {
        Ok(_) => Ok(()),
        Err(error) => Err(ApiError::usage(format!("{name:?} can't be committed: {error}"))
            .hint("rename it. Nothing was committed")),
    }
}

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o100 != 0
}
