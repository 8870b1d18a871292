//! The binary's allocator (`src/main.rs`), for benches that run the service in their own process.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
