//! Memory of activations that is used again and again: fresh pages cost more than small layers.

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<f32>>,
}

/// Floats beyond which room that stays empty costs more than fresh pages.
const LARGE: usize = 4 << 20;

/// Largest buffer that is taken for so many floats. A large one that served a small value would be
/// missed where the next large value comes.
const fn most(floats: usize) -> usize {
    let loose = floats.saturating_mul(4);
    let tight = floats.saturating_add(floats / 4);
    if loose <= LARGE {
        loose
    } else if tight > LARGE {
        tight
    } else {
        LARGE
    }
}

impl Pool {
    /// A buffer of `floats`; what it holds is left over from its last use.
    ///
    /// The smallest that is large enough is taken; else the largest goes and a new one comes, so
    /// that waiting memory does not pile up.
    pub fn take(&mut self, floats: usize) -> Vec<f32> {
        let fitting = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, b)| b.capacity() >= floats && b.capacity() <= most(floats))
            .min_by_key(|(_, b)| b.capacity())
            .map(|(n, _)| n);
        if let Some(n) = fitting {
            let mut buffer = self.free.swap_remove(n);
            buffer.resize(floats, 0.0);
            return buffer;
        }
        let largest = (0..self.free.len()).max_by_key(|n| self.free[*n].capacity());
        largest.map(|n| self.free.swap_remove(n));
        // Pages come when they are written first: by all threads, in the kernels.
        vec![0.0; floats]
    }

    /// Takes a buffer back.
    pub fn put(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_do_not_pile_up() {
        let mut pool = Pool::default();
        let a = pool.take(100);
        let b = pool.take(60);
        let place = b.as_ptr();
        pool.put(a);
        pool.put(b);
        let again = pool.take(50);
        assert_eq!((again.as_ptr(), again.len()), (place, 50));
        // Nothing fits: the one that waits goes.
        let large = pool.take(1000);
        assert!(pool.free.is_empty() && large.len() == 1000);
    }

    #[test]
    fn a_large_buffer_waits_for_a_value_of_its_size() {
        assert_eq!([most(10), most(LARGE / 2)], [40, LARGE]);
        assert_eq!(most(LARGE), LARGE + LARGE / 4);
        let mut pool = Pool::default();
        let large = pool.take(4 * LARGE);
        let place = large.as_ptr();
        pool.put(large);
        // The large one would fit; it goes, so that two do not wait.
        let small = pool.take(LARGE);
        assert!(small.capacity() < 2 * LARGE && small.as_ptr() != place);
        assert!(pool.free.is_empty());
    }
}
