//! Invite codes, and the knocks of nodes that are not known (`docs/protocol.md`, "Knocking").
//!
//! A stranger learns that it is not known, whatever it says, and however it is wrong. Only the right code is
//! answered otherwise.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use madake_store::{Change, CodeHash, Invite, Outcome, Peer, Purpose, StoreError};
use madake_sync::Bounded;
use madake_sync::home::MAX_HOME;
use madake_sync::knock::{Knock, MAX_ADDRESSES, MAX_CODE, MAX_KNOCK};
use tokio::time::Instant;

use crate::driver::wall_clock;
use crate::home::{HomeError, random};
use crate::link::close;
use crate::net::{CloseReason, Connection, NodeId, check_address};
use crate::seldom::Seldom;
use crate::shell::Shell;
use crate::work;

/// How long an invite is good for.
pub(crate) const INVITE_MILLISECONDS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Invites that may be open at a time.
pub(crate) const MAX_INVITES: usize = 64;
/// Knocks of one address a minute; further ones are answered without a look.
const KNOCKS: u8 = 5;
/// How long a knocker may take to say its knock.
const HEARING: Duration = Duration::from_secs(2);
/// How long one of ours may take to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Letters of a label, and bytes of the secret behind it.
const LABEL: usize = 8;
const SECRET: usize = 16;

/// A new code: the label that it begins with, all of it, and its hash.
pub(crate) struct Code {
    pub(crate) label: String,
    pub(crate) text: String,
    pub(crate) hash: CodeHash,
}

impl Code {
    pub(crate) fn new() -> Result<Self, HomeError> {
        let letters = letters();
        let label = letters.encode(&random::<5>()?);
        let text = format!("{label}-{}", letters.encode(&random::<SECRET>()?));
        let hash = code_hash(text.as_bytes());
        Ok(Self { label, text, hash })
    }
}

/// A code as a person typed it; `None` if it can't be one.
pub(crate) fn read_code(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let (label, secret) = text.split_once('-')?;
    let letters = letters();
    let fits = label.len() == LABEL
        && letters.decode(label.as_bytes()).is_ok()
        && letters.decode(secret.as_bytes()).is_ok_and(|secret| secret.len() == SECRET);
    fits.then_some(text)
}

/// Base32 in small letters.
fn letters() -> Encoding {
    let mut letters = Specification::new();
    letters.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    letters.encoding().unwrap_or(BASE32_NOPAD)
}

pub(crate) fn code_hash(code: &[u8]) -> CodeHash {
    blake3::derive_key("madake invite code 1", code)
}

/// How often each address knocked of late.
#[derive(Default)]
pub(crate) struct Knocks(Seldom<IpAddr>);

impl Knocks {
    /// Counts a knock; whether this address may still be listened to.
    pub(crate) fn may(&self, address: IpAddr, now: Instant) -> bool {
        self.0.may(network(address), KNOCKS, now)
    }
}

/// What counts as one address: of IPv6, the network that a household is given.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 => v4,
    }
}

/// What a connection begins with.
pub(crate) enum First {
    /// A session.
    Control(quinn::SendStream, quinn::RecvStream),
    /// A knock.
    Knock(quinn::RecvStream),
    /// Nothing, for too long.
    Nothing,
    /// The connection is gone.
    Gone,
}

/// All that comes on a one-way stream that is no session's: a knock, or a question to a home.
pub(crate) async fn hear_out(stream: &mut quinn::RecvStream) -> Option<Vec<u8>> {
    tokio::time::timeout(HEARING, stream.read_to_end(MAX_KNOCK.max(MAX_HOME))).await.ok()?.ok()
}

/// Waits for the first stream of who dialled.
pub(crate) async fn first_stream(connection: &Connection, patience: Duration) -> First {
    let quinn = connection.quinn();
    let first = async {
        tokio::select! {
            biased;
            control = quinn.accept_bi() => control.map_or(First::Gone, |(send, recv)| First::Control(send, recv)),
            knock = quinn.accept_uni() => knock.map_or(First::Gone, First::Knock),
        }
    };
    tokio::time::timeout(patience, first).await.unwrap_or(First::Nothing)
}

impl Shell {
    /// Counts a try; whether this address may still be listened to.
    pub(crate) fn may_knock(&self, connection: &Connection) -> bool {
        self.knocks.may(connection.remote_address().ip(), Instant::now())
    }

    /// Looks at a knock that was heard out. The new peer, if its code was good; that is durable then.
    pub(crate) fn hear_knock(&self, connection: &Connection, bytes: &[u8]) -> Option<Peer> {
        let knock = Knock::decode(bytes).ok()?;
        let redeemed = work::in_place(|| self.redeem(connection, &knock));
        redeemed.unwrap_or_else(|error| {
            tracing::error!(%error, "an invite could not be looked up or used");
            None
        })
    }

    fn redeem(&self, connection: &Connection, knock: &Knock) -> Result<Option<Peer>, StoreError> {
        let brought = blake3::Hash::from_bytes(code_hash(&knock.code));
        let mut found = None;
        // All of them are compared, in constant time each (`blake3::Hash` is compared so).
        for (hash, invite) in self.store().invites()? {
            if blake3::Hash::from_bytes(hash) == brought {
                found = Some((hash, invite));
            }
        }
        let Some((hash, invite)) = found else { return Ok(None) };
        let _one_at_a_time = self.lock_settings();
        let (node, now) = (connection.peer(), wall_clock());
        let name = self.free_name(node, invite.name)?;
        let addresses = knock.addresses.iter().filter(|address| check_address(address).is_ok());
        let peer = Peer { node, name, addresses: addresses.cloned().collect(), added: now };
        let outcomes = self.store().apply(vec![Change::Redeem { hash, peer: peer.clone(), now }])?;
        Ok((outcomes == [Outcome::Redeemed(true)]).then_some(peer))
    }

    /// What a new peer is called: as it was, or as was wished, or by its id; followed by a number if another one is.
    pub(crate) fn free_name(&self, node: NodeId, wished: Option<String>) -> Result<String, StoreError> {
        let peers = self.store().peers()?;
        let known = peers.iter().find(|peer| peer.node == node).map(|peer| peer.name.clone());
        let wished = known.or(wished).unwrap_or_else(|| node.to_string()[..8].to_owned());
        let taken = |name: &str| peers.iter().any(|peer| peer.name == name && peer.node != node);
        let mut names = (2..).map(|n: u64| format!("{wished}-{n}"));
        let mut name = wished.clone();
        while taken(&name) {
            name = names.next().unwrap_or_else(|| node.to_string());
        }
        Ok(name)
    }

    /// Makes an invite that is good from now on.
    pub(crate) fn invite(
        &self,
        name: Option<String>,
        purpose: Purpose,
        now: i64,
    ) -> Result<(Code, Invite), HomeError> {
        let code = Code::new()?;
        let expires = now.saturating_add(INVITE_MILLISECONDS);
        let invite = Invite { label: code.label.clone(), name, made: now, expires, purpose };
        self.store().apply(vec![Change::Invite(code.hash, invite.clone())])?;
        Ok((code, invite))
    }
}

/// Knocks at a node that was dialled.
///
/// # Errors
/// How the connection ended instead of a welcome; `None` if there was no answer in time.
pub(crate) async fn knock(
    connection: &Connection,
    code: &str,
    addresses: Vec<String>,
) -> Result<(), Option<CloseReason>> {
    let code: Bounded<u8, MAX_CODE> = Bounded::truncated(code.as_bytes().to_vec());
    let addresses: Bounded<String, MAX_ADDRESSES> = Bounded::truncated(addresses);
    let bytes = Knock { code, addresses }.encode().map_err(|_| None)?;
    let said = async {
        if let Ok(mut stream) = connection.quinn().open_uni().await {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.finish();
        }
        connection.closed().await // that is the answer, also if the stream was lost
    };
    match tokio::time::timeout(PATIENCE, said).await {
        Ok(CloseReason::ByPeer { code, .. }) if code == u64::from(close::WELCOME) => Ok(()),
        Ok(other) => Err(Some(other)),
        Err(_) => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seldom::WINDOW;

    #[test]
    fn codes_are_read_as_they_are_written() {
        let code = Code::new().unwrap();
        assert_eq!(code.text.len(), LABEL + 1 + 26);
        assert!(code.text.len() <= MAX_CODE && code.text.starts_with(&code.label));
        assert_eq!(read_code(&code.text), Some(code.text.clone()));
        assert_eq!(read_code(&format!(" {}\n", code.text.to_uppercase())), Some(code.text.clone()));
        assert_ne!(Code::new().unwrap().hash, code.hash);
        for wrong in ["", "-", &code.text[1..], &code.text[..34], &code.label, &format!("{}a", code.text)] {
            assert_eq!(read_code(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn five_a_minute_of_each_address() {
        let (knocks, now) = (Knocks::default(), Instant::now());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..5 {
            assert!(knocks.may(at("203.0.113.7"), now));
        }
        assert!(!knocks.may(at("203.0.113.7"), now));
        assert!(!knocks.may(at("::ffff:203.0.113.7"), now), "the same, as a dual-stack socket shows it");
        assert!(knocks.may(at("203.0.113.8"), now));
        for n in 0..5 {
            assert!(knocks.may(at(&format!("2001:db8::{n}")), now));
        }
        assert!(!knocks.may(at("2001:db8::ffff"), now), "one household");
        assert!(knocks.may(at("2001:db8:0:1::"), now));
        let almost = now + WINDOW - Duration::from_millis(1);
        assert!(!knocks.may(at("203.0.113.7"), almost));
        assert!(knocks.may(at("203.0.113.7"), now + WINDOW));
    }
}
