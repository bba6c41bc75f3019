//! `why`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::text;
use crate::call::Api;
use crate::out::{Out, clean};
use crate::progress::{Progress, Unit};

/// Says what is known of a thing, and what to type next. It answers 0, whatever it says.
pub(super) async fn why(api: &Api, target: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let progress = Progress::new(out, "looking", Unit::Steps, None);
    let answer = api.one(Method::GET, "/v1/why", &[("target", target)]).await;
    drop(progress);
    let answer = answer?;
    out.result(&answer, || shown(&answer));
    Ok(ExitCode::SUCCESS)
}

fn shown(answer: &Value) -> String {
    let mut lines = vec![clean(&format!("{} {}", text(answer, "kind"), text(answer, "target")))];
    for fact in answer["facts"].as_array().into_iter().flatten() {
        let at = fact["at"].as_str().map(|at| format!(" ({at})")).unwrap_or_default();
        lines.push(clean(&format!("  {}{at}", text(fact, "text"))));
    }
    if let Some(next) = answer["next"].as_str() {
        lines.push(clean(&format!("next: {next}")));
    }
    lines.join("\n")
}
