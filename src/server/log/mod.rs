//! The issuance log: every attempt, granted or denied, is sealed here before anything is answered.

pub mod record;

pub use record::{Condition, Decision, Effect, Event, EventType, GrantRow, Personal, Record};
