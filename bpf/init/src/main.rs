//! The static init shim of a sandbox; see the library's documentation for what it is.
//!
//! Run in any other way than as a sandbox's pid 1 or through a subject's entry, it says so and fails. All that it ever
//! does before running something else is to give rights away, so there is nothing in it to be gained.

mod command;
mod entry;
mod pid1;
mod sys;

use std::io::{self, Write};

use clawsec_init::wire;

fn main() {
    // A panic's own exit code (101) would read as the main command's.
    std::panic::set_hook(Box::new(|panic| {
        if rustix::process::getpid().is_init() {
            // As every end of pid 1: nothing else of the sandbox may see the descriptors close that the exit closes.
            sys::kill(-1, libc::SIGKILL);
        }
        let _ = writeln!(io::stderr(), "clawsec-init: a fault of the shim itself: {panic}");
        std::process::exit(wire::EXIT_REFUSED);
    }));
    if rustix::process::getpid().is_init() {
        pid1::run();
    }
    entry::run();
}
