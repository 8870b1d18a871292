//! The names and sentences of what holds under every policy.
//!
//! The names hold a `/`, which a rule's own `@id` cannot: no policy can pretend to be one of these.

/// No permit applies. Said as well when the target is unknown and the actor may not know that:
/// a different answer would tell him who exists.
pub const NO_PERMIT: &str = "stagedoor/no_permit";
/// Nobody acts for himself.
pub const NEVER_SELF: &str = "stagedoor/never_self";
/// The actor acts on behalf of somebody already, and this is not a delegation.
pub const NESTED_ACTOR: &str = "stagedoor/nested_actor";
/// The chain of actors is longer than `MAX_ACT_DEPTH`.
pub const CHAIN_TOO_DEEP: &str = "stagedoor/chain_too_deep";
/// The chain of actors names somebody twice: nobody delegates to himself.
pub const CHAIN_CYCLE: &str = "stagedoor/chain_cycle";
/// A verified actor without an issuer cannot be told from another of the same name.
pub const ACTOR_WITHOUT_ISSUER: &str = "stagedoor/actor_without_issuer";
/// The client's `may_assert` does not cover this actor.
pub const ASSERTED_CLIENT: &str = "stagedoor/asserted_client";
/// No matching permit lets this client assert an actor.
pub const ASSERTED_RULE: &str = "stagedoor/asserted_rule";
/// Approval and the console are for people who proved themselves.
pub const ASSERTED_ACTION: &str = "stagedoor/asserted_action";
/// No reason was given and no permit supplies one.
pub const REASON_MISSING: &str = "stagedoor/reason_missing";
/// None of the audiences asked for is granted, too many are asked for, or none was named
/// (OAuth: `invalid_target`).
pub const AUDIENCE: &str = "stagedoor/audience";
/// None of the scopes asked for is granted (OAuth: `invalid_scope`).
pub const SCOPE: &str = "stagedoor/scope";
/// A lifetime of nothing.
pub const LIFETIME: &str = "stagedoor/lifetime";
/// Profile `clerk` with less than full access: its verifiers see no scope.
pub const CLERK_FULL_ACCESS: &str = "stagedoor/clerk_full_access";
/// The question itself could not be put to the policy.
pub const QUESTION: &str = "stagedoor/question";
/// Nobody approves what he asked for himself, under whatever login.
pub const APPROVER_IS_ACTOR: &str = "stagedoor/approver_is_actor";
/// Nobody approves acting for himself.
pub const APPROVER_IS_TARGET: &str = "stagedoor/approver_is_target";
/// Asker and approver cannot be told apart: the directory does not know one of them.
pub const APPROVER_UNKNOWN: &str = "stagedoor/approver_unknown";
