//! Clusters: `cluster init`, `add`, `join`, `status`.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hyper::Response;
use madake_store::{Change, Tie};
use madake_sync::cluster::{Reply, Request, Status, StatusKind, Unable};
use madake_sync::heads::ClusterId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ApiError, Body, Query, object, peers};
use crate::home::random;
use crate::net::NodeId;
use crate::shell::Shell;
use crate::work;

/// How long `add` and `join` wait for the other side.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they look.
const LOOK: Duration = Duration::from_millis(50);

/// `GET /v1/cluster` → `{cluster, epoch, members, quorum, state, has_quorum, nodes, invited, joining, waiting, pending}`
pub(super) async fn status(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    let status = ask_status(&shell, Request::Status).await?;
    shown(&shell, &status)
}

/// `POST /v1/cluster/init` → as `GET /v1/cluster`
pub(super) async fn init(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    let status = ask_status(&shell, Request::Found(ClusterId(random()?))).await?;
    shown(&shell, &status)
}

/// `POST /v1/cluster/add?ticket=T[&name=N]` → as `GET /v1/cluster`, when the node has joined or after 5 s
pub(super) async fn add(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let node = peer_of(&shell, &query).await?;
    let mut status = ask_status(&shell, Request::Invite(node)).await?;
    let until = Instant::now() + PATIENCE;
    while shell.listening().is_some() && !has(&status, node) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        status = ask_status(&shell, Request::Status).await?;
    }
    shown(&shell, &status)
}

/// `POST /v1/cluster/remove?node=P` → as `GET /v1/cluster`, when it is done or goes on by itself
pub(super) async fn remove(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let text = query.need("node")?;
    let node = match text.parse::<NodeId>() {
        Ok(node) => node,
        Err(_) if text == "self" => shell.node(),
        Err(_) => work::in_place(|| shell.resolve_peer(text))?.0,
    };
    let status = ask_status(&shell, Request::Remove(node)).await?;
    shown(&shell, &status)
}

/// `POST /v1/cluster/join?ticket=T[&name=N]` → as `GET /v1/cluster`, when this node is a member or after 5 s
pub(super) async fn join(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let node = peer_of(&shell, &query).await?;
    let mut status = ask_status(&shell, Request::Join(node)).await?;
    let until = Instant::now() + PATIENCE;
    while shell.listening().is_some()
        && (status.kind == StatusKind::Joining || status.is_changing)
        && Instant::now() < until
    {
        tokio::time::sleep(LOOK).await;
        status = ask_status(&shell, Request::Status).await?;
    }
    shown(&shell, &status)
}

/// Whether it is a member, and the change is over.
fn has(status: &Status, node: NodeId) -> bool {
    !status.is_changing && status.members.iter().any(|member| member.node == node)
}

/// The node that a ticket, or a peer's name, names: a peer of this node from now on.
async fn peer_of(shell: &Arc<Shell>, query: &Query) -> Result<NodeId, ApiError> {
    let text = query.need("ticket")?.to_owned();
    let name = query.get("name").map(str::to_owned);
    let shell = shell.clone();
    super::node::blocking(move || {
        let (node, addresses) = shell.resolve_peer(&text)?;
        if node == shell.node() {
            return Err(
                ApiError::usage("this is this node's own ticket").hint("run `madake id` at the other node")
            );
        }
        let _one_at_a_time = shell.lock_settings();
        let peer = peers::planned(&shell, node, name, addresses)?;
        let tie = Tie { live: true, ..shell.store().tie(node)? };
        shell.store().apply(vec![Change::Peer(peer), Change::Tie(node, tie)])?;
        Ok(node)
    })
    .await
}

async fn ask_status(shell: &Shell, request: Request) -> Result<Status, ApiError> {
    match ask(shell, request).await? {
        Reply::Status(status) => Ok(status),
        _ => Err(ApiError::new(500, "bug", "an answer to another question")),
    }
}

/// Asks the member; what it can't do is an error.
pub(super) async fn ask(shell: &Shell, request: Request) -> Result<Reply, ApiError> {
    let asked = shell.ask_member(request).await;
    let reply = asked.map_err(|error| ApiError::new(500, "network", error.to_string()))?;
    match reply {
        Some(Reply::Unable(why)) => Err(unable(&why)),
        Some(reply) => Ok(reply),
        None => Err(ApiError::new(503, "stopping", "this node is stopping")),
    }
}

fn unable(why: &Unable) -> ApiError {
    let message = why.to_string();
    match why {
        Unable::NoCluster => ApiError::new(409, "no-cluster", message)
            .hint("`madake cluster init` makes one, `madake cluster join TICKET` goes into another's"),
        Unable::InACluster => ApiError::new(409, "in-a-cluster", message)
            .hint("`madake cluster status` shows which; a home is in one cluster at a time"),
        Unable::Joining => ApiError::new(409, "joining", message).hint(
            "`madake cluster status` shows whose; the owner there has to type: madake cluster add TICKET",
        ),
        Unable::Copied => ApiError::new(409, "copied", message)
            .hint("`madake cluster add TICKET` at a member and `madake cluster join TICKET` here add it again; a copy becomes another node with `madake init --clone`"),
        Unable::TooMany => ApiError::new(409, "too-many", message)
            .hint("`madake cluster status` shows them; `madake cluster remove NODE` takes one back"),
        Unable::NotAMember => ApiError::not_found(message).hint("`madake cluster status` shows the members"),
        Unable::NoQuorum { .. } => ApiError::new(503, "no-quorum", message)
            .hint("`madake cluster status` shows who is in reach"),
        Unable::NoChange(_) => ApiError::new(409, "no-change", message)
            .hint("`madake cluster status` shows the members, and who is in reach"),
        Unable::NotNow => ApiError::new(409, "not-now", message).hint("try again in a moment"),
        other => ApiError::new(500, "store", other.to_string()),
    }
}

fn shown(shell: &Shell, status: &Status) -> Result<Response<Body>, ApiError> {
    work::in_place(|| Ok(object(&status_json(shell, status)?)))
}

fn status_json(shell: &Shell, status: &Status) -> Result<Value, ApiError> {
    let mut nodes = Vec::with_capacity(status.members.len());
    for member in &status.members {
        let peer = shell.store().peer(member.node)?;
        nodes.push(json!({
            "node": member.node.to_string(),
            "name": peer.map(|peer| peer.name),
            "self": member.node == shell.node(),
            "in_reach": member.in_reach,
            "restored": member.is_strange,
        }));
    }
    let ids = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(json!({
        "cluster": status.cluster.map(|cluster| HEXLOWER.encode(&cluster.0)),
        "epoch": status.epoch,
        "members": status.members.iter().map(|member| member.node.to_string()).collect::<Vec<_>>(),
        "quorum": status.quorum,
        "state": status.kind.as_str(),
        "has_quorum": status.has_quorum,
        "changing": status.is_changing,
        "nodes": nodes,
        "invited": ids(&status.invited),
        "joining": status.joining.map(|(node, _)| node.to_string()),
        "waiting": status.joining.and_then(|(_, why)| why).map(|why| why.to_string()),
        "pending": status.pending,
    }))
}
