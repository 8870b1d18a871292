//! Forward authentication with the real binary: the conformance kit at its door, and the configurations of
//! `docs/proxies` in the real nginx, Caddy and HAProxy before an echoing service; and a thousand slow clients.
#![cfg(feature = "server")]

#[path = "../support/processes.rs"]
mod processes;

mod behind;
mod echo;
mod raw;
mod slow;
mod stagedoor;
