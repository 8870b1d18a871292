//! `stagedoor health`: for the container's health check, where no other program is at hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

use super::{CliError, Outcome, api};
use crate::server::config::Config;

pub async fn run(config: &Config) -> Outcome {
    let url = format!("{}://{}/healthz", config.scheme(), reachable(config.listen)?);
    let unreachable = |source| api::ApiError::Unreachable { url: url.clone(), source };
    let client = match config.tls {
        None => api::client(true),
        // The certificate is for the name others use, not for this address. Nothing secret is sent.
        Some(_) => reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .tls_danger_accept_invalid_certs(true)
            .tls_certs_only([])
            .build(),
    };
    let client = client.map_err(unreachable)?;
    let status = client.get(&url).send().await.map_err(unreachable)?.status();
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::Refused(format!("{url} answered {status}; look at the server's log")))
}

/// The listener as seen from this machine.
pub fn reachable(listen: SocketAddr) -> Result<SocketAddr, CliError> {
    if listen.port() == 0 {
        return Err(CliError::Refused(
            "`listen` has port 0, so nobody can say where to ask; set a port, or name the server with --url where a command has that".to_owned(),
        ));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()))
}
