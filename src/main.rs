//! Arguments → window or a subcommand; exit codes.

fn main() -> std::process::ExitCode {
    negatoscope::cli::run()
}
