//! Rebuilds when a migration changes: they are compiled in, and Cargo does not see them.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
