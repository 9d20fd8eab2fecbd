//! Checks the compile flags of SQLite and of the allocator, compiles the few lines of C that run before
//! the Rust runtime, and rebuilds when a migration changes.
//!
//! The flags are in `.cargo/config.toml`. Cargo does not read that file when it builds from elsewhere, as
//! `cargo install --git` does. Without the flags erasures would be refused at run time, so the build is.

use std::env;

/// The table through which an erasure overwrites the free room on a page (`src/store/sqlite/scrub.rs`).
const NEEDED: &str = "-DSQLITE_ENABLE_DBPAGE_VTAB";

/// What makes the allocator give memory back at once (`.cargo/config.toml`).
const ALLOCATOR: &str = "-DMI_DEFAULT_DISALLOW_ARENA_ALLOC=1";

const CLOSED_OUTPUT: &str = "native/closed_output.c";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed={CLOSED_OUTPUT}");
    println!("cargo:rerun-if-env-changed=LIBSQLITE3_FLAGS");
    println!("cargo:rerun-if-env-changed=CFLAGS");
    if !has("LIBSQLITE3_FLAGS", NEEDED) {
        println!(
            "cargo:error=SQLite would be built without {NEEDED}, and erasures need it. Build inside a clone: \
             `git clone`, then `cargo install --path . --profile dist`. If you set LIBSQLITE3_FLAGS yourself, \
             add the flags of .cargo/config.toml to it."
        );
    }
    if !has("CFLAGS", ALLOCATOR) {
        println!(
            "cargo:warning=CFLAGS lacks {ALLOCATOR}: the service will keep memory of large bodies longer \
             (see .cargo/config.toml)."
        );
    }
    // Nothing names what is in there, so the linker has to be told to keep it.
    cc::Build::new()
        .file(CLOSED_OUTPUT)
        .link_lib_modifier("+whole-archive")
        .compile("closed_output");
}

/// Whether the environment variable `name` holds `flag` as one of its words.
fn has(name: &str, flag: &str) -> bool {
    env::var(name).is_ok_and(|flags| flags.split_whitespace().any(|word| word == flag))
}
