//! Benchmarks: `cargo bench`, with a word to run only what it names.

mod audit;
mod inference;
mod kernels;
mod networks;
mod open;
mod peer;
mod plan;
mod render;
mod training;

fn main() {
    // cargo adds a flag of its own.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let Some(at) = words.iter().position(|word| word == "peer") {
        let folder = words.get(at + 1).expect("peer FOLDER");
        return peer::run(folder.as_ref());
    }
    if let Some(at) = words.iter().position(|word| word == "plan-case") {
        return plan::case(words.get(at + 1).expect("plan-case NAME"));
    }
    if let Some(at) = words.iter().position(|word| word == "plan") {
        return plan::run(words.get(at + 1).map(String::as_str));
    }
    if let Some(at) = words.iter().position(|word| word == "training") {
        let name = words.get(at + 1).expect("training NAME [START]");
        return training::run(name, words.get(at + 2).map(std::path::Path::new));
    }
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|o| name.contains(o));
    if wanted("open") {
        open::run();
    }
    if wanted("audit") {
        audit::run();
    }
    if wanted("inference") {
        inference::run();
    }
    if wanted("networks") {
        networks::run();
    }
    if wanted("plan") {
        plan::run(None);
    }
    if wanted("kernels") {
        kernels::run();
    }
    if wanted("scroll") {
        render::run();
    }
}
