//! What may happen to one person's laptop: its backup is restored while home and friend are in reach; its folder is
//! stolen. With the real program over loopback.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::homes::{befriend, copy, hosted, marry, own, posts, state};
use common::{Home, list, number, run, text};
use serde_json::Value;

fn post(home: &Home, texts: &[&str]) {
    home.feed(["log", "append", "post", "--lines"], texts.join("\n").as_bytes());
}

/// Writes as often as the guard says that it waits: each time it goes on asking. The place of the new entry.
fn post_when_it_may(home: &Home, what: &str) -> u64 {
    for _ in 0..10 {
        let mut command = home.command(["--json", "log", "append", "post", "-"]);
        let ran = run(&mut command, what.as_bytes());
        if ran.code == 0 {
            return number(&serde_json::from_slice(&ran.stdout).unwrap(), "seq");
        }
        assert_eq!(ran.error(5)["code"], "guard");
    }
    panic!("the guard never lifts itself");
}

/// The same restore as in `healing.rs`, and somebody who knows better is in reach: no fork arises, whoever of them has
/// the newest entries, with a daemon and without.
#[test]
fn a_restored_laptop_with_home_and_friend_in_reach_catches_up_before_it_writes() {
    for serves in [false, true] {
        let (laptop, host) = (Home::new(), Home::new());
        let at_host = host.serve();
        marry(&laptop, &host, &at_host, &[]);
        let (friend, _at_friend) = befriend(&laptop, "friend");
        post(&laptop, &["1", "2", "3"]);
        laptop.ok(["sync", "home"]);
        let backup = laptop.file("backup");
        copy(&laptop.path, &backup);
        post(&laptop, &["4", "5"]);
        laptop.ok(["sync", "home"]);
        // The home was away when these were written: only the friend has them.
        post(&laptop, &["6", "7"]);
        laptop.ok(["sync", "friend"]);
        std::fs::remove_dir_all(&laptop.path).unwrap();
        copy(&backup, &laptop.path);

        let runs = serves.then(|| laptop.serve());
        assert_eq!(post_when_it_may(&laptop, "8"), 8, "after all that was written before the restore");
        assert_eq!(own(&laptop)["guard"], Value::Null);
        for other in ["home", "friend", "home"] {
            laptop.ok(["sync", other]);
        }
        for home in [&laptop, &host, &friend] {
            assert_eq!(posts(home, &laptop.author()), ["1", "2", "3", "4", "5", "6", "7", "8"]);
            assert_eq!(home.lines(["fork", "list"]), [Value::Null; 0]);
        }
        drop(runs);
    }
}

/// A thief has the whole folder, both keys in it, and neither the second factor nor the recovery key.
#[test]
fn a_thief_who_marries_elsewhere_does_not_lock_the_owner_out() {
    let (safe, host, den) = (Home::new(), Home::new(), Home::new());
    let mut owner = Home::none();
    owner.made = owner.json(["init", "--recovery", &safe.author()]);
    let (at_host, at_den) = (host.serve(), den.serve());
    let secret = owner.write("secret", "correct horse\n");
    marry(&owner, &host, &at_host, &["--passphrase-file", &secret]);
    let (friend, at_friend) = befriend(&owner, "friend");
    post(&owner, &["1", "2"]);
    owner.ok(["sync", "home"]);
    owner.ok(["sync", "friend"]);
    let mut thief = Home::none();
    thief.made = owner.made.clone();
    copy(&owner.path, &thief.path);
    let author = owner.author();

    // Without the passphrase no home lets go, whatever is asked; of a move nothing is even signed.
    let code = text(&den.json(["home", "invite"]), "code");
    let (ticket, wrong) = (at_den.ticket(), thief.write("wrong", "correct house\n"));
    let args = ["home", "move", &ticket, "--code", &code];
    assert_eq!(thief.error(args, 1)["code"], "passphrase");
    let args = [&args[..], &["--passphrase-file", &wrong]].concat();
    assert_eq!(thief.error(args, 1)["code"], "passphrase");
    assert_eq!(state(&own(&thief)), ("married".into(), 1), "no vow was signed");
    // So a marriage beside the first is all that is left. The den accepts; that makes the vow no stronger.
    let stolen = thief.json(["home", "marry", &ticket, "--yes"]);
    assert_eq!((state(&stolen), text(&stolen, "home")), (("widowed".into(), 1), host.node()));
    assert_eq!(thief.error(["home", "leave"], 1)["code"], "passphrase");

    // Everybody hears of it, and the owner goes on: in the log that was there, and in a new one.
    den.ok(["peer", "add", &at_friend.ticket(), "--name", "friend"]);
    friend.ok(["peer", "add", &den.ticket()]);
    den.ok(["sync", "friend"]);
    for _ in 0..2 {
        owner.ok(["sync", "home"]);
        owner.ok(["sync", "friend"]);
    }
    post(&owner, &["3"]);
    let objected = host.json(["home", "object", &author]);
    assert_eq!(state(&objected), ("objected".into(), 1));
    for _ in 0..2 {
        owner.ok(["sync", "home"]);
        owner.ok(["sync", "friend"]);
    }
    post(&owner, &["4"]);
    owner.ok(["sync", "home"]);
    owner.ok(["sync", "friend"]);
    let status = own(&owner);
    assert_eq!((state(&status), text(&status, "home")), (("objected".into(), 1), host.node()));
    assert_eq!(number(&status, "writes_as_of"), 1);
    assert!(list(&status, "waiting").iter().any(|vow| vow["home"] == den.node().as_str()), "{status}");
    assert_eq!(state(&hosted(&host, &author)), ("objected".into(), 1));
    for home in [&owner, &host, &friend] {
        assert_eq!(posts(home, &author), ["1", "2", "3", "4"]);
        let known = home.json(["home", "status", &author]);
        assert_eq!((state(&known), text(&known, "home")), (("objected".into(), 1), host.node()));
    }

    // The owner, who knows the passphrase, moves away from all that; the thief's vow is the weaker one for ever.
    let third = Home::new();
    let at_third = third.serve();
    let code = text(&third.json(["home", "invite"]), "code");
    let ticket = at_third.ticket();
    let moved = owner.json(["home", "move", &ticket, "--code", &code, "--passphrase-file", &secret]);
    assert_eq!((state(&moved), text(&moved, "home")), (("married".into(), 2), third.node()));
    assert_eq!(posts(&third, &author), ["1", "2", "3", "4"]);
    post(&owner, &["5"]);
}
