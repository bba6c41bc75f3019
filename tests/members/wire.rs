//! Links between nodes of this machine that can be cut while both run.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// So long a thread waits for a datagram before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// A socket for each node, at which the others find it. What one node sends to another's is sent on to that node from
/// the socket of the first, so answers go the same way back.
pub struct Wire(Arc<Inner>);

struct Inner {
    ends: Vec<End>,
    is_over: AtomicBool,
}

struct End {
    socket: UdpSocket,
    address: SocketAddr,
    /// Where the node itself listens.
    node: OnceLock<SocketAddr>,
    is_cut: AtomicBool,
}

impl Wire {
    pub fn new(count: usize) -> Self {
        let end = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(LOOK)).unwrap();
            let (address, node) = (socket.local_addr().unwrap(), OnceLock::new());
            End { socket, address, node, is_cut: AtomicBool::new(false) }
        };
        let inner = Arc::new(Inner { ends: (0..count).map(end).collect(), is_over: AtomicBool::new(false) });
        for to in 0..count {
            let inner = inner.clone();
            std::thread::spawn(move || inner.carry(to));
        }
        Self(inner)
    }

    /// Where others find this node.
    pub fn address(&self, n: usize) -> SocketAddr {
        self.0.ends[n].address
    }

    pub fn leads_to(&self, n: usize, listen: &str) {
        self.0.ends[n].node.set(listen.parse().unwrap()).unwrap();
    }

    pub fn cut(&self, n: usize, is_cut: bool) {
        self.0.ends[n].is_cut.store(is_cut, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

impl Inner {
    fn carry(&self, to: usize) {
        let (end, mut datagram) = (&self.ends[to], vec![0; 65_536]);
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok((length, sender)) = end.socket.recv_from(&mut datagram) else { continue };
            let from = self.ends.iter().find(|end| end.node.get() == Some(&sender));
            let (Some(from), Some(node)) = (from, end.node.get()) else { continue };
            if from.is_cut.load(Ordering::SeqCst) || end.is_cut.load(Ordering::SeqCst) {
                continue;
            }
            // Lost, as on any link: who sent it sends it again.
            let _ = from.socket.send_to(&datagram[..length], node);
        }
    }
}
