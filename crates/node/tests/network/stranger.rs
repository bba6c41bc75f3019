//! A peer that speaks by hand, and lets nobody open the streams that the protocol has.

use std::sync::Arc;

use madake_log::{AuthorKey, Entry, LogId, PayloadId};
use madake_node::net::tls;
use madake_object::{Commit, CommitAuthor, Mode, Object, ObjectId};
use madake_store::{Change, Policy};
use madake_sync::Bounded;
use madake_sync::wire::{Done, Hello, Message, PROTOCOL, ScopeKind, frame_length};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt};

use super::socket::Socket;
use super::world::World;
use super::{SECOND, seed};

async fn hear(from: &mut RecvStream) -> Option<Message> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.ok()?;
    let mut frame = vec![0; frame_length(length).ok()?];
    from.read_exact(&mut frame).await.ok()?;
    Message::decode(&frame).ok()
}

async fn say(to: &mut SendStream, message: Message) {
    let _ = to.write_all(&message.encode().unwrap()).await;
}

/// Has just what the other side has, as it says; admits the control stream, and no other.
async fn gives_no_streams(key: Arc<AuthorKey>, socket: Arc<Socket>) -> turmoil::Result {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1)).keep_alive_interval(Some(5 * SECOND));
    let mut config =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls::server_config(&key))?));
    config.transport_config(Arc::new(transport));
    let (runtime, local) = (Arc::new(TokioRuntime), EndpointConfig::default());
    let endpoint = quinn::Endpoint::new_with_abstract_socket(local, Some(config), socket, runtime)?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let (mut to, mut from) = connection.accept_bi().await?;
        let hello = Hello {
            protocol: PROTOCOL,
            node: key.author(),
            epoch: [1; 16],
            generation: 1,
            incarnation: (1, [1; 16]),
            clock: 0,
            receives: false,
            gives: true,
            scope: ScopeKind::Listed(0),
            schemas: None,
            methods: Bounded::truncated(vec![1, 0]),
            capabilities: 0,
        };
        say(&mut to, Message::Hello(hello)).await;
        while let Some(message) = hear(&mut from).await {
            match message {
                Message::Digest(digest) => say(&mut to, Message::Digest(digest)).await,
                Message::Done(_) => say(&mut to, Message::Done(Done::default())).await,
                _ => {}
            }
        }
    }
    Ok(())
}

/// It must not hold the places of big objects, which are few, for as long as it likes: others have the object too.
#[test]
fn who_admits_no_streams_is_soon_asked_for_no_objects() {
    let key = Arc::new(AuthorKey::from_seed([9; 32]));
    let theirs = key.clone();
    let mut world = World::with_stranger(seed(), &key, |socket| gives_no_streams(theirs, socket));
    // Bob has a version of somebody's file, and not its bytes.
    let somebody = AuthorKey::from_seed([8; 32]);
    let commit = Commit {
        name: "film".parse().unwrap(),
        previous: None,
        merges: Vec::new(),
        object: ObjectId::of(&[7; 3_000_000]),
        size: 3_000_000,
        mode: Mode::File,
        author: CommitAuthor::new(*somebody.author().as_bytes()),
        time: 0,
        message: String::new(),
        tags: Vec::new(),
    };
    let payload = Object::new(commit.encode().unwrap());
    let (id, size) = (PayloadId::of(payload.bytes()), payload.bytes().len() as u64);
    let entry = Entry::sign(&somebody, LogId::COMMIT, None, None, id, size, false).unwrap();
    let follow = Change::Policy(somebody.author(), Policy::Follow);
    let version = Change::Entry { entry, payload: Some(payload) };
    world.nodes[0].shell.store().apply(vec![follow, version]).unwrap();
    let pull = world.nodes[0].asks("/v1/sync?peer=alice&mode=pull");
    let took = world.runs_until("the pull ends", |_| pull.is_over());
    let missing = &pull.last()["missing"];
    assert_eq!(missing[0]["id"], commit.object.to_string(), "{}", pull.last());
    assert_eq!(missing[0]["reason"], "silence: no byte for 30 seconds");
    assert!(took < 40 * SECOND, "{took:?}");
}
