//! Homes: to marry, to go, to move, and what their owners may do.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::system::{HomeNode, NodeStatement};
use madake_log::{AuthorId, EntryId};
use madake_store::{Author, Change, Hosted, Marriage, MarriageState, Peer, Purpose, Waiting};
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

/// `GET /v1/home[?author=A[&peer=P]]` → per author whose key is here, and per author whose home this node is or was, a
/// `Marriage`; of one author what is known here, and what a peer says
pub(super) async fn status(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    if let Some(author) = query.get("author") {
        let author = work::in_place(|| shell.resolve_author(author))?;
        let said = match query.get("peer") {
            Some(peer) => Some(where_at(&shell, author, peer).await?),
            None => None,
        };
        return work::in_place(|| {
            let own = shell.authors().into_iter().find(|(_, own)| own.id() == author);
            let mut value = match (own, shell.store().hosted(author)?) {
                (Some((name, _)), _) => own_json(&shell, Some(name.as_str()), author)?,
                (None, Some(hosted)) => hosted_json(&shell, author, &hosted)?,
                (None, None) => marriage_json(author, &shell.store().marriage(author)?),
            };
            if let Some(said) = said {
                value["says"] = said;
            }
            Ok(object(&value))
        });
    }
    if query.get("peer").is_some() {
        return Err(
            ApiError::usage("a peer is asked about one author").hint("madake home status AUTHOR --at PEER")
        );
    }
    blocking(move || all_status(&shell)).await
}

/// What a node says of an author's home.
async fn where_at(shell: &Shell, author: AuthorId, peer: &str) -> Result<Value, ApiError> {
    let (node, addresses) = shell.resolve_peer(peer)?;
    let (answer, moved) =
        match ask_of(dial(shell, node, &addresses, false).await?, &HomeRequest::Where { author }).await {
            Ok(()) => ("here", None),
            Err(Unanswered::Moved(to, addresses, epoch)) => ("moved", Some((to, addresses, epoch))),
            Err(Unanswered::Refused(HomeRefusal::NotHosted, _)) => ("not-hosted", None),
            Err(other) => return Err(unanswered(other)),
        };
    Ok(json!({
        "node": node.to_string(),
        "answer": answer,
        "home": moved.as_ref().map(|(to, ..)| to.to_string()),
        "addresses": moved.as_ref().map_or(&[][..], |(_, addresses, _)| addresses),
        "epoch": moved.as_ref().map(|(.., epoch)| *epoch),
    }))
}

fn all_status(shell: &Shell) -> Result<Response<Body>, ApiError> {
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
    let author = shell.resolve_writer(query.get("author"))?;
    let (node, addresses) = shell.resolve_peer(query.need("ticket")?)?;
    let (code, passphrase) = (code_of(&query), passphrase_of(&query)?);
    let marriage = with_news(&shell, author.id(), node).await?;
    if !query.flag("yes") {
        let other = marriage.home.as_ref().filter(|home| home.node != node);
        if let Some(home) = other {
            return Err(second(home.node, false));
        }
        unless_contested(&marriage)?;
    }
    shell.clear_to_write(&author, false).await?;
    if marriage.home_in_force() == Some(node) {
        return adopted(&shell, &author, node).await;
    }
    // 1. What must be known before anything is signed: the new home takes the author.
    enter(&shell, author.id(), (node, &addresses), code, passphrase).await?;
    // 2. Everything is copied before the vow: until then nothing has changed.
    talk(&shell, node).await?;
    // 3. The vow, unless an earlier call has made it.
    let vow = work::in_place(|| vow_once(&shell, &author, node, &addresses))?;
    talk(&shell, node).await?;
    // 4. The new home says yes, and what it signed comes here.
    accept(&shell, author.id(), (node, &addresses), vow).await?;
    work::in_place(|| Ok(object(&own_json(&shell, None, author.id())?)))
}

/// How it stands between an author and a node, which may have signed what has not come here yet.
pub(super) async fn with_news(shell: &Shell, author: AuthorId, node: NodeId) -> Result<Marriage, ApiError> {
    if node == shell.node() {
        return Err(ApiError::usage("this node can't be its own author's home")
            .hint("take a node that runs all the time: `madake home invite`, there, makes a code"));
    }
    let marriage = shell.store().marriage(author)?;
    if named(&marriage, node).is_none() || marriage.home_in_force() == Some(node) {
        return Ok(marriage);
    }
    talk(shell, node).await?;
    Ok(shell.store().marriage(author)?)
}

/// A person is asked before one more vow contradicts others.
pub(super) fn unless_contested(marriage: &Marriage) -> Result<(), ApiError> {
    if marriage.state != MarriageState::Contested {
        return Ok(());
    }
    let message = "two vows of this author contradict each other already, and this would be one more";
    Err(ApiError::new(400, "confirm", message)
        .hint("`madake home status` shows them; if this is meant: --yes"))
}

/// Nothing is left to be signed: this device writes as of the vow in force, once it has what the home has.
pub(super) async fn adopted(
    shell: &Shell,
    author: &Author,
    home: NodeId,
) -> Result<Response<Body>, ApiError> {
    talk(shell, home).await?;
    work::in_place(|| {
        author.adopt()?;
        Ok(object(&own_json(shell, None, author.id())?))
    })
}

/// Asks a node to take the author; it is a peer from then on.
pub(super) async fn enter(
    shell: &Shell,
    author: AuthorId,
    (node, addresses): (NodeId, &[String]),
    code: Option<String>,
    passphrase: Option<String>,
) -> Result<(), ApiError> {
    let connection = dial(shell, node, addresses, false).await?;
    let (_, ours) = shell.ticket().into_parts();
    let enter = HomeRequest::Enter {
        author,
        code: code.map(|code| Bounded::truncated(code.into_bytes())),
        passphrase: passphrase.map(|text| Bounded::truncated(text.into_bytes())),
        addresses: Bounded::truncated(ours),
    };
    ask_on(connection, &enter).await?;
    work::in_place(|| add_peer(shell, node, addresses))
}

/// The vow to a node that an earlier call has made, or a new one.
pub(super) fn vow_once(
    shell: &Shell,
    author: &Author,
    node: NodeId,
    addresses: &[String],
) -> Result<EntryId, ApiError> {
    if let Some(vow) = named(&shell.store().marriage(author.id())?, node) {
        author.adopt()?;
        return Ok(vow);
    }
    let hints = addresses.iter().filter_map(|address| address.parse().ok()).take(8).collect::<Vec<_>>();
    Ok(author.vow(Some(HomeNode { node, addresses: hints.try_into().unwrap_or_default() }))?)
}

/// Asks a home to accept a vow that is there, and fetches what it signs.
pub(super) async fn accept(
    shell: &Shell,
    author: AuthorId,
    (node, addresses): (NodeId, &[String]),
    vow: EntryId,
) -> Result<(), ApiError> {
    let connection = dial(shell, node, addresses, false).await?;
    ask_on(connection, &HomeRequest::Accept { author, vow }).await?;
    talk(shell, node).await
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
            Some(waiting) => author.adopt().map(|()| waiting.vow).map_err(ApiError::from),
            None => Ok(author.vow(None)?),
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
            shell.state(&objects).map_err(host_error)?;
        }
        let hosted = shell.store().hosted(author)?.ok_or_else(|| not_hosted(author))?;
        Ok(object(&hosted_json(&shell, author, &hosted)?))
    })
    .await
}

/// The vow to this node that is in force, or waits to be.
pub(super) fn named(marriage: &Marriage, node: NodeId) -> Option<EntryId> {
    let is = |home: &Option<HomeNode>| home.as_ref().is_some_and(|home| home.node == node);
    let waiting = marriage.waiting.iter().find(|waiting| is(&waiting.home)).map(|waiting| waiting.vow);
    marriage.vow.filter(|_| is(&marriage.home)).or(waiting)
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
pub(super) async fn release(
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
pub(super) async fn talk(shell: &Shell, node: NodeId) -> Result<(), ApiError> {
    let (addresses, server) = work::in_place(|| shell.addresses_of(node))?;
    let connection = dial(shell, node, &addresses, server).await?;
    let network = network(shell).await?.clone();
    let plan = Plan::BOTH_WAYS;
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

pub(super) async fn ask_on(connection: Connection, request: &HomeRequest) -> Result<(), ApiError> {
    ask_of(connection, request).await.map_err(unanswered)
}

async fn ask_of(connection: Connection, request: &HomeRequest) -> Result<(), Unanswered> {
    let answer = ask(&connection, request).await;
    connection.close(close::DONE, "");
    answer
}

fn unanswered(why: Unanswered) -> ApiError {
    match why {
        Unanswered::NotKnown => ApiError::new(403, "not-known", "the node does not take this author: it knows neither node nor code")
            .hint("its owner makes a code, good once, with `madake home invite`; after five wrong ones wait a minute"),
        Unanswered::Refused(HomeRefusal::Code, why) => ApiError::new(403, "not-known", format!("the home does not take this author: {why}"))
            .hint("its owner makes a code with `madake home invite`: madake home marry TICKET --code CODE"),
        Unanswered::Refused(HomeRefusal::Passphrase, why) => ApiError::new(403, "passphrase", format!("the home does not let go: {why}"))
            .hint("with the passphrase: --passphrase-file FILE; its owner can do it too: madake home release AUTHOR"),
        Unanswered::Refused(_, why) => ApiError::new(409, "home", format!("the home refuses: {why}"))
            .hint("type the command again: what was done already stays done; `madake home status` shows how it stands"),
        Unanswered::Moved(node, ..) => ApiError::new(409, "moved", format!("the node is this author's home no more, and says that {node} is"))
            .hint("`madake sync` with a peer that knows of it brings what was signed; then: madake home status"),
        Unanswered::Silent(why) => ApiError::new(502, "interrupted", format!("the home was asked, and {why}"))
            .hint("type the command again: what was done already stays done"),
    }
}

pub(super) fn old_home_is_away(error: ApiError, home: NodeId) -> ApiError {
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
pub(super) fn second(home: NodeId, moves: bool) -> ApiError {
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
pub(super) fn code_of(query: &Query) -> Option<String> {
    let text = query.get("code")?.trim();
    Some(read_code(text).unwrap_or_else(|| text.to_owned()))
}

pub(super) fn passphrase_of(query: &Query) -> Result<Option<String>, ApiError> {
    let Some(text) = query.get("passphrase") else { return Ok(None) };
    if text.is_empty() || text.len() > madake_sync::home::MAX_PASSPHRASE {
        return Err(ApiError::usage("a passphrase has 1 to 256 bytes").hint("choose one of several words"));
    }
    Ok(Some(text.to_owned()))
}

pub(super) fn own_json(shell: &Shell, name: Option<&str>, author: AuthorId) -> Result<Value, ApiError> {
    let mut value = marriage_json(author, &shell.store().marriage(author)?);
    value["role"] = json!("own");
    value["name"] = json!(name);
    value["writes_as_of"] = json!(shell.store().writer_epoch(author)?);
    value["moving"] = match shell.store().moving(author)? {
        Some(moving) => json!({
            "from": moving.from.to_string(),
            "to": moving.to.to_string(),
            "step": moving.step.as_str(),
            "since": rfc3339(moving.since),
        }),
        None => Value::Null,
    };
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
    value["frozen_until"] = json!(shell.store().frozen(author)?.map(|frozen| rfc3339(frozen.until)));
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
        "role": "other",
    })
}
