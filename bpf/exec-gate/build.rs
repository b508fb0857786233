//! Compiles the BPF programs for this machine's architecture.
//!
//! `vmlinux.h` is generated from the running kernel's BTF: it is only the source of type names, CO-RE relocations
//! make the object fit other kernels. It is never kept in the tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use libbpf_cargo::SkeletonBuilder;

const BTF: &str = "/sys/kernel/btf/vmlinux";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    generate_vmlinux(&out.join("vmlinux.h"))?;
    // The verification twice: for typed and for raw tracepoints.
    for (source, name, more) in [
        ("exec_verify", "exec_verify", None),
        ("exec_verify", "exec_verify_raw", Some("-DCLAWSEC_RAW_TP")),
        ("exec_lsm", "exec_lsm", None),
        ("exec_caller", "exec_caller", None),
    ] {
        let arguments = [
            &format!("-I{}", out.display()),
            "-Ibpf",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Wno-sign-compare",
            "-Wno-missing-declarations",
        ];
        SkeletonBuilder::new()
            .source(format!("bpf/{source}.bpf.c"))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args(arguments.into_iter().chain(more))
            .build()?;
    }
    println!("cargo::rerun-if-changed=bpf");
    Ok(())
}

fn generate_vmlinux(to: &Path) -> io::Result<()> {
    let output = Command::new("bpftool")
        .args(["btf", "dump", "file", BTF, "format", "c"])
        .output()
        .map_err(|error| io::Error::other(format!("bpftool cannot be run ({error}); install it")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("bpftool cannot read {BTF}: {text}")));
    }
    fs::write(to, output.stdout)
}
