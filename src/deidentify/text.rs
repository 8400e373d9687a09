//! Burned-in text found by its looks: rows of small parts of one height, one stroke and one base line.
//!
//! Lettering of a machine has a value of its own (white, black, the color of a menu) and stands out
//! of what surrounds it. So the image is cut at several levels, and at single values that are far
//! more frequent than the ones beside them; of every cut, connected parts of the size of letters are
//! put into rows. Anatomy and noise give such parts too, but seldom in rows with a common top and
//! bottom, and hardly ever in rows with nothing else around them.
//!
//! No characters are read. Handwriting, slanted text, one or two letters alone, letters below five
//! pixels and letters of the same value as what they stand on are missed.

/// A rectangle of pixels; rows from the top.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(from = "[usize; 4]", into = "[usize; 4]")]
pub struct Region {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl From<[usize; 4]> for Region {
    fn from([x, y, width, height]: [usize; 4]) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }
}

impl From<Region> for [usize; 4] {
    fn from(r: Region) -> Self {
        [r.x, r.y, r.width, r.height]
    }
}

/// What looks like a line of text.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct FoundText {
    /// Around the whole line, with a margin.
    pub region: Region,
    /// From [`LIKELY`] to 1.
    pub score: f32,
    /// Parts that look like letters.
    pub letters: usize,
}

/// Rows below this are not told.
pub const LIKELY: f32 = 0.5;
/// From here on a row is taken for text without a person's look.
pub const SURE: f32 = 0.8;

const SHORTEST_LETTER: usize = 5;
/// Levels between the end of the values (0) and their middle (1).
const LEVELS: [f32; 5] = [0.02, 0.1, 0.25, 0.4, 0.6];
/// Share of what surrounds a row that may belong to other parts.
const BUSY: f32 = 0.06;
/// Parts among the letters that are none, for each letter.
const SPECKS: f32 = 1.0;

/// A connected part of a cut.
#[derive(Clone, Copy, Debug)]
struct Part {
    id: u32,
    x0: usize,
    x1: usize,
    y0: usize,
    y1: usize,
    area: usize,
    edges: usize,
}

impl Part {
    fn width(&self) -> usize {
        self.x1 + 1 - self.x0
    }

    fn height(&self) -> usize {
        self.y1 + 1 - self.y0
    }

    /// Width of a line of this area and circumference.
    fn stroke(&self) -> f32 {
        2.0 * self.area as f32 / self.edges as f32
    }

    fn looks_like_a_letter(&self, tallest: usize) -> bool {
        let (w, h) = (self.width(), self.height());
        if !(SHORTEST_LETTER..=tallest).contains(&h) || w > 2 * h + 2 {
            return false;
        }
        let fill = self.area as f32 / (w * h) as f32;
        let narrow = w * 5 <= h * 2;
        self.stroke() <= 0.36 * h as f32 && (narrow || (0.12..=0.85).contains(&fill))
    }
}

/// Looks for lines of text in one image of `values.len() / width` rows.
pub fn find_text(values: &[f32], width: usize) -> Vec<FoundText> {
    let height = values.len().checked_div(width).unwrap_or(0);
    if width < 16 || height < 8 || values.len() != width * height {
        return Vec::new();
    }
    let tallest = (height / 8).clamp(16, 96);
    let mut found = Vec::new();
    let mut mask = vec![false; values.len()];
    for cut in cuts(values) {
        for (m, v) in mask.iter_mut().zip(values) {
            *m = cut.holds(*v);
        }
        let all = Parts::of(&mask, width, height);
        let letters = all.all.iter().copied();
        let letters = letters.filter(|p| p.looks_like_a_letter(tallest)).collect();
        found.extend(lines(letters).iter().filter_map(|line| all.judge(line)));
    }
    found
}

/// Joins rectangles that touch until none do; the best score stays.
pub(super) fn joined(mut found: Vec<FoundText>) -> Vec<FoundText> {
    let end = |r: &Region| (r.x + r.width, r.y + r.height);
    let mut out: Vec<FoundText> = Vec::new();
    while let Some(mut one) = found.pop() {
        let touches = |other: &FoundText| {
            let (a, b) = (one.region, other.region);
            let ((ax, ay), (bx, by)) = (end(&a), end(&b));
            a.x <= bx && b.x <= ax && a.y <= by && b.y <= ay
        };
        if let Some(n) = out.iter().position(touches) {
            let other = out.swap_remove(n);
            let (a, b) = (one.region, other.region);
            let ((ax, ay), (bx, by)) = (end(&a), end(&b));
            let (x, y) = (a.x.min(b.x), a.y.min(b.y));
            one.region = Region {
                x,
                y,
                width: ax.max(bx) - x,
                height: ay.max(by) - y,
            };
            one.score = one.score.max(other.score);
            one.letters = one.letters.max(other.letters);
            // Larger now: it may touch what it did not before.
            found.push(one);
        } else {
            out.push(one);
        }
    }
    out.sort_by_key(|f| (f.region.y, f.region.x));
    out
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    From(f32),
    UpTo(f32),
    Just(f32),
}

impl Cut {
    fn holds(self, value: f32) -> bool {
        match self {
            Self::From(level) => value >= level,
            Self::UpTo(level) => value <= level,
            Self::Just(level) => value.total_cmp(&level).is_eq(),
        }
    }
}

/// Levels between the ends and the middle, and up to four values with many pixels of their own.
fn cuts(values: &[f32]) -> Vec<Cut> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
        return Vec::new();
    };
    let middle = sorted[sorted.len() / 2];
    let mut cuts = Vec::new();
    for share in LEVELS {
        if high > middle {
            cuts.push(Cut::From(high - share * (high - middle)));
        }
        if low < middle {
            cuts.push(Cut::UpTo(low + share * (middle - low)));
        }
    }
    let runs: Vec<(f32, usize)> = sorted
        .chunk_by(|a, b| a.total_cmp(b).is_eq())
        .map(|run| (run[0], run.len()))
        .collect();
    let count = |n: usize| runs.get(n).map_or(0, |run| run.1);
    let mut peaks: Vec<(usize, f32)> = Vec::new();
    // The ends have levels of their own.
    let inner = runs.len().saturating_sub(2);
    for (n, &(value, own)) in runs.iter().enumerate().skip(1).take(inner) {
        let beside: usize = (1..=3)
            .map(|d| count(n + d) + n.checked_sub(d).map_or(0, count))
            .sum();
        if own >= 40 && own * 3 > beside * 2 && own * 2 < values.len() {
            peaks.push((own, value));
        }
    }
    peaks.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)));
    cuts.extend(peaks.iter().take(4).map(|&(_, value)| Cut::Just(value)));
    cuts
}

/// All parts of a cut, and which pixel belongs to which (0: to none).
struct Parts {
    all: Vec<Part>,
    owners: Vec<u32>,
    width: usize,
    height: usize,
}

impl Parts {
    /// Pixels connected over edges and corners.
    fn of(mask: &[bool], width: usize, height: usize) -> Self {
        let mut owners = vec![0_u32; mask.len()];
        let mut parts: Vec<Part> = Vec::new();
        let mut open = Vec::new();
        for start in 0..mask.len() {
            if !mask[start] || owners[start] != 0 {
                continue;
            }
            let id = parts.len() as u32 + 1;
            owners[start] = id;
            open.push(start);
            let mut part = Part {
                id,
                x0: width,
                x1: 0,
                y0: height,
                y1: 0,
                area: 0,
                edges: 0,
            };
            while let Some(at) = open.pop() {
                let (x, y) = (at % width, at / width);
                part.x0 = part.x0.min(x);
                part.x1 = part.x1.max(x);
                part.y0 = part.y0.min(y);
                part.y1 = part.y1.max(y);
                part.area += 1;
                for (dx, dy) in [
                    (-1, 0),
                    (1, 0),
                    (0, -1),
                    (0, 1),
                    (-1, -1),
                    (1, -1),
                    (-1, 1),
                    (1, 1),
                ] {
                    let x = x.checked_add_signed(dx).filter(|&x| x < width);
                    let y = y.checked_add_signed(dy).filter(|&y| y < height);
                    let next = x.zip(y).map(|(x, y)| y * width + x).filter(|&n| mask[n]);
                    match next {
                        Some(n) if owners[n] == 0 => {
                            owners[n] = id;
                            open.push(n);
                        }
                        Some(_) => {}
                        None => part.edges += usize::from(dx == 0 || dy == 0),
                    }
                }
            }
            parts.push(part);
        }
        Self {
            all: parts,
            owners,
            width,
            height,
        }
    }

    /// How much a row of letters looks like text; `None` for what is none.
    fn judge(&self, line: &[Part]) -> Option<FoundText> {
        let n = line.len();
        if n < 3 {
            return None;
        }
        let score = evenness(line) * (0.4 + 0.1 * n.min(6) as f32);
        if score < LIKELY {
            return None;
        }
        let tall = line.iter().map(Part::height).max()?;
        let (y0, y1) = (line.iter().map(|p| p.y0).min()?, most(line, |p| p.y1));
        let (left, right) = (line[0].x0, most(line, |p| p.x1));
        // What stands in the same row: dots, joined letters, other words.
        let near = tall / 3 + 1;
        let in_row = |p: &&Part| p.y0 + near >= y0 && p.y1 <= y1 + near && p.width() <= 8 * tall;
        let row: Vec<&Part> = self.all.iter().filter(in_row).collect();
        let reach = tall * 5 / 4;
        let (mut x0, mut x1) = (left, right);
        loop {
            let before = (x0, x1);
            for p in &row {
                if p.x0 <= x1 + reach && p.x1 + reach >= x0 {
                    (x0, x1) = (x0.min(p.x0), x1.max(p.x1));
                }
            }
            if before == (x0, x1) {
                break;
            }
        }
        let own: Vec<u32> = row
            .iter()
            .filter(|p| p.x0 >= x0 && p.x1 <= x1)
            .map(|p| p.id)
            .collect();
        let among = row.iter().filter(|p| p.x0 >= left && p.x1 <= right);
        let specks = among.count().saturating_sub(n) as f32 / n as f32;
        let busy = self.busy_around([left, right, y0, y1], tall / 2 + 1, &own);
        let patience = if n >= 6 && score >= 0.85 { 3.0 } else { 1.0 };
        if busy > BUSY * patience || specks > SPECKS * patience {
            return None;
        }
        let margin = tall / 3 + 2;
        let (x, y) = (x0.saturating_sub(margin), y0.saturating_sub(margin));
        let region = Region {
            x,
            y,
            width: (x1 + margin + 1).min(self.width) - x,
            height: (y1 + margin + 1).min(self.height) - y,
        };
        Some(FoundText {
            region,
            score: (score * 100.0).round() / 100.0,
            letters: n,
        })
    }

    /// Share of the pixels around a row that belong to parts outside of it; `own` is sorted.
    fn busy_around(&self, [x0, x1, y0, y1]: [usize; 4], margin: usize, own: &[u32]) -> f32 {
        let (mut foreign, mut free) = (0_usize, 0_usize);
        for y in y0.saturating_sub(margin)..=(y1 + margin).min(self.height - 1) {
            for x in x0.saturating_sub(margin)..=(x1 + margin).min(self.width - 1) {
                let owner = self.owners[y * self.width + x];
                let mine = owner != 0 && own.binary_search(&owner).is_ok();
                foreign += usize::from(owner != 0 && !mine);
                free += usize::from(!mine);
            }
        }
        foreign as f32 / free.max(1) as f32
    }
}

fn most(line: &[Part], of: impl Fn(&Part) -> usize) -> usize {
    line.iter().map(of).max().unwrap_or(0)
}

/// Shares of letters on a common base line, under a common top, and of a common stroke, multiplied.
fn evenness(line: &[Part]) -> f32 {
    let median = |mut values: Vec<f32>| {
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    let of = |value: &dyn Fn(&Part) -> f32| median(line.iter().map(value).collect());
    let share = |fine: &dyn Fn(&Part) -> bool| {
        line.iter().filter(|p| fine(p)).count() as f32 / line.len() as f32
    };
    let near = (most(line, Part::height) as f32 * 0.1).max(1.0);
    let bottom = of(&|p| p.y1 as f32);
    // Capitals have one top, small letters another.
    let top = line.iter().map(|p| p.y0).min().unwrap_or(0) as f32;
    let small_top = of(&|p| p.y0 as f32);
    let stroke = of(&Part::stroke);
    let on_bottom = share(&|p| (p.y1 as f32 - bottom).abs() <= near);
    let at_top = |p: &Part, top: f32| (p.y0 as f32 - top).abs() <= near;
    let on_top = share(&|p| at_top(p, top) || at_top(p, small_top));
    let of_stroke = share(&|p| (p.stroke() - stroke).abs() <= 0.3 * stroke);
    on_bottom * on_top * of_stroke
}

/// Chains of letters: each with the nearest one to its right that stands on the same line.
fn lines(mut letters: Vec<Part>) -> Vec<Vec<Part>> {
    letters.sort_by_key(|p| (p.x0, p.y0));
    let widest_gap = letters.iter().map(|p| p.height() * 5 / 4 + 2).max();
    let mut line_of: Vec<Option<usize>> = vec![None; letters.len()];
    let mut has_left = vec![false; letters.len()];
    let mut lines: Vec<Vec<Part>> = Vec::new();
    for n in 0..letters.len() {
        let a = letters[n];
        let line = *line_of[n].get_or_insert_with(|| {
            lines.push(vec![a]);
            lines.len() - 1
        });
        let mut best: Option<(usize, usize)> = None;
        for (m, b) in letters.iter().enumerate().skip(n + 1) {
            if b.x0 > a.x1 + widest_gap.unwrap_or(0) {
                break;
            }
            if !has_left[m] && stand_together(&a, b) {
                let gap = b.x0.saturating_sub(a.x1);
                if best.is_none_or(|(nearest, _)| gap < nearest) {
                    best = Some((gap, m));
                }
            }
        }
        if let Some((_, m)) = best {
            has_left[m] = true;
            line_of[m] = Some(line);
            lines[line].push(letters[m]);
        }
    }
    lines
}

/// Whether `b` may follow `a` in a row.
fn stand_together(a: &Part, b: &Part) -> bool {
    let (short, tall) = (a.height().min(b.height()), a.height().max(b.height()));
    if tall > 2 * short || b.x0 > a.x1 + tall * 5 / 4 + 2 || b.x0 + tall / 4 < a.x1 || b.x1 <= a.x1
    {
        return false;
    }
    let near = 1.max(tall / 8);
    let level = a.y1.abs_diff(b.y1) <= near || a.y0.abs_diff(b.y0) <= near;
    let overlap = (a.y1.min(b.y1) + 1).saturating_sub(a.y0.max(b.y0));
    level && overlap * 10 >= short * 7
}
