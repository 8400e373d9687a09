//! In which order the slices of a chain of layers are computed, so that few are held at a time.
//!
//! A convolution needs some slices before and behind those that it gives, and no others. Two orders
//! are tried: layer by layer, where each layer's slices take the places of those that it has done
//! with (a grid and a few slices); and the last layer's slices one after another, each as soon as
//! what it needs is there (what the layers reach, whatever the length of the grid). Some units go in
//! one step: threads that have other programs beside them wait for each other after each.

use std::collections::VecDeque;

use crate::kernels::Unit;

/// Some units of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub layer: usize,
    /// The first slice of each unit.
    pub starts: Vec<usize>,
    pub outputs: Vec<usize>,
    /// Slices of the layer's input that nobody needs after it.
    pub done_with: Vec<usize>,
}

/// Slices of the last layer, or units of one layer, in a step.
const AT_ONCE: usize = 4;

/// An order.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub steps: VecDeque<Step>,
    /// Slices that are held at the same time, without the chain's own input and result.
    pub most: usize,
}

impl Schedule {
    /// The order that holds fewer slices. Layers keep the grid, and each slice is in one unit of its
    /// layer.
    pub fn new(layers: &[Vec<Unit>], slices: usize) -> Self {
        let [one, other] = Self::orders(layers, slices);
        if other.most < one.most { other } else { one }
    }

    /// Layer by layer, and by need.
    pub fn orders(layers: &[Vec<Unit>], slices: usize) -> [Self; 2] {
        [by_layer(layers), by_need(layers, slices)].map(|order| Self::of(layers, slices, order))
    }

    /// Walks through an order: what each step ends, and how many slices there are.
    fn of(layers: &[Vec<Unit>], slices: usize, order: Vec<(usize, Vec<usize>)>) -> Self {
        // Uses of each layer's input slices that are still to come.
        let mut left = vec![vec![0_usize; slices]; layers.len()];
        for (left, units) in left.iter_mut().zip(layers) {
            for z in units.iter().flat_map(|unit| &unit.inputs) {
                left[*z] += 1;
            }
        }
        let (mut held, mut most) = (0, 0);
        let mut steps = VecDeque::with_capacity(order.len());
        for (layer, units) in order {
            let units = || units.iter().map(|unit| &layers[layer][*unit]);
            let outputs: Vec<usize> = units().flat_map(|unit| &unit.outputs).copied().collect();
            if layer + 1 < layers.len() {
                held += outputs.len();
            }
            most = most.max(held);
            let mut done_with = Vec::new();
            for z in units().flat_map(|unit| &unit.inputs) {
                left[layer][*z] -= 1;
                if left[layer][*z] == 0 && layer > 0 {
                    done_with.push(*z);
                }
            }
            held -= done_with.len();
            steps.push_back(Step {
                layer,
                starts: units().map(|unit| unit.outputs[0]).collect(),
                outputs,
                done_with,
            });
        }
        Self { steps, most }
    }
}

fn by_layer(layers: &[Vec<Unit>]) -> Vec<(usize, Vec<usize>)> {
    let mut order = Vec::new();
    for (layer, units) in layers.iter().enumerate() {
        let all: Vec<usize> = (0..units.len()).collect();
        order.extend(all.chunks(AT_ONCE).map(|some| (layer, some.to_vec())));
    }
    order
}

fn by_need(layers: &[Vec<Unit>], slices: usize) -> Vec<(usize, Vec<usize>)> {
    // The unit of each slice, until it is computed.
    let mut open: Vec<Vec<Option<usize>>> = layers
        .iter()
        .map(|units| {
            let mut of = vec![None; slices];
            for (n, unit) in units.iter().enumerate() {
                unit.outputs.iter().for_each(|z| of[*z] = Some(n));
            }
            of
        })
        .collect();
    let mut order = Vec::new();
    let all: Vec<usize> = (0..slices).collect();
    for wanted in all.chunks(AT_ONCE) {
        let mut wanted = wanted.to_vec();
        let mut steps = Vec::new();
        for (layer, open) in open.iter_mut().enumerate().rev() {
            let mut units = Vec::new();
            for z in wanted {
                if let Some(n) = open[z] {
                    layers[layer][n]
                        .outputs
                        .iter()
                        .for_each(|z| open[*z] = None);
                    units.push(n);
                }
            }
            let inputs = units.iter().flat_map(|n| &layers[layer][*n].inputs);
            wanted = inputs.copied().collect();
            steps.push((layer, units));
        }
        // The first layers first.
        order.extend(
            steps
                .into_iter()
                .rev()
                .filter(|(_, units)| !units.is_empty()),
        );
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Conv, ConvShape, Method};

    fn units(channels: usize, kernel: usize, dilation: usize, slices: usize) -> Vec<Unit> {
        let shape = ConvShape::same(channels, channels, [kernel; 3]).dilated([dilation; 3]);
        let conv = Conv::outline(shape, Method::Auto);
        conv.units([slices, 8, 8]).expect("no groups")
    }

    /// Follows the steps with nothing but the definition: what is read is there, each slice comes
    /// once, and as many are held as was said.
    fn check(layers: &[Vec<Unit>], slices: usize, schedule: &Schedule) {
        let mut there = vec![vec![false; slices]; layers.len()];
        let mut given = there.clone();
        let mut most = 0;
        for step in &schedule.steps {
            let units = layers[step.layer].iter();
            let units = units.filter(|unit| step.starts.contains(&unit.outputs[0]));
            for z in units.clone().flat_map(|unit| &unit.inputs) {
                assert!(step.layer == 0 || there[step.layer - 1][*z], "{step:?}");
            }
            assert_eq!(units.clone().count(), step.starts.len());
            assert_eq!(
                units.map(|unit| unit.outputs.len()).sum::<usize>(),
                step.outputs.len()
            );
            for z in &step.outputs {
                assert!(!std::mem::replace(&mut given[step.layer][*z], true));
                there[step.layer][*z] = step.layer + 1 < layers.len();
            }
            most = most.max(there.iter().flatten().filter(|there| **there).count());
            for z in &step.done_with {
                assert!(std::mem::take(&mut there[step.layer - 1][*z]));
            }
        }
        assert!(given.iter().flatten().all(|given| *given));
        assert!(!there.iter().flatten().any(|there| *there), "all are freed");
        assert_eq!(most, schedule.most);
    }

    #[test]
    fn what_is_read_is_there_and_nothing_stays() {
        for (layers, slices) in [
            (&[(30, 3, 1), (30, 3, 2), (30, 3, 4), (18, 1, 1)][..], 37),
            (&[(4, 3, 5), (20, 3, 3), (4, 1, 1)][..], 9),
            (&[(20, 3, 16), (20, 3, 1), (20, 3, 16)][..], 11),
            (&[(20, 5, 2), (4, 1, 1)][..], 1),
        ] {
            let layers: Vec<_> = layers
                .iter()
                .map(|(channels, kernel, dilation)| units(*channels, *kernel, *dilation, slices))
                .collect();
            for schedule in Schedule::orders(&layers, slices) {
                check(&layers, slices, &schedule);
            }
        }
    }

    #[test]
    fn a_meshnet_holds_fewer_slices_than_its_grid() {
        let layers = |slices: usize| {
            let mut layers: Vec<_> = [1, 2, 4, 8, 16, 8, 4, 2, 1]
                .into_iter()
                .map(|dilation| units(30, 3, dilation, slices))
                .collect();
            layers.push(units(30, 1, 1, slices));
            layers
        };
        // Layer by layer: the grid, and what a step gives before it takes.
        let short = layers(80);
        assert!(Schedule::new(&short, 80).most <= 80 + 2 * AT_ONCE + 2);
        // By need: what the layers reach, at any length.
        let [long, longer] = [256, 1000].map(|slices| Schedule::new(&layers(slices), slices).most);
        assert!(long <= 200 && long == longer, "{long} {longer}");
    }
}
