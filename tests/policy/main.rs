//! The policy from outside: shipped policies, every rule and every hard limit, loading, reloading, cookbook.

mod support;

mod boundaries;
mod cli;
mod cookbook;
mod hard_limits;
mod limits;
mod loading;
mod properties;
mod shipped;
mod store;
mod traps;
