//! quinn's socket over a simulated one, with loss, and a trace of all that goes through it.
#![allow(unreachable_pub)]

use std::fmt::Write as _;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;
use turmoil::net::UdpSocket;

/// Datagrams that wait to be read; of more they are lost, as on any system.
const WAITING: usize = 4_096;
/// Longer ones are not sent: the path's length is not searched for on such a socket.
const LONGEST: usize = 1_500;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happens to datagrams: which are lost, and a hash of all, with when, from where, where to, how long.
pub struct Line {
    /// One in so many is lost; 0 for none.
    pub loss: u64,
    random: u64,
    hasher: blake3::Hasher,
    line: String,
    pub sent: u64,
    pub lost: u64,
}

impl Line {
    pub fn new(seed: u64, loss: u64) -> Arc<Mutex<Self>> {
        let hasher = blake3::Hasher::new();
        Arc::new(Mutex::new(Self { loss, random: seed, hasher, line: String::new(), sent: 0, lost: 0 }))
    }

    /// A hash of all that was sent.
    pub fn trace(&self) -> String {
        self.hasher.finalize().to_string()
    }

    /// Notes a datagram; whether it goes on.
    fn carries(&mut self, from: SocketAddr, to: SocketAddr, length: usize) -> bool {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        // An LCG, of which the upper bits are good.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lost = self.loss > 0 && (self.random >> 33).is_multiple_of(self.loss);
        self.line.clear();
        let _ = writeln!(self.line, "{at:?} {from} {to} {length} {lost}");
        self.hasher.update(self.line.as_bytes());
        (self.sent, self.lost) = (self.sent + 1, self.lost + u64::from(lost));
        !lost
    }
}

/// The socket.
pub struct Socket {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    line: Arc<Mutex<Line>>,
    came: Mutex<mpsc::Receiver<(Vec<u8>, SocketAddr)>>,
}

impl Socket {
    /// Binds a host's socket. Only within the simulation.
    pub async fn bind(address: SocketAddr, line: Arc<Mutex<Line>>) -> io::Result<Arc<Self>> {
        let socket = Arc::new(UdpSocket::bind(address).await?);
        let (sender, came) = mpsc::channel(WAITING);
        let (reads, local) = (socket.clone(), socket.local_addr()?);
        tokio::spawn(async move {
            let mut buffer = [0; LONGEST];
            // It ends with the host.
            while let Ok((length, from)) = reads.recv_from(&mut buffer).await {
                let _ = sender.try_send((buffer[..length].to_vec(), from));
            }
        });
        Ok(Arc::new(Self { socket, local, line, came: Mutex::new(came) }))
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if lock(&self.line).carries(self.local, transmit.destination, transmit.contents.len()) {
            // A host that is not there is one that does not answer.
            let _ = self.socket.try_send_to(transmit.contents, transmit.destination);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(came) = lock(&self.came).poll_recv(context) else { return Poll::Pending };
        let Some((bytes, addr)) = came else { return Poll::Pending }; // the host ends
        let len = bytes.len();
        buffers[0][..len].copy_from_slice(&bytes);
        meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
