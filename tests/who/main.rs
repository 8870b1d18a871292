//! Who may act for whom, through real HTTP on both databases: approvals, people known by their own tokens and
//! by a directory, OAuth's errors.

#[path = "../support/mod.rs"]
mod support;

mod alike;
mod approval;
mod company;
mod oauth;
mod online;
mod people;
#[path = "../outflow/receiver.rs"]
#[expect(dead_code, reason = "shared with the tests of what leaves by itself, which use all of it")]
mod receiver;
mod traps;
