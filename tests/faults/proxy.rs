//! A TCP proxy before PostgreSQL that cuts, lies, or leads to another server, as it is told.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to a connection that commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// It is cut, and the server never sees the `COMMIT`: failed and not persisted.
    CutBefore,
    /// Half of the message passes before the cut.
    CutDuring,
    /// The server commits, and nobody hears it: failed but persisted.
    CutAfter,
    /// It is cut where a large message goes up: entries.
    CutInsert,
    /// The proxy says that it is committed, and passes the `COMMIT` on later: what a service that answers before
    /// the commit looks like from outside.
    Lie,
}

const MODES: [Mode; 6] =
    [Mode::Pass, Mode::CutBefore, Mode::CutDuring, Mode::CutAfter, Mode::CutInsert, Mode::Lie];

/// How long a lie is ahead of the truth.
const AHEAD: Duration = Duration::from_millis(150);

#[derive(Clone)]
struct Shared {
    target: Arc<Mutex<String>>,
    mode: Arc<AtomicU8>,
    cuts: Arc<AtomicU64>,
    /// Changes when every connection has to go.
    cut_all: watch::Receiver<u64>,
}

pub struct Proxy {
    pub port: u16,
    shared: Shared,
    cut_all: watch::Sender<u64>,
}

impl Proxy {
    /// Leads to `target`, `host:port`.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (cut_all, watched) = watch::channel(0);
        let shared = Shared {
            target: Arc::new(Mutex::new(target.to_owned())),
            mode: Arc::new(AtomicU8::new(Mode::Pass as u8)),
            cuts: Arc::default(),
            cut_all: watched,
        };
        let each = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = each.clone();
                tokio::spawn(async move {
                    let target = shared.target.lock().expect("a lock").clone();
                    let mut cut_all = shared.cut_all.clone();
                    cut_all.mark_unchanged();
                    let Ok(server) = TcpStream::connect(&target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    tokio::select! {
                        () = relay(client, server, &shared) => {}
                        _ = cut_all.changed() => {}
                    }
                });
            }
        });
        Self { port, shared, cut_all }
    }

    /// From now on; a cut happens once, a lie each time.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// How often it has cut or lied.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Ends every connection, whatever is on its way.
    pub fn cut_all(&self) {
        self.cut_all.send_modify(|n| *n += 1);
    }

    /// Leads to another server; what is connected is cut. Where it led before.
    pub fn lead_to(&self, target: &str) -> String {
        let before = std::mem::replace(&mut *self.shared.target.lock().expect("a lock"), target.to_owned());
        self.cut_all();
        before
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                let sent = &up[..n];
                let commit = sent.windows(7).any(|w| w == b"COMMIT\0");
                // a bound execution that carries entries is the largest message there is
                let insert = n > 600;
                let mode = MODES[usize::from(shared.mode.load(Ordering::SeqCst))];
                let here = match mode {
                    Mode::Pass => false,
                    Mode::CutInsert => insert,
                    _ => commit,
                };
                if !here {
                    if server.write_all(sent).await.is_err() { return }
                    continue;
                }
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                if mode == Mode::Lie {
                    if lie(&mut client, &mut server, sent).await.is_none() { return }
                    continue;
                }
                shared.mode.store(Mode::Pass as u8, Ordering::SeqCst);
                match mode {
                    Mode::CutDuring => { let _ = server.write_all(&sent[..n / 2]).await; }
                    Mode::CutAfter => {
                        let _ = server.write_all(sent).await;
                        // the server's answer proves that it committed; nobody else hears it
                        let _ = server.read(&mut down).await;
                    }
                    _ => {}
                }
                return;
            }
            read = server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                if client.write_all(&down[..n]).await.is_err() { return }
            }
        }
    }
}

/// `CommandComplete` and `ReadyForQuery`, as the server would say after a commit.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";

async fn lie(client: &mut TcpStream, server: &mut TcpStream, commit: &[u8]) -> Option<()> {
    client.write_all(COMMITTED).await.ok()?;
    tokio::time::sleep(AHEAD).await;
    server.write_all(commit).await.ok()?;
    let mut said = [0; COMMITTED.len()];
    server.read_exact(&mut said).await.ok()?;
    (said == COMMITTED).then_some(())
}
