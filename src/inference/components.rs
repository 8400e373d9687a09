//! Connected parts of a label map.

/// Sets every voxel to 0 that is not in the largest 26-connected part of what is not 0.
///
/// Of equally large parts the one that starts first stays. `labels`: `[k][j][i]`.
pub fn largest_component(labels: &mut [u8], dims: [usize; 3]) {
    let [ni, nj, nk] = dims;
    // Runs along i are the nodes: few, and found in one pass.
    struct Run {
        start: u32,
        end: u32,
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut rows: Vec<std::ops::Range<usize>> = Vec::with_capacity(nj * nk);
    for row in 0..nj * nk {
        let first = runs.len();
        let line = &labels[row * ni..(row + 1) * ni];
        let mut i = 0;
        while i < ni {
            if line[i] == 0 {
                i += 1;
                continue;
            }
            let start = i;
            while i < ni && line[i] != 0 {
                i += 1;
            }
            runs.push(Run {
                start: start as u32,
                end: i as u32,
            });
        }
        rows.push(first..runs.len());
    }
    let mut parent: Vec<u32> = (0..runs.len() as u32).collect();
    fn root(parent: &mut [u32], mut n: u32) -> u32 {
        while parent[n as usize] != n {
            parent[n as usize] = parent[parent[n as usize] as usize];
            n = parent[n as usize];
        }
        n
    }
    for k in 0..nk {
        for j in 0..nj {
            let here = rows[k * nj + j].clone();
            // The rows before this one that touch it.
            let mut neighbors = Vec::with_capacity(4);
            if j > 0 {
                neighbors.push(k * nj + j - 1);
            }
            if k > 0 {
                let below = (k - 1) * nj + j;
                neighbors.extend((j > 0).then(|| below - 1));
                neighbors.push(below);
                neighbors.extend((j + 1 < nj).then_some(below + 1));
            }
            for other in neighbors {
                let mut b = rows[other].start;
                for a in here.clone() {
                    // Diagonal contact counts: runs touch when they overlap after growing by one.
                    while b < rows[other].end && runs[b].end < runs[a].start {
                        b += 1;
                    }
                    let mut c = b;
                    while c < rows[other].end && runs[c].start <= runs[a].end {
                        let (x, y) = (root(&mut parent, a as u32), root(&mut parent, c as u32));
                        // The smaller number is the root, so that equals keep the first part.
                        parent[x.max(y) as usize] = x.min(y);
                        c += 1;
                    }
                }
            }
        }
    }
    let mut sizes = vec![0_u64; runs.len()];
    for (n, run) in runs.iter().enumerate() {
        let r = root(&mut parent, n as u32);
        sizes[r as usize] += u64::from(run.end - run.start);
    }
    let Some(best) = (0..runs.len()).max_by_key(|&n| (sizes[n], std::cmp::Reverse(n))) else {
        return;
    };
    for (row, range) in rows.iter().enumerate() {
        for n in range.clone() {
            if root(&mut parent, n as u32) as usize != best {
                let (start, end) = (runs[n].start as usize, runs[n].end as usize);
                labels[row * ni + start..row * ni + end].fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: flood fill over all 26 neighbors.
    fn literal(labels: &[u8], dims: [usize; 3]) -> Vec<u8> {
        let [ni, nj, nk] = dims;
        let mut part = vec![0_usize; labels.len()];
        let mut sizes = vec![0];
        for seed in 0..labels.len() {
            if labels[seed] == 0 || part[seed] != 0 {
                continue;
            }
            sizes.push(0);
            let id = sizes.len() - 1;
            let mut stack = vec![seed];
            part[seed] = id;
            while let Some(n) = stack.pop() {
                sizes[id] += 1;
                let (i, j, k) = ((n % ni) as i64, (n / ni % nj) as i64, (n / ni / nj) as i64);
                for dk in -1..=1 {
                    for dj in -1..=1 {
                        for di in -1..=1 {
                            let (x, y, z) = (i + di, j + dj, k + dk);
                            let inside = (0..ni as i64).contains(&x)
                                && (0..nj as i64).contains(&y)
                                && (0..nk as i64).contains(&z);
                            if inside {
                                let m = ((z * nj as i64 + y) * ni as i64 + x) as usize;
                                if labels[m] != 0 && part[m] == 0 {
                                    part[m] = id;
                                    stack.push(m);
                                }
                            }
                        }
                    }
                }
            }
        }
        let best = (1..sizes.len()).max_by_key(|&n| (sizes[n], std::cmp::Reverse(n)));
        labels
            .iter()
            .zip(&part)
            .map(|(l, p)| if Some(*p) == best { *l } else { 0 })
            .collect()
    }

    proptest! {
        #[test]
        fn equals_a_flood_fill(
            dims in [1_usize..9, 1_usize..8, 1_usize..7],
            density in 1_u8..6,
            seed in any::<u64>(),
        ) {
            let mut x = seed | 1;
            let labels: Vec<u8> = (0..dims.iter().product())
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    if (x % 7) as u8 <= density { 0 } else { (x % 3) as u8 + 1 }
                })
                .collect();
            let mut fast = labels.clone();
            largest_component(&mut fast, dims);
            prop_assert_eq!(fast, literal(&labels, dims));
        }
    }
}
