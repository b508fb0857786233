//! Tells the tests where a statically built init shim is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let host = std::env::var("HOST").unwrap_or_default();
    println!("cargo::rustc-env=HOST_TRIPLE={host}");
}
