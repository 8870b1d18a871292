//! Programs beside a test: started by it, ended with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// A program that ends with its test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a program; what it prints is not kept.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }
}

/// A port of the loopback that nobody had a moment ago: for programs that cannot choose one themselves.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}
