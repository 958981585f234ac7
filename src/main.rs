//! The `highwater` binary; everything is in the library.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Threads hand memory to each other all the time, librdkafka's too, and glibc's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    highwater::cli::run()
}
