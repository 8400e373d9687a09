//! Arguments → window or a subcommand; exit codes.

fn main() {}
