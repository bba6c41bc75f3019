use super::super::config::Config;
use super::super::model::{Book, CLUSTER, NOW, STORE, config, name, node, replica as replica_of};
use super::super::value::{Kind, OpId};
use super::*;

fn replica() -> Replica {
    replica_of(0, &config(&[0, 1, 2]), BTreeMap::new())
}

fn book() -> Book {
    Book::of(&["abc"])
}

fn ballot(round: u64, of: usize) -> Ballot {
    Ballot { epoch: 1, round, node: node(of) }
}

fn value(way: &str) -> HeadValue {
    let op = OpId { node: node(1), number: 1 };
    HeadValue::after(None, Some(book().head(way)), Kind::FastForward, op)
}

fn questions(questions: Vec<Question>) -> Packet {
    Packet { cluster: CLUSTER, store: STORE, epoch: 1, body: Body::Questions(Bounded::truncated(questions)) }
}

fn prepare(round: u64, of: usize, hold: u32) -> Question {
    Question::Prepare { name: name(), ballot: ballot(round, of), hold }
}

fn accept(round: u64, of: usize, way: &str) -> Question {
    Question::Accept {
        name: name(),
        ballot: ballot(round, of),
        value: value(way),
        need: Bounded::default(),
        next: None,
    }
}

fn at(millis: u64) -> Now {
    Now { monotonic: Duration::from_millis(millis), wall: millis as i64 }
}

/// Everything that is said now.
fn drain(replica: &mut Replica) -> (Vec<ReplicaOutput>, Vec<Answer>) {
    let (mut others, mut answers) = (Vec::new(), Vec::new());
    while let Some(output) = replica.poll_output() {
        match output {
            ReplicaOutput::Send { packet: Packet { body: Body::Answers(list), .. }, .. } => {
                answers.extend(list)
            }
            other => others.push(other),
        }
    }
    (others, answers)
}

/// Asks one question, makes everything durable, and gives the answers.
fn ask(replica: &mut Replica, now: Now, from: usize, question: Question) -> Vec<Answer> {
    replica.handle(now, node(from), questions(vec![question]), &book());
    let (others, mut answers) = drain(replica);
    for other in others {
        if let ReplicaOutput::Persist { token, .. } = other {
            replica.persisted(token);
        }
    }
    answers.extend(drain(replica).1);
    answers
}

#[test]
fn no_answer_leaves_before_what_it_depends_on_is_durable() {
    let mut replica = replica();
    replica.handle(NOW, node(1), questions(vec![prepare(5, 1, 0)]), &book());
    let (writes, answers) = drain(&mut replica);
    assert_eq!((writes.len(), answers.len()), (1, 0));
    // The same question again, a refusal, a report: each shows what is not durable yet.
    replica.handle(NOW, node(1), questions(vec![prepare(5, 1, 0)]), &book());
    replica.handle(NOW, node(2), questions(vec![prepare(4, 2, 0)]), &book());
    replica.handle(NOW, node(2), questions(vec![Question::Ask { name: name(), number: 3 }]), &book());
    replica.handle(NOW, node(1), questions(vec![accept(5, 1, "a")]), &book());
    let (more, answers) = drain(&mut replica);
    assert_eq!((more.len(), answers.len()), (1, 0), "one more write, for what was accepted");
    let tokens: Vec<Token> = writes
        .iter()
        .chain(&more)
        .map(|output| match output {
            ReplicaOutput::Persist { token, .. } => *token,
            other => panic!("{other:?}"),
        })
        .collect();
    replica.persisted(tokens[0]);
    let kinds = |answers: &[Answer]| {
        answers
            .iter()
            .map(|answer| match answer {
                Answer::Promise { .. } => "promise",
                Answer::Nack { .. } => "nack",
                Answer::Report { .. } => "report",
                Answer::Accepted { .. } => "accepted",
                _ => "other",
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&drain(&mut replica).1), ["promise", "promise", "nack", "report"]);
    replica.persisted(Token(99)); // more than was asked for
    assert_eq!(kinds(&drain(&mut replica).1), ["accepted"]);
    // With nothing on its way, an answer leaves at once.
    replica.handle(NOW, node(2), questions(vec![Question::Ask { name: name(), number: 4 }]), &book());
    assert_eq!(kinds(&drain(&mut replica).1), ["report"]);
}

#[test]
fn many_names_take_one_write() {
    let mut replica = replica();
    let all: Vec<Question> = (0..1_000)
        .map(|number| Question::Prepare {
            name: format!("n{number}").parse().unwrap(),
            ballot: ballot(1, 1),
            hold: 50,
        })
        .collect();
    replica.handle(NOW, node(1), questions(all), &book());
    let (writes, _) = drain(&mut replica);
    let [ReplicaOutput::Persist { token, rows, .. }] = &writes[..] else { panic!("{}", writes.len()) };
    assert_eq!(rows.len(), 1_000);
    replica.persisted(*token);
    assert_eq!(drain(&mut replica).1.len(), 1_000);
}

#[test]
fn a_hold_blocks_no_longer_than_it_says() {
    let mut replica = replica();
    ask(&mut replica, at(1_000), 1, prepare(1, 1, 40));
    let left = |answers: Vec<Answer>| match &answers[..] {
        [Answer::Nack { hold_left, .. }] => Some(*hold_left),
        [Answer::Promise { .. }] => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(ask(&mut replica, at(1_010), 2, prepare(2, 2, 40))), Some(30));
    assert_eq!(left(ask(&mut replica, at(1_010), 1, prepare(3, 1, 40))), None, "its own");
    assert_eq!(left(ask(&mut replica, at(1_049), 2, prepare(9, 2, 40))), Some(1));
    assert_eq!(left(ask(&mut replica, at(1_050), 2, prepare(9, 2, u32::MAX))), None, "over");
    assert_eq!(left(ask(&mut replica, at(1_051), 1, prepare(10, 1, 0))), Some(249), "no hold is longer");
    // An abort ends it, but only one's own; so does what is accepted.
    let abort = |of| Question::Abort { name: name(), ballot: ballot(9, of) };
    ask(&mut replica, at(1_060), 1, Question::Abort { name: name(), ballot: ballot(9, 1) });
    assert_eq!(left(ask(&mut replica, at(1_060), 1, prepare(10, 1, 40))), Some(240));
    ask(&mut replica, at(1_061), 2, abort(2));
    assert_eq!(left(ask(&mut replica, at(1_062), 1, prepare(10, 1, 40))), None);
    ask(&mut replica, at(1_063), 1, accept(10, 1, "a"));
    assert_eq!(left(ask(&mut replica, at(1_064), 2, prepare(11, 2, 40))), None);
    // Holds are gone after a crash, promises are not.
    let row = replica.row(&name()).cloned().unwrap();
    let mut again = replica_of(0, &config(&[0, 1, 2]), [(name(), row)].into());
    assert_eq!(left(ask(&mut again, at(1_065), 1, prepare(11, 1, 40))), Some(0));
    assert_eq!(left(ask(&mut again, at(1_065), 1, prepare(12, 1, 40))), None);
}

#[test]
fn nothing_is_accepted_whose_objects_are_not_durable_here() {
    let few = Book::of(&["a"]);
    let mut replica = replica();
    let ask = |replica: &mut Replica, look: &Book| {
        replica.handle(NOW, node(1), questions(vec![accept(1, 1, "ab")]), look);
        let (others, answers) = drain(replica);
        (others.len(), answers)
    };
    let missing = book().head("ab").commit;
    let (writes, answers) = ask(&mut replica, &few);
    assert_eq!(writes, 0);
    assert!(
        matches!(&answers[..], [Answer::Missing { need, .. }] if need[..] == [Need::Commit(missing)]),
        "{answers:?}"
    );
    assert_eq!(replica.row(&name()), None);
    assert_eq!(ask(&mut replica, &book()).0, 1);
}

#[test]
fn who_is_no_member_or_of_another_cluster_is_told_so() {
    let mut replica = replica();
    let refused = |replica: &mut Replica, from: usize, packet: Packet| {
        replica.handle(NOW, node(from), packet, &book());
        match replica.poll_output() {
            Some(ReplicaOutput::Send { packet: Packet { body: Body::Refused(why), .. }, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    let other = Packet { cluster: ClusterId([1; 16]), ..questions(vec![prepare(1, 1, 0)]) };
    assert_eq!(refused(&mut replica, 1, other), Refusal::OtherCluster);
    assert_eq!(refused(&mut replica, 3, questions(vec![prepare(1, 3, 0)])), Refusal::NotAMember);
    // In another's name; beyond the limit of rounds; with one bad question among good ones.
    assert_eq!(refused(&mut replica, 1, questions(vec![prepare(1, 2, 0)])), Refusal::Malformed);
    let far = super::super::value::ROUND_LIMIT;
    assert_eq!(refused(&mut replica, 1, questions(vec![prepare(far, 1, 0)])), Refusal::Malformed);
    let unsound = Accepted { ballot: ballot(1, 2), value: HeadValue { generation: 0, ..value("a") } };
    let commit = Question::Commit { name: name(), decided: unsound };
    assert_eq!(refused(&mut replica, 1, questions(vec![prepare(1, 1, 0), commit])), Refusal::Malformed);
    assert_eq!(replica.row(&name()), None);
}

#[test]
fn an_older_epoch_is_told_the_newer_one_and_takes_it_durably() {
    let newer = Config { epoch: 2, ..config(&[0, 1]) };
    let mut ahead = replica_of(0, &newer, BTreeMap::new());
    ahead.handle(NOW, node(1), questions(vec![prepare(1, 1, 0)]), &book());
    let Some(ReplicaOutput::Send { packet, .. }) = ahead.poll_output() else { panic!() };
    assert_eq!(packet.body, Body::Epoch(newer.clone()));
    assert_eq!(ahead.row(&name()), None);

    let mut behind = replica();
    behind.handle(NOW, node(1), Packet { epoch: 2, ..questions(vec![prepare(1, 1, 0)]) }, &book());
    let Some(ReplicaOutput::Send { packet: asks, .. }) = behind.poll_output() else { panic!() };
    assert_eq!(asks.body, Body::Epoch(config(&[0, 1, 2])), "what it is behind with");
    behind.handle(NOW, node(7), packet.clone(), &book());
    assert_eq!((behind.poll_output(), behind.config().epoch), (None, 1), "a stranger's configuration");
    behind.handle(NOW, node(1), packet, &book());
    let Some(ReplicaOutput::Persist { token, standing: Some(saved), .. }) = behind.poll_output() else {
        panic!()
    };
    assert_eq!((saved.config, behind.poll_output()), (newer.clone(), None));
    behind.persisted(token);
    assert_eq!(behind.poll_output(), Some(ReplicaOutput::Configured(newer)));
}

#[test]
fn what_was_decided_is_shown_when_it_is_here_with_its_age() {
    let few = Book::of(&["a"]);
    let mut replica = replica();
    let decided = Accepted { ballot: ballot(1, 1), value: value("ab") };
    let commit = Question::Commit { name: name(), decided: decided.clone() };
    replica.handle(at(100), node(1), questions(vec![commit]), &few);
    let (outputs, _) = drain(&mut replica);
    let [ReplicaOutput::Persist { token, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    replica.persisted(*token);
    let need = vec![Need::Commit(book().head("ab").commit)];
    assert_eq!(replica.poll_output(), Some(ReplicaOutput::Wanted { name: name(), need, from: node(1) }));
    assert_eq!(replica.stale(&name(), at(150)).unwrap().head, None);
    replica.settle(at(200), &name(), node(1), &book());
    let (outputs, _) = drain(&mut replica);
    let [ReplicaOutput::Persist { token, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    replica.persisted(*token);
    assert_eq!(replica.poll_output(), Some(ReplicaOutput::Moved { name: name(), decided: decided.clone() }));
    // One's own next commit.
    replica.stand(at(210), &name(), book().head("abc"), &book()).unwrap();
    let stale = Stale { head: Some(decided.value), age: 50, pending: Some(book().head("abc")) };
    assert_eq!(replica.stale(&name(), at(250)), Some(stale));
    assert_eq!(replica.stale(&name(), at(0)).unwrap().age, 0, "a clock that went back");
    assert!(!replica.let_go(&name(), &book().head("abc").commit), "it is pending, not beside the head");
}

#[test]
fn the_way_back_goes_as_far_as_is_asked() {
    let mut replica = replica();
    let way = |until: &[&str]| Question::Path {
        name: name(),
        from: book().head("abc").commit,
        until: Bounded::truncated(until.iter().map(|way| book().head(way).commit).collect()),
    };
    let mut count = |question| match &ask(&mut replica, NOW, 1, question)[..] {
        [Answer::Path { commits, .. }] => commits
            .iter()
            .map(|bytes| madake_object::Commit::decode(bytes).unwrap().message)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(way(&[])), ["abc", "ab", "a"]);
    assert_eq!(count(way(&["a"])), ["abc", "ab"]);
    let nowhere = CommitId::new([9; 32]);
    let question = Question::Path { name: name(), from: nowhere, until: Bounded::default() };
    assert_eq!(count(question), [""; 0]);
}
