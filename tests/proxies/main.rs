//! Forward authentication with the real binary: the conformance kit at its door, and the configurations of
//! `docs/proxies` in the real nginx, Caddy, HAProxy, Envoy and Traefik before an echoing service; and a thousand slow clients.
#![cfg(feature = "server")]

#[path = "../support/processes.rs"]
mod processes;

mod behind;
mod echo;
mod raw;
#[path = "../support/recipes.rs"]
#[expect(dead_code, reason = "only Python's packages are needed here")]
mod recipes;
mod slow;
mod stagedoor;
