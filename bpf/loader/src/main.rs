//! `clawsec-loader`: see `--help`.

fn main() {}
