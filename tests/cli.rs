//! What is typed and what is answered: identity, logs, objects, peers (`docs/api.md`), each with no daemon
//! running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::HashMap;

use common::{Home, b3sum, has_fields, is_id, list, noise, number, run, text, with_and_without_daemon};
use data_encoding::BASE64;
use serde_json::{Value, json};

#[test]
fn init_id_and_status_say_what_the_contract_asks_for() {
    with_and_without_daemon(|home| {
        for field in ["author", "node"] {
            is_id(&home.made[field]);
        }
        assert_eq!(text(&home.made, "home"), home.path.to_str().unwrap());
        assert_ne!(home.author(), home.node());

        let id = home.json(["id"]);
        has_fields(&id, "author node ticket epoch");
        assert_eq!((text(&id, "author"), text(&id, "node")), (home.author(), home.node()));
        assert!(text(&id, "ticket").starts_with("madake1-"), "{id}");

        let status = home.json(["status"]);
        has_fields(&status, "node peers logs entries objects bytes forks contested");
        for field in ["logs", "entries", "objects", "forks", "contested"] {
            assert_eq!(number(&status, field), 0, "{field}");
        }
        home.feed(["log", "append", "post"], b"x");
        home.feed(["put", "-"], b"y");
        let status = home.json(["status"]);
        // The post, and its registration in the control log; three objects: the two payloads, and `y`.
        assert_eq!((number(&status, "logs"), number(&status, "entries")), (2, 2), "{status}");
        assert_eq!(number(&status, "objects"), 3, "{status}");
        assert!(number(&status, "bytes") > 0, "{status}");
    });
}

#[test]
fn every_ticket_of_a_running_node_carries_its_port() {
    let home = Home::new();
    assert!(!home.ticket().contains('@'), "nobody listens");
    let daemon = home.serve();
    let (_, port) =
        daemon.listen().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    assert_ne!(port, "0");
    has_fields(&daemon.ready, "event node listen ticket");
    assert_eq!(text(&daemon.ready, "node"), home.node());
    for ticket in [daemon.ticket(), home.ticket()] {
        assert!(ticket.ends_with(&format!(":{port}")), "{ticket}");
    }
    assert_eq!(home.json(["status"])["listening"], json!(daemon.listen()));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_appended_entry_is_listed_shown_and_verified() {
    with_and_without_daemon(|home| {
        let lines = home.feed_lines(["log", "append", "post"], b"hello\nworld\n");
        assert_eq!(lines.len(), 1);
        let entry = &lines[0];
        has_fields(entry, "author log seq entry payload");
        assert_eq!(text(entry, "author"), home.author());
        assert_eq!(number(entry, "seq"), 1);
        assert_eq!(number(entry, "log"), log_id("post", 0), "the id that `docs/spec.md` describes");
        assert_eq!(text(entry, "payload"), b3sum(b"hello\nworld\n"), "all of stdin is one payload");

        let files = [home.write("one", "1"), home.write("two", "22")];
        let more = home.lines(["log", "append", "post", &files[0], &files[1]]);
        assert_eq!(more.iter().map(|entry| number(entry, "seq")).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(text(&more[1], "payload"), b3sum(b"22"));

        let logs = home.lines(["log", "list"]);
        assert_eq!(logs.iter().map(|log| number(log, "log")).collect::<Vec<_>>(), [0, log_id("post", 0)]);
        for log in &logs {
            has_fields(log, "author log schema seq head state forked_at");
        }
        let log = &home.lines(["log", "list", "--schema", "post", "--author", &home.author()])[0];
        assert_eq!((number(log, "seq"), text(log, "state")), (3, "linear".into()));
        assert_eq!(log["head"], more[1]["entry"]);

        let name = format!("{}/{}", home.author(), log_id("post", 0));
        let entries = home.lines(["log", "show", &name]);
        assert_eq!(entries.len(), 3);
        for entry in &entries {
            has_fields(entry, "author log seq entry backlink lipmaa size payload end");
            assert!(entry.get("data").is_none(), "payloads only with --payload");
        }
        assert_eq!(entries[0]["backlink"], Value::Null);
        assert_eq!(entries[1]["backlink"], entries[0]["entry"]);
        assert_eq!(entries[2]["backlink"], entries[1]["entry"]);
        assert_eq!((number(&entries[2], "size"), &entries[2]["end"]), (2, &json!(false)));

        // By the schema's name and the beginning of the author's id; one entry, or a range.
        let short = format!("{}/post", &home.author()[..6]);
        assert_eq!(home.lines(["log", "show", &short]), entries);
        assert_eq!(home.lines(["log", "show", &format!("{short}@2")]), entries[1..2]);
        let range = home.lines(["log", "show", &format!("{short}@2..3"), "--payload"]);
        assert_eq!(range.iter().map(data).collect::<Vec<_>>(), [b"1".to_vec(), b"22".to_vec()]);

        let verified = home.lines(["log", "verify"]);
        assert_eq!(verified.len(), 2);
        for log in &verified {
            has_fields(log, "author log seq ok problems");
            assert_eq!((&log["ok"], &log["problems"]), (&json!(true), &json!([])));
        }
        assert_eq!(home.lines(["log", "verify", &short]).len(), 1);
    });
}

#[test]
fn every_line_is_an_entry_and_bytes_are_bytes() {
    with_and_without_daemon(|home| {
        let cases: [(&[u8], &[&[u8]]); 7] = [
            (b"a\nb\n", &[b"a", b"b"]),
            (b"a\nb", &[b"a", b"b"]), // a last line without newline counts
            (b"\n\nx\n\n", &[b"", b"", b"x", b""]), // empty ones too
            (b"a\r\n\r\n", &[b"a\r", b"\r"]), // a CR is payload
            (b"\xff\xfe\x00\n\xc3\x28\n", &[b"\xff\xfe\x00", b"\xc3\x28"]), // no UTF-8
            (b"\n", &[b""]),
            (b"", &[]),
        ];
        for (number, (input, payloads)) in cases.iter().enumerate() {
            let schema = format!("case/{number}");
            let made = home.feed_lines(["log", "append", &schema, "--lines"], input);
            let ids: Vec<String> = made.iter().map(|entry| text(entry, "payload")).collect();
            assert_eq!(ids, payloads.iter().map(|payload| b3sum(payload)).collect::<Vec<_>>(), "{input:?}");
            if payloads.is_empty() {
                continue;
            }
            let log = format!("{}/{schema}", home.author());
            let shown = home.lines(["log", "show", &log, "--payload"]);
            assert_eq!(shown.iter().map(data).collect::<Vec<_>>(), *payloads, "{input:?}");
        }
        // Whole input that is no text, and no input at all: one entry each.
        let made = home.feed_lines(["log", "append", "whole"], b"\xff\n\xfe");
        assert_eq!((made.len(), text(&made[0], "payload")), (1, b3sum(b"\xff\n\xfe")));
        let made = home.feed_lines(["log", "append", "whole"], b"");
        assert_eq!((made.len(), text(&made[0], "payload")), (1, b3sum(b"")));
        home.verifies();
    });
}

#[test]
fn lines_of_files_and_lines_longer_than_any_buffer() {
    with_and_without_daemon(|home| {
        let long: Vec<u8> = noise(1, 3_000_000).into_iter().filter(|byte| *byte != b'\n').collect();
        let first = home.write("first", [b"x\n".as_slice(), &long].concat());
        let second = home.write("second", "y\n");
        let made = home.lines(["log", "append", "post", "--lines", &first, &second]);
        let ids: Vec<String> = made.iter().map(|entry| text(entry, "payload")).collect();
        assert_eq!(ids, [b3sum(b"x"), b3sum(&long), b3sum(b"y")]);
        assert_eq!(home.feed(["get", &ids[1]], b""), long);
        home.verifies();
    });
}

#[test]
fn each_line_is_acknowledged_before_the_next_is_written() {
    with_and_without_daemon(|home| {
        let mut talk = home.talk(["log", "append", "post", "--lines"]);
        for number in 1..=20u64 {
            let line = format!("line {number}");
            talk.say(format!("{line}\n").as_bytes()).unwrap();
            let heard = talk.hear().expect("an acknowledgement");
            assert_eq!(heard["seq"], number);
            assert_eq!(text(&heard, "payload"), b3sum(line.as_bytes()));
        }
        talk.say(b"unfinished").unwrap();
        talk.hang_up();
        assert_eq!(text(&talk.hear().unwrap(), "payload"), b3sum(b"unfinished"));
        assert_eq!(talk.hear(), None);
        assert_eq!(talk.exit_code(), 0);
        assert_eq!(home.verifies(), 22);
    });
}

#[test]
fn an_end_of_log_is_the_last_entry_and_the_next_append_opens_a_new_generation() {
    with_and_without_daemon(|home| {
        let last = home.feed_lines(["log", "append", "post", "--lines", "--end"], b"1\n2\n3\n");
        assert_eq!(last.len(), 3);
        let first_log = log_id("post", 0);
        let log = format!("{}/{first_log}", home.author());
        let ends: Vec<Value> =
            home.lines(["log", "show", &log]).iter().map(|entry| entry["end"].clone()).collect();
        assert_eq!(ends, [json!(false), json!(false), json!(true)]);

        let next = home.feed_lines(["log", "append", "post"], b"4");
        assert_eq!(number(&next[0], "log"), log_id("post", 1));
        assert_eq!(number(&next[0], "seq"), 1);
        let states: HashMap<u64, String> = home
            .lines(["log", "list", "--schema", "post"])
            .iter()
            .map(|log| (number(log, "log"), text(log, "state")))
            .collect();
        assert_eq!(states[&first_log], "ended");
        assert_eq!(states[&log_id("post", 1)], "linear");

        // Without any input the end is an entry of its own.
        let end = home.feed_lines(["log", "append", "post", "--lines", "--end"], b"");
        assert_eq!((end.len(), number(&end[0], "seq")), (1, 2));
        let next = home.feed_lines(["log", "append", "post"], b"5");
        assert_eq!(number(&next[0], "log"), log_id("post", 2));
        assert_eq!(home.verifies(), 3 + 2 + 1 + 3, "entries and three registrations");
    });
}

#[test]
fn objects_of_all_sizes_come_back_as_they_went_in_under_the_id_of_b3sum() {
    with_and_without_daemon(|home| {
        for length in [0, 1, 64 * 1024, 1024 * 1024, 1024 * 1024 + 1, 5_000_000] {
            let bytes = noise(length as u64, length);
            let path = home.write(&format!("{length}"), &bytes);
            let put = home.json(["put", &path]);
            has_fields(&put, "object size");
            assert_eq!((text(&put, "object"), number(&put, "size")), (b3sum(&bytes), length as u64));
            assert_eq!(home.feed(["get", &b3sum(&bytes)], b""), bytes, "{length}");
            let out = home.file("out");
            home.ok(["get", &b3sum(&bytes)[..12], "-o", out.to_str().unwrap()]);
            assert_eq!(std::fs::read(&out).unwrap(), bytes, "{length}");
            assert_eq!(home.json(["put", &path]), put, "again is the same");
        }
        let several = [home.write("a", "a"), home.write("b", "b")];
        let put = home.lines(["put", &several[0], &several[1]]);
        assert_eq!(put.iter().map(|put| text(put, "object")).collect::<Vec<_>>(), [b3sum(b"a"), b3sum(b"b")]);
        assert_eq!(home.feed_lines(["put", "-"], b"\xff\x00")[0]["object"], json!(b3sum(b"\xff\x00")));
    });
}

#[test]
fn payloads_of_all_sizes_come_back_too() {
    with_and_without_daemon(|home| {
        for length in [0, 1024 * 1024, 1024 * 1024 + 1, 5_000_000] {
            let bytes = noise(length as u64, length);
            let made = &home.feed_lines(["log", "append", "big"], &bytes)[0];
            assert_eq!(text(made, "payload"), b3sum(&bytes));
            assert_eq!(home.feed(["get", &b3sum(&bytes)], b""), bytes);
            let at = format!("{}/big@{}", home.author(), number(made, "seq"));
            let shown = home.json(["log", "show", &at, "--payload"]);
            assert_eq!(number(&shown, "size"), length as u64);
            assert!(data(&shown) == bytes, "the payload of {length} bytes is shown in full");
        }
        home.verifies();
    });
}

#[test]
fn verify_finds_a_payload_that_has_rotted_on_the_disk() {
    with_and_without_daemon(|home| {
        let payload = noise(5, 2_000_000);
        home.feed(["log", "append", "big"], &payload);
        home.feed(["log", "append", "small"], b"fine");
        let (file, _) = common::tree_of_home(home).into_iter().find(|(_, bytes)| *bytes == payload).unwrap();
        let mut rotten = payload.clone();
        rotten[1_234_567] ^= 1;
        std::fs::write(file, rotten).unwrap();
        let ran = home.run(["--json", "log", "verify"]);
        assert_eq!(ran.code, 1, "a check that fails answers 1: {ran}");
        for log in common::json_lines(&ran.stdout) {
            let big = log["log"] == log_id("big", 0);
            assert_eq!(log["ok"], !big, "{log}");
            assert_eq!(list(&log, "problems").len(), usize::from(big), "{log}");
        }
        let ran = home.run(["log", "verify", &format!("{}/small", home.author())]);
        assert_eq!(ran.code, 0, "{ran}");
    });
}

#[test]
fn ids_may_be_given_by_a_unique_beginning_of_six_digits_or_more() {
    with_and_without_daemon(|home| {
        let (one, other) = collision();
        assert_eq!(b3sum(&one)[..6], b3sum(&other)[..6]);
        home.feed(["put", "-"], &one);
        assert_eq!(home.feed(["get", &b3sum(&one)[..6]], b""), one);
        assert_eq!(home.feed(["get", &b3sum(&one)[..6].to_uppercase()], b""), one);
        home.feed(["put", "-"], &other);
        let error = home.error(["get", &b3sum(&one)[..6]], 2);
        assert!(text(&error, "message").contains("more than one"), "{error}");
        assert_eq!(home.feed(["get", &b3sum(&other)], b""), other);

        assert_eq!(home.error(["get", &b3sum(&one)[..5]], 2)["code"], "usage");
        assert_eq!(home.error(["get", "zzzzzz"], 2)["code"], "usage");
        assert_eq!(home.error(["get", &"0".repeat(65)], 2)["code"], "usage");
        assert_eq!(home.error(["get", "000000"], 1)["code"], "not-found");
        assert_eq!(home.error(["get", &"0".repeat(64)], 1)["code"], "not-found");
    });
}

#[test]
fn what_is_not_there_is_an_error_and_not_an_empty_answer() {
    with_and_without_daemon(|home| {
        home.feed(["log", "append", "post"], b"x");
        let (me, nobody) = (home.author(), "ab".repeat(32));
        for args in [
            vec!["log", "show", &format!("{nobody}/post")],
            vec!["log", "show", &format!("{nobody}/1024")],
            vec!["log", "show", &format!("{me}/nothing")],
            vec!["log", "show", &format!("{me}/post@2")],
            vec!["log", "show", &format!("{me}/4000000000")],
            vec!["log", "verify", &format!("{nobody}/1024")],
            vec!["log", "verify", &format!("{me}/77")],
            vec!["head", "show", "no/such/name"],
            vec!["history", "no/such/name"],
            vec!["show", &nobody],
            vec!["show", "abcdef"],
            vec!["get", &nobody],
            vec!["checkout", "no/such/name", "-o", "/dev/null"],
            vec!["peer", "remove", "nobody"],
            vec!["pull", "nobody"],
        ] {
            let error = home.error(&args, 1);
            assert_eq!(error["code"], "not-found", "{args:?}: {error}");
        }
        assert_eq!(home.lines(["log", "list", "--schema", "nothing"]), [Value::Null; 0]);
        assert_eq!(home.lines(["head", "list", "nothing"]), [Value::Null; 0]);
    });
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    with_and_without_daemon(|home| {
        home.feed(["log", "append", "post"], b"x");
        let me = home.author();
        let long = "s".repeat(65);
        for args in [
            vec![],
            vec!["frobnicate"],
            vec!["log"],
            vec!["put"],
            vec!["get"],
            vec!["status", "--frob"],
            vec!["-q", "-v", "status"],
            vec!["commit", "name"],
            vec!["commit", "name", "file", "--tree", "dir"],
            vec!["checkout", "name"],
            vec!["log", "append"],
            vec!["log", "append", "Post"],
            vec!["log", "append", "po st"],
            vec!["log", "append", "p\u{f6}st"],
            vec!["log", "append", ""],
            vec!["log", "append", &long],
            vec!["log", "append", "commit"],
            vec!["log", "append", "post", "--author", "abc"],
            vec!["log", "show", "post"],
            vec!["log", "show", &format!("{me}/post@0")],
            vec!["log", "show", &format!("{me}/post@2..1")],
            vec!["log", "show", &format!("{me}/post@x")],
            vec!["follow", "abc"],
            vec!["follow", &"00".repeat(32)], // a small-order key: anybody could sign for it
            vec!["peer", "add", "nonsense"],
            vec!["peer", "add", "madake1-nonsense"],
            vec!["peer", "add", &home.ticket()],
            vec!["show", "../../etc"],
        ] {
            assert_eq!(home.error(&args, 2)["code"], "usage", "{args:?}");
        }
        assert_eq!(home.verifies(), 2, "nothing was written by any of it");
    });
}

#[test]
fn people_get_text_and_programs_json() {
    with_and_without_daemon(|home| {
        home.feed(["log", "append", "post"], b"x");
        for args in [vec!["id"], vec!["status"], vec!["log", "list"], vec!["log", "verify"]] {
            let shown = String::from_utf8(home.feed(&args, b"")).unwrap();
            assert!(!shown.contains('{') && !shown.contains('\x1b') && shown.ends_with('\n'), "{shown}");
        }
        let ran = home.run(["get", "000000"]);
        assert_eq!((ran.code, ran.stdout.len()), (1, 0), "{ran}");
        assert!(ran.stderr.starts_with("error: ") && !ran.stderr.contains('{'), "{ran}");
        let ran = home.run(["pull", "nobody"]);
        assert!(ran.stderr.contains("\nhint: "), "{ran}");
    });
    let home = Home::none();
    let ran = home.run(["--version"]);
    assert!(ran.code == 0 && ran.stdout.starts_with(b"madake "), "{ran}");
    let ran = home.run(["--help"]);
    assert_eq!(ran.code, 0);
    let help = String::from_utf8(ran.stdout).unwrap();
    let commands = "init id serve status log put get commit head history show diff checkout author peer follow block interest pull push sync completions man";
    for command in commands.split(' ') {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in the help");
    }
}

#[test]
fn only_ones_own_key_signs() {
    with_and_without_daemon(|home| {
        let me = home.author();
        home.feed(["log", "append", "post", "--author", &me], b"x");
        home.feed(["log", "append", "post", "--author", &me[..8]], b"y");
        let stranger = Home::new().author();
        let error = home.feed_error(["log", "append", "post", "--author", &stranger], b"z", 1);
        assert_eq!(error["code"], "no-key", "{error}");
        assert_eq!(home.verifies(), 3);
    });
}

#[test]
fn files_that_can_not_be_read_are_told_and_nothing_of_them_is_stored() {
    with_and_without_daemon(|home| {
        let missing = home.file("missing");
        let missing = missing.to_str().unwrap();
        for args in [
            vec!["put", missing],
            vec!["log", "append", "post", missing],
            vec!["log", "append", "post", "--lines", missing],
            vec!["commit", "name", missing],
            vec!["commit", "--tree", missing],
        ] {
            let error = home.error(&args, 1);
            assert!(text(&error, "message").contains(missing), "{args:?}: {error}");
        }
        let folder = home.file("");
        for args in [vec!["put"], vec!["commit", "name"], vec!["log", "append", "post"]] {
            let args = [args, vec![folder.to_str().unwrap()]].concat();
            assert_eq!(home.error(&args, 2)["code"], "usage", "{args:?}: a folder");
        }
        assert_eq!(home.lines(["log", "list"]), [Value::Null; 0]);
        assert_eq!(number(&home.json(["status"]), "objects"), 0);
    });
}

#[test]
fn peers_and_followed_authors_are_kept() {
    with_and_without_daemon(|home| {
        let other = Home::new();
        let runs = other.serve();
        let added = home.json(["peer", "add", &runs.ticket(), "--name", "other"]);
        has_fields(&added, "peer name addresses allowed");
        assert_eq!((text(&added, "peer"), text(&added, "name")), (other.node(), "other".into()));
        assert_eq!(list(&added, "addresses"), [json!(runs.listen())]);
        assert_eq!(added["allowed"], true);
        assert_eq!(home.json(["peer", "list"]), added);
        let peer = &list(&home.json(["status"]), "peers")[0];
        assert_eq!(text(peer, "name"), "other");

        // Adding it again changes it, and does not double it.
        let renamed = home.json(["peer", "add", &other.ticket(), "--name", "again"]);
        assert_eq!(home.lines(["peer", "list"]), [renamed]);
        let third = Home::new();
        let error = home.error(["peer", "add", &third.ticket(), "--name", "again"], 2);
        assert!(text(&error, "message").contains("again"), "{error}");
        for bad in ["", "a b", "a\nb", &"n".repeat(65), "madake1-x"] {
            assert_eq!(
                home.error(["peer", "add", &third.ticket(), "--name", bad], 2)["code"],
                "usage",
                "{bad:?}"
            );
        }

        let removed = home.json(["peer", "remove", "again"]);
        assert_eq!((text(&removed, "peer"), &removed["allowed"]), (other.node(), &json!(false)));
        assert_eq!(home.lines(["peer", "list"]), [Value::Null; 0]);

        let followed = home.json(["follow", &other.author()]);
        has_fields(&followed, "author policy");
        assert_eq!((text(&followed, "author"), text(&followed, "policy")), (other.author(), "follow".into()));
    });
}

#[test]
fn a_reader_that_goes_away_ends_the_command_in_peace() {
    let home = Home::new();
    let input = "line\n".repeat(3000);
    home.feed(["log", "append", "post", "--lines"], input.as_bytes());
    let log = format!("{}/post", home.author());
    let command = home.command(["--json", "log", "show", &log]);
    let args: Vec<&str> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let line = format!("set -o pipefail; '{}' '{}' | head -n 1", common::MADAKE, args.join("' '"));
    let ran = run(std::process::Command::new("bash").arg("-c").arg(line), b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert_eq!(common::json_lines(&ran.stdout).len(), 1);
}

/// The id of a schema's log, as `docs/spec.md` says: 1025 and 4 bytes of a keyed hash.
fn log_id(schema: &str, generation: u32) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("madake log id 1");
    hasher.update(schema.as_bytes()).update(&generation.to_be_bytes());
    let hash = hasher.finalize();
    1025 + u64::from(u32::from_be_bytes(hash.as_bytes()[..4].try_into().unwrap()))
}

/// What `--payload` adds.
#[track_caller]
fn data(entry: &Value) -> Vec<u8> {
    BASE64.decode(text(entry, "data").as_bytes()).unwrap()
}

/// Two contents whose ids begin with the same six digits.
fn collision() -> (Vec<u8>, Vec<u8>) {
    let mut seen = HashMap::new();
    for number in 0u32.. {
        let bytes = number.to_le_bytes().to_vec();
        if let Some(other) = seen.insert(b3sum(&bytes)[..6].to_owned(), bytes.clone()) {
            return (other, bytes);
        }
    }
    unreachable!("24 bits collide long before the numbers end")
}

/// `| head -1`: the reader goes away after one line.
#[test]
fn what_writes_is_finished_though_nobody_reads_the_answers() {
    let home = Home::new();
    let mut lines = String::new();
    (0..20_000).for_each(|i| lines.push_str(&format!("{i}\n")));
    let input = home.write("lines", &lines);
    let shell = |command: &str| {
        let script =
            format!("set -o pipefail; {} --json --home '{}' {command}", common::MADAKE, home.path.display());
        std::process::Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    let ran = shell(&format!("log append post --lines '{input}' | head -1"));
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(String::from_utf8(ran.stdout).unwrap().lines().count(), 1);
    let post = home.lines(["log", "list", "--schema", "post"]);
    assert_eq!(number(&post[0], "seq"), 20_000);
    // What only reads is done.
    let ran = shell(&format!("log show {}/post | head -1", home.author()));
    assert!(ran.status.success(), "{ran:?}");
    // Results that somebody waits for and that can't be written are an error.
    let ran = shell("id > /dev/full");
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8(ran.stderr).unwrap().starts_with("{\"error\":"), "for programs");
}

#[test]
fn global_options_may_stand_anywhere_and_twice() {
    let home = Home::new();
    let path = home.path.to_str().unwrap();
    let run = |args: &[&str], variable: &str| {
        let mut command = std::process::Command::new(common::MADAKE);
        common::run(command.args(args).env("MADAKE_HOME", variable).env("HOME", "/nonexistent"), b"")
    };
    for args in [
        vec!["--json", "--home", path, "id"],
        vec!["id", "--home", path, "--json"],
        vec!["--json", "--home", "/nowhere", "id", "--home", path, "--json"],
    ] {
        let ran = run(&args, "");
        assert_eq!(ran.code, 0, "{args:?}: {ran}");
        assert_eq!(text(&common::json_lines(&ran.stdout)[0], "node"), home.node());
    }
    assert_eq!(run(&["id"], path).code, 0);
    // An empty variable names nothing, and is no mistake.
    assert!(run(&["id"], "").stderr.contains("there is no home in /nonexistent"), "{}", run(&["id"], ""));
}
