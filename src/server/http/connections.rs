//! Connections that take their time: one between two requests for longer than an honest client needs is ended.
//!
//! The HTTP stack limits how long the *first* head on a connection may take. After that it waits for the next one
//! without end, so that whoever has been answered once could hold a place, byte by byte, for ever. An answer that is long
//! is given out piece by piece, and each piece has as long.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::token::Clock;

/// How long nothing may come between two requests; then the next head has its own time.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a request's head may take to arrive whole; a body has as long again.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How much of an answer is given to the HTTP stack at a time; whoever takes longer for one than he may be idle is ended.
pub const PIECE: usize = 64 * 1024;
/// Open files that connections leave alone: the database, outbound calls, the listener.
const FILES_KEPT: u64 = 256;
/// What stands in [`Connection::idle_since_ms`] while a request is answered.
const BUSY: u64 = u64::MAX;

/// The open connections of a server.
pub struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    clock: Arc<dyn Clock>,
}

/// One connection: a second handle to its socket, and since when nothing has been asked on it.
pub struct Connection {
    socket: TcpStream,
    idle_since_ms: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Connections {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), clock })
    }

    /// To be called with each new connection; requests then find it in their connection's data.
    pub fn opened(&self, io: &dyn Any, data: &mut Extensions) {
        // without a second handle the connection is served all the same
        let tls = io.downcast_ref::<TlsStream<tokio::net::TcpStream>>().map(|tls| tls.get_ref().0);
        let Some(stream) = tls.or_else(|| io.downcast_ref()) else { return };
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
        let connection = Arc::new(Connection {
            socket: socket.into(),
            idle_since_ms: AtomicU64::new(milliseconds(&*self.clock)),
            clock: Arc::clone(&self.clock),
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&connection));
        data.insert(connection);
    }

    /// Ends those that have been between two requests for too long, and forgets those that are gone.
    pub fn end_slow_ones(&self) {
        let limit = u64::try_from((KEEP_ALIVE + HEAD_WITHIN).as_millis()).unwrap_or(BUSY);
        let now = milliseconds(&*self.clock);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let since = connection.idle_since_ms.load(Ordering::Relaxed);
            let slow = since != BUSY && now.saturating_sub(since) > limit;
            if slow {
                // the other side may have been faster
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
            !slow
        });
    }
}

impl Connection {
    /// Until what is returned is dropped, a request is being answered.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.idle_since_ms.store(BUSY, Ordering::Relaxed);
        Busy(Some(Arc::clone(self)))
    }
}

/// A request is being answered.
pub struct Busy(Option<Arc<Connection>>);

impl Busy {
    /// The answer goes on for as long as the connection does: a stream, whose source looks after slow readers.
    pub fn for_good(mut self) {
        self.0 = None;
    }

    /// The answer is long: the connection counts as idle since its reader last took a piece of it.
    pub fn while_it_is_read(self, body: BoxBody) -> BoxBody {
        match (&self.0, body.try_into_bytes()) {
            (Some(connection), Ok(rest)) => BoxBody::new(Pieces { rest, connection: Arc::clone(connection) }),
            (None, Ok(rest)) => BoxBody::new(rest),
            (_, Err(body)) => body,
        }
    }
}

/// What is left of an answer.
struct Pieces {
    rest: Bytes,
    connection: Arc<Connection>,
}

impl MessageBody for Pieces {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.connection.idle_since_ms.store(milliseconds(&*self.connection.clock), Ordering::Relaxed);
        let piece = self.rest.len().min(PIECE);
        Poll::Ready((piece > 0).then(|| Ok(self.rest.split_to(piece))))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.idle_since_ms.store(milliseconds(&*connection.clock), Ordering::Relaxed);
        }
    }
}

/// How many connections one worker may hold, so that all of them never take the files that the log needs.
pub fn most(workers: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
    let all = usize::try_from(files.saturating_sub(FILES_KEPT).max(64)).unwrap_or(usize::MAX);
    // each has two handles: ours and the server's
    (all / 2 / workers).clamp(16, 25_000)
}

/// Every connection is an open file, and many systems allow a process few of them until it asks for more.
pub fn allow_many() {
    let files = getrlimit(Resource::Nofile);
    // refused, it serves fewer at a time
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
}

fn milliseconds(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::FixedClock;
    use std::net::TcpListener;
    use std::task::Waker;

    #[test]
    fn a_long_answer_is_given_out_for_as_long_as_somebody_takes_it() {
        let clock = Arc::new(FixedClock::at_seconds(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection =
            Arc::new(Connection { socket, idle_since_ms: AtomicU64::new(0), clock: clock.clone() });
        let all = Connections::new(clock.clone());
        all.open.lock().unwrap().push(Arc::downgrade(&connection));
        let is_open = || {
            all.end_slow_ones();
            all.open.lock().unwrap().len() == 1
        };

        let body = Bytes::from(vec![b'x'; 3 * PIECE + 1]);
        let mut body = connection.busy().while_it_is_read(BoxBody::new(body));
        assert!(matches!(body.size(), BodySize::Sized(size) if size == 3 * PIECE as u64 + 1));
        let mut context = Context::from_waker(Waker::noop());
        for expected in [PIECE, PIECE, PIECE, 1] {
            clock.advance(Duration::from_secs(14));
            assert!(is_open(), "it is within its time");
            let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut body).poll_next(&mut context) else { panic!() };
            assert_eq!(piece.len(), expected);
        }
        assert!(matches!(Pin::new(&mut body).poll_next(&mut context), Poll::Ready(None)));
        clock.advance(Duration::from_secs(16));
        assert!(!is_open(), "whoever takes nothing is ended");
    }
}
