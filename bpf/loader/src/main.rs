//! `clawsec-loader`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use clawsec_loader::cli::{Exit, Options};
use clawsec_loader::{log, run};

fn main() -> ExitCode {
    let options = Options::parse();
    log::start(options.log_format);
    // A panic is a bug, and its message may quote text of a sandbox.
    std::panic::set_hook(Box::new(|info| tracing::error!(panic = %info, "a bug in the loader")));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return ExitCode::from(Exit::Internal.code());
        }
    };
    let ended = runtime.block_on(run::run(options));
    // Blocking threads of a gate must not keep a stopped loader.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::from(Exit::Stopped.code()),
        Err(failure) => {
            tracing::error!("{}", failure.why);
            ExitCode::from(failure.exit.code())
        }
    }
}
