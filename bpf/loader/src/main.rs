//! `clawsec-loader`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use clawsec_loader::cli::{Exit, Options};
use clawsec_loader::{log, run};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let options = Options::parse();
    log::start(options.log_format);
    // A panic is a bug, and its message may quote text of a sandbox.
    std::panic::set_hook(Box::new(|info| tracing::error!(panic = %info, "a bug in the loader")));
    let build = |builder: &mut Builder| builder.enable_all().build();
    // The conversation with the supervisor has a thread of its own: one, so that a question and its answer wake no other,
    // and none that is busy with something else.
    let runtimes = build(&mut Builder::new_multi_thread()).and_then(|runtime| {
        build(Builder::new_multi_thread().worker_threads(1).thread_name("conversation"))
            .map(|conversation| (runtime, conversation))
    });
    let (runtime, conversation) = match runtimes {
        Ok(runtimes) => runtimes,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return ExitCode::from(Exit::Internal.code());
        }
    };
    let ended = runtime.block_on(run::run(options, conversation.handle().clone()));
    // Blocking threads of a gate must not keep a stopped loader.
    runtime.shutdown_background();
    conversation.shutdown_background();
    match ended {
        Ok(()) => ExitCode::from(Exit::Stopped.code()),
        Err(failure) => {
            tracing::error!("{}", failure.why);
            ExitCode::from(failure.exit.code())
        }
    }
}
