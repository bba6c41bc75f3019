use super::super::model::{Book, CLUSTER, STORE, config, name, node, replica, voter};
use super::super::value::{HeadValue, Kind};
use super::super::{Need, Replica, ReplicaOutput, Row};
use super::*;
use crate::bounded::Bounded;
use crate::io::Now;

/// Three members and proposers at some of them; what is sent arrives at once, unless a member is away.
struct Desk {
    book: Book,
    replicas: Vec<Replica>,
    proposers: BTreeMap<usize, Proposer>,
    away: BTreeSet<usize>,
    now: Duration,
    done: Vec<(u64, Outcome)>,
    pushes: Vec<(NodeId, Vec<Need>)>,
    /// Packets with questions, by proposer.
    sent: usize,
}

fn book() -> Book {
    let mut book = Book::of(&["abcd", "abx", "pq"]);
    book.add("abcm", &["abx"]);
    book
}

fn ask(by: usize, number: u64, wish: Wish, deadline: u64) -> Ask {
    let op = OpId { node: node(by), number };
    Ask { name: name(), op, wish, again: false, deadline: Duration::from_millis(deadline) }
}

impl Desk {
    fn new(at: &[usize]) -> Self {
        let all = config(&[0, 1, 2]);
        let proposer = |of: usize| {
            let settings = Settings::default();
            Proposer::new(voter(of), CLUSTER, all.clone(), settings, 0, of as u64)
        };
        Self {
            book: book(),
            replicas: (0..3).map(|of| replica(of, &all, BTreeMap::new())).collect(),
            proposers: at.iter().map(|of| (*of, proposer(*of))).collect(),
            away: BTreeSet::new(),
            now: Duration::ZERO,
            done: Vec::new(),
            pushes: Vec::new(),
            sent: 0,
        }
    }

    fn begin(&mut self, by: usize, number: u64, wish: Wish) -> Option<Outcome> {
        let deadline = self.now.as_millis() as u64 + 5_000;
        let book = self.book.clone();
        let asks = [ask(by, number, wish, deadline)];
        self.proposers.get_mut(&by).unwrap().begin(self.now, asks, &book);
        self.run();
        self.outcome(number)
    }

    fn advance(&mut self, by: usize, number: u64, way: &str) -> Option<Outcome> {
        let head = self.book.head(way);
        self.begin(by, number, Wish::Advance(head))
    }

    fn outcome(&self, number: u64) -> Option<Outcome> {
        self.done.iter().find(|(op, _)| *op == number).map(|(_, outcome)| outcome.clone())
    }

    /// Until nothing is left to say.
    fn run(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for by in self.proposers.keys().copied().collect::<Vec<_>>() {
                while let Some(output) = self.proposers.get_mut(&by).unwrap().poll_output() {
                    is_busy = true;
                    self.proposed(by, output);
                }
            }
        }
    }

    fn proposed(&mut self, by: usize, output: ProposerOutput) {
        let proposer = self.proposers.get_mut(&by).unwrap();
        match output {
            ProposerOutput::Reserve { token, .. } => proposer.reserved(self.now, token, &self.book),
            ProposerOutput::Push { to, need, .. } => self.pushes.push((to, need)),
            ProposerOutput::Changed { .. } => unreachable!("nobody changes the members"),
            ProposerOutput::Done { op, outcome, .. } => self.done.push((op.number, outcome)),
            ProposerOutput::Send { to, packet } => {
                self.sent += 1;
                let at = (0..3).find(|at| node(*at) == to).unwrap();
                if self.away.contains(&at) {
                    return;
                }
                // Through bytes, as it would go over a wire.
                let packet = Packet::decode(&packet.encode().unwrap()).unwrap();
                let now = Now { monotonic: self.now, wall: self.now.as_millis() as i64 };
                let replica = &mut self.replicas[at];
                replica.handle(now, node(by), packet, &self.book);
                let mut answers = Vec::new();
                while let Some(output) = replica.poll_output() {
                    match output {
                        ReplicaOutput::Persist { token, .. } => replica.persisted(token),
                        ReplicaOutput::Send { packet, .. } => answers.push(packet),
                        _ => {}
                    }
                }
                for answer in answers {
                    proposer.handle(self.now, to, answer, &self.book);
                }
            }
        }
    }

    /// Lets time pass, with all that happens on the way.
    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let next = self.proposers.values().filter_map(Proposer::next_wake).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for proposer in self.proposers.values_mut() {
                proposer.tick(self.now, &self.book);
            }
            self.run();
        }
        self.now = end;
    }

    fn row(&self, at: usize) -> Row {
        self.replicas[at].row(&name()).cloned().unwrap_or_default()
    }

    fn stand(&mut self, at: usize, way: &str) {
        let now = Now { monotonic: self.now, wall: 0 };
        let (head, book) = (self.book.head(way), self.book.clone());
        self.replicas[at].stand(now, &name(), head, &book).unwrap();
        while let Some(output) = self.replicas[at].poll_output() {
            if let ReplicaOutput::Persist { token, .. } = output {
                self.replicas[at].persisted(token);
            }
        }
    }
}

fn agreed(outcome: Option<Outcome>) -> HeadValue {
    match outcome {
        Some(Outcome::Agreed { value }) => value,
        other => panic!("not agreed: {other:?}"),
    }
}

#[test]
fn an_update_is_agreed_and_told_and_the_next_takes_one_round_trip() {
    let mut desk = Desk::new(&[0]);
    let first = agreed(desk.advance(0, 1, "a"));
    assert_eq!((first.generation, first.kind, first.head), (1, Kind::FastForward, Some(desk.book.head("a"))));
    assert_eq!(desk.sent, 9, "three times three: prepare, accept, commit");
    for at in 0..3 {
        assert_eq!(desk.row(at).branches.head(), Some(desk.book.head("a")));
    }
    assert!(desk.proposers[&0].has_lease(&name()));
    desk.sent = 0;
    let second = agreed(desk.advance(0, 2, "ab"));
    assert_eq!((second.generation, second.prev), (2, Some(first.id())));
    assert_eq!(desk.sent, 6, "accept and commit");
    desk.sent = 0;
    assert_eq!(agreed(desk.advance(0, 3, "a")), second, "it is in the history");
    assert_eq!(desk.sent, 0, "which is known here");
    desk.sent = 0;
    let read = desk.begin(0, 4, Wish::Read);
    assert_eq!((read, desk.sent), (Some(Outcome::Read { value: Some(second) }), 3));
    assert!(desk.proposers[&0].has_lease(&name()), "reading does not cost the lease");
    // A merge, and a commit that skips some.
    assert_eq!(agreed(desk.advance(0, 5, "abcm")).kind, Kind::Merge);
    assert_eq!(agreed(desk.advance(0, 6, "abx")).generation, 3, "merged");
}

#[test]
fn two_that_diverge_are_told_where() {
    let mut desk = Desk::new(&[0, 1]);
    agreed(desk.advance(0, 1, "ab"));
    desk.advance(1, 2, "abc");
    desk.wait(1_000); // the other's lease has to be outbid
    let head = agreed(desk.outcome(2));
    let (common, mine) = (Some(desk.book.head("ab").commit), Some(desk.book.head("abx")));
    let conflict = Some(Outcome::Conflict { head: head.clone(), common, mine });
    // With the lease of one that does not know of the other's update: it asks again before it says so.
    assert_eq!(desk.advance(0, 3, "abx"), None, "its next ballot is outbid");
    desk.wait(1_000);
    assert_eq!(desk.outcome(3), conflict);
    let value = head.id();
    assert_eq!(
        agreed(desk.begin(1, 4, Wish::Reset { to: desk.book.head("a"), over: value })).kind,
        Kind::Reset
    );
    let again = desk.begin(1, 5, Wish::Delete { over: value });
    assert!(matches!(again, Some(Outcome::Conflict { .. })), "{again:?}");
    let Some(Outcome::Read { value: Some(now) }) = desk.begin(1, 6, Wish::Read) else { panic!() };
    let gone = agreed(desk.begin(1, 7, Wish::Delete { over: now.id() }));
    assert_eq!((gone.generation, gone.head), (4, None));
    let late = desk.advance(1, 8, "abcd");
    assert!(matches!(late, Some(Outcome::Conflict { common: None, .. })), "deleted: {late:?}");
    assert_eq!(
        agreed(desk.begin(1, 9, Wish::Reset { to: desk.book.head("pq"), over: gone.id() })).generation,
        5
    );
    // The same operation again, though the value that it replaced is not there any more.
    assert_eq!(
        agreed(desk.begin(1, 9, Wish::Reset { to: desk.book.head("pq"), over: gone.id() })).generation,
        5
    );
}

#[test]
fn a_minority_says_what_it_lacks_and_leaves_nothing_behind() {
    let mut desk = Desk::new(&[0]);
    desk.away = [1, 2].into();
    assert_eq!(desk.advance(0, 1, "a"), None);
    assert_eq!(desk.begin(0, 2, Wish::Read), None);
    desk.wait(6_000);
    let members = vec![node(0), node(1), node(2)];
    for number in [1, 2] {
        let missing = Outcome::NoQuorum { have: usize::from(number == 1), need: 2, members: members.clone() };
        assert_eq!(desk.outcome(number), Some(missing));
    }
    assert_eq!(desk.row(0).register.accepted, None);
    // What waits behind another operation is not forgotten for it.
    desk.advance(0, 4, "a");
    let asks = [ask(0, 5, Wish::Read, desk.now.as_millis() as u64 + 300)];
    desk.proposers.get_mut(&0).unwrap().begin(desk.now, asks, &desk.book);
    desk.wait(300);
    assert!(matches!(desk.outcome(5), Some(Outcome::NoQuorum { have: 0, .. })) && desk.outcome(4).is_none());
    desk.away.clear();
    desk.wait(300);
    agreed(desk.outcome(4));
    agreed(desk.advance(0, 3, "a"));
}

#[test]
fn an_update_that_was_on_its_way_is_unknown_until_it_is_asked() {
    let mut desk = Desk::new(&[0]);
    agreed(desk.advance(0, 1, "a"));
    desk.away = [1, 2].into();
    desk.advance(0, 2, "ab"); // on the lease: accepted by one
    desk.wait(6_000);
    assert_eq!(desk.outcome(2), Some(Outcome::Unknown));
    // It may still come through: who asks where it is known brings it through…
    desk.away = [2].into();
    let head = desk.book.head("ab");
    assert_eq!(agreed(desk.begin(0, 3, Wish::Resolve(head))).generation, 2);
    // …and where it is not, makes sure that it does not.
    desk.away = [1, 2].into();
    desk.advance(0, 4, "abc");
    desk.wait(6_000);
    assert_eq!(desk.outcome(4), Some(Outcome::Unknown));
    let mut other = Desk::new(&[1]);
    std::mem::swap(&mut other.replicas, &mut desk.replicas);
    other.away = [0].into();
    let head = other.book.head("abc");
    other.begin(1, 5, Wish::Resolve(head));
    other.wait(1_000);
    assert!(matches!(other.outcome(5), Some(Outcome::Conflict { .. })), "{:?}", other.outcome(5));
    other.away.clear();
    other.advance(1, 6, "abx");
    other.wait(1_000);
    assert_eq!(agreed(other.outcome(6)).generation, 3);
}

#[test]
fn who_is_refused_tries_again_with_a_greater_round() {
    let mut desk = Desk::new(&[0, 1, 2]);
    for round in 0..10u64 {
        let way = ["a", "ab", "abc", "abcd"][usize::try_from(round % 4).unwrap()];
        let by = usize::try_from(round % 3).unwrap();
        desk.advance(by, round + 1, way);
        desk.wait(2_000);
        // The newest value that this proposer knows of.
        let value = agreed(desk.outcome(round + 1));
        assert!(value.generation > round % 4 && value.generation <= (round + 1).min(4), "{value:?}");
    }
}

#[test]
fn a_member_that_lacks_objects_is_sent_them_and_asked_again() {
    let mut desk = Desk::new(&[0]);
    desk.away = [2].into();
    // The second member has nothing of it.
    let asks = [ask(0, 1, Wish::Advance(desk.book.head("a")), 9_000)];
    let book = desk.book.clone();
    let few = Book::default();
    let proposer = desk.proposers.get_mut(&0).unwrap();
    proposer.begin(Duration::ZERO, asks, &book);
    let mut pushes = 0;
    let mut done = 0;
    for _ in 0..20 {
        let proposer = desk.proposers.get_mut(&0).unwrap();
        let Some(output) = proposer.poll_output() else {
            if pushes == 1 && done == 0 {
                proposer.pushed(node(1), &name());
                pushes = 2;
                continue;
            }
            break;
        };
        match output {
            ProposerOutput::Send { to, packet } if to == node(1) && pushes < 2 => {
                let now = Now { monotonic: Duration::ZERO, wall: 0 };
                desk.replicas[1].handle(now, node(0), packet, &few);
                while let Some(output) = desk.replicas[1].poll_output() {
                    match output {
                        ReplicaOutput::Persist { token, .. } => desk.replicas[1].persisted(token),
                        ReplicaOutput::Send { packet, .. } => {
                            proposer.handle(Duration::ZERO, to, packet, &book)
                        }
                        _ => {}
                    }
                }
            }
            ProposerOutput::Push { to, need, .. } => {
                assert_eq!(to, node(1));
                assert!(need.contains(&Need::Commit(book.head("a").commit)));
                pushes = 1;
            }
            ProposerOutput::Done { outcome, .. } => {
                assert!(matches!(outcome, Outcome::Agreed { .. }));
                done += 1;
            }
            other => desk.proposed(0, other),
        }
    }
    assert_eq!((pushes, done), (2, 1));
    let nowhere = ask(0, 2, Wish::Advance(desk.book.head("ab")), 9_000);
    let proposer = desk.proposers.get_mut(&0).unwrap();
    proposer.begin(Duration::ZERO, [nowhere], &few);
    while let Some(output) = proposer.poll_output() {
        if let ProposerOutput::Done { outcome, .. } = output {
            assert_eq!(outcome, Outcome::Refused(Refused::NotHere));
        }
    }
}

#[test]
fn commits_that_are_not_known_are_fetched_and_checked_by_their_hash() {
    let mut desk = Desk::new(&[0]);
    agreed(desk.advance(0, 1, "abc"));
    // Another proposer that has only its own branch.
    let own = Book::of(&["pq"]);
    let mut other = Proposer::new(voter(1), CLUSTER, config(&[0, 1, 2]), Settings::default(), 500, 1);
    other.begin(Duration::ZERO, [ask(1, 2, Wish::Advance(own.head("pq")), 9_000)], &own);
    let mut asked = 0;
    let mut outcome = None;
    while let Some(output) = other.poll_output() {
        match output {
            ProposerOutput::Reserve { token, .. } => other.reserved(Duration::ZERO, token, &own),
            ProposerOutput::Done { outcome: how, .. } => outcome = Some(how),
            ProposerOutput::Send { to, packet } => {
                let at = (0..3).find(|at| node(*at) == to).unwrap();
                if let Body::Questions(list) = &packet.body
                    && let Some(Question::Path { name, from, .. }) = list.first()
                {
                    asked += 1;
                    // A liar first: another commit's bytes.
                    let wrong = own.commit(&own.head("pq").commit).unwrap().encode().unwrap();
                    let commits = Bounded::truncated(vec![wrong.into(), vec![1, 2, 3].into()]);
                    let lie = Answer::Path { name: name.clone(), from: *from, commits };
                    let body = Body::Answers(Bounded::truncated(vec![lie]));
                    other.handle(Duration::ZERO, to, Packet { body, ..packet.clone() }, &own);
                    assert_eq!(outcome, None);
                }
                let now = Now { monotonic: Duration::from_secs(1), wall: 0 };
                desk.replicas[at].handle(now, node(1), packet, &desk.book);
                while let Some(output) = desk.replicas[at].poll_output() {
                    match output {
                        ReplicaOutput::Persist { token, .. } => desk.replicas[at].persisted(token),
                        ReplicaOutput::Send { packet, .. } => other.handle(Duration::ZERO, to, packet, &own),
                        _ => {}
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, 1);
    assert!(matches!(outcome, Some(Outcome::Conflict { common: None, .. })), "{outcome:?}");
}

#[test]
fn a_name_that_several_have_begins_with_the_majoritys_branch() {
    let mut desk = Desk::new(&[0]);
    desk.stand(0, "pq");
    desk.stand(1, "ab");
    desk.stand(2, "abc");
    let (mine, winner) = (desk.book.head("pq"), desk.book.head("abc"));
    let outcome = desk.advance(0, 1, "pq");
    let Some(Outcome::Conflict { head, mine: lost, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((head.head, head.kind, lost), (Some(winner), Kind::Bootstrap, Some(mine)));
    // Nothing is lost: who had another branch has it beside.
    let branches = desk.row(0).branches;
    assert_eq!((branches.head(), branches.side.len(), branches.side[0].tip), (Some(winner), 1, mine));
    assert_eq!(desk.row(1).branches.pending, None);

    // A tie goes to the longer one, and does not wait for ever for the member that is away.
    let mut desk = Desk::new(&[0]);
    desk.away = [2].into();
    desk.stand(0, "abx");
    desk.stand(1, "pq");
    assert_eq!(desk.advance(0, 1, "abx"), None);
    desk.wait(100);
    assert_eq!(agreed(desk.outcome(1)).head, Some(desk.book.head("abx")));
}

#[test]
fn thousands_of_names_go_together() {
    let mut desk = Desk::new(&[0]);
    let book = desk.book.clone();
    let op = |number| OpId { node: node(0), number };
    let asks = (0..3_000u64).map(|number| Ask {
        name: format!("n{number}").parse().unwrap(),
        op: op(number),
        wish: Wish::Advance(book.head("a")),
        again: false,
        deadline: Duration::from_secs(9),
    });
    desk.proposers.get_mut(&0).unwrap().begin(Duration::ZERO, asks, &book);
    desk.run();
    assert_eq!(desk.done.len(), 3_000);
    assert!(desk.done.iter().all(|(_, outcome)| matches!(outcome, Outcome::Agreed { .. })));
    assert!(desk.sent < 9 * 8, "{} packets", desk.sent);
}

#[test]
fn another_configuration_begins_what_is_under_way_again() {
    let mut desk = Desk::new(&[0]);
    desk.away = [1, 2].into();
    assert_eq!(desk.advance(0, 1, "a"), None);
    // The other two are gone; the shell says so when its own replica has it durably.
    let alone = Config { epoch: 2, ..config(&[0]) };
    desk.replicas[0] = replica(0, &alone, [(name(), desk.row(0))].into());
    let book = desk.book.clone();
    let proposer = desk.proposers.get_mut(&0).unwrap();
    proposer.configure(desk.now, alone, &book);
    desk.run();
    assert_eq!(agreed(desk.outcome(1)).generation, 1);
    let proposer = desk.proposers.get_mut(&0).unwrap();
    proposer.configure(desk.now, Config { epoch: 3, ..config(&[1, 2]) }, &book);
    let refused = desk.advance(0, 2, "ab");
    assert_eq!(refused, Some(Outcome::Refused(Refused::NotAMember)));
}

#[test]
fn who_is_not_listened_to_knows_why() {
    let mut proposer = Proposer::new(voter(0), CLUSTER, config(&[0, 1, 2]), Settings::default(), 0, 0);
    let body = Body::Refused(Refusal::NotAMember);
    let packet = Packet { cluster: CLUSTER, store: STORE, epoch: 1, body };
    proposer.handle(Duration::ZERO, node(7), packet.clone(), &book());
    proposer.handle(
        Duration::ZERO,
        node(1),
        Packet { cluster: ClusterId([1; 16]), ..packet.clone() },
        &book(),
    );
    assert!(proposer.told().is_empty());
    proposer.handle(Duration::ZERO, node(1), packet, &book());
    assert_eq!(proposer.told().get(&node(1)), Some(&Refusal::NotAMember));
}
