//! What a downstream service puts before its routes to read a token.
