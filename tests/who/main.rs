//! Who may act for whom, through real HTTP on both databases: approvals, people known by their own tokens and
//! by a directory, OAuth's errors.

#[path = "../support/mod.rs"]
mod support;

mod approval;
mod company;
mod oauth;
mod people;
mod traps;
