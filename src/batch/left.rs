//! How long a batch still takes.

/// Work done and to do, by the number of voxels.
#[derive(Clone, Debug, Default)]
pub(super) struct TimeLeft {
    total: f64,
    done: f64,
}

impl TimeLeft {
    pub(super) fn new(voxels: impl Iterator<Item = usize>) -> Self {
        Self {
            total: voxels.map(|n| n as f64).sum(),
            done: 0.0,
        }
    }

    pub(super) fn finished(&mut self, voxels: usize) {
        self.done += voxels as f64;
    }

    /// ", about 3 min left"; empty while nothing is known.
    pub(super) fn words(&self, elapsed_secs: f64) -> String {
        if self.done <= 0.0 || self.done >= self.total {
            return String::new();
        }
        let seconds = (elapsed_secs / self.done * (self.total - self.done)).ceil() as u64;
        let words = match seconds {
            0..60 => format!("{seconds} s"),
            60..5400 => format!("{} min", seconds.div_ceil(60)),
            _ => format!("{:.1} h", seconds as f64 / 3600.0),
        };
        format!(", about {words} left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_studies_count_more() {
        let mut left = TimeLeft::new([100, 300].into_iter());
        assert_eq!(left.words(9.0), "");
        left.finished(100);
        assert_eq!(left.words(10.0), ", about 30 s left");
        assert_eq!(left.words(60.0), ", about 3 min left");
        left.finished(300);
        assert_eq!(left.words(60.0), "");
    }
}
