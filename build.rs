//! Rebuilds when a migration changes: they are compiled in, and Cargo does not see them. Compiles the
//! few lines of C that run before the Rust runtime.

const CLOSED_OUTPUT: &str = "native/closed_output.c";

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed={CLOSED_OUTPUT}");
    // Nothing names what is in there, so the linker has to be told to keep it.
    cc::Build::new()
        .file(CLOSED_OUTPUT)
        .link_lib_modifier("+whole-archive")
        .compile("closed_output");
}
