//! Nodes meet over QUIC on loopback: the right ones, wrong ones and hostile ones.

#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use madake_log::AuthorKey;
use madake_node::net::tls::{self, KeyError};
use madake_node::net::{
    BindError, CloseReason, Connection, DialError, Endpoint, Failure, HandshakeError, Impostor, NodeId,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    AlwaysResolvesClientRawPublicKeys, ClientSessionMemoryCache, ClientSessionStore, Resumption,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureAlgorithm, SignatureScheme};

/// More than any step here takes; only what must fail by time waits for less.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn two_nodes_shake_hands_and_know_each_other() {
    let (alice, bob) = (node(1), node(2));
    let (to_bob, to_alice) = tokio::join!(dial(&alice, &bob), answer(&bob));
    let (to_bob, to_alice) = (to_bob.unwrap(), to_alice.unwrap());

    assert_eq!(to_bob.peer(), bob.id());
    assert_eq!(to_alice.peer(), alice.id());
    assert_eq!(to_bob.remote_address(), bob.local_addr());
    assert_eq!(to_alice.remote_address(), alice.local_addr());
    assert!(to_bob.rtt() > Duration::ZERO);
    assert_eq!(to_alice.close_reason(), None);

    to_bob.close(7, "bye\n");
    assert_eq!(to_bob.closed().await, CloseReason::Ourselves);
    let told = CloseReason::ByPeer { code: 7, reason: "bye ".to_owned() };
    assert_eq!(to_alice.closed().await, told);
    assert_eq!(to_alice.close_reason(), Some(told));

    // The other way round, over the same two sockets.
    let (back, _) = tokio::join!(dial(&bob, &alice), answer(&alice));
    assert_eq!(back.unwrap().remote_address(), alice.local_addr());
}

#[tokio::test]
async fn a_closed_endpoint_lets_nobody_in() {
    let (alice, bob) = (node(1), node(2));
    let (there, _here) = tokio::join!(dial(&alice, &bob), answer(&bob));
    bob.close(3, "stopping");
    assert!(bob.accept().await.is_none());
    let told = CloseReason::ByPeer { code: 3, reason: "stopping".to_owned() };
    assert_eq!(there.unwrap().closed().await, told);
    bob.wait_idle(PATIENCE).await;
    let error = bob.dial(alice.id(), &[alice.local_addr().to_string()], PATIENCE).await.unwrap_err();
    assert!(matches!(&attempts(&error)[0], Failure::NotTried(_)), "{error}");
}

// --- impostors

#[tokio::test]
async fn an_impostor_is_found_out() {
    let (alice, mallory) = (node(1), node(3));
    let wanted = key(2).author();
    let address = mallory.local_addr().to_string();
    let (dialled, answered) = tokio::join!(dial_at(&alice, wanted, &address), answer(&mallory));
    let error = dialled.unwrap_err();
    assert!(matches!(error, DialError::Impostor { node, .. } if node == wanted), "{error}");
    match attempts(&error)[0] {
        Failure::Impostor(Impostor::OtherNode(found)) => assert_eq!(*found, mallory.id()),
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains(&address), "{error}");
    assert!(matches!(answered, Err(HandshakeError::GivenUp(_))), "{answered:?}");
}

#[tokio::test]
async fn the_node_is_found_among_impostors_and_silence() {
    let (alice, bob, mallory) = (node(1), node(2), node(3));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [
        silent.local_addr().unwrap().to_string(),
        mallory.local_addr().to_string(),
        "not an address".to_owned(),
        bob.local_addr().to_string(),
        bob.local_addr().to_string(),
    ];
    let impostor = async { drop(answer(&mallory).await) };
    let (dialled, answered, ()) =
        tokio::join!(alice.dial(bob.id(), &addresses, PATIENCE), answer(&bob), impostor);
    assert_eq!(dialled.unwrap().peer(), bob.id());
    assert_eq!(answered.unwrap().peer(), alice.id());
}

#[tokio::test]
async fn a_server_that_cannot_prove_a_key_is_an_impostor() {
    let (alice, wanted) = (node(1), key(2).author());
    let no_key = CertifiedKey::new(vec![CertificateDer::from(vec![0x30, 0])], Arc::new(Hand(key(3))));
    for (shown, expected) in [(shown_by(&key(2), key(3)), "cannot sign"), (no_key, "no ed25519 key")] {
        let mallory = server(shown, &[tls::ALPN]);
        let address = mallory.local_addr().unwrap().to_string();
        let (dialled, _) = tokio::join!(dial_at(&alice, wanted, &address), accept(&mallory));
        let error = dialled.unwrap_err();
        assert!(matches!(error, DialError::Impostor { .. }), "{error}");
        assert!(matches!(
            attempts(&error)[0],
            Failure::Impostor(Impostor::BadSignature | Impostor::NoKey(KeyError::NotEd25519))
        ));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

// --- hostile clients

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let bob = node(2);
    // Without the extension for raw keys, TLS ends at its first message.
    let bare = finish(client_builder().with_no_client_auth(), &[tls::ALPN]);
    let (theirs, ours) = knock(&bob, bare).await;
    assert!(theirs.is_err());
    assert!(matches!(ours, Err(HandshakeError::NoKey)), "{ours:?}");
    // With it, and with an empty list of keys, TLS ends at its last.
    let empty = client_builder().with_client_cert_resolver(Arc::new(NothingToShow));
    let (_, ours) = knock(&bob, finish(empty, &[tls::ALPN])).await;
    assert!(matches!(ours, Err(HandshakeError::NoKey)), "{ours:?}");
}

#[tokio::test]
async fn a_client_cannot_borrow_a_public_key() {
    let bob = node(2);
    let (_, ours) = knock(&bob, client(shown_by(&key(1), key(3)), &[tls::ALPN])).await;
    assert!(matches!(ours, Err(HandshakeError::BadSignature)), "{ours:?}");
}

#[tokio::test]
async fn a_client_must_show_one_sound_key() {
    let bob = node(2);
    let good = tls::spki(key(1).author()).to_vec();
    let small_order = [&good[..12], &[0; 32]].concat();
    let long = [&good[..], &[0]].concat();
    let one = |der: &Vec<u8>| vec![CertificateDer::from(der.clone())];
    let two = [one(&good), one(&good)].concat();
    for shown in [one(&small_order), one(&long), one(&good[12..].to_vec()), two] {
        let key = CertifiedKey::new(shown, Arc::new(Hand(key(1))));
        let (_, ours) = knock(&bob, client(key, &[tls::ALPN])).await;
        assert!(matches!(ours, Err(HandshakeError::BadKey(_))), "{ours:?}");
    }
    // The same client with the right key gets in, so the above failed for the reason given.
    let (theirs, ours) = knock(&bob, client(shown_by(&key(1), key(1)), &[tls::ALPN])).await;
    assert!(theirs.is_ok());
    assert_eq!(ours.unwrap().peer(), key(1).author());
}

// --- protocols

#[tokio::test]
async fn other_protocols_are_refused_by_both_sides() {
    let (alice, bob) = (node(1), node(2));
    for alpn in [&[&b"madake/2"[..]][..], &[b"h3", b"madake/10"], &[]] {
        let (_, ours) = knock(&bob, client(shown_by(&key(1), key(1)), alpn)).await;
        assert!(matches!(ours, Err(HandshakeError::OtherProtocol)), "{alpn:?}: {ours:?}");
    }
    for alpn in [&[&b"madake/2"[..]][..], &[]] {
        let other = server(shown_by(&key(2), key(2)), alpn);
        let address = other.local_addr().unwrap().to_string();
        let (dialled, _) = tokio::join!(dial_at(&alice, key(2).author(), &address), accept(&other));
        let error = dialled.unwrap_err();
        assert!(matches!(error, DialError::OtherProtocol { .. }), "{alpn:?}: {error:?}");
    }
}

// --- nothing is resumed

#[tokio::test]
async fn no_session_tickets_arrive() {
    let bob = node(2);
    let store = Arc::new(ClientSessionMemoryCache::new(8));
    let config = eager_client(store.clone());
    let name = ServerName::try_from(tls::server_name(bob.id())).unwrap();
    for _ in 0..2 {
        let (theirs, ours) = knock(&bob, config.clone()).await;
        pass_some_bytes(ours.unwrap().quinn(), &theirs.unwrap()).await;
        assert!(store.take_tls13_ticket(&name).is_none());
    }
}

#[tokio::test]
async fn a_dialler_does_not_resume_with_a_server_that_would() {
    // A resumed handshake shows no keys, so the keys that the server has seen count the full ones.
    let full_handshakes_of_two = async |config: quinn::ClientConfig| {
        let seen = Arc::new(Gullible::default());
        let bob = server_with(shown_by(&key(2), key(2)), &[tls::ALPN], seen.clone());
        let socket = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = tls::server_name(key(2).author());
        let mut early = 0;
        for _ in 0..2 {
            let connecting = socket.connect_with(config.clone(), bob.local_addr().unwrap(), &name).unwrap();
            let here = async {
                match connecting.into_0rtt() {
                    Ok((connection, _)) => {
                        early += 1;
                        connection
                    }
                    Err(connecting) => connecting.await.unwrap(),
                }
            };
            let (here, there) = tokio::join!(here, accept(&bob));
            pass_some_bytes(&there.unwrap(), &here).await;
        }
        (seen.0.load(Ordering::SeqCst), early)
    };

    let eager = eager_client(Arc::new(ClientSessionMemoryCache::new(8)));
    assert_eq!(full_handshakes_of_two(eager).await, (1, 1), "the server would");

    let ours = tls::client_config(&key(1), key(2).author());
    let ours = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(ours).unwrap()));
    assert_eq!(full_handshakes_of_two(ours).await, (2, 0));
}

// --- silence and refusal

#[tokio::test]
async fn silence_is_reported_in_time() {
    let alice = node(1);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [silent.local_addr().unwrap().to_string(), "127.0.0.1:1".to_owned()];
    let at_most = Duration::from_millis(700);
    let start = Instant::now();
    let error = alice.dial(key(2).author(), &addresses, at_most).await.unwrap_err();
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    match error {
        DialError::NobodyAnswered { node, attempts } => {
            assert_eq!(node, key(2).author());
            let tried: Vec<_> = attempts.iter().map(|attempt| attempt.address.clone()).collect();
            assert_eq!(tried, addresses);
            assert!(attempts.iter().all(|attempt| matches!(attempt.failure, Failure::NoAnswer)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_told() {
    let alice = node(1);
    let addresses = ["no port", "[::1]:9", "127.0.0.1:0"];
    let error = alice.dial(key(2).author(), &addresses, PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::NobodyAnswered { .. }), "{error:?}");
    match attempts(&error)[..] {
        [Failure::Lookup(_), Failure::OtherFamily { local }, Failure::NotTried(_)] => {
            assert_eq!(*local, alice.local_addr());
        }
        ref other => panic!("{other:?}"),
    }
    let error = alice.dial(key(2).author(), &[""; 0], PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::NoAddresses { .. }), "{error:?}");
    let error = alice.dial(alice.id(), &["127.0.0.1:1"], PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::Ourselves), "{error:?}");
}

#[tokio::test]
async fn a_refusal_is_told() {
    let (alice, bob) = (node(1), node(2));
    let (dialled, ()) = tokio::join!(dial(&alice, &bob), async {
        let incoming = bob.accept().await.unwrap();
        assert_eq!(incoming.remote_address(), alice.local_addr());
        incoming.refuse();
    });
    let error = dialled.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn unfinished_handshakes_are_bounded() {
    use madake_node::net::MAX_HANDSHAKES;
    let (alice, bob) = (node(1), node(2));
    let (mut dialling, mut unfinished) = (tokio::task::JoinSet::new(), Vec::new());
    let dial_more = || {
        let (alice, to, address) = (alice.clone(), bob.id(), bob.local_addr().to_string());
        async move { dial_at(&alice, to, &address).await }
    };
    // One after the other, so that the counts are exact. Past VALIDATE_FROM each has to show
    // its address first, which the dialler doesn't notice.
    for _ in 0..MAX_HANDSHAKES {
        dialling.spawn(dial_more());
        unfinished.push(bob.accept().await.unwrap());
    }
    let refused = tokio::select! {
        ended = dial_more() => ended.unwrap_err(),
        _ = bob.accept() => panic!("one too many was let in"),
    };
    assert!(matches!(refused, DialError::Refused { .. }), "{refused:?}");
    // Room is made by finishing one, and by dropping one.
    let done = unfinished.pop().unwrap().handshake().await.unwrap();
    assert_eq!(done.peer(), alice.id());
    drop(unfinished.pop());
    for _ in 0..2 {
        dialling.spawn(dial_more());
        unfinished.push(bob.accept().await.unwrap());
    }
}

// --- binding

#[tokio::test]
async fn addresses_that_cannot_be_bound_are_named() {
    let used = node(1);
    let error = Endpoint::bind(key(2), used.local_addr()).unwrap_err();
    assert!(matches!(error, BindError::InUse { address } if address == used.local_addr()), "{error:?}");
    assert!(error.to_string().contains(&used.local_addr().to_string()), "{error}");

    let foreign: SocketAddr = "198.51.100.7:0".parse().unwrap(); // of TEST-NET-2, so nobody's
    let error = Endpoint::bind(key(1), foreign).unwrap_err();
    assert!(matches!(error, BindError::NotAvailable { address } if address == foreign), "{error:?}");
}

#[tokio::test]
async fn a_command_dials_without_listening() {
    let alice = Endpoint::client_only(key(1)).unwrap();
    assert!(alice.accept().await.is_none());
    let bob = node(2);
    let (dialled, answered) = tokio::join!(dial(&alice, &bob), answer(&bob));
    let dialled = dialled.unwrap();
    // Shown as IPv4, whichever kind of socket it is.
    assert_eq!(dialled.remote_address(), bob.local_addr());
    assert_eq!(answered.unwrap().peer(), alice.id());

    let Ok(carol) = Endpoint::bind(key(3), "[::1]:0".parse().unwrap()) else {
        eprintln!("no IPv6 here: the rest of this test is left out");
        return;
    };
    let (dialled, answered) = tokio::join!(dial(&alice, &carol), answer(&carol));
    assert_eq!(dialled.unwrap().remote_address(), carol.local_addr());
    assert_eq!(answered.unwrap().peer(), alice.id());
    // A socket on one IPv6 address can't reach IPv4, and says so instead of waiting.
    let error = dial(&carol, &bob).await.unwrap_err();
    assert!(matches!(attempts(&error)[0], Failure::OtherFamily { .. }), "{error}");
}

#[tokio::test]
async fn a_dual_stack_node_hears_and_dials_both() {
    let Ok(dual) = Endpoint::bind(key(1), "[::]:0".parse().unwrap()) else {
        eprintln!("no IPv6 here: this test is left out");
        return;
    };
    let bob = node(2);
    let port = dual.local_addr().port();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let caller = Endpoint::client_only(key(2)).unwrap();
        let (dialled, answered) = tokio::join!(dial_at(&caller, dual.id(), &address), answer(&dual));
        assert_eq!(dialled.unwrap().remote_address().to_string(), address);
        let seen = answered.unwrap().remote_address();
        assert_eq!(seen.is_ipv4(), address.starts_with("127"), "{seen}");
    }
    let (dialled, answered) = tokio::join!(dial(&dual, &bob), answer(&bob));
    assert_eq!(dialled.unwrap().remote_address(), bob.local_addr());
    assert!(answered.is_ok());
    // The port is taken for IPv4 as well.
    let again = Endpoint::bind(key(3), SocketAddr::from(([127, 0, 0, 1], port)));
    assert!(matches!(again, Err(BindError::InUse { .. })), "{again:?}");
}

// --- helpers

fn key(seed: u8) -> Arc<AuthorKey> {
    Arc::new(AuthorKey::from_seed([seed; 32]))
}

fn node(seed: u8) -> Endpoint {
    Endpoint::bind(key(seed), "127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn dial(from: &Endpoint, to: &Endpoint) -> Result<Connection, DialError> {
    dial_at(from, to.id(), &to.local_addr().to_string()).await
}

async fn dial_at(from: &Endpoint, id: NodeId, address: &str) -> Result<Connection, DialError> {
    from.dial(id, &[address], PATIENCE).await
}

/// Answers with a server that is not ours.
async fn accept(server: &quinn::Endpoint) -> Option<quinn::Connection> {
    server.accept().await?.await.ok()
}

async fn answer(node: &Endpoint) -> Result<Connection, HandshakeError> {
    node.accept().await.expect("it listens").handshake().await
}

fn attempts(error: &DialError) -> Vec<&Failure> {
    match error {
        DialError::NobodyAnswered { attempts, .. }
        | DialError::Impostor { attempts, .. }
        | DialError::OtherProtocol { attempts, .. }
        | DialError::Refused { attempts, .. } => attempts.iter().map(|a| &a.failure).collect(),
        other => panic!("{other:?}"),
    }
}

/// Connects to `node` with a client that is not ours; what both sides see. A client can't see at
/// once whether its key was taken, so it waits for the server's verdict.
async fn knock(
    node: &Endpoint,
    config: quinn::ClientConfig,
) -> (Result<quinn::Connection, quinn::ConnectionError>, Result<Connection, HandshakeError>) {
    let socket = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = tls::server_name(node.id());
    let connecting = socket.connect_with(config, node.local_addr(), &name).unwrap();
    let (theirs, ours) = tokio::join!(connecting, answer(node));
    if let (Ok(theirs), Err(_)) = (&theirs, &ours) {
        let ended = theirs.closed().await;
        assert!(matches!(ended, quinn::ConnectionError::ConnectionClosed(_)), "{ended:?}");
    }
    (theirs, ours)
}

/// `shown`'s public key with `signer`'s secret.
fn shown_by(shown: &AuthorKey, signer: Arc<AuthorKey>) -> CertifiedKey {
    let spki = CertificateDer::from(tls::spki(shown.author()).to_vec());
    CertifiedKey::new(vec![spki], Arc::new(Hand(signer)))
}

fn client_builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible::default()))
}

fn finish(mut config: rustls::ClientConfig, alpn: &[&[u8]]) -> quinn::ClientConfig {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

fn client(key: CertifiedKey, alpn: &[&[u8]]) -> quinn::ClientConfig {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(key));
    finish(client_builder().with_client_cert_resolver(Arc::new(resolver)), alpn)
}

/// A client that resumes and sends early wherever it can.
fn eager_client(store: Arc<ClientSessionMemoryCache>) -> quinn::ClientConfig {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(shown_by(&key(1), key(1))));
    let mut config = client_builder().with_client_cert_resolver(Arc::new(resolver));
    config.resumption = Resumption::store(store);
    config.enable_early_data = true;
    finish(config, &[tls::ALPN])
}

/// When they have arrived, so have the server's tickets, which go out with the end of the handshake.
async fn pass_some_bytes(server: &quinn::Connection, client: &quinn::Connection) {
    let mut stream = server.open_uni().await.unwrap();
    stream.write_all(b"after").await.unwrap();
    stream.finish().unwrap();
    assert_eq!(client.accept_uni().await.unwrap().read_to_end(5).await.unwrap(), b"after");
}

/// A server that shows `key`, believes anybody, resumes and takes 0-RTT.
fn server(key: CertifiedKey, alpn: &[&[u8]]) -> quinn::Endpoint {
    server_with(key, alpn, Arc::default())
}

fn server_with(key: CertifiedKey, alpn: &[&[u8]], verifier: Arc<Gullible>) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(key))));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_early_data_size = u32::MAX;
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Signs with a key that need not be the one that is shown.
#[derive(Clone)]
struct Hand(Arc<AuthorKey>);

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

impl SigningKey for Hand {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Hand {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign_tls13(message).unwrap().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A client's resolver that offers raw keys and then has none.
#[derive(Debug)]
struct NothingToShow;

impl rustls::client::ResolvesClientCert for NothingToShow {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A verifier that believes anybody, and counts the clients' keys that it is shown.
#[derive(Debug, Default)]
struct Gullible(AtomicUsize);

/// What both kinds of verifier have in common.
macro_rules! believe_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    believe_signatures!();
}

impl ClientCertVerifier for Gullible {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(ClientCertVerified::assertion())
    }

    believe_signatures!();
}
