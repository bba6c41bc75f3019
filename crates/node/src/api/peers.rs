//! Peers: who this node talks to.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_store::{Allowed, Change, Peer, Tie};
use serde_json::{Value, json};

use super::node::blocking;
use super::{ApiError, Body, Query, full, invites, object, respond};
use crate::driver::wall_clock;
use crate::net::ticket::PREFIX;
use crate::net::{Connection, DIAL_TIMEOUT, DialError, NodeId, Ticket, TicketError};
use crate::shell::{Network, Shell};
use crate::work;

/// A peer's name is at most so many bytes.
const MAX_NAME: usize = 64;

/// `GET /v1/peers` → per peer `{name, node, peer, addresses, allowed, live, server}`
pub(super) fn list(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let peers = shell.store().peers()?;
    let mut text = String::new();
    for peer in &peers {
        let (tie, allowed) = (shell.store().tie(peer.node)?, shell.store().allowed(peer.node)?);
        text.push_str(&format!("{}\n", peer_json(peer, tie, allowed)));
    }
    Ok(respond(StatusCode::OK, full(text)))
}

/// `POST /v1/peers?ticket=T[&name=N][&code=C][&live=0|1][&server=0|1]` → the peer. Adding it again
/// changes its name, addresses, and what is wished of the link to it. With the code of an invite the peer adds this
/// node too, and before.
pub(super) async fn add(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let text = query.need("ticket")?;
    let ticket: Ticket = text.parse().map_err(|error| no_ticket(text, &error))?;
    let (node, addresses) = ticket.into_parts();
    if node == shell.node() {
        return Err(
            ApiError::usage("this is this node's own ticket").hint("run `madake id` at the other node")
        );
    }
    let name = query.get("name").map(str::to_owned);
    let (live, server) = (query.wish("live")?, query.wish("server")?);
    let code = invites::code_of(&query)?;
    let plan = move |shell: &Shell| planned(shell, node, name.clone(), addresses.clone());
    if let Some(code) = code {
        let peer = work::in_place(|| plan(&shell))?; // what can't be added is not knocked for
        invites::bring(&shell, node, &peer.addresses, &code).await?;
    }
    blocking(move || {
        let _one_at_a_time = shell.lock_settings();
        let peer = plan(&shell)?;
        let before = shell.store().tie(node)?;
        let tie = Tie { live: live.unwrap_or(before.live), server: server.unwrap_or(before.server) };
        shell.store().apply(vec![Change::Peer(peer.clone()), Change::Tie(node, tie)])?;
        Ok(object(&peer_json(&peer, tie, shell.store().allowed(node)?)))
    })
    .await
}

/// A node as it will be as a peer: as it was, but for what is said of it now.
pub(super) fn planned(
    shell: &Shell,
    node: NodeId,
    name: Option<String>,
    addresses: Vec<String>,
) -> Result<Peer, ApiError> {
    let peers = shell.store().peers()?;
    let known = peers.iter().find(|peer| peer.node == node);
    let name = match (name, known) {
        (Some(name), _) => name,
        (None, Some(known)) => known.name.clone(),
        (None, None) => node.to_string()[..8].to_owned(),
    };
    check_name(&name)?;
    if peers.iter().any(|peer| peer.name == name && peer.node != node) {
        return Err(
            ApiError::usage(format!("another peer is called `{name}`")).hint("give it another --name")
        );
    }
    let addresses = match known {
        Some(known) if addresses.is_empty() => known.addresses.clone(),
        _ => addresses,
    };
    let added = known.map_or_else(wall_clock, |known| known.added);
    Ok(Peer { node, name, addresses, added })
}

/// Socket and loop.
pub(super) async fn network(shell: &Shell) -> Result<&Network, ApiError> {
    shell.network().await.map_err(|error| ApiError::new(500, "network", error.to_string()))
}

/// A connection to a node.
pub(super) async fn dial(
    shell: &Shell,
    node: NodeId,
    addresses: &[String],
    server: bool,
) -> Result<Connection, ApiError> {
    let network = network(shell).await?;
    let endpoint = if server { network.endpoint.for_servers() } else { network.endpoint.clone() };
    endpoint.dial(node, addresses, DIAL_TIMEOUT).await.map_err(|error| dial_error(&error))
}

fn dial_error(error: &DialError) -> ApiError {
    match error {
        DialError::NoAddresses { .. } => ApiError::unreachable(error.to_string()).hint(
            "`madake id`, while the other node runs, prints a ticket with addresses: madake peer add TICKET",
        ),
        DialError::Ourselves => {
            ApiError::usage(error.to_string()).hint("`madake peer list` shows the other nodes")
        }
        DialError::Impostor { .. } => ApiError::new(502, "impostor", error.to_string())
            .hint("another node has its address now: ask its owner for a new ticket"),
        _ => ApiError::unreachable(error.to_string())
            .hint("is it running? `madake id` there shows where; `madake peer add TICKET` tells us"),
    }
}

/// `DELETE /v1/peers?peer=P` → the peer that was removed
pub(super) async fn remove(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (node, _) = shell.resolve_peer(query.need("peer")?)?;
    blocking(move || {
        let known = shell.store().peer(node)?;
        let none = || ApiError::not_found(format!("{node} is no peer of this node")).hint("madake peer list");
        let peer = known.ok_or_else(none)?;
        if shell.membership()?.is_some_and(|membership| membership.standing.config.contains(&node)) {
            return Err(ApiError::new(409, "member", format!("{node} is a member of this node's cluster"))
                .hint("`madake cluster status` shows the members, who talk to each other"));
        }
        shell.store().apply(vec![Change::ForgetPeer(node)])?;
        let nothing = Allowed { read: false, write: false };
        let mut value = peer_json(&peer, Tie::default(), nothing);
        value["allowed"] = json!(false);
        Ok(object(&value))
    })
    .await
}

pub(super) fn no_ticket(text: &str, error: &TicketError) -> ApiError {
    ApiError::usage(format!("`{text}` is no ticket: {error}"))
        .hint("`madake id` prints one, at the other node")
}

/// `POST /v1/peers/allow?peer=P[&read=0|1][&write=0|1]` → the peer; what is not given stays as it is
pub(super) async fn allow(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (node, _) = shell.resolve_peer(query.need("peer")?)?;
    blocking(move || {
        let (read, write) = (query.wish("read")?, query.wish("write")?);
        let _one_at_a_time = shell.lock_settings();
        let none = || ApiError::not_found(format!("{node} is no peer of this node")).hint("madake peer list");
        let peer = shell.store().peer(node)?.ok_or_else(none)?;
        let now = shell.store().allowed(node)?;
        let allowed = Allowed { read: read.unwrap_or(now.read), write: write.unwrap_or(now.write) };
        shell.store().apply(vec![Change::Allow(node, allowed)])?;
        Ok(object(&peer_json(&peer, shell.store().tie(node)?, allowed)))
    })
    .await
}

fn peer_json(peer: &Peer, tie: Tie, allowed: Allowed) -> Value {
    json!({
        "read": allowed.read,
        "write": allowed.write,
        "name": peer.name,
        "node": peer.node.to_string(),
        "peer": peer.node.to_string(),
        "addresses": peer.addresses,
        "allowed": true,
        "live": tie.live,
        "server": tie.server,
    })
}

pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c.is_whitespace())
        && !name.to_ascii_lowercase().starts_with(PREFIX);
    if fits {
        return Ok(());
    }
    Err(ApiError::usage(format!("a peer's name is 1 to {MAX_NAME} bytes without spaces, and no ticket"))
        .hint("such as: madake peer add TICKET --name laptop"))
}
