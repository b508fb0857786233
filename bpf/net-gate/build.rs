//! Compiles the BPF program against the types of the running kernel.
//!
//! `vmlinux.h` is made by `bpftool` from the kernel's own BTF; it lies in the build folder and is never committed.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "bpf/net_gate.bpf.c";
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let dump = Command::new("bpftool")
        .args(["btf", "dump", "file", KERNEL_TYPES, "format", "c"])
        .output()
        .map_err(|error| format!("bpftool cannot be run ({error}); install it to build this crate"))?;
    if !dump.status.success() {
        let why = String::from_utf8_lossy(&dump.stderr);
        return Err(format!("bpftool could not read {KERNEL_TYPES}: {why}").into());
    }
    fs::write(out.join("vmlinux.h"), dump.stdout)?;

    libbpf_cargo::SkeletonBuilder::new()
        .source(SOURCE)
        .obj(out.join("net_gate.bpf.o"))
        .clang_args([format!("-I{}", out.display()), "-Wall".into(), "-Werror".into()])
        .build()?;
    Ok(())
}
