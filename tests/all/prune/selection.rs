//! Exactly k, lower indices first, nearest point; projections of whole networks.

use engine::backend::cpu::{Cpu, VectorPath};
use engine::backend::{Backend, Memory};
use engine::base::error::Error;
use engine::nn::models::Network;
use engine::prune::{Group, Scheme, Slice, groups, hard_prune, project, select};
use proptest::prelude::*;

use super::{params, random_model, target, with_params};
use crate::backends::{normal, on_every_backend};
use crate::compare::{assert_close, bits};

on_every_backend! { norms_are_those_of_plain_loops, selects_exactly_k_of_each, nan_is_refused }

/// A group of tensors of `items` rows (or columns, or elements) of small integers, most of which are equal.
#[derive(Clone, Debug)]
struct Case {
    group: Group,
    /// Length of what belongs to one item, in each member.
    lens: Vec<usize>,
    tensors: Vec<Vec<f32>>,
}

impl Case {
    /// What belongs to `item`.
    fn item(&self, item: usize) -> Vec<f32> {
        let slice = |(tensor, &len): (&Vec<f32>, &usize)| -> Vec<f32> {
            match self.group.slice {
                Slice::Column => (0..len).map(|row| tensor[row * self.group.items + item]).collect(),
                Slice::Row | Slice::Element => tensor[item * len..][..len].to_vec(),
            }
        };
        self.tensors.iter().zip(&self.lens).flat_map(slice).collect()
    }

    /// Squared distance to the point where only the items of the bit set `kept` are left. Exact: small integers.
    fn distance(&self, kept: u32) -> f64 {
        let removed = (0..self.group.items).filter(|i| kept & (1 << i) == 0);
        removed.flat_map(|i| self.item(i)).map(|v| f64::from(v).powi(2)).sum()
    }

    fn select<B: Backend>(&self, backend: &B) -> Vec<f32> {
        let bufs: Vec<B::Buf> = self.tensors.iter().map(|t| backend.upload(t)).collect();
        let groups = [(&self.group, bufs.iter().collect())];
        backend.download(&select(backend, &groups, |_| "conv1".to_string()).unwrap()[0])
    }
}

fn group(slice: Slice, members: usize, items: usize, keep: usize) -> Group {
    Group { layers: (0..members).collect(), members: (0..members).collect(), slice, items, keep }
}

/// One of the schemes: elements, rows of one layer, columns, rows of tied layers with rows of different lengths.
fn cases() -> impl Strategy<Value = Case> {
    let schemes = prop_oneof![
        Just((Slice::Element, vec![1])),
        (1..12_usize).prop_map(|len| (Slice::Row, vec![len])),
        (1..12_usize).prop_map(|len| (Slice::Column, vec![len])),
        prop::collection::vec(1..5_usize, 2..4).prop_map(|lens| (Slice::Row, lens)),
    ];
    (schemes, 1..=9_usize).prop_flat_map(|((slice, lens), items)| {
        let tensors: Vec<_> =
            lens.iter().map(|len| prop::collection::vec((-2..=2_i8).prop_map(f32::from), items * len)).collect();
        (tensors, 1..=items).prop_map(move |(tensors, keep)| Case {
            group: group(slice, lens.len(), items, keep),
            lens: lens.clone(),
            tensors,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No other choice of as many items is nearer, and of those that are as near it is the one of the lowest indices.
    #[test]
    fn the_nearest_point_of_all(case in cases()) {
        let mask = case.select(&Cpu::<f32>::new(1).unwrap());
        prop_assert_eq!(mask.len(), case.group.items);
        prop_assert!(mask.iter().all(|&m| m == 0.0 || m == 1.0));
        let kept: u32 = mask.iter().enumerate().map(|(i, &m)| (m as u32) << i).sum();
        prop_assert_eq!(kept.count_ones() as usize, case.group.keep);
        let distance = case.distance(kept);
        let indices = |set: u32| (0..case.group.items).filter(|i| set & (1 << i) != 0).collect::<Vec<_>>();
        for other in (0_u32..1 << case.group.items).filter(|s| s.count_ones() as usize == case.group.keep) {
            prop_assert!(distance <= case.distance(other), "{other:b} is nearer than {kept:b}");
            prop_assert!(distance < case.distance(other) || indices(kept) <= indices(other), "{other:b} comes first");
        }
    }

    /// The same selection in f64, and of what is left of the projection.
    #[test]
    fn selection_is_idempotent_and_the_same_in_f64(case in cases()) {
        let backend = Cpu::<f32>::new(1).unwrap();
        let mask = case.select(&backend);
        prop_assert_eq!(&mask, &case.select(&Cpu::<f64>::new(1).unwrap()));
        let mut projected = case.clone();
        for (tensor, &len) in projected.tensors.iter_mut().zip(&case.lens) {
            for (i, v) in tensor.iter_mut().enumerate() {
                let item = if case.group.slice == Slice::Column { i % case.group.items } else { i / len };
                *v *= mask[item];
            }
        }
        prop_assert_eq!(mask, projected.select(&backend));
    }
}

pub fn norms_are_those_of_plain_loops<B: Backend>(backend: &B) {
    for (rows, cols) in [(1, 1), (3, 7), (7, 8), (5, 33), (3, 517), (257, 9), (64, 1152)] {
        let x: Vec<f32> = normal(rows as u64, rows * cols);
        let other: Vec<f32> = normal(cols as u64, rows * 3);
        let (a, b) = (backend.upload(&x), backend.upload(&other));
        let squares = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let row = |r: usize| (squares(&x[r * cols..][..cols]) + squares(&other[r * 3..][..3])).sqrt();
        let want: Vec<f64> = (0..rows).map(row).collect();
        assert_close("row norms", &backend.download(&backend.row_norms(rows, &[&a, &b])), &want, 1e-7, 0.0);
        let column = |c: usize| (0..rows).map(|r| f64::from(x[r * cols + c]).powi(2)).sum::<f64>().sqrt();
        let want: Vec<f64> = (0..cols).map(column).collect();
        assert_close("column norms", &backend.download(&backend.column_norms(cols, &a)), &want, 1e-7, 0.0);
    }
    let mask = backend.upload(&[1.0, 0.0, 1.0]);
    assert_eq!(backend.download(&backend.broadcast_rows(3, 2, &mask)), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(backend.download(&backend.broadcast_columns(2, 3, &mask)), [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
}

/// Several tensors at once against a stable sort: empty and short ones, some longer than a block's share, with a value that
/// occurs a thousand times on the border, with zeros of both signs and infinities, and one with NaN; more than a table holds.
pub fn selects_exactly_k_of_each<B: Backend>(backend: &B) {
    let steps = |seed, n| normal(seed, n).iter().map(|v| (v * 2.0).round() / 2.0).collect::<Vec<f32>>();
    let long = steps(1, 4000);
    let mut cases: Vec<(usize, Vec<f32>)> =
        [0, 1, 2, 500, 1999, 2000, 2001, 3999, 4000].map(|k| (k, long.clone())).into();
    cases.extend([(0, vec![]), (0, vec![1.0]), (1, vec![0.0]), (16, normal(2, 31)), (1025, normal(3, 1026))]);
    cases.extend([(9, steps(4, 16_384)), (9_000, steps(5, 16_385)), (20_000, steps(6, 40_003))]);
    cases.push((3, vec![0.0, -0.0, f32::NEG_INFINITY, 0.0, f32::MAX, -0.0]));
    cases.push((1, vec![2.0, f32::NAN, 1.0]));
    cases.extend((0..60).map(|i| (i / 2, normal(7 + i as u64, i + 1))));
    let bufs: Vec<B::Buf> = cases.iter().map(|(_, values)| backend.upload(values)).collect();
    let selections: Vec<(usize, &B::Buf)> = cases.iter().zip(&bufs).map(|((k, _), x)| (*k, x)).collect();
    let masks = backend.top_k_masks(&selections);
    assert_eq!(masks.len(), cases.len());
    for ((k, values), mask) in cases.iter().zip(masks) {
        let mask = mask.map(|mask| backend.download(&mask));
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
        let mut want = vec![0.0; values.len()];
        order[..*k].iter().for_each(|&i| want[i] = 1.0);
        let want = (!values.iter().any(|v| v.is_nan())).then_some(want);
        assert!(mask == want, "{k} of {}", values.len());
    }
}

pub fn nan_is_refused<B: Backend>(backend: &B) {
    for (slice, members) in [(Slice::Element, 1), (Slice::Row, 1), (Slice::Row, 3), (Slice::Column, 1)] {
        for at in [0, 5, 23] {
            let mut tensors = vec![vec![1.0; 24]; members];
            tensors[members - 1][at] = f32::NAN;
            let bufs: Vec<B::Buf> = tensors.iter().map(|t| backend.upload(t)).collect();
            let items = if slice == Slice::Element { 24 } else { 6 };
            let group = group(slice, members, items, 2);
            let fine = backend.upload(&[1.0; 24]);
            let other = self::group(Slice::Element, 1, 24, 2);
            let groups = [(&other, vec![&fine]), (&group, bufs.iter().collect())];
            let name = |named: &Group| if named == &group { "layer1.0.conv1" } else { "fc" }.to_string();
            let message = match select(backend, &groups, name) {
                Err(e @ Error::Diverged(_)) => e.to_string(),
                _ => panic!("NaN was selected from, {slice:?}"),
            };
            assert!(message.starts_with("layer1.0.conv1: ") && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn infinities_are_kept_first() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let x = backend.upload(&[f32::MAX, f32::INFINITY, -1.0, f32::NEG_INFINITY]);
    let group = group(Slice::Element, 1, 4, 2);
    let masks = select(&backend, &[(&group, vec![&x])], |_| "conv1".to_string()).unwrap();
    assert_eq!(backend.download(&masks[0]), [0.0, 1.0, 0.0, 1.0]);
}

/// Survivors of a group: items with any weight left. Before pruning all have.
fn survivors(group: &Group, values: &[Vec<f32>]) -> Vec<usize> {
    let alive = |item: usize| {
        group.members.iter().any(|&member| {
            let values = &values[member];
            let others = values.len() / group.items;
            (0..others).any(|o| match group.slice {
                Slice::Column => values[o * group.items + item] != 0.0,
                Slice::Row | Slice::Element => values[item * others + o] != 0.0,
            })
        })
    };
    (0..group.items).filter(|&item| alive(item)).collect()
}

/// Every scheme on every network it fits, weights of few distinct magnitudes.
#[test]
fn whole_networks_keep_exactly_k_and_nothing_else_changes() {
    let backend = Cpu::<f32>::new(2).unwrap();
    for &network in Network::ALL {
        for (&scheme, ratio) in Scheme::ALL.iter().flat_map(|s| [0.5, 0.75].map(|r| (s, r))) {
            let model = random_model(&backend, network, 4, 7);
            let Ok(groups) = groups(model.architecture(), &target(scheme, ratio)) else {
                assert!(scheme == Scheme::BnFilter && matches!(network, Network::LeNet | Network::LeNetCifar));
                continue;
            };
            let coarse = |v: &f32| ((8.0 * v).round() / 8.0).abs().max(0.125).copysign(*v);
            let before: Vec<Vec<f32>> =
                params(&backend, &model).iter().map(|p| p.iter().map(coarse).collect()).collect();
            let mut model = with_params(&backend, &model, &before);
            project(&backend, &groups, &mut model).unwrap();
            let after = params(&backend, &model);
            for group in &groups {
                let kept = survivors(group, &after);
                assert_eq!(kept.len(), group.keep, "{network} {scheme} {ratio}: {group:?}");
            }
            let is_member = |i: usize| groups.iter().any(|g| g.members.contains(&i));
            for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                let kept = before.iter().zip(after).all(|(b, a)| a.to_bits() == b.to_bits() || a.to_bits() == 0);
                assert!(kept && (is_member(i) || before == after), "{network} {scheme}: parameter {i}");
            }
            project(&backend, &groups, &mut model).unwrap();
            assert_eq!(params(&backend, &model), after, "{network} {scheme}: projected twice");
        }
    }
}

#[test]
fn projection_names_the_layer_that_is_nan() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let model = random_model(&backend, Network::LeNet, 2, 1);
    let mut values = params(&backend, &model);
    values[2][3] = f32::NAN;
    let mut model = with_params(&backend, &model, &values);
    let error = hard_prune(&backend, &target(Scheme::Filter, 0.5), &mut model).unwrap_err();
    assert!(matches!(&error, Error::Diverged(m) if m.starts_with("conv2: ")), "{error}");
}

/// Selection does not depend on threads or vector instructions.
#[test]
fn the_same_bits_on_every_path() {
    let one = Cpu::<f32>::new(1).unwrap();
    for &scheme in Scheme::ALL {
        let pruned = |backend: &Cpu<f32>| {
            let mut model = random_model(backend, Network::ResNet18, 2, 3);
            hard_prune(backend, &target(scheme, 0.5), &mut model).unwrap();
            params(backend, &model).iter().map(|p| bits(p)).collect::<Vec<_>>()
        };
        for path in VectorPath::available() {
            assert_eq!(pruned(&one), pruned(&Cpu::with_path(3, path).unwrap()), "{scheme}, {path}");
        }
    }
}
