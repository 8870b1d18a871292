//! `stagedoor audit witness`: run by a team that does not run the log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::{CliError, Outcome};
use super::trusted;
use crate::server::app::{self, WitnessSetup};
use crate::token::{SystemClock, SystemEntropy};

#[derive(Debug, Args)]
pub struct Witness {
    /// Its name in cosignatures: a host and a path that are yours, such as witness.example/w1
    #[arg(long)]
    name: String,
    /// The keys of the logs it knows (name+id+key), or files with them; each epoch of a log is one
    #[arg(long, required = true, num_args = 1.., value_name = "VKEY")]
    log: Vec<String>,
    /// A directory of its own: its key, and the size and root it saw of each log
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where it listens; put TLS in front where the log is elsewhere
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
}

pub async fn run(args: &Witness, json: bool) -> Outcome {
    let logs = args.log.iter().map(|given| trusted(given)).collect::<Result<Vec<_>, CliError>>()?;
    let setup =
        WitnessSetup { listen: args.listen, name: args.name.clone(), logs, state: args.state.clone() };
    app::witness(setup, Arc::new(SystemClock::default()), &SystemEntropy, |running| {
        let (vkey, url) = (running.verifier.vkey(), format!("http://{}", running.address));
        if json {
            println!("{}", json!({ "object": "witness", "vkey": vkey, "url": url }));
        } else {
            println!("vkey {vkey}\nlistening on {url}");
        }
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
