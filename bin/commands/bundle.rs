//! `log export`, `log import`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use hyper::Method;
use madake_log::{BundleDecoder, BundleEvent};
use madake_node::api::{ApiError, Body};
use serde_json::{Value, json};

use super::files::{Counted, cant_write, sync_name, write_aside};
use super::{number, text};
use crate::call::{Api, Feed, open, reading};
use crate::out::{Out, bytes as size_text, clean, short};
use crate::progress::{Progress, Unit};

/// Refusals that a person is shown; programs get all.
const SHOWN: usize = 10;

/// What was written.
#[derive(Default)]
struct Written {
    entries: u64,
    payloads: u64,
    bytes: u64,
}

impl Written {
    fn to_json(&self, file: &str) -> Value {
        json!({"entries": self.entries, "payloads": self.payloads, "bytes": self.bytes, "file": file})
    }
}

pub(super) async fn export(
    api: &Api,
    logs: &[String],
    output: &Path,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let query: Vec<_> = logs.iter().map(|log| ("log", log.as_str())).collect();
    let body = api.bytes(Method::GET, "/v1/bundle", &query, Vec::new()).await?;
    let progress = Progress::new(out, "writing", Unit::Bytes, None);
    if output == Path::new("-") {
        let mut stdout = std::io::stdout().lock();
        let written = copy(body, &mut Counted { to: &mut stdout, progress }, "stdout").await?;
        out.note(&format!("{} entries, {} payloads", written.entries, written.payloads));
        out.beside(&written.to_json("-"));
        return Ok(ExitCode::SUCCESS);
    }
    let shown = output.display().to_string();
    let written = write_aside(output, 0o666, async |file| {
        let written = copy(body, &mut Counted { to: &mut *file, progress }, &shown).await?;
        file.sync_all().map_err(|error| cant_write(&shown, &error))?;
        Ok(written)
    })
    .await?;
    sync_name(output)?;
    let value = written.to_json(&shown);
    let Written { entries, payloads, bytes } = written;
    out.result(&value, || {
        let missing = match entries - payloads {
            0 => String::new(),
            missing => format!(" ({missing} are not here)"),
        };
        format!("{entries} entries, {payloads} payloads{missing}, {} in {shown}", size_text(bytes))
    });
    out.note(
        "`madake log import FILE` takes it in; AUTHOR/0, the control log, says what schemas logs are of",
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes a bundle and counts what is in it; one that was cut off on the way does not pass.
async fn copy(mut body: Body, to: &mut impl Write, shown: &str) -> Result<Written, ApiError> {
    let (mut decoder, mut written) = (BundleDecoder::new(), Written::default());
    let wrong = |error: &dyn std::fmt::Display| {
        ApiError::new(502, "cut", format!("the export did not come whole: {error}"))
            .hint("`madake log verify` finds what can't be read")
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| wrong(&error))?.into_data() else { continue };
        let mut rest = data.as_ref();
        while let Some(event) = decoder.next(&mut rest).map_err(|error| wrong(&error))? {
            match event {
                BundleEvent::Entry(_) => written.entries += 1,
                BundleEvent::Payload { last, .. } => written.payloads += u64::from(last),
            }
        }
        to.write_all(&data).map_err(|error| cant_write(shown, &error))?;
        written.bytes += data.len() as u64;
    }
    decoder.finish().map_err(|error| wrong(&error))?;
    to.flush().map_err(|error| cant_write(shown, &error))?;
    Ok(written)
}

pub(super) async fn import(api: &Api, file: PathBuf, out: &Out) -> Result<ExitCode, ApiError> {
    let shown = file.display().to_string();
    let progress = reading(std::slice::from_ref(&file), "importing", out);
    let reader = open(&file)?;
    let source = move |feed: &mut Feed| {
        feed.shows(progress);
        feed.raw_from(reader, &file)
    };
    let mut result = None;
    api.upload("/v1/bundle", &[], source, |line| {
        if line.get("progress").is_none() {
            result = Some(line);
        }
    })
    .await?;
    let mut result =
        result.ok_or_else(|| ApiError::new(502, "daemon", "the import ended without a result"))?;
    name_source(&mut result, &shown);
    out.result(&result, || imported_text(&result));
    for author in result["not_followed"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.note(&format!(
            "{} is not followed, and what came is kept all the same; peers are asked for more after: \
             madake follow {author}",
            short(author)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was refused came from this file.
pub(super) fn name_source(result: &mut Value, shown: &str) {
    for refused in result["refused"].as_array_mut().into_iter().flatten() {
        refused["from"] = json!(shown);
    }
}

pub(super) fn imported_text(result: &Value) -> String {
    let (entries, payloads) = (number(result, "entries"), number(result, "payloads"));
    let known = match number(result, "known") {
        0 => String::new(),
        known => format!("; {known} entries were here"),
    };
    let size = size_text(number(result, "bytes"));
    let mut lines = vec![format!("{entries} entries, {payloads} payloads, {size}{known}")];
    let refused = result["refused"].as_array().map(Vec::as_slice).unwrap_or_default();
    for item in refused.iter().take(SHOWN) {
        let (what, id, reason) = (text(item, "what"), text(item, "id"), text(item, "reason"));
        lines.push(clean(&format!("refused   {what} {id}: {reason}")));
    }
    let more = number(result, "refused_count").saturating_sub(refused.len().min(SHOWN) as u64);
    if more > 0 {
        lines.push(format!("refused   and {more} more (--json lists them)"));
    }
    lines.join("\n")
}
