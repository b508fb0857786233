//! Generates the Rust types of the contract from `proto/` at the top of the repository.

fn main() -> std::io::Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    println!("cargo::rerun-if-changed={root}");
    tonic_prost_build::configure().build_client(true).build_server(true).compile_protos(
        &[format!("{root}/clawsec/v1/loader.proto"), format!("{root}/clawsec/v1/control.proto")],
        &[root.to_string()],
    )
}
