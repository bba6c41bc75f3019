//! Peers: who this node talks to.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_store::{Change, Peer, Tie};
use serde_json::{Value, json};

use super::node::blocking;
use super::{ApiError, Body, Query, full, object, respond};
use crate::driver::wall_clock;
use crate::net::ticket::PREFIX;
use crate::net::{Ticket, TicketError};
use crate::shell::Shell;

/// A peer's name is at most so many bytes.
const MAX_NAME: usize = 64;

/// `GET /v1/peers` → per peer `{name, node, peer, addresses, allowed, live, server}`
pub(super) fn list(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let peers = shell.store().peers()?;
    let mut text = String::new();
    for peer in &peers {
        text.push_str(&format!("{}\n", peer_json(peer, shell.store().tie(peer.node)?)));
    }
    Ok(respond(StatusCode::OK, full(text)))
}

/// `POST /v1/peers?ticket=T[&name=N][&live=true|false][&server=true|false]` → the peer. Adding it again changes
/// its name, addresses, and what is wished of the link to it.
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
    blocking(move || {
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
        let peer = Peer { node, name, addresses, added };
        let before = shell.store().tie(node)?;
        let tie = Tie { live: live.unwrap_or(before.live), server: server.unwrap_or(before.server) };
        shell.store().apply(vec![Change::Peer(peer.clone()), Change::Tie(node, tie)])?;
        Ok(object(&peer_json(&peer, tie)))
    })
    .await
}

/// `DELETE /v1/peers?peer=P` → the peer that was removed
pub(super) async fn remove(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (node, _) = shell.resolve_peer(query.need("peer")?)?;
    blocking(move || {
        let known = shell.store().peer(node)?;
        let none = || ApiError::not_found(format!("{node} is no peer of this node")).hint("madake peer list");
        let peer = known.ok_or_else(none)?;
        shell.store().apply(vec![Change::ForgetPeer(node)])?;
        let mut value = peer_json(&peer, Tie::default());
        value["allowed"] = json!(false);
        Ok(object(&value))
    })
    .await
}

pub(super) fn no_ticket(text: &str, error: &TicketError) -> ApiError {
    ApiError::usage(format!("`{text}` is no ticket: {error}"))
        .hint("`madake id` prints one, at the other node")
}

fn peer_json(peer: &Peer, tie: Tie) -> Value {
    json!({
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
