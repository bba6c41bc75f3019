//! Invites: codes with which nodes become peers.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_store::{Change, CodeHash, Invite, Purpose};
use serde_json::{Value, json};

use super::node::{blocking, rfc3339};
use super::peers::{check_name, dial};
use super::{ApiError, Body, Query, full, object, respond};
use crate::driver::wall_clock;
use crate::knock::{MAX_INVITES, knock, read_code};
use crate::link::close;
use crate::net::{CloseReason, NodeId};
use crate::shell::Shell;

/// The beginning of a code has at least so many letters.
const MIN_LETTERS: usize = 4;

/// `POST /v1/invites[?name=N]` → `{code, expires, invite, name, ticket}`: the one time that the code is told
pub(super) async fn make(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let name = query.get("name").map(str::to_owned);
        if let Some(name) = &name {
            check_name(name)?;
        }
        let _one_at_a_time = shell.lock_settings();
        let now = wall_clock();
        let (open, over): (Vec<_>, Vec<_>) =
            shell.store().invites()?.into_iter().partition(|(_, invite)| now < invite.expires);
        if open.len() >= MAX_INVITES {
            return Err(ApiError::new(409, "too-many-invites", format!("{MAX_INVITES} invites are open"))
                .hint("`madake peer invite list` shows them, `madake peer invite revoke CODE` ends one"));
        }
        shell.store().apply(over.into_iter().map(|(hash, _)| Change::RevokeInvite(hash)).collect())?;
        let (code, invite) = shell.invite(name, Purpose::Peer, now)?;
        let mut value = invite_json(&invite);
        value["code"] = json!(code.text);
        value["ticket"] = json!(shell.ticket().to_string());
        Ok(object(&value))
    })
    .await
}

/// `GET /v1/invites` → per invite that is still good `{invite, expires, made, name}`
pub(super) fn list(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let text: String = open(shell)?.iter().map(|(_, invite)| format!("{}\n", invite_json(invite))).collect();
    Ok(respond(StatusCode::OK, full(text)))
}

/// `DELETE /v1/invites?code=C` → the invite that was revoked
pub(super) async fn revoke(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let text = query.need("code")?.trim().to_lowercase();
        let label = text.split('-').next().unwrap_or_default();
        if label.len() < MIN_LETTERS {
            return Err(ApiError::usage(format!("`{text}` is too short for the beginning of a code")).hint(
                format!("{MIN_LETTERS} letters or more; `madake peer invite list` shows how they begin"),
            ));
        }
        let _one_at_a_time = shell.lock_settings();
        let mut invites = open(&shell)?;
        invites.retain(|(_, invite)| invite.label.starts_with(label));
        match invites.as_slice() {
            [] => Err(ApiError::not_found(format!("no open invite begins with `{label}`"))
                .hint("`madake peer invite list` shows them; was it used, or has it expired?")),
            [(hash, invite)] => {
                shell.store().apply(vec![Change::RevokeInvite(*hash)])?;
                Ok(object(&invite_json(invite)))
            }
            _ => Err(ApiError::usage(format!("several invites begin with `{label}`"))
                .hint("`madake peer invite list` shows them: give more letters")),
        }
    })
    .await
}

/// The invites that are still good, by what they begin with.
fn open(shell: &Shell) -> Result<Vec<(CodeHash, Invite)>, ApiError> {
    let now = wall_clock();
    let mut invites = shell.store().invites()?;
    invites.retain(|(_, invite)| now < invite.expires);
    invites.sort_by(|(_, a), (_, b)| (a.made, &a.label).cmp(&(b.made, &b.label)));
    Ok(invites)
}

fn invite_json(invite: &Invite) -> Value {
    json!({
        "invite": invite.label,
        "expires": rfc3339(invite.expires),
        "made": rfc3339(invite.made),
        "name": invite.name,
    })
}

/// Brings a code to the node that made it; when this is done, that node has us as a peer.
pub(super) async fn bring(
    shell: &Shell,
    node: NodeId,
    addresses: &[String],
    code: &str,
) -> Result<(), ApiError> {
    let connection = dial(shell, node, addresses, false).await?;
    let (_, ours) = shell.ticket().into_parts();
    let answer = knock(&connection, code, ours).await;
    connection.close(close::DONE, "");
    match answer {
        Ok(()) => Ok(()),
        Err(Some(CloseReason::ByPeer { code, .. })) if code == u64::from(close::NOT_KNOWN) => {
            Err(ApiError::new(403, "not-known", "the peer does not take this code: it does not know this node")
                .hint("a code is good once, for 7 days: ask for a new one (`madake peer invite`), or wait a minute after five wrong ones"))
        }
        Err(Some(reason)) => Err(ApiError::new(502, "interrupted", reason.to_string())
            .hint("type the command again: a code that was taken already does no harm")),
        Err(None) => Err(ApiError::unreachable("the peer does not answer to the code")
            .hint("is it of the same version? Its owner can also type: madake peer add TICKET")),
    }
}

/// A code as it was typed.
pub(super) fn code_of(query: &Query) -> Result<Option<String>, ApiError> {
    let Some(text) = query.get("code") else { return Ok(None) };
    let no_code = || {
        ApiError::usage("this is no invite code")
            .hint("`madake peer invite`, at the other node, makes one of 8 letters, a dash and 26 letters")
    };
    read_code(text).map(Some).ok_or_else(no_code)
}
