//! Two homes: what one has comes to the other, all of it, once, and verified.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::hostile::{Hostile, Shelf, commit, key, log};
use common::{Home, Pair, b3sum, befriend, has_fields, is_id, list, noise, number, reasons, text, tree};
use madake_log::LogId;
use madake_object::Commit;
use serde_json::{Value, json};

/// What a pull that had nothing to do received.
fn nothing() -> Value {
    json!({"entries": 0, "payloads": 0, "objects": 0, "bytes": 0})
}

#[test]
fn a_node_that_was_not_added_is_turned_away_and_told_what_to_do() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve();
    a.feed(["log", "append", "post"], b"secret");
    b.ok(["follow", &a.author()]);

    let error = b.error(["pull", &daemon.ticket()], 1);
    assert_eq!(error["code"], "not-known", "{error}");
    assert!(text(&error, "hint").contains("peer add"), "{error}");
    assert_eq!(text(&daemon.wait_for("turned-away"), "peer"), b.node());

    // Adding it on one side is not enough.
    b.ok(["peer", "add", &daemon.ticket(), "--name", "a"]);
    assert_eq!(b.error(["pull", "a"], 1)["code"], "not-known");
    assert_eq!(b.lines(["log", "list"]), [Value::Null; 0]);

    a.ok(["peer", "add", &b.ticket()]);
    assert_eq!(b.json(["pull", "a"])["received"]["entries"], 2);

    // And it can be undone.
    a.ok(["peer", "remove", &b.node()]);
    assert_eq!(b.error(["pull", "a"], 1)["code"], "not-known");
}

#[test]
fn posts_and_a_tree_arrive_whole_and_a_second_pull_moves_nothing() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    a.feed(["log", "append", "post", "--lines"], b"one\ntwo\n\nfour\n");
    let source = a.file("rel");
    a.write("rel/README.md", "read me\n");
    a.write("rel/src/a b.rs", "fn main() {}\n");
    a.write("rel/src/\u{e9}t\u{e9}/x", noise(1, 3000));
    a.write("rel/empty", "");
    a.write("rel/twin", "read me\n");
    make_executable(&a.write("rel/run.sh", "#!/bin/sh\n"));
    a.ok(["commit", "--tree", source.to_str().unwrap(), "--prefix", "rel/one"]);

    let result = pair.pull();
    has_fields(&result, "sent received refused missing rounds summary_bytes seconds");
    for way in ["sent", "received"] {
        has_fields(&result[way], "entries payloads objects bytes");
    }
    // 4 posts, 6 commits and the registration of `post`. Of the 6 files two are the same, and the empty
    // one is here already as the payload of the empty post.
    assert_eq!(number(&result["received"], "entries"), 11, "{result}");
    assert_eq!(number(&result["received"], "payloads"), 11, "{result}");
    assert_eq!(number(&result["received"], "objects"), 4, "{result}");
    assert_eq!((list(&result, "refused"), list(&result, "missing")), (vec![], vec![]));
    assert_eq!(result["sent"], nothing());

    let out = b.file("out");
    b.ok(["checkout", "--tree", "rel/one", "-o", out.to_str().unwrap()]);
    assert_eq!(tree(&source), tree(&out));
    let heads = b.lines(["head", "list", "rel/one/"]);
    assert_eq!(heads.len(), 6);
    for head in heads {
        let name = text(&head, "name");
        let shown = b.json(["head", "show", &name]);
        let bytes = std::fs::read(source.join(name.strip_prefix("rel/one/").unwrap())).unwrap();
        assert_eq!(text(&shown, "object"), b3sum(&bytes), "{name}");
    }
    assert_eq!(b.verifies(), 11);
    assert_eq!(logs(a), logs(b));

    let second = pair.pull();
    assert_eq!(second["received"], nothing(), "{second}");
    assert_eq!(second["sent"], nothing(), "{second}");

    // Only what is new comes the next time.
    a.feed(["log", "append", "post"], b"five");
    a.write("rel/README.md", "read me again\n");
    a.ok(["commit", "--tree", source.to_str().unwrap(), "--prefix", "rel/one"]);
    let third = pair.pull();
    assert_eq!(number(&third["received"], "entries"), 2, "{third}");
    assert_eq!(number(&third["received"], "objects"), 1, "{third}");
    assert_eq!(b.lines(["history", "rel/one/README.md"]).len(), 2);
    assert_eq!(pair.pull()["received"], nothing());
}

#[test]
fn payloads_and_objects_of_every_size_class_arrive() {
    // Inline up to 64 KiB, in frames up to 256 KiB, on streams of their own above; over 1 MiB they lie
    // in files of their own. One byte below, at and above each limit.
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let mut ids = Vec::new();
    for limit in [64 * 1024, 256 * 1024, 1024 * 1024, 5_000_000] {
        for length in [limit - 1, limit, limit + 1] {
            let payload = noise(length as u64, length);
            ids.push(b3sum(&payload));
            a.feed(["log", "append", "big"], &payload);
            let file = noise(length as u64 + 1_000_000_007, length);
            ids.push(b3sum(&file));
            let path = a.write(&format!("files/{length}"), &file);
            a.ok(["commit", &format!("files/{length}"), &path]);
        }
    }
    let result = pair.pull();
    assert_eq!(number(&result["received"], "entries"), 1 + 12 + 12, "{result}");
    assert_eq!(number(&result["received"], "payloads"), 1 + 12 + 12, "{result}");
    assert_eq!(number(&result["received"], "objects"), 12, "{result}");
    assert_eq!(list(&result, "missing"), [Value::Null; 0]);
    for id in ids {
        assert_eq!(b3sum(&b.feed(["get", &id], b"")), id);
    }
    let out = b.file("out");
    b.ok(["checkout", "--tree", "files", "-o", out.to_str().unwrap()]);
    assert_eq!(tree(&a.file("files")), tree(&out));
    b.verifies();
    let second = pair.pull();
    assert_eq!((&second["received"], &second["sent"]), (&nothing(), &nothing()), "{second}");
}

#[test]
fn only_the_schemas_that_were_asked_for_come() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    a.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    a.feed(["log", "append", "like", "--lines"], b"1\n2\n");
    a.ok(["commit", "file", &a.write("file", "bytes")]);

    let result = b.json(["pull", "a", "--schema", "like"]);
    // Two likes, and the two registrations: system logs always come along.
    assert_eq!(number(&result["received"], "entries"), 4, "{result}");
    assert_eq!(b.lines(["log", "list", "--schema", "post"]).len(), 0);
    assert_eq!(b.lines(["head", "list"]).len(), 0);

    let result = b.json(["pull", "a", "--schema", "post", "commit"]);
    assert_eq!(number(&result["received"], "entries"), 4, "{result}");
    assert_eq!(number(&result["received"], "objects"), 1, "{result}");
    assert_eq!(logs(a), logs(b));
    assert_eq!(pair.pull()["received"], nothing());
    assert_eq!(b.error(["pull", "a", "--schema", "No Schema"], 2)["code"], "usage");
}

#[test]
fn a_peer_is_found_by_name_by_the_beginning_of_its_id_and_by_ticket() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let id = a.node();
    for peer in ["a", &id, &id[..6], &id[..13].to_uppercase(), &pair.daemon.ticket()] {
        a.feed(["log", "append", "post"], b"x");
        let result = b.json(["pull", peer]);
        assert!(number(&result["received"], "entries") >= 1, "{peer}: {result}");
        assert_eq!(text(&result, "peer"), id);
    }
    assert_eq!(b.error(["pull", "nobody"], 1)["code"], "not-found");
    assert_eq!(b.error(["pull", &id[..5]], 1)["code"], "not-found");
    assert_eq!(b.error(["pull", "madake1-nonsense"], 2)["code"], "usage");
}

#[test]
fn push_gives_to_a_node_that_follows() {
    let (a, b) = (Home::new(), Home::new());
    let b_runs = b.serve();
    befriend(&a, &b, &b_runs); // at A, B is called `a`
    a.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    a.ok(["commit", "file", &a.write("file", noise(3, 2_000_000))]);

    // It does not follow: nothing is forced on it, and that is said.
    let result = a.json(["push", "a"]);
    assert_eq!(result["sent"], nothing(), "{result}");
    assert_eq!(reasons(&result["refused"]), [("not-followed".to_owned(), a.author())]);
    assert_eq!(b.lines(["log", "list"]).len(), 0);

    b.ok(["follow", &a.author()]);
    let result = a.json(["push", "a"]);
    assert_eq!(number(&result["sent"], "entries"), 5, "{result}");
    assert_eq!(number(&result["sent"], "objects"), 1, "{result}");
    assert_eq!(result["received"], nothing());
    assert_eq!(list(&result, "refused"), [Value::Null; 0]);
    assert_eq!(logs(&a), logs(&b));
    assert_eq!(b.verifies(), 5);
    assert_eq!(a.json(["push", "a"])["sent"], nothing());
}

#[test]
fn sync_goes_both_ways_in_one_session() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    a.ok(["follow", &b.author()]);
    a.feed(["log", "append", "post", "--lines"], b"a1\na2\n");
    b.feed(["log", "append", "post", "--lines"], b"b1\nb2\nb3\n");
    b.ok(["commit", "file", &b.write("file", "of b")]);

    let result = b.json(["sync", "a"]);
    assert_eq!(number(&result["received"], "entries"), 3, "{result}");
    assert_eq!(number(&result["sent"], "entries"), 5, "{result}");
    assert_eq!(number(&result["sent"], "objects"), 1, "{result}");
    assert_eq!(logs(a), logs(b));
    assert_eq!((a.verifies(), b.verifies()), (8, 8));
    let again = b.json(["sync", "a"]);
    assert_eq!((&again["received"], &again["sent"]), (&nothing(), &nothing()), "{again}");
}

#[test]
fn it_works_the_same_when_the_pulling_side_runs_a_daemon() {
    let pair = Pair::new();
    pair.a.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    let b_runs = pair.b.serve();
    assert_eq!(number(&pair.pull()["received"], "entries"), 4);
    assert_eq!(pair.pull()["received"], nothing());
    let status = pair.b.json(["status"]);
    let peer = &list(&status, "peers")[0];
    assert!(peer["last_sync"].is_string() && peer["failure"].is_null(), "{status}");
    assert_eq!(number(&status, "entries"), 4);
    // Push and sync, from daemon to daemon.
    pair.a.ok(["follow", &pair.b.author()]);
    pair.b.feed(["log", "append", "post"], b"from b");
    assert_eq!(number(&pair.b.json(["push", "a"])["sent"], "entries"), 2);
    pair.a.feed(["log", "append", "post"], b"from a");
    pair.b.feed(["log", "append", "post"], b"from b again");
    let result = pair.b.json(["sync", "a"]);
    assert_eq!(
        (&result["sent"]["entries"], &result["received"]["entries"]),
        (&json!(1), &json!(1)),
        "{result}"
    );
    assert_eq!(b_runs.stop(), 0);
    assert_eq!(logs(&pair.a), logs(&pair.b));
    assert_eq!(pair.b.verifies(), 8);
}

#[test]
fn what_was_followed_through_another_node_arrives_too() {
    // C has never met A: B hands on what it holds of A.
    let pair = Pair::new();
    pair.a.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    pair.a.ok(["commit", "file", &pair.a.write("file", "by hand of b")]);
    pair.pull();
    let b_runs = pair.b.serve();
    let c = Home::new();
    befriend(&c, &pair.b, &b_runs);
    c.ok(["follow", &pair.a.author()]);
    let result = c.json(["pull", "a"]);
    assert_eq!(number(&result["received"], "entries"), 5, "{result}");
    assert_eq!(logs(&pair.a), logs(&c));
    assert_eq!(c.feed(["get", &b3sum(b"by hand of b")], b""), b"by hand of b");
    c.verifies();
}

#[test]
fn a_dead_peer_is_found_out_in_time() {
    let b = Home::new();
    // A port that takes packets and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ghost = Hostile::new(9);
    let ticket = ghost
        .ticket()
        .replace(&ghost.endpoint.local_addr().to_string(), &silent.local_addr().unwrap().to_string());
    b.ok(["peer", "add", &ticket, "--name", "ghost"]);
    let began = Instant::now();
    let error = b.error(["pull", "ghost"], 6);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(error["code"], "unreachable", "{error}");
    assert!(error["hint"].is_string(), "{error}");
    drop(silent);
    assert_eq!(b.error(["pull", "ghost"], 6)["code"], "unreachable");

    // Without an address there is nobody to dial.
    let c = Home::new();
    b.ok(["peer", "add", &c.ticket(), "--name", "c"]);
    assert_eq!(b.error(["pull", "c"], 6)["code"], "unreachable");
}

#[test]
fn another_node_at_the_peers_address_is_an_impostor() {
    let (b, real) = (Home::new(), Hostile::new(8));
    let other = Home::new();
    let daemon = other.serve();
    let ticket = real.ticket().replace(&real.endpoint.local_addr().to_string(), &daemon.listen());
    let error = b.error(["pull", &ticket], 1);
    assert_eq!(error["code"], "impostor", "{error}");
}

#[test]
fn a_commit_forged_in_anothers_name_counts_nowhere_and_is_told() {
    // Mallory writes, in a log of his own, a commit that names the victim as its author.
    let (b, mallory) = (Home::new(), Hostile::new(1));
    let victim = key(2);
    let forger = key(3);
    let object = b"not what she wrote".to_vec();
    let forged = commit(victim.author(), "her/file", &object).encode().unwrap();
    let own = commit(forger.author(), "his/file", &object).encode().unwrap();
    let mut shelf = Shelf::default();
    shelf.put(&log(&forger, LogId::COMMIT, &[&forged, b"no commit at all", &own]));
    shelf.put_object(&object);
    let done = mallory.serve(shelf);

    b.ok(["follow", &victim.author().to_string()]);
    b.ok(["follow", &forger.author().to_string()]);
    let result = b.json(["pull", &mallory.ticket()]);
    let at = |seq: u64| format!("{}/1024@{seq}", forger.author());
    assert_eq!(
        reasons(&result["refused"]),
        [("forged-commit".to_owned(), at(1)), ("bad-commit".to_owned(), at(2))],
        "{result}"
    );
    for refused in list(&result, "refused") {
        has_fields(&refused, "what id from reason");
        assert_eq!(text(&refused, "from"), mallory.node());
        assert_eq!(text(&refused, "what"), "commit");
    }
    // The other side is told the same, and the entries are kept: they are well signed and linked.
    let done = done.recv_timeout(common::PATIENCE).unwrap();
    assert_eq!((done.refused, done.refusals.len()), (2, 2));
    assert_eq!(number(&result["received"], "entries"), 3);

    let heads = b.lines(["head", "list"]);
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert_eq!(
        (text(&heads[0], "name"), text(&heads[0], "author")),
        ("his/file".into(), forger.author().to_string())
    );
    is_id(&heads[0]["commit"]);
    assert_eq!(b.error(["history", "her/file"], 1)["code"], "not-found");
    assert_eq!(b.error(["show", &Commit::id_of(&forged).to_string()], 1)["code"], "not-found");
    let entry = b.json(["log", "show", &at(1)]);
    assert_eq!(entry["flaw"]["code"], "forged-commit", "{entry}");
    b.verifies();
}

/// Logs as they are listed, which says what is in them: heads are hashes over everything before.
fn logs(home: &Home) -> Vec<Value> {
    home.lines(["log", "list"])
}

fn make_executable(path: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn both_sides_remember_how_it_went_without_a_process_that_does() {
    let pair = Pair::new();
    let state = |home: &Home| home.json(["status"])["peers"][0].clone();
    assert_eq!(
        (text(&state(&pair.b), "state"), &state(&pair.b)["last_sync"]),
        ("not-met".into(), &Value::Null)
    );
    pair.a.feed(["log", "append", "post"], b"x");
    pair.pull();
    pair.daemon.wait_for("session");
    for home in [&pair.a, &pair.b] {
        assert_eq!(text(&state(home), "state"), "met");
        assert!(text(&state(home), "last_sync").ends_with('Z'), "{}", state(home));
    }
    pair.daemon.kill();
    pair.b.error(["pull", "a"], 6);
    assert_eq!(text(&state(&pair.b), "state"), "met", "a peer that can't be reached changes nothing");
}

/// Only the store of a node is put back to an older state, so that its home does not notice.
#[test]
fn a_peer_whose_store_went_back_is_told_as_such() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve();
    befriend(&b, &a, &daemon);
    b.ok(["follow", &a.author()]);
    a.feed(["log", "append", "post"], b"one");
    let peer_store = || text(&b.json(["pull", "a"]), "peer_store");
    assert_eq!((peer_store(), peer_store()), ("first".into(), "same".into()));
    assert_eq!(daemon.stop(), 0);

    let backup = a.file("backup");
    std::fs::create_dir(&backup).unwrap();
    let copy = |from: &Path, to: &Path| {
        for name in ["journal", "index", "last-stop"] {
            let (from, to) = (from.join(name), to.join(name));
            let _ = std::fs::remove_dir_all(&to);
            assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
        }
    };
    copy(&a.path, &backup);
    let again = |daemon: &common::Daemon| b.ok(["peer", "add", &daemon.ticket(), "--name", "a"]);
    let daemon = a.serve();
    again(&daemon);
    a.feed(["log", "append", "post"], b"two");
    assert_eq!(peer_store(), "same");
    assert_eq!(daemon.stop(), 0);

    copy(&backup, &a.path);
    let daemon = a.serve();
    again(&daemon);
    assert_eq!(peer_store(), "rolled-back");
    let status = b.json(["status"]);
    assert!(status["peers"][0]["rolled_back"].is_string(), "{status}");
    assert_eq!(peer_store(), "same", "told once");
    let status = String::from_utf8(b.feed(["status"], b"")).unwrap();
    assert!(status.contains("its store went back"), "and shown for longer: {status}");
}

/// A peer that has no place for us, or holds us off, does not either when the command is typed again at once.
#[test]
fn who_is_told_not_now_is_told_to_wait() {
    let (home, peer) = (Home::new(), common::hostile::Hostile::new(1));
    let endpoint = peer.endpoint.clone();
    let told = peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        connection.close(5, "too many sessions");
        connection.closed().await
    });
    let error = home.error(["pull", &peer.ticket()], 1);
    assert_eq!(error["code"], "interrupted", "{error}");
    assert!(text(&error, "message").ends_with("not talk to this node now: too many sessions"), "{error}");
    assert!(text(&error, "hint").starts_with("wait for half a minute"), "{error}");
    drop(peer.run(told).unwrap());
}
