//! Whole nodes in a simulated network: the program's own daemon, home, store and endpoint, over another socket.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, Request};
use madake_log::AuthorKey;
use madake_node::api::{self, full};
use madake_node::daemon::Daemon;
use madake_node::home::{Config, Home};
use madake_node::net::Endpoint;
use madake_node::shell::Shell;
use madake_object::Object;
use madake_store::{Change, NewContent, Peer, Policy, Read as _, Tie};
use quinn::{EndpointConfig, TokioRuntime};
use serde_json::Value;
use tokio::sync::mpsc;
use turmoil::Sim;

use super::socket::{Line, Socket, lock};

const PORT: u16 = 6232;
/// Simulated time that no step here takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Two nodes and the line between them.
pub struct World<'a> {
    pub sim: Sim<'a>,
    pub line: Arc<Mutex<Line>>,
    pub nodes: Vec<Node>,
    seed: u64,
}

/// A node that runs.
pub struct Node {
    pub shell: Arc<Shell>,
    pub name: &'static str,
    /// What happened, and when.
    pub events: Arc<Mutex<Vec<(Duration, Value)>>>,
    requests: mpsc::UnboundedSender<(Request<api::Body>, Lines)>,
    _folder: tempfile::TempDir,
}

/// Lines of an answer as they come, and whether it is over.
type Lines = Arc<Mutex<(Vec<Value>, bool)>>;

/// An answer of the control API that is under way.
#[derive(Clone, Default)]
pub struct Answer(Lines);

impl Answer {
    pub fn is_over(&self) -> bool {
        lock(&self.0).1
    }

    /// The last progress that was told.
    pub fn progress(&self) -> Option<Value> {
        lock(&self.0).0.iter().rev().find_map(|line| line.get("progress").cloned())
    }

    pub fn last(&self) -> Value {
        lock(&self.0).0.last().cloned().unwrap_or_default()
    }
}

/// What each node wishes of the link to the other.
#[derive(Clone, Copy, Default)]
pub struct Wishes {
    pub live: [bool; 2],
    pub server: [bool; 2],
}

impl World<'_> {
    /// Bob alone, with a peer called alice at whose place somebody speaks by hand.
    pub fn with_stranger<F>(
        seed: u64,
        key: &AuthorKey,
        speaks: impl FnOnce(Arc<Socket>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let (mut sim, line) = (network(seed), Line::new(seed, 0));
        let addresses = vec![SocketAddr::new(sim.lookup("alice"), PORT).to_string()];
        let folder = tempfile::tempdir().unwrap();
        let home = Home::init(&folder.path().join("home"), Config::default()).unwrap();
        let peer = Peer { node: key.author(), name: "alice".into(), addresses, added: 0 };
        home.store.apply(vec![Change::Peer(peer)]).unwrap();
        let theirs = line.clone();
        sim.client("alice", async move {
            let bound = (Ipv4Addr::UNSPECIFIED, PORT).into();
            speaks(Socket::bind(bound, theirs).await?).await
        });
        let bob = Node::start(&mut sim, "bob", folder, home, line.clone(), seed).comes(&mut sim);
        Self { sim, line, nodes: vec![bob], seed }
    }

    /// Alice and Bob, who follows her. Of datagrams one in `loss` is lost.
    pub fn new(seed: u64, loss: u64, wishes: Wishes) -> Self {
        let mut sim = network(seed);
        let line = Line::new(seed, loss);
        let names = ["alice", "bob"];
        let addresses = names.map(|name| SocketAddr::new(sim.lookup(name), PORT));
        let keys = [0, 1].map(|n: u8| Arc::new(AuthorKey::from_seed([n + 1; 32])));
        let authors = [0, 1].map(|n: u8| Arc::new(AuthorKey::from_seed([n + 11; 32])));
        let nodes = (0..2).map(|n| {
            let folder = tempfile::tempdir().unwrap();
            let mut home = Home::init(&folder.path().join("home"), Config::default()).unwrap();
            (home.node_key, home.author_key) = (keys[n].clone(), authors[n].clone());
            let (other, tie) = (1 - n, Tie { live: wishes.live[n], server: wishes.server[n] });
            let peer = Peer {
                node: keys[other].author(),
                name: names[other].into(),
                addresses: vec![addresses[other].to_string()],
                added: 0,
            };
            let follow = Change::Policy(authors[other].author(), Policy::Follow);
            let tie = Change::Tie(peer.node, tie);
            home.store.apply(vec![Change::Peer(peer), tie, follow]).unwrap();
            Node::start(&mut sim, names[n], folder, home, line.clone(), seed)
        });
        let nodes = nodes.collect::<Vec<_>>();
        let nodes = nodes.into_iter().map(|begins| begins.comes(&mut sim)).collect();
        Self { sim, line, nodes, seed }
    }

    /// How much time has passed.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    pub fn runs_for(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.sim.step().unwrap();
        }
    }

    /// Lets time pass until something is so; how long that took.
    pub fn runs_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now();
        while !is_so(self) {
            self.sim.step().unwrap();
            assert!(self.now() < began + PATIENCE, "seed {}: {what}: not in {PATIENCE:?}", self.seed);
        }
        self.now() - began
    }

    pub fn partition(&self) {
        self.sim.partition("alice", "bob");
    }

    pub fn repair(&self) {
        self.sim.repair("alice", "bob");
    }

    /// Everything that is held of an author's logs.
    pub fn logs(&self, n: usize, of: usize) -> Vec<madake_store::HeldLog> {
        self.nodes[n].shell.store().logs_of(self.nodes[of].shell.author.id()).unwrap()
    }
}

fn network<'a>(seed: u64) -> Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(2))
        .max_message_latency(Duration::from_millis(12))
        .simulation_duration(Duration::from_secs(7_200))
        .udp_capacity(4_096)
        .enable_tokio_io() // the control socket
        .build()
}

/// A node that is about to come up.
struct Begins {
    name: &'static str,
    shell: Arc<Mutex<Option<Arc<Shell>>>>,
    events: Arc<Mutex<Vec<(Duration, Value)>>>,
    requests: mpsc::UnboundedSender<(Request<api::Body>, Lines)>,
    folder: tempfile::TempDir,
}

impl Begins {
    fn comes(self, sim: &mut Sim<'_>) -> Node {
        let Self { name, shell, events, requests, folder } = self;
        let shell = loop {
            if let Some(shell) = lock(&shell).take() {
                break shell;
            }
            sim.step().unwrap();
        };
        Node { shell, name, events, requests, _folder: folder }
    }
}

impl Node {
    fn start(
        sim: &mut Sim<'_>,
        name: &'static str,
        folder: tempfile::TempDir,
        home: Home,
        line: Arc<Mutex<Line>>,
        seed: u64,
    ) -> Begins {
        let (shell, events) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let (requests, mut to_answer) = mpsc::unbounded_channel();
        let begins = Begins { name, shell: shell.clone(), events: events.clone(), requests, folder };
        sim.client(name, async move {
            let socket = Socket::bind((Ipv4Addr::UNSPECIFIED, PORT).into(), line).await?;
            let mut config = EndpointConfig::default();
            config.rng_seed(Some(*blake3::hash(format!("{name} {seed}").as_bytes()).as_bytes()));
            let runtime = Arc::new(TokioRuntime);
            let quinn = quinn::Endpoint::new_with_abstract_socket(config, None, socket, runtime)?;
            let endpoint = Endpoint::over(home.node_key.clone(), quinn)?;
            let daemon = Daemon::start_on(home, endpoint, false)?;
            let ours = daemon.shell().clone();
            *lock(&shell) = Some(ours.clone());
            let mut happens = daemon.events();
            tokio::spawn(async move {
                while let Ok(event) = happens.recv().await {
                    lock(&events).push((turmoil::sim_elapsed().unwrap_or_default(), event));
                }
            });
            tokio::spawn(async move {
                while let Some((request, lines)) = to_answer.recv().await {
                    tokio::spawn(answer(ours.clone(), request, lines));
                }
            });
            daemon.run(std::future::pending()).await;
            Ok(())
        });
        begins
    }

    /// Asks the node's control API.
    pub fn asks(&self, path: &str) -> Answer {
        let answer = Answer::default();
        let request = Request::builder().method(Method::POST).uri(path).body(full("")).unwrap();
        self.requests.send((request, answer.0.clone())).unwrap();
        answer
    }

    /// Writes entries of some length.
    pub fn posts(&self, texts: impl Iterator<Item = String>) {
        let contents: Vec<_> = texts.map(|text| NewContent::Bytes(Object::new(text.into_bytes()))).collect();
        self.shell.author.append(&"post".parse().unwrap(), &contents, false).unwrap();
    }

    /// How the node says that it stands with its peer, with when: the newest last.
    pub fn states(&self) -> Vec<(Duration, String)> {
        let events = lock(&self.events);
        let of_peer = events.iter().filter(|(_, event)| event["event"] == "peer");
        of_peer.map(|(at, event)| (*at, event["state"].as_str().unwrap().to_owned())).collect()
    }

    pub fn is(&self, state: &str) -> bool {
        self.states().last().is_some_and(|(_, last)| last == state)
    }

    /// Sessions that are over, as the node that was dialled tells.
    pub fn ended(&self) -> usize {
        lock(&self.events).iter().filter(|(_, event)| event["event"] == "session").count()
    }
}

async fn answer(shell: Arc<Shell>, request: Request<api::Body>, lines: Lines) {
    let mut body = api::handle(shell, request).await.into_body();
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        rest.extend(frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            lock(&lines).0.push(serde_json::from_slice(&line).unwrap());
        }
    }
    lock(&lines).1 = true;
}
