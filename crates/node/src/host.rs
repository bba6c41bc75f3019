//! The home's side of a marriage: who may enter, what is accepted, who is released.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use madake_log::system::{NodeStatement, Vow};
use madake_log::{AuthorId, EntryId, LogId};
use madake_store::{
    AppendError, Author, Change, CodeHash, Entering, Hosted, Outcome, Peer, Position, Purpose, Read as _,
    StoreError, tables,
};
use madake_sync::home::{HomeAnswer, HomeRefusal, HomeRequest, MAX_HOME};
use zeroize::Zeroizing;

use crate::config::Door;
use crate::driver::wall_clock;
use crate::home::{HomeError, random};
use crate::knock::code_hash;
use crate::net::{Connection, NodeId, check_address};
use crate::shell::Shell;
use crate::work;

/// Authors who may have this node as home: as many as one session can name.
const MAX_HOSTED: u64 = 65_536;
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
            HomeRequest::Release { passphrase, .. } => passphrase.is_some(),
            _ => false,
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
            Err((what, why)) => HomeAnswer::refuse(what, &why),
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
            HomeRequest::Accept { author, vow } => self.accept_vow(author, vow),
            HomeRequest::Release { author, vow, next, passphrase } => {
                self.release_author(node, author, (vow, next), passphrase.as_deref())
            }
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

    /// Accepts a vow of an author who has entered, if all that it states is here.
    fn accept_vow(&self, author: AuthorId, vow: EntryId) -> Result<(), HostError> {
        let hosted = self.hosted_here(author)?;
        let said = self.vow(author, vow)?;
        if said.home.as_ref().map(|home| home.node) != Some(self.node()) {
            return Err(HostError::refused(HomeRefusal::NotHere, "the vow names another node"));
        }
        if hosted.vow == Some((vow, said.epoch)) {
            return Ok(());
        }
        for head in said.heads.iter() {
            let at = Position { author, log: head.log, seq: head.seq };
            if self.store().entry_id(&at)? != Some(head.entry) {
                let why = format!("entry {at}, which the vow states, is not here");
                return Err(HostError::refused(HomeRefusal::NotHere, why));
            }
        }
        let accepts = NodeStatement::Accept { author, vow };
        let hosted = Hosted { vow: Some((vow, said.epoch)), released: None, ..hosted };
        self.state(accepts, vec![Change::Host(author, Some(hosted))])
    }

    /// Releases an author who asks for it, with the second factor, for the vow that it names.
    fn release_author(
        &self,
        node: NodeId,
        author: AuthorId,
        (vow, next): (EntryId, EntryId),
        passphrase: Option<&[u8]>,
    ) -> Result<(), HostError> {
        let hosted = self.hosted_here(author)?;
        match (&hosted.secret, passphrase) {
            (Some(secret), Some(passphrase)) if fits(secret, passphrase) => {}
            (Some(_), Some(_)) => {
                return Err(HostError::refused(HomeRefusal::Passphrase, "the passphrase is wrong"));
            }
            (Some(_), None) => {
                let why = "a passphrase was set when the author came, and is needed to go";
                return Err(HostError::refused(HomeRefusal::Passphrase, why));
            }
            (None, _) if hosted.node == node => {}
            (None, _) => {
                let why = "the author came through another node: that one, or the home's owner, has to ask";
                return Err(HostError::refused(HomeRefusal::Passphrase, why));
            }
        }
        if hosted.vow.is_none() && hosted.released == Some(vow) {
            return Ok(()); // it was asked before, and the answer was lost
        }
        if hosted.vow.map(|(vow, _)| vow) != Some(vow) {
            return Err(HostError::refused(HomeRefusal::NotHere, "another vow is in force here"));
        }
        if self.vow(author, next)?.previous != Some(vow) {
            return Err(HostError::refused(HomeRefusal::NotHere, "the next vow follows another one"));
        }
        self.release(author, hosted, vow, Some(next))
    }

    /// Signs a release, whoever asked for it.
    pub(crate) fn release(
        &self,
        author: AuthorId,
        hosted: Hosted,
        vow: EntryId,
        next: Option<EntryId>,
    ) -> Result<(), HostError> {
        let released = Hosted { vow: None, released: Some(vow), ..hosted };
        self.state(NodeStatement::Release { author, vow, next }, vec![Change::Host(author, Some(released))])
    }

    /// Signs a statement of this node.
    pub(crate) fn state(&self, said: NodeStatement, with: Vec<Change>) -> Result<(), HostError> {
        let payload = said.encode().map_err(AppendError::Control)?;
        // After a restore: where nobody can be asked there is nobody to wait for.
        self.lift_if_answered(self.node())?;
        Author::new(self.home.node_key.clone(), self.store().clone()).say(LogId::NODE, payload, with)?;
        Ok(())
    }

    fn hosted_here(&self, author: AuthorId) -> Result<Hosted, HostError> {
        let none = || HostError::refused(HomeRefusal::NotHosted, "this author has not entered here");
        self.store().hosted(author)?.ok_or_else(none)
    }

    fn vow(&self, author: AuthorId, vow: EntryId) -> Result<Vow, HostError> {
        let none = || HostError::refused(HomeRefusal::NotHere, "the vow is not here");
        self.store().statements(author)?.vows.remove(&vow).ok_or_else(none)
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
