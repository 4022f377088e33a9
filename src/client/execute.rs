//! How a client command is run: on one thread, to its exit code.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use crate::failure::{Failure, OURS, READER_GONE};
use protocol::stderr::complain;

/// Runs a client command whose exit code is a job's, or [`OURS`].
pub(super) fn block_on_job(work: impl Future<Output = Result<u8, Failure>>) -> ExitCode {
    block_on(async {
        match work.await {
            Ok(code) => ExitCode::from(code),
            Err(Failure::ReaderGone) => ExitCode::from(READER_GONE),
            Err(failure) => {
                complain(&failure.to_string());
                ExitCode::from(OURS)
            }
        }
    })
}

/// Runs a client command on one thread.
pub(super) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(OURS);
        }
    };
    // Boxed: what the runtime makes of a future is there once, not for every command.
    let work: Pin<Box<dyn Future<Output = ExitCode> + '_>> = Box::pin(work);
    let code = runtime.block_on(work);
    // A read of standard input cannot be cancelled; the end of the process ends it.
    runtime.shutdown_background();
    code
}

/// The same for a command that does not end with a job's exit code.
pub(super) fn run(work: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    block_on(async {
        match work.await {
            Ok(code) => code,
            Err(Failure::ReaderGone) => ExitCode::SUCCESS,
            Err(failure) => {
                complain(&failure.to_string());
                ExitCode::from(failure.exit_code())
            }
        }
    })
}
