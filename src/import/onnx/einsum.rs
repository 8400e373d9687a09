//! Sums over named axes of two values, as one matrix product.

use super::translate::{Call, Growing};
use super::wire::Parsed;
use crate::model::graph::Op;

pub(super) fn translate(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let equation: String = call
        .text("equation", "")?
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let refused = || format!("the equation {equation:?} is not supported");
    let (left, out) = equation.split_once("->").ok_or_else(refused)?;
    let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
    let out: Vec<char> = out.chars().collect();
    // Each axis has a name and each name stands once.
    let plain = |term: &Vec<char>| {
        term.iter().all(char::is_ascii_alphabetic)
            && (1..term.len()).all(|n| !term[..n].contains(&term[n]))
    };
    let [a, b] = terms.as_slice() else {
        return Err(refused());
    };
    if !terms.iter().chain([&out]).all(plain) || call.inputs.len() != 2 {
        return Err(refused());
    }
    let (x, y) = (growing.node(call.value(0)?)?, growing.node(call.value(1)?)?);
    let (shape_a, shape_b) = (growing.shapes[x].clone(), growing.shapes[y].clone());
    if shape_a.len() != a.len() || shape_b.len() != b.len() {
        return Err(refused());
    }
    let named = |term: &[char], test: &dyn Fn(&char) -> bool| -> Vec<char> {
        term.iter().copied().filter(|c| test(c)).collect()
    };
    let batch = named(&out, &|c| a.contains(c) && b.contains(c));
    let rows = named(&out, &|c| a.contains(c) && !b.contains(c));
    let columns = named(&out, &|c| !a.contains(c) && b.contains(c));
    let summed = named(a, &|c| b.contains(c) && !out.contains(c));
    let all_a = batch.len() + rows.len() + summed.len();
    let all_b = batch.len() + columns.len() + summed.len();
    if all_a != a.len() || all_b != b.len() || batch.len() + rows.len() + columns.len() != out.len()
    {
        return Err(refused());
    }
    let length = |c: &char| {
        let at = a.iter().position(|x| x == c).map(|n| shape_a[n]);
        at.or_else(|| b.iter().position(|x| x == c).map(|n| shape_b[n]))
            .unwrap_or(1)
    };
    let size = |names: &[char]| names.iter().map(length).product::<usize>() as i64;
    let mut matrix = |node: usize, term: &[char], parts: [&[char]; 3]| -> Parsed<usize> {
        let order = parts
            .concat()
            .iter()
            .map(|c| term.iter().position(|x| x == c).expect("it was counted"))
            .collect();
        let node = growing.emit(Op::Transpose { order }, &[node])?;
        let shape = parts.iter().map(|part| size(part)).collect();
        growing.emit(Op::Reshape { shape }, &[node])
    };
    let x = matrix(x, a, [&batch, &rows, &summed])?;
    let y = matrix(y, b, [&batch, &summed, &columns])?;
    let product = growing.emit(Op::MatMul, &[x, y])?;
    let order = [batch, rows, columns].concat();
    let shape = order.iter().map(|c| length(c) as i64).collect();
    let product = growing.emit(Op::Reshape { shape }, &[product])?;
    let order = out
        .iter()
        .map(|c| order.iter().position(|x| x == c).expect("it was counted"))
        .collect();
    growing.emit(Op::Transpose { order }, &[product])
}
