//! Threads for models.

use std::sync::OnceLock;

use rayon::ThreadPool;

/// How far models stand behind the window where both want a core (the system's `nice` value).
const BEHIND: i32 = 10;

/// Does work on as many threads as there are cores, all of them behind the window's own: it draws and
/// scrolls while a model runs, and the model has every core that the window leaves.
pub fn behind_the_window<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        rayon::ThreadPoolBuilder::new()
            .thread_name(|n| format!("model {n}"))
            .start_handler(|_| step_back())
            .build()
            .ok()
    });
    match pool {
        Some(pool) => pool.install(work),
        // Without threads of their own, models share those that there are.
        None => work(),
    }
}

/// Linux has priorities for single threads; elsewhere they would be the whole program's.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, BEHIND) {
        tracing::debug!(%error, "models run beside the window, not behind it");
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn models_stand_behind_the_window() {
        let mine = || rustix::process::getpriority_process(None).unwrap();
        let before = mine();
        let models = super::behind_the_window(|| {
            let (a, b) = rayon::join(mine, mine);
            assert_eq!(a, b);
            a
        });
        assert_eq!(models, before.max(super::BEHIND));
        assert_eq!(mine(), before);
    }
}
