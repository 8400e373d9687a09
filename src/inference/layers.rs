//! Layers one after another by the project's kernels: each over the whole grid, or, where two of them
//! would take much memory, slice by slice in an order that holds few.

use super::Error;
use super::network::Network;
use super::schedule::Schedule;
use crate::kernels::{Activation, Blocked, Epilogue, Instructions, Prologue, Slices, Source, View};
use crate::task::{Cancelled, Task};

/// Labels of a box of prepared values, `[k][j][i]`.
///
/// # Errors
/// [`Error::Cancelled`], or [`Error::Network`] without layers.
pub fn forward(
    network: &Network,
    values: Vec<f32>,
    dims: [usize; 3],
    task: &Task,
) -> Result<Vec<u8>, Error> {
    match network.schedule(dims) {
        Some(schedule) => by_slices(network, &values, dims, schedule, task),
        None => whole(network, values, dims, task),
    }
}

/// Each layer over the whole grid.
pub(super) fn whole(
    network: &Network,
    values: Vec<f32>,
    dims: [usize; 3],
    task: &Task,
) -> Result<Vec<u8>, Error> {
    let instructions = Instructions::detect();
    let mut input = Blocked::plain(values, dims, 1);
    let mut spare: Option<Blocked> = None;
    // A norm and its activation wait for the next convolution to read through them.
    let mut norm: Option<(Vec<f32>, Vec<f32>, Activation)> = None;
    let count = network.steps().len();
    let goes_on = || !task.is_cancelled();
    task.begin("Layers", count);
    for (n, step) in network.steps().iter().enumerate() {
        let prologue = norm.as_ref().map(|(scale, offset, activation)| Prologue {
            scale,
            offset,
            activation: *activation,
        });
        if n + 1 == count {
            let mut labels = vec![0; dims.iter().product()];
            step.fast
                .run_argmax(input.view(), prologue, &mut labels, instructions, &goes_on)
                .map_err(|_| Cancelled)?;
            task.report(count, count);
            return Ok(labels);
        }
        let mut output = spare
            .take()
            .filter(|b| b.channels() == step.conv.output)
            .unwrap_or_else(|| Blocked::zeros(dims, step.conv.output));
        let epilogue = Epilogue {
            activation: step.conv.activation,
            moments: step.norm.is_some(),
            ..Epilogue::default()
        };
        let moments = step
            .fast
            .run(
                input.view(),
                prologue,
                output.view_mut(),
                &epilogue,
                instructions,
                &goes_on,
            )
            .map_err(|_| Cancelled)?;
        norm = match (moments, step.norm) {
            (Some(moments), Some((epsilon, activation))) => {
                let (scale, offset) = moments.norm(epsilon, &[], &[]);
                Some((scale, offset, activation))
            }
            _ => None,
        };
        spare = Some(std::mem::replace(&mut input, output)).filter(|b| b.view().lanes() > 1);
        task.report(n + 1, count);
    }
    Err(Error::Network("it has no layers".to_owned()))
}

/// Slice by slice; the labels are those of [`whole`].
pub(super) fn by_slices(
    network: &Network,
    values: &[f32],
    dims: [usize; 3],
    schedule: Schedule,
    task: &Task,
) -> Result<Vec<u8>, Error> {
    let instructions = Instructions::detect();
    let goes_on = || !task.is_cancelled();
    let steps = network.steps();
    let floats = network.slice_floats(dims);
    let mut arena = vec![0.0_f32; schedule.most * floats];
    let mut free: Vec<&mut [f32]> = arena.chunks_mut(floats.max(1)).collect();
    // What layers give; the last one's are labels.
    let mut given: Vec<Slices<'_>> = steps
        .iter()
        .map(|step| Slices::none(dims, step.conv.output))
        .collect();
    let mut labels = vec![0; dims.iter().product()];
    let count = schedule.steps.len();
    task.begin("Slices of layers", count);
    for (n, step) in schedule.steps.into_iter().enumerate() {
        let layer = &steps[step.layer];
        let (before, from_here) = given.split_at_mut(step.layer);
        let input = match before.last() {
            Some(slices) => Source::Slices(slices),
            None => Source::Whole(View::plain(values, dims, 1)),
        };
        let starts = &step.starts;
        if step.layer + 1 == steps.len() {
            layer
                .fast
                .run_argmax_units(starts, input, &mut labels, instructions, &goes_on)
        } else {
            let output = &mut from_here[0];
            for z in &step.outputs {
                output.put(*z, free.pop().expect("the schedule counts them"));
            }
            let activation = layer.conv.activation;
            layer
                .fast
                .run_units(starts, input, output, activation, instructions, &goes_on)
        }
        .map_err(|_| Cancelled)?;
        if let Some(input) = before.last_mut() {
            free.extend(step.done_with.iter().map(|z| input.take(*z)));
        }
        task.report(n + 1, count);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dims: [usize; 3]) -> Vec<f32> {
        let count: usize = dims.iter().product();
        (0..count)
            .map(|n| (n * 7919 % 1009) as f32 / 504.5 - 1.0)
            .collect()
    }

    #[test]
    fn slices_give_the_labels_of_whole_layers() {
        let task = Task::new();
        for (layers, dims) in [
            (
                &[(20, 3, 1), (20, 3, 2), (20, 3, 4), (17, 3, 1), (9, 1, 1)][..],
                [13, 9, 14],
            ),
            (
                &[(5, 3, 1), (5, 3, 3), (5, 1, 1), (30, 3, 2), (4, 3, 1)][..],
                [8, 7, 9],
            ),
            (&[(16, 5, 1), (24, 3, 5), (9, 1, 1)][..], [5, 11, 6]),
            (&[(5, 1, 1)][..], [3, 4, 5]),
        ] {
            let network = Network::by_chance(layers);
            let want = whole(&network, values(dims), dims, &task).unwrap();
            let classes = layers.last().unwrap().0;
            assert!((0..classes).filter(|c| want.contains(&(*c as u8))).count() > 1);
            let units = network.units(dims).unwrap();
            for schedule in Schedule::orders(&units, dims[0]) {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    let schedule = schedule.clone();
                    let got = pool
                        .unwrap()
                        .install(|| by_slices(&network, &values(dims), dims, schedule, &task));
                    assert_eq!(got.unwrap(), want, "{layers:?} {dims:?}");
                }
            }
        }
    }

    #[test]
    fn only_large_grids_go_slice_by_slice_and_take_less() {
        let layers: Vec<_> = [1, 2, 4, 8, 16, 8, 4, 2, 1].map(|d| (30, 3, d)).to_vec();
        let network = Network::by_chance(&[layers, vec![(18, 1, 1)]].concat());
        assert!(network.schedule([96; 3]).is_none());
        // Two layers of 256³ voxels in 32 lanes are 4.3 GB.
        for (dims, most) in [([256; 3], 1_900_000_000), ([223, 163, 164], 850_000_000)] {
            assert!(network.schedule(dims).is_some());
            assert!(network.bytes(dims) < most, "{}", network.bytes(dims));
        }
    }

    #[test]
    fn a_run_slice_by_slice_can_be_stopped() {
        let (network, dims) = (Network::by_chance(&[(16, 3, 1), (2, 1, 1)]), [4; 3]);
        let schedule = network.any_schedule(dims).unwrap();
        let task = Task::new();
        task.cancel();
        let stopped = by_slices(&network, &values(dims), dims, schedule, &task);
        assert!(matches!(stopped, Err(Error::Cancelled(_))));
    }
}
