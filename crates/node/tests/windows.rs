//! How much a node keeps of what nobody has read.

#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::sync::Arc;
use std::time::Duration;

use madake_log::AuthorKey;
use madake_node::net::{DIAL_TIMEOUT, Endpoint, STRANGERS_WINDOW};

fn node(seed: u8) -> Endpoint {
    let key = Arc::new(AuthorKey::from_seed([seed; 32]));
    Endpoint::bind(key, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn little_is_kept_of_what_a_stranger_sends() {
    let (alice, bob) = (node(1), node(2));
    let addresses = [bob.local_addr().to_string()];
    let answer = async { bob.accept().await.unwrap().handshake().await.unwrap() };
    let (to_bob, to_alice) = tokio::join!(alice.dial(bob.id(), &addresses, DIAL_TIMEOUT), answer);
    let (to_bob, mut streams, mut taken) = (to_bob.unwrap(), Vec::new(), 0);
    for _ in 0..8 {
        let mut stream = to_bob.quinn().open_uni().await.unwrap();
        // It waits for nothing if there is room.
        let soon = Duration::from_millis(50);
        let bytes = [7; 16_384];
        while let Ok(written) = tokio::time::timeout(soon, stream.write(&bytes)).await {
            taken += written.unwrap();
            assert!(taken <= STRANGERS_WINDOW as usize, "{taken} bytes and more");
        }
        streams.push(stream);
    }
    assert_eq!(taken, STRANGERS_WINDOW as usize);
    to_alice.let_in();
    for stream in &mut streams {
        let all = vec![7; 1 << 20];
        tokio::time::timeout(Duration::from_secs(20), stream.write_all(&all)).await.unwrap().unwrap();
    }
}
