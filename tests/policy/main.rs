//! The policy from outside: shipped policies, every rule and every hard limit, loading, reloading, cookbook.

mod support;

mod shipped;
