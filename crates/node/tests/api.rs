//! The description of the control API, held against the running thing: every route that is answered is
//! described and the other way round, and real answers of two nodes on loopback fit what is described.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode};
use madake_log::{AuthorKey, BundleEncoder, Entry, ForkProof, LogId, PayloadId};
use madake_node::api::{ROUTES, RecordHeader, encode_chunk, encode_end, encode_header, full};
use madake_node::client::Client;
use madake_node::daemon::Daemon;
use madake_node::home::{Config, Home};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const OPENAPI: &str = include_str!("../../../docs/openapi.json");
const API_MD: &str = include_str!("../../../docs/api.md");

fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Every operation that is described, by method and path.
fn operations(description: &Value) -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    found
}

#[test]
fn what_is_routed_is_described_and_the_other_way_round() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    let routed: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    let operations = operations(&description);
    assert_eq!(operations.keys().cloned().collect::<BTreeSet<_>>(), routed);
    for ((method, path), operation) in &operations {
        assert!(API_MD.contains(&format!("\n### {method} {path}\n")), "docs/api.md has no `{method} {path}`");
        assert!(operation["responses"]["200"].is_object() && operation["responses"]["default"].is_object());
        let in_path = |parameter: &Value| parameter["in"] == "path";
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        assert_eq!(parameters.iter().filter(|p| in_path(p)).count(), path.matches('{').count(), "{path}");
        for parameter in parameters.iter().filter(|parameter| !in_path(parameter)) {
            let row = format!("\n| `{}` |", parameter["name"].as_str().unwrap());
            let section = API_MD.split(&format!("\n### {method} {path}\n")).nth(1).unwrap();
            let section = section.split("\n##").next().unwrap();
            assert!(section.contains(&row), "docs/api.md, {method} {path}: no {row}");
        }
    }
    assert_eq!(API_MD.matches("\n### ").count(), operations.len(), "docs/api.md has routes that are none");
}

/// A node that runs in this process, and a client of its control socket.
struct Node {
    folder: tempfile::TempDir,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("home");
        let home = Home::init(&path, Config::default()).unwrap();
        let daemon = Daemon::start(home, &["127.0.0.1:0".parse().unwrap()], false).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(daemon.run(async { drop(stopped.await) }));
        let client = Client::Daemon { home: path };
        Self { folder, client, stop: Some(stop), running: Some(running) }
    }

    async fn end(mut self) {
        drop(self.stop.take());
        self.running.take().unwrap().await.unwrap();
    }
}

/// Asks a node, and holds each answer against the description.
struct Checker {
    description: Value,
    operations: BTreeMap<(String, String), Value>,
    asked: BTreeSet<(String, String)>,
}

/// What came back.
struct Answered {
    status: StatusCode,
    bytes: Vec<u8>,
    lines: Vec<Value>,
}

impl Checker {
    fn new() -> Self {
        let description = description();
        Self { operations: operations(&description), description, asked: BTreeSet::new() }
    }

    /// A request that must do well. Each required parameter is needed: without it the same is an error.
    async fn ok(
        &mut self,
        node: &Node,
        method: &str,
        path: &str,
        id: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Answered {
        let answered = self.ask(node, method, path, id, query, body).await;
        let text = String::from_utf8_lossy(&answered.bytes).into_owned();
        assert_eq!(answered.status, StatusCode::OK, "{method} {path} {query:?}: {text}");
        let operation = self.operations[&(method.to_owned(), path.to_owned())].clone();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "query" && parameter["required"] == true {
                let rest: Vec<_> = query.iter().filter(|(given, _)| *given != name).copied().collect();
                assert!(rest.len() < query.len(), "{method} {path}: `{name}` is required");
                let answered = self.ask(node, method, path, id, &rest, body).await;
                assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{method} {path} without `{name}`");
                assert_eq!(answered.lines[0]["error"]["code"], "usage");
            }
        }
        self.asked.insert((method.to_owned(), path.to_owned()));
        answered
    }

    /// Asks, and checks what comes back, error or not.
    async fn ask(
        &self,
        node: &Node,
        method: &str,
        path: &str,
        id: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Answered {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let request = Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri(format!("{}?{query}", path.replace("{id}", id)))
            .header(hyper::header::HOST, "madake")
            .body(full(body.to_vec()))
            .unwrap();
        let response = node.client.call(request).await.unwrap();
        let status = response.status();
        let kind = response.headers()[hyper::header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes().to_vec();

        let operation = &self.operations[&(method.to_owned(), path.to_owned())];
        let described = match status {
            StatusCode::OK => &operation["responses"]["200"],
            _ => &operation["responses"]["default"],
        };
        let content = &described["content"];
        assert!(content[&kind].is_object(), "{method} {path}: an answer of {kind}, described is {content}");
        let mut lines = Vec::new();
        if kind == "application/x-ndjson" {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{method} {path}: {text:?}");
            lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
            for line in &lines {
                let at = format!("{method} {path}");
                self.check(line, &content[&kind]["schema"], &at)
                    .unwrap_or_else(|wrong| panic!("{wrong}\nin {line}"));
            }
            let count = lines.iter().filter(|line| line.get("progress").is_none()).count();
            match described["x-lines"].as_str() {
                Some("many") => assert_eq!(count, lines.len(), "{method} {path}: {text}"),
                Some("one" | "progress") | None => assert_eq!(count, 1, "{method} {path}: {text}"),
                Some(other) => panic!("x-lines: {other}"),
            }
        }
        Answered { status, bytes, lines }
    }

    /// Whether a value is as a schema says. Words of JSON Schema that this does not know are no schema of
    /// ours.
    fn check(&self, value: &Value, schema: &Value, at: &str) -> Result<(), String> {
        let wrong = |what: String| Err(format!("{at}: {what}"));
        for (word, said) in schema.as_object().unwrap() {
            match word.as_str() {
                "description" | "required" | "additionalProperties" => {}
                "$ref" => {
                    let name = said.as_str().unwrap().strip_prefix("#/components/schemas/").unwrap();
                    let schema = &self.description["components"]["schemas"][name];
                    assert!(schema.is_object(), "{at}: there is no {name}");
                    self.check(value, schema, &format!("{at} {name}"))?;
                }
                "oneOf" => {
                    let fits = |schema: &&Value| self.check(value, schema, at).is_ok();
                    let count = said.as_array().unwrap().iter().filter(fits).count();
                    if count != 1 {
                        return wrong(format!("{count} of {said} fit"));
                    }
                }
                "type" => {
                    let types = said.as_array().cloned().unwrap_or_else(|| vec![said.clone()]);
                    if !types.iter().any(|name| is_of_type(value, name.as_str().unwrap())) {
                        return wrong(format!("{value} is not of type {said}"));
                    }
                }
                "enum" => {
                    if !said.as_array().unwrap().contains(value) {
                        return wrong(format!("{value} is none of {said}"));
                    }
                }
                "minimum" => {
                    if value.as_f64() < said.as_f64() {
                        return wrong(format!("{value} is below {said}"));
                    }
                }
                "pattern" => {
                    let digits = match said.as_str().unwrap() {
                        "^[0-9a-f]{64}$" => 64,
                        "^[0-9a-f]{32}$" => 32,
                        other => panic!("a pattern that the test does not know: {other}"),
                    };
                    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                    let fits = |text: &str| text.len() == digits && text.chars().all(hex);
                    if value.as_str().is_some_and(|text| !fits(text)) {
                        return wrong(format!("{value} does not fit {said}"));
                    }
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.check(item, said, &format!("{at}[]"))?;
                    }
                }
                "properties" => {
                    let Some(fields) = value.as_object() else { continue };
                    for name in schema["required"].as_array().into_iter().flatten() {
                        if !fields.contains_key(name.as_str().unwrap()) {
                            return wrong(format!("{name} is missing"));
                        }
                    }
                    for (name, field) in fields {
                        match said.get(name) {
                            Some(schema) => self.check(field, schema, &format!("{at}.{name}"))?,
                            None => return wrong(format!("`{name}` is not described")),
                        }
                    }
                }
                other => panic!("{at}: a schema with `{other}`, which the test does not know"),
            }
        }
        Ok(())
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type of JSON: {other}"),
    }
}

fn record(name: Option<&str>, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let name = name.map(str::to_owned);
    encode_header(&RecordHeader { name, label: Some("label".into()), ..RecordHeader::default() }, &mut out);
    encode_chunk(content, &mut out);
    encode_end(&mut out);
    out
}

/// The key of a node's author.
fn key_of(node: &Node) -> AuthorKey {
    let text = std::fs::read_to_string(node.folder.path().join("home/author.key")).unwrap();
    let (_, digits) = text.trim_end().rsplit_once(' ').unwrap();
    AuthorKey::from_seed(HEXLOWER.decode(digits.as_bytes()).unwrap().try_into().unwrap())
}

/// A bundle of an author's log of one entry, with this payload.
fn bundle(key: &AuthorKey, payload: &[u8]) -> (String, Vec<u8>) {
    let id = PayloadId::of(payload);
    let entry = Entry::sign(key, LogId::new(2_000), None, None, id, payload.len() as u64, false).unwrap();
    let mut out = Vec::new();
    let mut encoder = BundleEncoder::new(&mut out);
    encoder.entry(&entry, &mut out).unwrap();
    encoder.payload(payload, &mut out).unwrap();
    encoder.finish(&mut out).unwrap();
    (format!("{}/2000", key.author()), out)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_answers_are_as_they_are_described() {
    let (a, b, fresh) = (Node::start(), Node::start(), Node::start());
    let mut api = Checker::new();
    let identity = api.ok(&a, "GET", "/v1/id", "", &[], b"").await.lines.remove(0);
    let author = text(&identity, "author").to_owned();
    let other = api.ok(&b, "GET", "/v1/id", "", &[], b"").await.lines.remove(0);
    api.ok(&a, "POST", "/v1/authors", "", &[("name", "work")], b"").await;
    assert_eq!(api.ok(&a, "GET", "/v1/authors", "", &[], b"").await.lines.len(), 2);

    // Entries, with and without payloads, one of them ended; and one whose statement does not count.
    for (schema, query) in [("post", ("end", "0")), ("done", ("end", "1"))] {
        let records = [record(None, b"one"), record(None, &[0xff; 100])].concat();
        let query = [("schema", schema), ("author", "work"), query];
        assert_eq!(api.ok(&a, "POST", "/v1/append", "", &query, &records).await.lines.len(), 2);
    }
    api.ok(&a, "POST", "/v1/append", "", &[("schema", "post")], &record(None, b"mine")).await;
    let logs = api.ok(&a, "GET", "/v1/logs", "", &[], b"").await.lines;
    assert!(logs.iter().any(|log| log["state"] == "ended"), "{logs:?}");
    let log = format!("{author}/post");
    for payload in ["0", "1"] {
        api.ok(&a, "GET", "/v1/entries", "", &[("log", &log), ("payload", payload)], b"").await;
    }
    api.ok(&a, "GET", "/v1/verify", "", &[("progress", "1")], b"").await;
    // Two histories of a log.
    assert_eq!(api.ok(&a, "GET", "/v1/forks", "", &[], b"").await.lines.len(), 0);
    let (forked, one) = bundle(&key_of(&a), b"one");
    for bytes in [one, bundle(&key_of(&a), b"other").1] {
        api.ok(&a, "POST", "/v1/bundle", "", &[], &bytes).await;
    }
    let forks = api.ok(&a, "GET", "/v1/forks", "", &[], b"").await.lines;
    let shown = api.ok(&a, "GET", "/v1/fork", "", &[("log", &forked)], b"").await.lines;
    assert_eq!((shown[0].clone(), shown.len()), (forks[0].clone(), 2), "{shown:?}");
    let proof = api.ok(&a, "GET", "/v1/fork/proof", "", &[("log", &forked)], b"").await.bytes;
    assert_eq!(ForkProof::verify(&proof).unwrap().id().to_string(), text(&forks[0], "proof"));
    let logs = api.ok(&a, "GET", "/v1/logs", "", &[], b"").await.lines;
    assert!(logs.iter().any(|log| log["state"] == "forked" && log["forked_at"] == 1), "{logs:?}");
    let keep = [("log", forked.as_str()), ("keep", text(&forks[0]["branches"][0], "entry"))];
    api.ok(&a, "POST", "/v1/fork/resolve", "", &keep, b"").await;
    api.ok(&a, "POST", "/v1/fork/salvage", "", &[("log", &forked)], b"").await;
    // Files.
    let put = api.ok(&a, "POST", "/v1/objects", "", &[], &record(None, b"an object")).await.lines.remove(0);
    let got = api.ok(&a, "GET", "/v1/objects/{id}", text(&put, "object"), &[], b"").await;
    assert_eq!(got.bytes, b"an object");
    for content in [b"first".as_slice(), b"second"] {
        api.ok(&a, "POST", "/v1/commits", "", &[], &record(Some("notes/a"), content)).await;
    }
    api.ok(&a, "GET", "/v1/heads", "", &[("prefix", "notes")], b"").await;
    let head = api.ok(&a, "GET", "/v1/head", "", &[("name", "notes/a")], b"").await.lines.remove(0);
    api.ok(&a, "GET", "/v1/commits/{id}", &text(&head, "commit")[..8], &[], b"").await;
    let tombstone = |previous: &Value| {
        let mut out = Vec::new();
        let previous = previous.as_str().map(str::to_owned);
        let name = Some("notes/gone".to_owned());
        let header = RecordHeader {
            name,
            previous,
            deleted: true,
            on_head: true,
            time: Some(1),
            ..RecordHeader::default()
        };
        encode_header(&header, &mut out);
        encode_end(&mut out);
        out
    };
    let given = "/v1/commits/given";
    api.ok(&a, "POST", "/v1/commits", "", &[], &record(Some("notes/gone"), b"bytes")).await;
    let before = api.ok(&a, "GET", "/v1/head", "", &[("name", "notes/gone")], b"").await.lines.remove(0);
    let made = api.ok(&a, "POST", given, "", &[], &tombstone(&before["commit"])).await.lines.remove(0);
    assert_eq!(made["new"], true);
    let again = api.ok(&a, "POST", given, "", &[], &tombstone(&before["commit"])).await.lines.remove(0);
    assert_eq!((&again["new"], &again["commit"]), (&json!(false), &made["commit"]));
    let here = format!("{}\n{}\n", text(&made, "commit"), "1".repeat(64));
    let missing = api.ok(&a, "POST", "/v1/commits/missing", "", &[], here.as_bytes()).await.lines;
    assert_eq!(missing, [json!({"commit": "1".repeat(64)})]);
    for ids in [b"xyz".to_vec(), b"\xff".to_vec(), vec![b'\n'; 700_000]] {
        let refused = api.ask(&a, "POST", "/v1/commits/missing", "", &[], &ids).await;
        assert_eq!(refused.lines[0]["error"]["code"], "usage");
    }
    let head = api.ok(&a, "GET", "/v1/head", "", &[("name", "notes/gone")], b"").await.lines.remove(0);
    assert_eq!(head["state"], "deleted");
    // Another author's version of a name, merged.
    let theirs = record(Some("notes/a"), b"second\nmore\n");
    api.ok(&a, "POST", "/v1/commits", "", &[("author", "work")], &theirs).await;
    let query = [("name", "notes/a"), ("text", "1")];
    let plan = api.ok(&a, "GET", "/v1/merge", "", &query, b"").await.lines.remove(0);
    assert_eq!((&plan["outcome"], &plan["why"]), (&json!("conflict"), &json!("lines")));
    let refused = api.ask(&a, "POST", "/v1/merge", "", &query[..1], b"").await;
    assert_eq!(
        (refused.status, &refused.lines[0]["error"]["code"]),
        (StatusCode::CONFLICT, &json!("contested"))
    );
    let query = [("name", "notes/a"), ("take", "theirs"), ("message", "theirs")];
    let head = api.ok(&a, "POST", "/v1/merge", "", &query, b"").await.lines.remove(0);
    assert_eq!(head["merges"], json!([plan["theirs"]]));
    api.ok(&a, "GET", "/v1/merge", "", &query[..1], b"").await;
    let graph = api.ok(&a, "GET", "/v1/history", "", &[("name", "notes/a"), ("graph", "1")], b"").await;
    assert_eq!(graph.lines.len(), 4);
    for (deleted, count) in [("0", 1), ("1", 2)] {
        let query = [("prefix", "notes"), ("deleted", deleted)];
        assert_eq!(api.ok(&a, "GET", "/v1/tree", "", &query, b"").await.lines.len(), count);
    }
    assert_eq!(api.ok(&a, "GET", "/v1/history", "", &[("name", "notes/a")], b"").await.lines.len(), 3);
    api.ok(&a, "GET", "/v1/tree", "", &[("prefix", "notes")], b"").await;

    // Peers, and a session that brings something, one that refuses something.
    let names = [(&b, &identity, "a"), (&a, &other, "b")];
    for (node, ticket, name) in names {
        api.ok(node, "POST", "/v1/peers", "", &[("ticket", text(ticket, "ticket")), ("name", name)], b"")
            .await;
    }
    api.ok(&a, "GET", "/v1/peers", "", &[], b"").await;
    for flag in ["0", "1"] {
        let query = [("peer", "b"), ("write", flag), ("read", "1")];
        api.ok(&a, "POST", "/v1/peers/allow", "", &query, b"").await;
    }
    let invite = api.ok(&a, "POST", "/v1/invites", "", &[], b"").await.lines.remove(0);
    api.ok(&a, "POST", "/v1/invites", "", &[("name", "c")], b"").await;
    assert_eq!(api.ok(&a, "GET", "/v1/invites", "", &[], b"").await.lines.len(), 2);
    api.ok(&a, "DELETE", "/v1/invites", "", &[("code", text(&invite, "code"))], b"").await;
    api.ok(&b, "POST", "/v1/follow", "", &[("author", &author)], b"").await;
    let sync = |mode| [("peer", "a"), ("mode", mode), ("schema", "post"), ("schema", "commit")];
    let tried = [sync("pull").as_slice(), &[("dry_run", "1")]].concat();
    let tried = api.ok(&b, "POST", "/v1/sync", "", &tried, b"").await.lines.pop().unwrap();
    assert!(tried["would"].as_array().is_some_and(|logs| logs.len() == 2), "{tried}");
    let lines = api.ok(&b, "POST", "/v1/sync", "", &sync("pull"), b"").await.lines;
    assert_eq!(lines.last().unwrap()["received"]["objects"], 5, "{lines:?}");
    assert!(lines.iter().any(|line| line.get("progress").is_some()), "{lines:?}");
    api.ok(&b, "POST", "/v1/append", "", &[("schema", "post")], &record(None, b"of b")).await;
    let lines = api.ok(&b, "POST", "/v1/sync", "", &sync("push"), b"").await.lines;
    assert_eq!(lines.last().unwrap()["refused"].as_array().unwrap().len(), 1, "{lines:?}");
    let status = api.ok(&b, "GET", "/v1/status", "", &[], b"").await.lines.remove(0);
    assert_eq!(status["peers"][0]["state"], "met");
    for (target, kind) in [
        ("a", "peer"),
        ("work", "author"),
        (log.as_str(), "log"),
        (&format!("{log}@1"), "entry"),
        (text(&head, "commit"), "commit"),
        (text(&head, "object"), "object"),
        ("notes/a", "head"),
        ("nothing", "head"),
        (&"0".repeat(64), "unknown"),
    ] {
        let node = if target == "work" { &a } else { &b };
        let why = api.ok(node, "GET", "/v1/why", "", &[("target", target)], b"").await.lines.remove(0);
        assert_eq!(why["kind"], kind, "{why}");
        assert!(!why["facts"].as_array().unwrap().is_empty(), "{why}");
    }

    // Homes: two of them, one after the other.
    let elsewhere = Node::start();
    api.ok(&a, "GET", "/v1/home", "", &[], b"").await;
    let ticket = |made: &Value| text(made, "ticket").to_owned();
    let code = |made: &Value| text(made, "code").to_owned();
    let made = api.ok(&b, "POST", "/v1/home/invite", "", &[], b"").await.lines.remove(0);
    let (old, code_there) = (ticket(&made), code(&made));
    api.ok(&a, "POST", "/v1/home/marry", "", &[("ticket", &old), ("code", &code_there)], b"").await;
    let made = api.ok(&elsewhere, "POST", "/v1/home/invite", "", &[], b"").await.lines.remove(0);
    let (new, code_there) = (ticket(&made), code(&made));
    let second = [("ticket", new.as_str()), ("code", &code_there), ("yes", "1")];
    let widowed = api.ok(&a, "POST", "/v1/home/marry", "", &second, b"").await.lines.remove(0);
    assert_eq!(widowed["state"], "widowed");
    api.ok(&a, "POST", "/v1/sync", "", &[("peer", "b"), ("mode", "push")], b"").await;
    api.ok(&b, "POST", "/v1/home/object", "", &[("author", &author)], b"").await;
    let moved = [("ticket", new.as_str()), ("yes", "1")];
    let moved = api.ok(&a, "POST", "/v1/home/move", "", &moved, b"").await.lines.remove(0);
    assert_eq!((&moved["state"], &moved["epoch"]), (&json!("married"), &json!(2)));
    assert_eq!(api.ok(&b, "GET", "/v1/home", "", &[], b"").await.lines.pop().unwrap()["state"], "moved");
    api.ok(&elsewhere, "POST", "/v1/home/release", "", &[("author", &author), ("yes", "1")], b"").await;
    api.ok(&a, "POST", "/v1/home/leave", "", &[], b"").await;
    // Whose data and what of it.
    for query in
        [vec![("author", author.as_str())], vec![("author", &author), ("entries", "9"), ("bytes", "99999")]]
    {
        api.ok(&b, "POST", "/v1/quotas", "", &query, b"").await;
    }
    assert_eq!(api.ok(&b, "GET", "/v1/quotas", "", &[], b"").await.lines.len(), 1);
    api.ok(&b, "GET", "/v1/quota", "", &[("author", &author)], b"").await;
    api.ok(&b, "DELETE", "/v1/quotas", "", &[("author", &author)], b"").await;
    let all = api.ok(&b, "GET", "/v1/interest", "", &[], b"").await.lines;
    assert_eq!(all[0]["policy"], "all");
    api.ok(&b, "POST", "/v1/interest", "", &[("schema", "post")], b"").await;
    api.ok(&b, "GET", "/v1/interest", "", &[], b"").await;
    let kept = api.ok(&b, "POST", "/v1/interest", "", &[("objects", "heads")], b"").await.lines;
    assert_eq!((&kept[0]["objects"], &kept[0]["schema"]), (&json!("heads"), &json!("post")));
    api.ok(&b, "DELETE", "/v1/interest", "", &[("schema", "post")], b"").await;
    api.ok(&b, "POST", "/v1/block", "", &[("author", &author)], b"").await;

    // Files that go elsewhere and come in.
    let bundle = api.ok(&a, "GET", "/v1/bundle", "", &[("log", &log)], b"").await.bytes;
    let imported = api.ok(&fresh, "POST", "/v1/bundle", "", &[], &bundle).await.lines.pop().unwrap();
    assert_eq!(imported["entries"], 1, "{imported}");
    let export = api.ok(&a, "POST", "/v1/export", "", &[], b"").await.bytes;
    let empty = Node::start();
    let imported = api.ok(&empty, "POST", "/v1/import", "", &[], &export).await.lines.pop().unwrap();
    assert_eq!(imported["objects"], 6, "{imported}");
    // Upkeep.
    let gone = api.ok(&a, "POST", "/v1/unput", "", &[("object", text(&put, "object"))], b"").await.lines;
    assert_eq!(gone.last().unwrap()["dropped"], 1, "{gone:?}");
    let entry = format!("{author}/post@1");
    let gone = api.ok(&a, "POST", "/v1/payload/drop", "", &[("entry", &entry)], b"").await.lines;
    assert_eq!(gone.last().unwrap()["dropped"], 1, "{gone:?}");
    let shown = api.ok(&a, "GET", "/v1/entries", "", &[("log", &entry)], b"").await.lines;
    assert!(shown[0]["dropped"].is_string(), "{shown:?}");
    for dry_run in ["1", "0"] {
        api.ok(&a, "POST", "/v1/gc", "", &[("dry_run", dry_run)], b"").await;
    }
    let checked = api.ok(&a, "POST", "/v1/check", "", &[("repair", "1")], b"").await.lines;
    assert_eq!(checked.last().unwrap()["ok"], true, "{checked:?}");

    api.ok(&a, "DELETE", "/v1/peers", "", &[("peer", "b")], b"").await;

    // A cluster of one, and one that waits for another; heads that it agrees on.
    api.ok(&a, "POST", "/v1/cluster/init", "", &[], b"").await;
    let ticket = text(&other, "ticket");
    api.ok(&a, "POST", "/v1/cluster/add", "", &[("ticket", ticket), ("name", "bob")], b"").await;
    let waits = api.ok(&fresh, "POST", "/v1/cluster/join", "", &[("ticket", ticket)], b"").await.lines;
    assert_eq!(waits[0]["state"], "joining", "{waits:?}");
    assert_eq!(api.ok(&a, "GET", "/v1/cluster", "", &[], b"").await.lines[0]["quorum"], 1);
    api.ok(&a, "POST", "/v1/cluster/remove", "", &[("node", text(&other, "node"))], b"").await;
    let mut commits = Vec::new();
    for content in [b"one", b"two"] {
        let records = record(Some("agreed/name"), content);
        let made = api.ok(&a, "POST", "/v1/commits", "", &[], &records).await.lines.remove(0);
        assert_eq!(made["state"], "agreed", "{made}");
        commits.push(text(&made, "commit").to_owned());
    }
    let name = ("name", "agreed/name");
    let taken = api.ok(&a, "POST", "/v1/head/take", "", &[name, ("commit", &commits[0])], b"").await.lines;
    assert_eq!(taken[0]["side"][0]["reason"], "reset", "{taken:?}");
    let shown = api.ok(&a, "GET", "/v1/head", "", &[name, ("ask", "1")], b"").await.lines;
    assert_eq!((&shown[0]["commit"], &shown[0]["gen"]), (&taken[0]["commit"], &json!(3)));
    api.ok(&a, "POST", "/v1/head/drop", "", &[name, ("commit", &commits[1])], b"").await;
    let gone = api.ok(&a, "POST", "/v1/head/delete", "", &[name], b"").await.lines;
    assert_eq!((&gone[0]["state"], &gone[0]["commit"]), (&json!("deleted"), &Value::Null));
    let published = api.ok(&a, "POST", "/v1/head/publish", "", &[("prefix", "notes")], b"").await.lines;
    assert!(published.iter().all(|head| head["state"] == "agreed"), "{published:?}");
    assert!(!published.is_empty());
    api.ok(&a, "GET", "/v1/heads", "", &[], b"").await;
    let all: BTreeSet<_> = api.operations.keys().cloned().collect();
    assert_eq!(api.asked, all, "a route that was never asked");
    for node in [a, b, fresh, elsewhere, empty] {
        node.end().await;
    }
}

/// Errors too are as they are described, of every route that can be asked wrongly.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn errors_are_as_they_are_described() {
    let node = Node::start();
    let api = Checker::new();
    let wrong = [
        ("GET", "/v1/entries", "", vec![("log", "nonsense")], b"".as_slice(), 400, "usage"),
        ("GET", "/v1/objects/{id}", "000000", vec![], b"", 404, "not-found"),
        ("GET", "/v1/head", "", vec![("name", "nothing")], b"", 404, "not-found"),
        ("POST", "/v1/append", "", vec![("schema", "commit")], b"", 400, "usage"),
        ("POST", "/v1/authors", "", vec![("name", "first")], b"", 500, "author-exists"),
        ("POST", "/v1/sync", "", vec![("peer", "nobody"), ("mode", "pull")], b"", 404, "not-found"),
        ("DELETE", "/v1/interest", "", vec![("schema", "post")], b"", 404, "not-found"),
        ("POST", "/v1/interest", "", vec![], b"", 400, "usage"),
        ("GET", "/v1/fork", "", vec![("log", "000000/1")], b"", 404, "not-found"),
        ("GET", "/v1/why", "", vec![("target", "a//b")], b"", 400, "usage"),
        ("POST", "/v1/interest", "", vec![("objects", "some")], b"", 400, "usage"),
    ];
    for (method, path, id, query, body, status, code) in wrong {
        let answered = api.ask(&node, method, path, id, &query, body).await;
        assert_eq!(answered.status.as_u16(), status, "{method} {path}");
        assert_eq!(answered.lines[0]["error"]["code"], code, "{method} {path}: {:?}", answered.lines);
        assert!(answered.lines[0]["error"]["hint"].is_string());
    }
    node.end().await;
}

/// The checker finds what does not fit: else the tests above would say nothing.
#[test]
fn the_checker_finds_what_does_not_fit() {
    let api = Checker::new();
    let author = json!({"$ref": "#/components/schemas/Author"});
    let id = "ab".repeat(32);
    assert_eq!(api.check(&json!({"author": id, "name": "x"}), &author, ""), Ok(()));
    for wrong in [
        json!({"author": id}),
        json!({"author": id, "name": 5}),
        json!({"author": id[1..], "name": "x"}),
        json!({"author": id, "name": "x", "more": 1}),
        json!([]),
        json!(null),
    ] {
        assert!(api.check(&wrong, &author, "").is_err(), "{wrong}");
    }
    let policy = json!({"$ref": "#/components/schemas/Policy"});
    assert!(api.check(&json!({"author": id, "policy": "ignore"}), &policy, "").is_err());
    let either = json!({"oneOf": [policy, author]});
    assert!(api.check(&json!({"author": id, "name": "x"}), &either, "").is_ok());
    assert!(api.check(&json!({"author": id}), &either, "").is_err());
}
