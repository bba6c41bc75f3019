//! The home's side of a marriage: who may enter, what is accepted, who is released.

use std::collections::BTreeSet;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use madake_log::system::{HomeNode, NodeStatement};
use madake_log::{AuthorId, EntryId};
use madake_store::{
    AppendError, Author, Change, CodeHash, Digest, Entering, Frozen, Hosted, MarriageState, NotSigned,
    Outcome, Part, Peer, Purpose, Read as _, StoreError, SummaryScope, tables,
};
use madake_sync::Bounded;
use madake_sync::home::{HomeAnswer, HomeRefusal, HomeRequest, MAX_HOME};
use zeroize::Zeroizing;

use crate::config::Door;
use crate::driver::wall_clock;
use crate::home::{HomeError, random};
use crate::knock::code_hash;
use crate::moments::passes;
use crate::net::{Connection, NodeId, check_address};
use crate::shell::Shell;
use crate::work;

/// Authors who may have this node as home: as many as one session can name.
const MAX_HOSTED: u64 = 65_536;
/// How long a home takes nothing new of an author who is about to move, unless it is asked again: milliseconds. A move
/// that takes longer asks again; one that was cut off must not hold other devices up for long.
const LEASE: i64 = 10 * 60 * 1000;
/// How long a node that asked may take to take its answer.
const TAKING: Duration = Duration::from_secs(2);
/// How long a home may take to answer us.
const PATIENCE: Duration = Duration::from_secs(10);
/// What argon2id costs here: KiB, passes, lanes. OWASP's least for servers, since strangers can ask for it.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Bytes of salt and hash.
const SALT: usize = 16;
const HASH: usize = 32;

/// Why something could not be asked of a home.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It does not know this node, or does not take the code.
    NotKnown,
    /// It said no.
    Refused(HomeRefusal, String),
    /// The author has moved to another node, which can be reached there, under this epoch.
    Moved(NodeId, Vec<String>, u64),
    /// Nothing was to be heard of it.
    Silent(String),
}

type Answered = Result<(), (HomeRefusal, String)>;

fn refuse<T>(what: HomeRefusal, why: impl Into<String>) -> Result<T, (HomeRefusal, String)> {
    Err((what, why.into()))
}

/// Salt and hash of a passphrase.
fn hash(passphrase: &[u8], salt: &[u8]) -> Option<Zeroizing<[u8; HASH]>> {
    let params = Params::new(COST.0, COST.1, COST.2, Some(HASH)).ok()?;
    let mut key = Zeroizing::new([0; HASH]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut *key)
        .ok()?;
    Some(key)
}

fn new_secret(passphrase: &[u8]) -> Result<Option<Vec<u8>>, HomeError> {
    let salt: [u8; SALT] = random()?;
    Ok(hash(passphrase, &salt).map(|hash| [salt.as_slice(), hash.as_slice()].concat()))
}

fn fits(secret: &[u8], passphrase: &[u8]) -> bool {
    let Some((salt, kept)) = secret.split_at_checked(SALT) else { return false };
    let Ok(kept) = <[u8; HASH]>::try_from(kept) else { return false };
    // `blake3::Hash` is compared in constant time.
    hash(passphrase, salt)
        .is_some_and(|hash| blake3::Hash::from_bytes(*hash) == blake3::Hash::from_bytes(kept))
}

impl Shell {
    /// Hears what is asked of this node as a home, and answers. `false`: to a stranger there is no answer but that it
    /// is not known.
    pub(crate) async fn hear_home_request(&self, connection: &Connection, bytes: &[u8], known: bool) -> bool {
        let Ok(request) = HomeRequest::decode(bytes) else { return false };
        if !(known || matches!(request, HomeRequest::Enter { .. })) {
            return false;
        }
        // What a stranger asks was counted before it was heard.
        let secret = match &request {
            HomeRequest::Enter { code, .. } => known && code.is_some(),
            HomeRequest::Release { passphrase, .. } | HomeRequest::Freeze { passphrase, .. } => {
                passphrase.is_some()
            }
            _ => false,
        };
        let author = match &request {
            HomeRequest::Release { author, .. }
            | HomeRequest::Freeze { author, .. }
            | HomeRequest::Where { author } => Some(*author),
            _ => None,
        };
        let may = !secret || self.may_knock(connection);
        let answered = if may {
            work::in_place(|| self.answer_home_request(connection.peer(), request))
        } else {
            refuse(HomeRefusal::Passphrase, "too many tries: wait a minute")
        };
        let answer = match answered {
            Ok(()) => HomeAnswer::Done,
            Err(_) if !known => return false,
            // Who asks the old home is told where to go.
            Err((what, why)) => {
                let moved = author.map(|author| work::in_place(|| self.moved_to(author)));
                match moved.and_then(Result::ok).flatten() {
                    Some((home, epoch)) if what != HomeRefusal::Passphrase => HomeAnswer::Moved {
                        node: home.node,
                        addresses: Bounded::truncated(
                            home.addresses.iter().map(ToString::to_string).collect(),
                        ),
                        epoch,
                    },
                    _ => HomeAnswer::refuse(what, &why),
                }
            }
        };
        let Ok(bytes) = answer.encode() else { return false };
        let told = async {
            if let Ok(mut stream) = connection.quinn().open_uni().await {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.finish();
            }
            connection.closed().await // whoever asked goes when it has heard
        };
        let _ = tokio::time::timeout(TAKING, told).await;
        true
    }

    fn answer_home_request(&self, node: NodeId, request: HomeRequest) -> Answered {
        let _one_at_a_time = self.lock_settings();
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "what was asked of this node as a home could not be done");
            (HomeRefusal::NotNow, "the home's store failed".to_owned())
        };
        match request {
            HomeRequest::Enter { author, code, passphrase, addresses } => {
                let addresses =
                    addresses.iter().filter(|text| check_address(text).is_ok()).cloned().collect();
                self.enter_author(node, author, code.as_deref(), passphrase.as_deref(), addresses)
            }
            HomeRequest::Accept { author, vow } => {
                let accepted = self.as_home().map_err(HostError::from);
                let accepted = accepted.and_then(|home| Ok(home.accept(author, vow)?));
                accepted.inspect(|()| passes("home-accepted"))
            }
            HomeRequest::Release { author, vow, next, passphrase } => {
                self.release_author(node, author, (vow, next), passphrase.as_deref())
            }
            HomeRequest::Freeze { author, passphrase } => {
                self.freeze_author(node, author, passphrase.as_deref())
            }
            HomeRequest::Thaw { author } => self.thaw_author(node, author),
            HomeRequest::Holds { author, count, sum } => self.holds(node, author, Digest::new(count, &sum)),
            HomeRequest::Where { author } => match self.hosted_here(author) {
                Ok(hosted) if hosted.vow.is_none() => {
                    Err(HostError::refused(HomeRefusal::NotHosted, "this node is not the author's home"))
                }
                hosted => hosted.map(drop),
            },
        }
        .map_err(|error| match error {
            HostError::Refused(what, why) => (what, why),
            HostError::Append(AppendError::Guarded { .. }) => {
                (HomeRefusal::NotNow, "the home was restored, and asks its peers first".to_owned())
            }
            HostError::Append(error) => failed(&error),
            HostError::Home(error) => failed(&error),
        })
    }

    /// Whether an author may have this node as home, and what it brought for that.
    fn enter_author(
        &self,
        node: NodeId,
        author: AuthorId,
        code: Option<&[u8]>,
        passphrase: Option<&[u8]>,
        addresses: Vec<String>,
    ) -> Result<(), HostError> {
        if author.check_key().is_err() || self.store().blocked()?.contains(&author) {
            return Err(HostError::refused(HomeRefusal::Code, "this author is not taken here"));
        }
        let before = self.store().hosted(author)?;
        // Who is here already needs nothing; a second factor is set once, so that nobody changes it afterwards.
        if before.as_ref().is_some_and(|hosted| hosted.node == node && hosted.released.is_none()) {
            return Ok(());
        }
        if before.as_ref().is_some_and(|hosted| hosted.vow.is_some()) {
            return Err(HostError::refused(
                HomeRefusal::NotNow,
                "this node is the author's home already, through another node: that one, or the owner, has to release it",
            ));
        }
        if before.is_none()
            && self.store().engine().count(tables::HOSTED).map_err(StoreError::from)? >= MAX_HOSTED
        {
            return Err(HostError::refused(HomeRefusal::NotNow, "this home is full"));
        }
        let now = wall_clock();
        let hash = self.way_in(code, now)?;
        let Some(hash) = hash else {
            return Err(HostError::refused(
                HomeRefusal::Code,
                "the code is not good, and the door is not open",
            ));
        };
        let secret = match passphrase {
            Some(passphrase) => new_secret(passphrase)?,
            None => None,
        };
        let known = self.store().peer(node)?;
        let name = match &known {
            Some(peer) => peer.name.clone(),
            None => self.free_name(node, None)?,
        };
        let addresses = match known {
            Some(peer) if addresses.is_empty() => peer.addresses,
            _ => addresses,
        };
        let peer = Peer { node, name, addresses, added: now };
        let hosted = Hosted { node, since: now, secret, vow: None, released: None };
        let entering = Entering { hash, peer, author, hosted, now };
        let outcomes = self.store().apply(vec![Change::Enter(Box::new(entering))])?;
        if outcomes != [Outcome::Redeemed(true)] {
            return Err(HostError::refused(HomeRefusal::Code, "the code was used meanwhile"));
        }
        passes("home-entered");
        Ok(())
    }

    /// By what somebody may enter: `Some(None)` at an open door or with the token, `Some(hash)` with an invite.
    fn way_in(&self, code: Option<&[u8]>, now: i64) -> Result<Option<Option<CodeHash>>, HostError> {
        let config = &self.home.config;
        if config.homes == Door::Closed {
            return Ok(None);
        }
        if let Some(code) = code {
            let brought = blake3::Hash::from_bytes(code_hash(code));
            let is = |hash: CodeHash| blake3::Hash::from_bytes(hash) == brought;
            if config.home_token.as_ref().is_some_and(|token| is(code_hash(token.as_bytes()))) {
                return Ok(Some(None));
            }
            let mut found = None;
            // All of them are compared, in constant time each.
            for (hash, invite) in self.store().invites()? {
                if is(hash) && invite.purpose == Purpose::Home && now < invite.expires {
                    found = Some(hash);
                }
            }
            if found.is_some() {
                return Ok(found.map(Some));
            }
        }
        Ok((config.homes == Door::Open).then_some(None))
    }

    /// Whether a node may let an author go: it brings the second factor, or, if none was set, it is the one that came.
    fn may_let_go(hosted: &Hosted, node: NodeId, passphrase: Option<&[u8]>) -> Result<(), HostError> {
        let why = match (&hosted.secret, passphrase) {
            (Some(secret), Some(passphrase)) if fits(secret, passphrase) => return Ok(()),
            (Some(_), Some(_)) => "the passphrase is wrong",
            (Some(_), None) => "a passphrase was set when the author came, and is needed to go",
            (None, _) if hosted.node == node => return Ok(()),
            (None, _) => "the author came through another node: that one, or the home's owner, has to ask",
        };
        Err(HostError::refused(HomeRefusal::Passphrase, why))
    }

    /// Releases an author who asks for it, with the second factor, for the vow that it names.
    fn release_author(
        &self,
        node: NodeId,
        author: AuthorId,
        (vow, next): (EntryId, EntryId),
        passphrase: Option<&[u8]>,
    ) -> Result<(), HostError> {
        Self::may_let_go(&self.hosted_here(author)?, node, passphrase)?;
        self.as_home()?.release_for(author, vow, next)?;
        passes("home-released");
        Ok(())
    }

    /// Takes nothing new of an author for a while, who brings the second factor.
    fn freeze_author(
        &self,
        node: NodeId,
        author: AuthorId,
        passphrase: Option<&[u8]>,
    ) -> Result<(), HostError> {
        let hosted = self.hosted_here(author)?;
        Self::may_let_go(&hosted, node, passphrase)?;
        if hosted.vow.is_none() {
            return Err(HostError::refused(HomeRefusal::NotHosted, "this author has left already"));
        }
        let until = wall_clock().saturating_add(LEASE);
        self.store().apply(vec![Change::Freeze(author, Some(Frozen { until, by: node }))])?;
        self.leases.notify_one();
        passes("home-froze");
        Ok(())
    }

    /// Ends that, for who asked for it.
    fn thaw_author(&self, node: NodeId, author: AuthorId) -> Result<(), HostError> {
        if let Some(frozen) = self.store().frozen(author)? {
            if frozen.by != node {
                return Err(HostError::refused(HomeRefusal::NotHosted, "another node asked for it"));
            }
            self.store().apply(vec![Change::Freeze(author, None)])?;
        }
        Ok(())
    }

    /// Ends the leases that have run out; how long until the next does. None is longer than one that begins now,
    /// whatever the clock was when it began.
    pub(crate) fn thaw_due(&self) -> Result<Option<Duration>, StoreError> {
        let _one_at_a_time = self.lock_settings();
        let (now, mut next) = (wall_clock(), None::<i64>);
        for (author, frozen) in self.store().all_frozen()? {
            let latest = now.saturating_add(LEASE);
            let change = match frozen.until {
                until if until <= now => None,
                until if until > latest => Some(Frozen { until: latest, ..frozen }),
                _ => Some(frozen),
            };
            if change != Some(frozen) {
                self.store().apply(vec![Change::Freeze(author, change)])?;
            }
            let left = change.map(|frozen| frozen.until - now);
            next = next.into_iter().chain(left).min();
        }
        Ok(next.map(|left| Duration::from_millis(left.unsigned_abs())))
    }

    /// Whether these are all logs of an author who has entered, as they are here too.
    fn holds(&self, node: NodeId, author: AuthorId, theirs: Digest) -> Result<(), HostError> {
        if self.hosted_here(author)?.node != node {
            return Err(HostError::refused(HomeRefusal::NotHosted, "the author came through another node"));
        }
        let ours = self.digest_of(author)?;
        if ours == theirs {
            return Ok(());
        }
        let why =
            format!("{} logs are there, {} here, or they differ in what they hold", theirs.count, ours.count);
        Err(HostError::refused(HomeRefusal::NotHere, why))
    }

    /// What is here of an author's logs, in a few bytes.
    pub(crate) fn digest_of(&self, author: AuthorId) -> Result<Digest, StoreError> {
        let authors = BTreeSet::from([author]);
        let all = Part { authors: Some(&authors), schemas: None };
        self.store().digest(&SummaryScope { parts: vec![all], only: None })
    }

    /// Where an author is who had this node as home; `None`: here, or nowhere that is known.
    pub(crate) fn moved_to(&self, author: AuthorId) -> Result<Option<(HomeNode, u64)>, StoreError> {
        let hosted = self.store().hosted(author)?;
        if hosted.is_none_or(|hosted| hosted.vow.is_some() || hosted.released.is_none()) {
            return Ok(None);
        }
        let marriage = self.store().marriage(author)?;
        let home = marriage.home.filter(|home| home.node != self.node());
        Ok(home.filter(|_| marriage.state != MarriageState::Released).map(|home| (home, marriage.epoch)))
    }

    /// Signs a release, whoever asked for it.
    pub(crate) fn release(
        &self,
        author: AuthorId,
        hosted: Hosted,
        vow: EntryId,
        next: Option<EntryId>,
    ) -> Result<(), HostError> {
        Ok(self.as_home()?.release(author, hosted, vow, next)?)
    }

    /// Signs a statement of this node.
    pub(crate) fn state(&self, said: &NodeStatement) -> Result<(), HostError> {
        Ok(self.as_home()?.states(said, Vec::new())?)
    }

    /// Who signs what this node says as a home.
    fn as_home(&self) -> Result<Author, StoreError> {
        // After a restore: where nobody can be asked there is nobody to wait for.
        self.lift_if_answered(self.node())?;
        Ok(Author::new(self.home.node_key.clone(), self.store().clone()))
    }

    fn hosted_here(&self, author: AuthorId) -> Result<Hosted, HostError> {
        let none = || HostError::refused(HomeRefusal::NotHosted, "this author has not entered here");
        self.store().hosted(author)?.ok_or_else(none)
    }
}

/// Why a home does not do what it was asked.
#[derive(Debug)]
pub(crate) enum HostError {
    Refused(HomeRefusal, String),
    Append(AppendError),
    Home(HomeError),
}

impl HostError {
    fn refused(what: HomeRefusal, why: impl Into<String>) -> Self {
        Self::Refused(what, why.into())
    }
}

impl From<AppendError> for HostError {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl From<StoreError> for HostError {
    fn from(error: StoreError) -> Self {
        Self::Append(error.into())
    }
}

impl From<NotSigned> for HostError {
    fn from(error: NotSigned) -> Self {
        match error {
            NotSigned::Append(error) => Self::Append(error),
            NotSigned::NotHosted => Self::refused(HomeRefusal::NotHosted, error.to_string()),
            _ => Self::refused(HomeRefusal::NotHere, error.to_string()),
        }
    }
}

impl From<HomeError> for HostError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

/// Asks something of a home that was dialled.
pub(crate) async fn ask(connection: &Connection, request: &HomeRequest) -> Result<(), Unanswered> {
    let unclear = |what: &str| Unanswered::Silent(what.to_owned());
    let bytes = request.encode().map_err(|error| Unanswered::Silent(error.to_string()))?;
    let heard = async {
        let mut stream =
            connection.quinn().open_uni().await.map_err(|_| unclear("the connection was lost"))?;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.finish();
        let Ok(mut answer) = connection.quinn().accept_uni().await else {
            // Closed instead: that is how a stranger is answered.
            return Err(Unanswered::NotKnown);
        };
        let bytes = answer.read_to_end(MAX_HOME).await.map_err(|_| unclear("its answer was cut off"))?;
        match HomeAnswer::decode(&bytes) {
            Ok(HomeAnswer::Done) => Ok(()),
            Ok(HomeAnswer::Refused { what, why }) => Err(Unanswered::Refused(what, why)),
            Ok(HomeAnswer::Moved { node, addresses, epoch }) => {
                // What a peer says of addresses is no better than what it says of itself.
                let good = addresses.into_vec().into_iter().filter(|text| check_address(text).is_ok());
                Err(Unanswered::Moved(node, good.collect(), epoch))
            }
            _ => Err(unclear("its answer is of another version")),
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| Err(unclear("it does not answer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_factor_is_kept_as_a_hash_with_a_salt() {
        let secret = new_secret(b"correct horse").unwrap().unwrap();
        assert!(fits(&secret, b"correct horse"));
        assert!(!fits(&secret, b"correct horse "));
        assert!(!fits(&secret[..40], b"correct horse"));
        assert!(!secret.windows(7).any(|part| part == b"correct"));
        assert_ne!(new_secret(b"correct horse").unwrap().unwrap(), secret);
    }
}
