//! The `ringtap` program as a library, so that its parts can be tested and its manual generated.
//!
//! ```text
//!   Args     what was typed                  args.rs and the command's own file
//!   Plan     what will happen                command/NAME.rs; all mistakes are found here
//!   run      it happens                      command/NAME.rs
//!   Outcome  becomes the exit status         outcome.rs
//! ```

pub mod application;
pub mod args;
pub mod child;
pub mod command;
pub mod decode;
pub mod outcome;
pub mod output;
pub mod preload;
pub mod private;
pub mod probes;
pub mod programs;
pub mod provenance;
pub mod remote;
pub mod signals;
pub mod switched;

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches};
use outcome::Outcome;
use output::Output;
use std::io::Write;
use std::process::ExitCode;

/// Parses the command line, runs it, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let typed = args::command().try_get_matches().and_then(|typed| Args::from_arg_matches(&typed));
    let args = match typed {
        Ok(args) => args,
        Err(usage) => {
            if usage.use_stderr() {
                // All errors begin with the program's name.
                let text = usage.render().ansi().to_string().replacen("error:", "ringtap:", 1);
                anstream::eprint!("{text}");
                return outcome::USAGE.into();
            }
            // A reader that has gone away does not turn asking for help into a failure.
            let _ = usage.print();
            return ExitCode::SUCCESS;
        }
    };
    let mut output = Output::stdout(args.color);
    let result = run(args.command, &mut output).and_then(|outcome| {
        output.flush()?;
        Ok(outcome)
    });
    outcome::exit_code(result)
}

fn run(command: Command, output: &mut Output) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(args) => command::demo::run(&args, output),
        Command::Stream(args) => command::stream::run(&args, output),
        Command::Record(args) => command::record::run(&args, output),
        Command::Stat(args) => command::stat::run(&args, output),
        Command::Report(args) => command::report::run(&args, output),
        Command::Serve(args) => command::serve::run(&args),
        Command::Mount(args) => command::mount::run(&args),
        Command::Exec(args) => command::exec::run(&args),
        Command::Start(args) => command::control::start::run(&args),
        Command::Stop(args) => command::control::stop::run(&args),
        Command::Set(args) => command::control::set::run(&args),
        Command::Reset(args) => command::control::reset::run(&args),
        Command::List(args) => command::control::list::run(&args, output),
        Command::Show(args) => command::control::show::run(&args, output),
        Command::Snapshot(args) => command::control::snapshot::run(&args, output),
        Command::Instance(args) => command::control::instance::run(&args, output),
        Command::Recover(args) => command::recover::run(&args, output),
        Command::Export(args) => command::export::run(&args),
        Command::Query(args) => command::query::run(&args, output),
        Command::Completions(args) => command::completions::run(&args, Args::command(), output),
        Command::Man(args) => command::man::run(&args, args::command(), output),
        Command::DemoWorker(args) => command::demo::worker::run(&args, output),
        Command::Held(args) => command::held::run(&args),
    }
}
