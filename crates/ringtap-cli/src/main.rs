//! The `ringtap` program; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    ringtap_cli::main()
}
