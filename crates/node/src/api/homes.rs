//! Homes: to marry, to go, to move, and what their owners may do.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::system::{Control, HomeNode, LogPoint, NodeStatement, Vow};
use madake_log::{AuthorId, EntryId, LogId};
use madake_store::{Author, Change, Hosted, Marriage, MarriageState, Peer, Purpose, Read as _, Waiting};
use madake_sync::home::{HomeRefusal, HomeRequest};
use madake_sync::{Bounded, EndReason, Plan};
use serde_json::{Value, json};

use super::node::{blocking, rfc3339};
use super::peers::{dial, network};
use super::{ApiError, Body, Query, full, object, respond};
use crate::driver::{Watchers, wall_clock};
use crate::host::{HostError, Unanswered, ask};
use crate::knock::{MAX_INVITES, read_code};
use crate::link::close;
use crate::net::{Connection, NodeId};
use crate::shell::Shell;
use crate::work;

/// `POST /v1/home/invite` → `{code, expires, invite, ticket}`: the one time that the code is told
pub(super) async fn invite(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let _one_at_a_time = shell.lock_settings();
        let now = wall_clock();
        let open = shell.store().invites()?.iter().filter(|(_, invite)| now < invite.expires).count();
        if open >= MAX_INVITES {
            return Err(ApiError::new(409, "too-many-invites", format!("{MAX_INVITES} invites are open"))
                .hint("`madake peer invite list` shows them, `madake peer invite revoke CODE` ends one"));
        }
        let (code, invite) = shell.invite(None, Purpose::Home, now)?;
        Ok(object(&json!({
            "code": code.text,
            "expires": rfc3339(invite.expires),
            "invite": invite.label,
            "ticket": shell.ticket().to_string(),
        })))
    })
    .await
}

/// `GET /v1/home` → per author whose key is here, and per author whose home this node is or was, a `Marriage`
pub(super) fn status(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let mut text = String::new();
    for (name, author) in shell.authors() {
        text += &format!("{}\n", own_json(shell, Some(name.as_str()), author.id())?);
    }
    for (author, hosted) in shell.store().all_hosted()? {
        text += &format!("{}\n", hosted_json(shell, author, &hosted)?);
    }
    Ok(respond(StatusCode::OK, full(text)))
}

/// `POST /v1/home/marry?ticket=T[&code=C][&passphrase=P][&author=A][&yes=1]` → `Marriage`
pub(super) async fn marry(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    wed(shell, query, false).await
}

/// `POST /v1/home/move?ticket=T[&code=C][&passphrase=P][&author=A][&yes=1]` → `Marriage`
///
/// Every step is done again by the next call if this one is cut off; none undoes another.
pub(super) async fn move_to(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    wed(shell, query, true).await
}

async fn wed(shell: Arc<Shell>, query: Query, moves: bool) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_writer(query.get("author"))?;
    let (node, addresses) = shell.resolve_peer(query.need("ticket")?)?;
    let (code, passphrase) = (code_of(&query), passphrase_of(&query)?);
    if node == shell.node() {
        return Err(ApiError::usage("this node can't be its own author's home")
            .hint("take a node that runs all the time: `madake home invite`, there, makes a code"));
    }
    let mut marriage = shell.store().marriage(author.id())?;
    if named(&marriage, node).is_some() && marriage.home_in_force() != Some(node) {
        // What the node signed may not have come here yet.
        talk(&shell, node).await?;
        marriage = shell.store().marriage(author.id())?;
    }
    let goes_on = named(&marriage, node);
    let other = marriage.home.as_ref().filter(|home| home.node != node).map(|home| home.node);
    if moves && other.is_none() && goes_on.is_none() {
        return Err(ApiError::new(409, "no-marriage", "there is no home to move from")
            .hint("madake home marry TICKET"));
    }
    if !query.flag("yes") {
        if let Some(home) = other {
            return Err(second(home, moves));
        }
        if marriage.state == MarriageState::Contested {
            let message = "two vows of this author contradict each other already, and this would be one more";
            return Err(ApiError::new(400, "confirm", message)
                .hint("`madake home status` shows them; if this is meant: --yes"));
        }
    }
    // One that was vowed to and never accepted has nothing to let go.
    let old = marriage.home_in_force().filter(|home| moves && *home != node);
    shell.clear_to_write(&author, false).await?;
    if marriage.home_in_force() == Some(node) {
        // Nothing is left to be signed: this device writes as of the vow in force, once it has what the home has.
        talk(&shell, node).await?;
        return work::in_place(|| {
            adopt(&shell, &author)?;
            Ok(object(&own_json(&shell, None, author.id())?))
        });
    }
    // 1. What must be known before anything is signed: the new home takes the author.
    let connection = dial(&shell, node, &addresses, false).await?;
    let (_, ours) = shell.ticket().into_parts();
    let enter = HomeRequest::Enter {
        author: author.id(),
        code: code.map(|code| Bounded::truncated(code.into_bytes())),
        passphrase: passphrase.clone().map(|text| Bounded::truncated(text.into_bytes())),
        addresses: Bounded::truncated(ours),
    };
    ask_on(connection, &enter).await?;
    work::in_place(|| add_peer(&shell, node, &addresses))?;
    // 2. What the old home has more comes here, so that the new one gets all of it.
    if let Some(old) = old {
        talk(&shell, old).await.map_err(|error| old_home_is_away(error, old))?;
    }
    // 3. Everything is copied before the vow: until then nothing has changed.
    talk(&shell, node).await?;
    // 4. The vow, unless an earlier call has made it.
    let vow = work::in_place(|| match named(&shell.store().marriage(author.id())?, node) {
        Some(vow) => adopt(&shell, &author).map(|()| vow),
        None => vow_to(&shell, &author, Some((node, &addresses))),
    })?;
    talk(&shell, node).await?;
    // 5. The old home lets go of the author.
    if let Some(old) = old {
        release(&shell, &author, old, vow, passphrase).await.map_err(|error| old_home_is_away(error, old))?;
        talk(&shell, node).await?; // the new one hears of the release
    }
    // 6. The new home says yes, and what it signed comes here.
    let accept = HomeRequest::Accept { author: author.id(), vow };
    ask_on(dial(&shell, node, &addresses, false).await?, &accept).await?;
    talk(&shell, node).await?;
    work::in_place(|| Ok(object(&own_json(&shell, None, author.id())?)))
}

/// `POST /v1/home/leave[?author=A][&passphrase=P]` → `Marriage`
pub(super) async fn leave(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_writer(query.get("author"))?;
    let passphrase = passphrase_of(&query)?;
    let marriage = shell.store().marriage(author.id())?;
    let Some(home) = marriage.home.as_ref().map(|home| home.node) else {
        return Err(
            ApiError::new(409, "no-marriage", "this author has no home to leave").hint("madake home status")
        );
    };
    shell.clear_to_write(&author, false).await?;
    // Before anything is signed: can the home be reached?
    talk(&shell, home).await?;
    let vow = work::in_place(|| {
        let marriage = shell.store().marriage(author.id())?;
        match marriage.waiting.iter().find(|waiting| waiting.home.is_none()) {
            Some(waiting) => adopt(&shell, &author).map(|()| waiting.vow),
            None => vow_to(&shell, &author, None),
        }
    })?;
    talk(&shell, home).await?;
    // One that never accepted has nothing to release.
    if marriage.state != MarriageState::Vowed {
        release(&shell, &author, home, vow, passphrase).await?;
        talk(&shell, home).await?;
    }
    work::in_place(|| Ok(object(&own_json(&shell, None, author.id())?)))
}

/// `POST /v1/home/release?author=A[&yes=1]` → `Marriage`: as the home's owner, without being asked by the author
pub(super) async fn give_up(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_author(query.need("author")?)?;
    if !query.flag("yes") {
        let message =
            format!("this node gives {author} up: whoever has that author's key can then name another home");
        return Err(ApiError::new(400, "confirm", message).hint("if that is meant: --yes"));
    }
    blocking(move || {
        let _one_at_a_time = shell.lock_settings();
        let hosted = shell.store().hosted(author)?;
        let Some((hosted, (vow, _))) = hosted.and_then(|hosted| hosted.vow.map(|vow| (hosted, vow))) else {
            return Err(not_hosted(author));
        };
        shell.release(author, hosted, vow, None).map_err(host_error)?;
        let hosted = shell.store().hosted(author)?.ok_or_else(|| not_hosted(author))?;
        Ok(object(&hosted_json(&shell, author, &hosted)?))
    })
    .await
}

/// `POST /v1/home/object?author=A` → `Marriage`: this home objects to each vow that is to take its place
pub(super) async fn object_to(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_author(query.need("author")?)?;
    blocking(move || {
        let _one_at_a_time = shell.lock_settings();
        if shell.store().hosted(author)?.is_none_or(|hosted| hosted.vow.is_none()) {
            return Err(not_hosted(author));
        }
        let marriage = shell.store().marriage(author)?;
        let open: Vec<&Waiting> = marriage.waiting.iter().filter(|waiting| !waiting.objected).collect();
        if open.is_empty() {
            return Err(ApiError::not_found(format!("no vow of {author} is to take this home's place"))
                .hint("madake home status"));
        }
        for waiting in open {
            let objects = NodeStatement::Object { author, vow: waiting.vow };
            shell.state(objects, Vec::new()).map_err(host_error)?;
        }
        let hosted = shell.store().hosted(author)?.ok_or_else(|| not_hosted(author))?;
        Ok(object(&hosted_json(&shell, author, &hosted)?))
    })
    .await
}

/// The vow to this node that is in force, or waits to be.
fn named(marriage: &Marriage, node: NodeId) -> Option<EntryId> {
    let is = |home: &Option<HomeNode>| home.as_ref().is_some_and(|home| home.node == node);
    let waiting = marriage.waiting.iter().find(|waiting| is(&waiting.home)).map(|waiting| waiting.vow);
    marriage.vow.filter(|_| is(&marriage.home)).or(waiting)
}

/// This device writes as of the epoch in force from now on: all that the home has was fetched.
fn adopt(shell: &Shell, author: &Author) -> Result<(), ApiError> {
    let epoch = shell.store().marriage(author.id())?.epoch;
    if shell.store().writer_epoch(author.id())? < epoch {
        shell.store().apply(vec![Change::Writer(author.id(), epoch)])?;
    }
    Ok(())
}

/// Signs a vow that follows the one in force.
fn vow_to(shell: &Shell, author: &Author, home: Option<(NodeId, &[String])>) -> Result<EntryId, ApiError> {
    let id = author.id();
    adopt(shell, author)?;
    let marriage = shell.store().marriage(id)?;
    let heads: Vec<LogPoint> = (shell.store().logs_of(id)?.into_iter())
        .filter(|held| !held.log.is_system())
        .map(|held| LogPoint { log: held.log, seq: held.head.seq, entry: held.head.entry })
        .collect();
    let many = |_| ApiError::new(409, "append", "this author has more logs than a vow can state");
    let home = home.map(|(node, addresses)| {
        let hints = addresses.iter().filter_map(|address| address.parse().ok()).take(8).collect::<Vec<_>>();
        HomeNode { node, addresses: hints.try_into().unwrap_or_default() }
    });
    let epoch = marriage.epoch.saturating_add(1);
    let vow = Vow { epoch, previous: marriage.vow, home, heads: heads.try_into().map_err(many)? };
    let payload = Control::Vow(vow).encode().map_err(madake_store::AppendError::Control)?;
    // It may wait for a release; whoever wrote it goes on under the epoch in force, and under this one later.
    let appended = author.say(LogId::CONTROL, payload, vec![Change::Writer(id, epoch)])?;
    Ok(appended.entry)
}

fn add_peer(shell: &Shell, node: NodeId, addresses: &[String]) -> Result<(), ApiError> {
    let _one_at_a_time = shell.lock_settings();
    if shell.store().peer(node)?.is_none() {
        let name = shell.free_name(node, Some("home".into()))?;
        let peer = Peer { node, name, addresses: addresses.to_vec(), added: wall_clock() };
        shell.store().apply(vec![Change::Peer(peer)])?;
    }
    Ok(())
}

/// Asks the old home for a release that names the new vow.
async fn release(
    shell: &Shell,
    author: &Author,
    home: NodeId,
    next: EntryId,
    passphrase: Option<String>,
) -> Result<(), ApiError> {
    let previous = work::in_place(|| -> Result<_, ApiError> {
        Ok(shell.store().statements(author.id())?.vows.get(&next).and_then(|vow| vow.previous))
    })?;
    let Some(vow) = previous else { return Ok(()) };
    talk(shell, home).await?; // the new vow gets there
    let passphrase = passphrase.map(|text| Bounded::truncated(text.into_bytes()));
    let request = HomeRequest::Release { author: author.id(), vow, next, passphrase };
    let (addresses, server) = work::in_place(|| shell.addresses_of(home))?;
    ask_on(dial(shell, home, &addresses, server).await?, &request).await?;
    talk(shell, home).await // and the release comes here
}

/// A session both ways with a home.
async fn talk(shell: &Shell, node: NodeId) -> Result<(), ApiError> {
    let (addresses, server) = work::in_place(|| shell.addresses_of(node))?;
    let connection = dial(shell, node, &addresses, server).await?;
    let network = network(shell).await?.clone();
    let plan = Plan {
        receives: true,
        gives: true,
        schemas: None,
        live: false,
        servers: None,
        dry_run: false,
        last: None,
    };
    let (rtt, access) = (connection.rtt(), shell.access(node));
    let _place = shell.enter(&connection, access, false);
    let watchers = Watchers { progress: None, stage: None };
    let (reason, report) = network.driver.session(connection, None, plan, watchers).await;
    work::in_place(|| shell.note_session(rtt, &reason, &report));
    match reason {
        EndReason::Finished => Ok(()),
        other => Err(ApiError::new(502, "interrupted", other.to_string())
            .hint("type the command again: it goes on where this one ended")),
    }
}

async fn ask_on(connection: Connection, request: &HomeRequest) -> Result<(), ApiError> {
    let answer = ask(&connection, request).await;
    connection.close(close::DONE, "");
    answer.map_err(|why| match why {
        Unanswered::NotKnown => ApiError::new(403, "not-known", "the node does not take this author: it knows neither node nor code")
            .hint("its owner makes a code, good once, with `madake home invite`; after five wrong ones wait a minute"),
        Unanswered::Refused(HomeRefusal::Code, why) => ApiError::new(403, "not-known", format!("the home does not take this author: {why}"))
            .hint("its owner makes a code with `madake home invite`: madake home marry TICKET --code CODE"),
        Unanswered::Refused(HomeRefusal::Passphrase, why) => ApiError::new(403, "passphrase", format!("the home does not let go: {why}"))
            .hint("with the passphrase: --passphrase-file FILE; its owner can do it too: madake home release AUTHOR"),
        Unanswered::Refused(_, why) => ApiError::new(409, "home", format!("the home refuses: {why}"))
            .hint("type the command again: what was done already stays done; `madake home status` shows how it stands"),
        Unanswered::Silent(why) => ApiError::new(502, "interrupted", format!("the home was asked, and {why}"))
            .hint("type the command again: what was done already stays done"),
    })
}

fn old_home_is_away(error: ApiError, home: NodeId) -> ApiError {
    if error.code != "unreachable" {
        return error;
    }
    let message =
        format!("the old home {home} has to release the author, and can't be reached: {}", error.message);
    ApiError { message, ..error }.hint(
        "type the command again when it can be; if it is gone for good, the recovery key decides, or \
         `madake home marry TICKET --yes` leaves a vow that is shown as unconfirmed",
    )
}

/// What is said before a second marriage.
fn second(home: NodeId, moves: bool) -> ApiError {
    let message = match moves {
        true => format!(
            "this moves the author from its home {home}: all is copied, a new vow is signed, and the old home lets go"
        ),
        false => format!(
            "this author has a home already, {home}: a vow to another one is shown to everybody as unconfirmed until \
             that home releases the author, and its receipts stay the ones that count"
        ),
    };
    let hint = match moves {
        true => "if that is meant: --yes",
        false => "to move there in order: madake home move TICKET; if this is meant all the same: --yes",
    };
    ApiError::new(400, "confirm", message).hint(hint)
}

fn not_hosted(author: AuthorId) -> ApiError {
    ApiError::not_found(format!("this node is not the home of {author}")).hint("madake home status")
}

fn host_error(error: HostError) -> ApiError {
    match error {
        HostError::Refused(_, why) => ApiError::new(409, "home", why).hint("madake home status"),
        HostError::Append(error) => error.into(),
        HostError::Home(error) => error.into(),
    }
}

/// A code or token as it was typed; codes are read in letters of any case.
fn code_of(query: &Query) -> Option<String> {
    let text = query.get("code")?.trim();
    Some(read_code(text).unwrap_or_else(|| text.to_owned()))
}

fn passphrase_of(query: &Query) -> Result<Option<String>, ApiError> {
    let Some(text) = query.get("passphrase") else { return Ok(None) };
    if text.is_empty() || text.len() > madake_sync::home::MAX_PASSPHRASE {
        return Err(ApiError::usage("a passphrase has 1 to 256 bytes").hint("choose one of several words"));
    }
    Ok(Some(text.to_owned()))
}

fn own_json(shell: &Shell, name: Option<&str>, author: AuthorId) -> Result<Value, ApiError> {
    let mut value = marriage_json(author, &shell.store().marriage(author)?);
    value["role"] = json!("own");
    value["name"] = json!(name);
    value["writes_as_of"] = json!(shell.store().writer_epoch(author)?);
    value["guard"] = match shell.guard_waits(author)? {
        Some((guard, waits)) => json!({
            "since": rfc3339(guard.since),
            "needed": waits.needed,
            "waits_for": waits.of.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        None => Value::Null,
    };
    Ok(value)
}

fn hosted_json(shell: &Shell, author: AuthorId, hosted: &Hosted) -> Result<Value, ApiError> {
    let marriage = shell.store().marriage(author)?;
    let mut value = marriage_json(author, &marriage);
    value["role"] = json!("host");
    value["state"] = json!(match (hosted.vow, hosted.released) {
        (Some(_), _) => marriage.state.as_str(),
        (None, Some(_)) if marriage.home.is_some() && marriage.state != MarriageState::Released => "moved",
        (None, Some(_)) => "left",
        (None, None) => "entered",
    });
    value["second_factor"] = json!(hosted.secret.is_some());
    Ok(value)
}

fn marriage_json(author: AuthorId, marriage: &Marriage) -> Value {
    let node = |home: &Option<HomeNode>| home.as_ref().map(|home| home.node.to_string());
    let addresses = marriage.home.iter().flat_map(|home| home.addresses.iter().map(ToString::to_string));
    let waiting = |waiting: &Waiting| {
        json!({
            "vow": waiting.vow.to_string(),
            "epoch": waiting.epoch,
            "home": node(&waiting.home),
            "objected": waiting.objected,
        })
    };
    json!({
        "author": author.to_string(),
        "home": node(&marriage.home),
        "addresses": addresses.collect::<Vec<_>>(),
        "epoch": marriage.epoch,
        "state": marriage.state.as_str(),
        "vow": marriage.vow.map(|vow| vow.to_string()),
        "waiting": marriage.waiting.iter().map(waiting).collect::<Vec<_>>(),
        "rivals": marriage.rivals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "recovery": marriage.recovery.map(|key| key.to_string()),
    })
}
