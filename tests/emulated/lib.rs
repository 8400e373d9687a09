//! The kernels without the program around them, for `run.sh`.

#[path = "../../src/kernels/mod.rs"]
pub mod kernels;

#[cfg(test)]
mod tests {
    use std::io::{Write, stderr};

    use super::kernels::Instructions;

    /// The kernels' tests go through all that `available` lists; here it is held that the list begins
    /// with what the emulator is there for.
    #[test]
    fn the_emulated_instructions_are_chosen() {
        let chosen = Instructions::detect().name();
        let names: Vec<_> = Instructions::available().iter().map(|i| i.name()).collect();
        // Not through `println!`, which is not seen where tests pass.
        writeln!(stderr(), "chosen: {chosen}, of {}", names.join(", ")).unwrap();
        if let Ok(expected) = std::env::var("EXPECTED_INSTRUCTIONS") {
            assert_eq!(chosen, expected);
        }
    }
}
