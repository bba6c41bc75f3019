//! `export`, `import`: everything of a home's authors in one file.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use hyper::Method;
use madake_log::{BundleDecoder, BundleEvent};
use madake_node::api::{ApiError, Body};
use madake_node::export::{
    Decoder, DroppedAt, Event, ExportError, Keys, Kind, MAX_SMALL, SealError, Settings, seal, unseal,
};
use madake_node::home::{Config, Home};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::bundle::{imported_text, name_source};
use super::files::{Counted, cant_write, sync_name, write_aside};
use super::{number, text};
use crate::call::{Api, Feed, cant_read};
use crate::out::{Out, bytes as size_text, short};
use crate::progress::{Progress, Unit};

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// What a file holds, as far as it can be told without taking it in.
#[derive(Default)]
struct Found {
    entries: u64,
    payloads: u64,
    objects: u64,
    bytes: u64,
    dropped_bytes: usize,
    sealed: Vec<u8>,
    settings: Option<Settings>,
}

/// Reads an export piece by piece and counts what is in it.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    bundle: BundleDecoder,
    item: Option<Kind>,
    small: Vec<u8>,
    found: Found,
}

impl Reader {
    fn take(&mut self, mut piece: &[u8]) -> Result<(), ApiError> {
        self.found.bytes += piece.len() as u64;
        while let Some(event) = self.decoder.next(&mut piece).map_err(|error| bad(&error))? {
            match (event, self.item) {
                (Event::Begin(kind), _) => self.item = Some(kind),
                (Event::Bytes(bytes), Some(Kind::Keys | Kind::Settings)) => {
                    self.small.extend_from_slice(bytes);
                    if self.small.len() > MAX_SMALL {
                        return Err(bad(&ExportError::TooLong));
                    }
                }
                (Event::Bytes(bytes), Some(Kind::Dropped)) => {
                    self.found.dropped_bytes += bytes.len();
                }
                (Event::Bytes(mut bytes), Some(Kind::Bundle | Kind::Branch)) => {
                    while let Some(event) = self.bundle.next(&mut bytes).map_err(|error| bad(&error))? {
                        match event {
                            BundleEvent::Entry(_) => self.found.entries += 1,
                            BundleEvent::Payload { last, .. } => self.found.payloads += u64::from(last),
                        }
                    }
                }
                (Event::Bytes(_), _) => {}
                (Event::End, Some(Kind::Keys)) => self.found.sealed = std::mem::take(&mut self.small),
                (Event::End, Some(Kind::Settings)) => {
                    let settings = Settings::decode(&std::mem::take(&mut self.small));
                    self.found.settings = Some(settings.ok_or_else(|| bad(&ExportError::Settings))?);
                }
                (Event::End, Some(Kind::Bundle | Kind::Branch)) => {
                    std::mem::take(&mut self.bundle).finish().map_err(|error| bad(&error))?;
                }
                (Event::End, Some(Kind::Object | Kind::Pinned)) => self.found.objects += 1,
                (Event::End, Some(Kind::Dropped))
                    if !self.found.dropped_bytes.is_multiple_of(DroppedAt::LEN) =>
                {
                    return Err(bad(&ExportError::Dropped));
                }
                (Event::End, _) => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Found, ApiError> {
        self.decoder.finish().map_err(|error| bad(&error))?;
        Ok(self.found)
    }
}

pub(super) async fn export(
    api: &Api,
    home: &Path,
    output: &Path,
    with_keys: bool,
    passphrase_file: Option<&Path>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let sealed = match with_keys {
        true => {
            let passphrase = passphrase(passphrase_file, true)?;
            let keys = Keys::of_home(home)?;
            tokio::task::block_in_place(|| seal(&keys, &passphrase)).map_err(seal_error)?
        }
        false => Vec::new(),
    };
    let body = api.bytes(Method::POST, "/v1/export", &[], sealed).await?;
    let progress = Progress::new(out, "exporting", Unit::Bytes, None);
    let shown = output.display().to_string();
    // Not for everybody, also without keys: policies and peers are nobody else's.
    let found = write_aside(output, 0o600, async |file| {
        let found = copy(body, &mut Counted { to: &mut *file, progress }, &shown).await?;
        file.sync_all().map_err(|error| cant_write(&shown, &error))?;
        Ok(found)
    })
    .await?;
    sync_name(output)?;
    let peers = found.settings.as_ref().map_or(0, |settings| settings.peers.len());
    let authors: Vec<String> = found.settings.iter().flat_map(author_ids).collect();
    let value = json!({
        "entries": found.entries,
        "payloads": found.payloads,
        "objects": found.objects,
        "bytes": found.bytes,
        "authors": authors,
        "peers": peers,
        "keys": with_keys,
        "file": shown,
    });
    out.result(&value, || {
        let Found { entries, payloads, objects, bytes, .. } = found;
        let keys = if with_keys { "with keys" } else { "without keys" };
        format!(
            "{entries} entries, {payloads} payloads, {objects} objects, {}, {keys}, in {shown}",
            size_text(bytes)
        )
    });
    if !with_keys {
        out.note("nobody can sign with this file alone: --with-keys puts the keys in, under a passphrase");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes an export and reads it meanwhile: one that was cut off on the way does not pass.
async fn copy(mut body: Body, to: &mut impl Write, shown: &str) -> Result<Found, ApiError> {
    let mut reader = Reader::default();
    let cut = |error: &dyn std::fmt::Display| {
        ApiError::new(502, "cut", format!("the export did not come whole: {error}"))
            .hint("`madake log verify` finds what can't be read")
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| cut(&error))?.into_data() else { continue };
        reader.take(&data).map_err(|error| cut(&error))?;
        to.write_all(&data).map_err(|error| cant_write(shown, &error))?;
    }
    let found = reader.finish().map_err(|error| cut(&error))?;
    to.flush().map_err(|error| cant_write(shown, &error))?;
    Ok(found)
}

pub(super) async fn import(
    home: &Path,
    path: PathBuf,
    passphrase_file: Option<&Path>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    // The whole file is read before anything is made of it: a damaged one leaves no home behind.
    let (file, found) = tokio::task::block_in_place(|| look_through(&path, out))?;
    let settings = found.settings.ok_or_else(|| bad(&ExportError::Settings))?;
    let home_made = !Home::exists(home);
    if !home_made && let Some(path) = passphrase_file {
        check_keys(home, &found.sealed, path)?;
    }
    if home_made {
        // Of what `config.toml` said there, only how much is kept of others came along.
        let quota = settings.default_quota;
        let config = Config { quota_entries: quota.entries, quota_bytes: quota.bytes, ..Config::default() };
        let made = match found.sealed.as_slice() {
            [] => Home::init(home, config)?,
            sealed => {
                let passphrase = passphrase(passphrase_file, false)?;
                let keys = tokio::task::block_in_place(|| unseal(sealed, &passphrase)).map_err(seal_error)?;
                Home::restore(home, config, &keys)?
            }
        };
        drop(made); // it is opened again as any home is
    }
    let shown = path.display().to_string();
    let api = Api::open(home).await?;
    let progress = Progress::new(out, "importing", Unit::Bytes, Some(found.bytes));
    let source = move |feed: &mut Feed| {
        feed.shows(progress);
        feed.raw_from(file, &path)
    };
    let mut result = None;
    let uploaded = api
        .upload("/v1/import", &[], source, |line| {
            if line.get("progress").is_none() {
                result = Some(line);
            }
        })
        .await;
    let id = match &uploaded {
        Ok(()) => api.ask(Method::GET, "/v1/authors", &[]).await,
        Err(error) => Err(error.clone()),
    };
    let mut held = Vec::new();
    if let Ok(mut authors) = id {
        while let Some(author) = authors.next().await? {
            held.push(text(&author, "author").to_owned());
        }
    }
    api.close().await;
    uploaded?;
    let mut result =
        result.ok_or_else(|| ApiError::new(502, "daemon", "the import ended without a result"))?;
    name_source(&mut result, &shown);
    result["home_made"] = json!(home_made);
    result["keys"] = json!(home_made && !found.sealed.is_empty());
    out.result(&result, || {
        let (objects, peers) = (number(&result, "objects"), number(&result, "peers"));
        format!("{}\n{objects} objects, {peers} peers", imported_text(&result))
    });
    for author in author_ids(&settings).filter(|author| !held.contains(author)) {
        out.note(&format!(
            "the key of {} is not in this home: its logs are kept, and nobody here signs for it{}",
            short(&author),
            if found.sealed.is_empty() { "" } else { "; the file has it, for a folder that is no home yet" },
        ));
    }
    out.note("this home counts as a restored copy and has a new store epoch");
    if result["keys"] == Value::Bool(true) {
        out.note("if the original still runs: `madake init --clone` makes this one another node");
        out.note("write in one of the two only, or the logs fork");
    }
    Ok(ExitCode::SUCCESS)
}

/// For an import into a home that is there, with a passphrase: it must be the right one, and the file must hold no
/// author's key that the home has not. A home's keys are made with it and stay.
fn check_keys(home: &Path, sealed: &[u8], passphrase_file: &Path) -> Result<(), ApiError> {
    if sealed.is_empty() {
        return Err(ApiError::usage(
            "the file holds no keys, so that there is nothing to open with a passphrase",
        )
        .hint("leave --passphrase-file out, or take a file that `madake export --with-keys` wrote"));
    }
    let passphrase = passphrase(Some(passphrase_file), false)?;
    let keys = tokio::task::block_in_place(|| unseal(sealed, &passphrase)).map_err(seal_error)?;
    let here = Keys::of_home(home)?.authors();
    let lacking: Vec<String> =
        keys.authors().difference(&here).map(|author| short(&author.to_string())).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the file has the key of {}, and this home has not and can't take it: its keys were made with it",
        lacking.join(", ")
    );
    Err(ApiError::new(409, "other-author", message).hint(
        "with the keys it makes a home of its own: madake --home NEW-FOLDER import FILE --passphrase-file …; \
         without --passphrase-file the logs alone are taken in here",
    ))
}

/// Reads a whole file, and gives it back at its beginning.
fn look_through(path: &Path, out: &Out) -> Result<(File, Found), ApiError> {
    let mut file = File::open(path).map_err(|error| cant_read(path, &error))?;
    let about = file.metadata().map_err(|error| cant_read(path, &error))?;
    if !about.is_file() {
        return Err(ApiError::usage(format!("{} is no regular file", path.display()))
            .hint("an export is read twice: name the file that `madake export -o FILE` wrote"));
    }
    let progress = Progress::new(out, "checking", Unit::Bytes, Some(about.len()));
    let (mut reader, mut buffer) = (Reader::default(), vec![0; PIECE]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => reader.take(&buffer[..length])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cant_read(path, &error)),
        }
        progress.set(reader.found.bytes, None);
    }
    let found = reader.finish()?;
    file.rewind().map_err(|error| cant_read(path, &error))?;
    Ok((file, found))
}

fn author_ids(settings: &Settings) -> impl Iterator<Item = String> {
    settings.authors.iter().map(|(author, _)| author.to_string())
}

/// The passphrase, from a file or from the terminal; a new one is asked for twice.
pub(super) fn passphrase(file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, ApiError> {
    let given = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| cant_read(path, &error))?;
            let text = Zeroizing::new(text);
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None if !std::io::stdin().is_terminal() => {
            return Err(ApiError::usage("a passphrase is needed, and there is no terminal to ask at")
                .hint("put it into a file of your own: --passphrase-file FILE"));
        }
        None => ask(new)?,
    };
    if given.is_empty() {
        return Err(ApiError::usage("the passphrase is empty").hint("choose one of several words"));
    }
    Ok(given)
}

fn ask(new: bool) -> Result<Zeroizing<String>, ApiError> {
    let prompt = |text: &str| {
        let failed = |error| ApiError::new(500, "system", format!("the terminal can't be read: {error}"));
        rpassword::prompt_password(text).map(Zeroizing::new).map_err(failed)
    };
    let given = prompt("passphrase: ")?;
    if new && *prompt("once more: ")? != *given {
        return Err(ApiError::usage("the two differ").hint("type the command again"));
    }
    Ok(given)
}

fn seal_error(error: SealError) -> ApiError {
    match error {
        SealError::Home(error) => error.into(),
        SealError::Passphrase => ApiError::new(403, "passphrase", error.to_string())
            .hint("it is the one that `madake export --with-keys` was given"),
        _ => ApiError::new(400, "bad-export", error.to_string())
            .hint("take the file as `madake export --with-keys` wrote it"),
    }
}

fn bad(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(400, "bad-export", format!("the file can't be imported: {error}"))
        .hint("take it whole, as `madake export` wrote it; a file of `log export` is for `madake log import`")
}
