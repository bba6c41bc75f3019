//! Who is at the other end: TLS 1.3 with raw public keys (RFC 7250) on both sides.
//!
//! - A node shows its ed25519 key as a bare SubjectPublicKeyInfo, and signs the handshake with it.
//!   The secret stays in [`AuthorKey`], which signs nothing else of TLS.
//! - A client's verifier holds the one id that was dialled and refuses every other key. A server
//!   takes any well-formed key: who may stay is decided above, by id.
//! - Nothing is resumed, no tickets, no 0-RTT, on both sides: each connection proves both keys.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use madake_log::{AuthorId, AuthorKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureAlgorithm,
    SignatureScheme,
};

use super::NodeId;
use super::ticket::encode_node_id;

/// The application protocol that both sides must name in the handshake.
pub const ALPN: &[u8] = b"madake/1";

/// What follows the node id in the server name that a client sends.
pub const SERVER_NAME_SUFFIX: &str = ".madake";

/// The name under which a node is dialled: its id in base32 (52 letters) and `.madake`.
///
/// Nobody resolves it. It is only there so that TLS has a name, and a name that is not the same
/// for all nodes.
pub fn server_name(id: NodeId) -> String {
    encode_node_id(id) + SERVER_NAME_SUFFIX
}

/// The key of `id` as TLS carries it: a SubjectPublicKeyInfo in DER, 44 bytes.
pub fn spki(id: NodeId) -> [u8; SPKI_LEN] {
    let mut der = [0; SPKI_LEN];
    der[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    der[SPKI_PREFIX.len()..].copy_from_slice(id.as_bytes());
    der
}

/// Reads what [`spki`] writes, and nothing else; the key must be one that logs accept too.
pub fn parse_spki(der: &[u8]) -> Result<NodeId, KeyError> {
    let der: &[u8; SPKI_LEN] = der.try_into().map_err(|_| KeyError::NotEd25519)?;
    let bytes = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::NotEd25519)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::NotEd25519)?;
    let id = AuthorId::from_bytes(bytes);
    id.check_key().map_err(KeyError::Unsound)?;
    Ok(id)
}

/// Why what a peer showed is not a node's key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key, or more than one.
    #[error("the peer shows {0} keys instead of one")]
    NotOne(usize),
    /// Something else than the 44 bytes of an ed25519 key: a certificate, say.
    #[error("the peer shows no ed25519 key")]
    NotEd25519,
    /// The 32 bytes are no key that a node can have.
    #[error("the peer's key is not a sound ed25519 key")]
    Unsound(#[source] madake_log::SignatureError),
}

/// How the one who answered showed not to be the node that was dialled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Impostor {
    /// It answered with the key of another node, which it was not asked to prove.
    #[error("it says that it is {0}")]
    OtherNode(NodeId),
    /// It showed the right key, but could not sign with it.
    #[error("it shows that node's key, but cannot sign with it")]
    BadSignature,
    /// What it showed is no node's key at all.
    #[error("{0}")]
    NoKey(#[from] KeyError),
}

/// What a client's verifier saw, if it was not the node that was dialled.
///
/// rustls would turn it into an alert's number; the dialler wants to tell a person.
#[derive(Debug, Default)]
pub(crate) struct Sighting(Mutex<Option<Impostor>>);

impl Sighting {
    /// Takes what was seen, if the other end was refused.
    pub(crate) fn take(&self) -> Option<Impostor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn record(&self, impostor: Impostor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(impostor);
    }
}

/// The TLS of the answering side.
pub fn server_config(key: &Arc<AuthorKey>) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyNode))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0; // nor when a client asks for them (RFC 9149)
    config.max_early_data_size = 0;
    config
}

/// The TLS of the dialling side: it accepts `dialled` and nobody else.
pub fn client_config(key: &Arc<AuthorKey>, dialled: NodeId) -> rustls::ClientConfig {
    client_config_with_sighting(key, dialled).0
}

/// Like [`client_config`], with the place where the verifier writes whom it refused.
///
/// For one connection: the sighting must not be shared between two.
pub(crate) fn client_config_with_sighting(
    key: &Arc<AuthorKey>,
    dialled: NodeId,
) -> (rustls::ClientConfig, Arc<Sighting>) {
    let sighting = Arc::new(Sighting::default());
    let verifier = OneNode { dialled, name: server_name(dialled), sighting: sighting.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    (config, sighting)
}

/// The one key that the other side of a finished handshake has shown, and proved to hold.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Result<NodeId, KeyError> {
    let identity = connection.peer_identity().ok_or(KeyError::NotOne(0))?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| KeyError::NotEd25519)?;
    match keys.as_slice() {
        [key] => parse_spki(key),
        keys => Err(KeyError::NotOne(keys.len())),
    }
}

/// The TLS alert in a QUIC error code (RFC 9001, 4.8), if there is one.
pub(crate) fn alert(code: u64) -> Option<u8> {
    (code >> 8 == 1).then_some((code & 0xff) as u8)
}

/// The alerts that are told apart (RFC 8446, 6; RFC 7301, 3.2).
pub(crate) mod alerts {
    pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
    pub(crate) const BAD_CERTIFICATE: u8 = 42;
    pub(crate) const DECRYPT_ERROR: u8 = 51;
    pub(crate) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(crate) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// A node's key as TLS wants it; the secret stays where it is.
fn certified(key: &Arc<AuthorKey>) -> Arc<CertifiedKey> {
    let shown = CertificateDer::from(spki(key.author()).to_vec());
    Arc::new(CertifiedKey::new(vec![shown], Arc::new(NodeKey(key.clone()))))
}

/// [`AuthorKey`] as a key of rustls. It is its own signer: there is one scheme.
#[derive(Clone)]
struct NodeKey(Arc<AuthorKey>);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.0.author()).finish()
    }
}

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki(self.0.author()).to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match self.0.sign_tls13(message) {
            Ok(signature) => Ok(signature.to_vec()),
            Err(refused) => Err(Error::General(refused.to_string())),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A client's verifier: the node that was dialled, and nobody else.
#[derive(Debug)]
struct OneNode {
    dialled: NodeId,
    name: String,
    sighting: Arc<Sighting>,
}

impl ServerCertVerifier for OneNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if server_name.to_str() != self.name {
            return Err(CertificateError::NotValidForName.into());
        }
        match shown_key(end_entity, intermediates) {
            Ok(id) if id == self.dialled => Ok(ServerCertVerified::assertion()),
            Ok(id) => {
                self.sighting.record(Impostor::OtherNode(id));
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Err(error) => {
                self.sighting.record(error.into());
                Err(CertificateError::BadEncoding.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss).inspect_err(|_| self.sighting.record(Impostor::BadSignature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A server's verifier: a node, whoever it is, that can sign with the key that it shows.
#[derive(Debug)]
struct AnyNode;

impl ClientCertVerifier for AnyNode {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match shown_key(end_entity, intermediates) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn shown_key(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<NodeId, KeyError> {
    match intermediates {
        [] => parse_spki(end_entity),
        more => Err(KeyError::NotOne(1 + more.len())),
    }
}

fn verify_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if dss.scheme != SignatureScheme::ED25519 {
        return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = SubjectPublicKeyInfoDer::from(key.as_ref());
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, dss, &algorithms())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    PROVIDER.signature_verification_algorithms
}

/// ring, with one group for the key exchange: both sides are madake, so nothing needs a second
/// round trip to agree.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider { kx_groups: vec![ring::kx_group::X25519], ..ring::default_provider() })
});

/// RFC 8410: SEQUENCE(42) { SEQUENCE(5) { OID 1.3.101.112 }, BIT STRING(33, no unused bits) }.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Bytes of a SubjectPublicKeyInfo with an ed25519 key.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> Arc<AuthorKey> {
        Arc::new(AuthorKey::from_seed([seed; 32]))
    }

    #[test]
    fn an_spki_comes_back() {
        let id = key(1).author();
        assert_eq!(parse_spki(&spki(id)).unwrap(), id);
    }

    #[test]
    fn anything_but_an_spki_is_refused() {
        let good = spki(key(1).author());
        for len in 0..good.len() {
            assert!(matches!(parse_spki(&good[..len]), Err(KeyError::NotEd25519)));
        }
        let mut long = good.to_vec();
        long.push(0);
        assert!(matches!(parse_spki(&long), Err(KeyError::NotEd25519)));
        for place in 0..SPKI_PREFIX.len() {
            let mut bad = good;
            bad[place] ^= 1;
            assert!(matches!(parse_spki(&bad), Err(KeyError::NotEd25519)));
        }
        assert!(matches!(parse_spki(key(1).author().as_bytes()), Err(KeyError::NotEd25519)));
    }

    #[test]
    fn unsound_keys_are_refused() {
        let identity = {
            let mut k = [0; 32];
            k[0] = 1;
            k
        };
        let small_order = [0; 32]; // a point of order 4
        let not_canonical = [0xff; 32];
        for bytes in [identity, small_order, not_canonical] {
            let der = spki(AuthorId::from_bytes(bytes));
            assert!(matches!(parse_spki(&der), Err(KeyError::Unsound(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_server_name_fits_dns() {
        let name = server_name(key(1).author());
        assert_eq!(name.len(), 52 + 7);
        assert!(ServerName::try_from(name.as_str()).is_ok());
    }

    #[test]
    fn the_key_signs_handshakes_and_nothing_else() {
        let node = NodeKey(key(1));
        assert!(node.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]).is_none());
        let signer = node.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        assert!(signer.sign(b"\0 an entry, say").is_err());
        assert!(!format!("{node:?}").is_empty());
    }

    #[test]
    fn the_verifier_wants_the_name_that_was_dialled() {
        let id = key(2).author();
        let verifier = OneNode { dialled: id, name: server_name(id), sighting: Arc::default() };
        let shown = CertificateDer::from(spki(id).to_vec());
        let verify = |name: &str, more: &[CertificateDer<'_>]| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(&shown, more, &name, &[], UnixTime::now())
        };
        assert!(verify(&server_name(id), &[]).is_ok());
        assert!(verify(&server_name(key(3).author()), &[]).is_err());
        assert!(verify("127.0.0.1", &[]).is_err());
        assert!(verify(&server_name(id), std::slice::from_ref(&shown)).is_err());
    }
}
