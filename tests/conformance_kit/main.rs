//! The conformance kit (`stagedoor conformance`): its table is large and sound, our own doors keep all of it,
//! and a careless service is caught.

mod in_process;
