//! Benchmarks: `cargo bench`, with a word to run only what it names.

mod inference;
mod networks;
mod open;
mod render;

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|o| name.contains(o));
    if wanted("open") {
        open::run();
    }
    if wanted("inference") {
        inference::run();
    }
    if wanted("networks") {
        networks::run();
    }
    if wanted("scroll") {
        render::run();
    }
}
