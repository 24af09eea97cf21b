//! Packed attention, forward and backward.

use crate::device::*;
use half::f16;
use proptest::prelude::*;
use spo_kernels::gpu::attention::{self, Gradients, Group, Heads, Inputs, Outputs, Plan};

/// A packed batch and how far back its tokens see.
#[derive(Debug, Clone)]
struct Pack {
    groups: Vec<Group>,
    window: Option<usize>,
}

impl Pack {
    fn new(groups: &[(usize, &[usize])], window: Option<usize>) -> Self {
        let group = |(prompt, answers): &(usize, &[usize])| Group { prompt: *prompt, answers: answers.to_vec() };
        Self { groups: groups.iter().map(group).collect(), window }
    }

    fn tokens(&self) -> usize {
        self.groups.iter().map(|group| group.prompt + group.answers.iter().sum::<usize>()).sum()
    }

    /// The keys that each token sees, spelt out: those of its prompt and answer, not after itself, nearer than the window.
    fn seen(&self) -> Vec<Vec<usize>> {
        // Group, answer (0: the prompt) and position of each token.
        let mut tokens = vec![];
        for (number, group) in self.groups.iter().enumerate() {
            tokens.extend((0..group.prompt).map(|position| (number, 0, position)));
            for (answer, length) in group.answers.iter().enumerate() {
                tokens.extend((0..*length).map(|offset| (number, answer + 1, group.prompt + offset)));
            }
        }
        let sees = |row: usize, key: usize| {
            let ((group, answer, position), (of_group, of_answer, before)) = (tokens[row], tokens[key]);
            let mine = group == of_group && (of_answer == 0 || of_answer == answer);
            mine && before <= position && self.window.is_none_or(|window| position - before < window)
        };
        (0..tokens.len()).map(|row| (0..tokens.len()).filter(|key| sees(row, *key)).collect()).collect()
    }
}

/// One row's output and the logarithm of its sum.
fn row(heads: Heads, q: &[f64], k: &[f64], v: &[f64], head: usize, seen: &[usize]) -> (Vec<f64>, f64, Vec<f64>) {
    let (dim, kv) = (heads.dim, head / (heads.heads / heads.kv_heads));
    let at = |key: usize| (key * heads.kv_heads + kv) * dim..(key * heads.kv_heads + kv + 1) * dim;
    let score = |key: &usize| {
        let product: f64 = q.iter().zip(&k[at(*key)]).map(|(q, k)| q * k).sum();
        let score = product * f64::from(heads.scale);
        heads.softcap.map_or(score, |cap| (score / f64::from(cap)).tanh() * f64::from(cap))
    };
    let scores: Vec<f64> = seen.iter().map(score).collect();
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let log_sum = most + scores.iter().map(|score| (score - most).exp()).sum::<f64>().ln();
    let weights: Vec<f64> = scores.iter().map(|score| (score - log_sum).exp()).collect();
    let mut y = vec![0.0; dim];
    for (key, weight) in seen.iter().zip(&weights) {
        y.iter_mut().zip(&v[at(*key)]).for_each(|(y, v)| *y += weight * v);
    }
    (y, log_sum, scores)
}

/// Output and logarithms of sums.
fn reference(heads: Heads, seen: &[Vec<usize>], [q, k, v]: [&[f64]; 3]) -> [Vec<f64>; 2] {
    let (mut y, mut log_sums) = (vec![], vec![]);
    for (place, q) in q.chunks(heads.dim).enumerate() {
        let (of_row, log_sum, _) = row(heads, q, k, v, place % heads.heads, &seen[place / heads.heads]);
        y.extend(of_row);
        log_sums.push(log_sum);
    }
    [y, log_sums]
}

/// Gradients of queries, keys and values in closed form.
fn reference_backward(heads: Heads, seen: &[Vec<usize>], [q, k, v, d_y]: [&[f64]; 4]) -> [Vec<f64>; 3] {
    let (dim, scale) = (heads.dim, f64::from(heads.scale));
    let [mut d_q, mut d_k, mut d_v] = [q, k, v].map(|x| vec![0.0; x.len()]);
    for place in 0..q.len() / dim {
        let (head, keys) = (place % heads.heads, &seen[place / heads.heads]);
        let kv = head / (heads.heads / heads.kv_heads);
        let own = place * dim..(place + 1) * dim;
        let (y, log_sum, scores) = row(heads, &q[own.clone()], k, v, head, keys);
        let d_row = &d_y[own.clone()];
        let mean: f64 = y.iter().zip(d_row).map(|(y, d_y)| y * d_y).sum();
        for (key, score) in keys.iter().zip(scores) {
            let at = (key * heads.kv_heads + kv) * dim;
            let weight = (score - log_sum).exp();
            let along: f64 = d_row.iter().zip(&v[at..]).map(|(d_y, v)| d_y * v).sum();
            let steep = heads.softcap.map_or(1.0, |cap| 1.0 - (score / f64::from(cap)).powi(2));
            let gradient = weight * (along - mean) * steep * scale;
            for channel in 0..dim {
                d_q[place * dim + channel] += gradient * k[at + channel];
                d_k[at + channel] += gradient * q[place * dim + channel];
                d_v[at + channel] += weight * d_row[channel];
            }
        }
    }
    [d_q, d_k, d_v]
}

/// Queries, keys, values and a gradient of the output.
fn inputs<E: Stored>(heads: Heads, tokens: usize) -> [Vec<f64>; 4] {
    let (rows, keys) = (tokens * heads.heads * heads.dim, tokens * heads.kv_heads * heads.dim);
    [numbers::<E>(rows, 1), numbers::<E>(keys, 2), numbers::<E>(keys, 3), numbers::<E>(rows, 4)]
}

/// Output, logarithms of sums, and the three gradients, on the device.
fn on_device<E: Stored>(heads: Heads, pack: &Pack) -> [Vec<f64>; 5] {
    let client = client();
    let tokens = pack.tokens();
    let [q, k, v, d_y] = inputs::<E>(heads, tokens).map(|values| upload::<E>(&client, &values));
    let plan = Plan::new(&pack.groups, pack.window).upload(&client);
    let inputs = Inputs { q: q.clone(), k: k.clone(), v: v.clone() };
    let outputs =
        Outputs { y: poisoned::<E>(&client, q.len), log_sums: poisoned::<f32>(&client, tokens * heads.heads) };
    attention::forward::<E>(&client, plan.clone(), heads, inputs.clone(), outputs.clone());
    let [d_q, d_k, d_v] = [q, k, v].map(|of| poisoned::<E>(&client, of.len));
    let gradients = Gradients { q: d_q.clone(), k: d_k.clone(), v: d_v.clone() };
    attention::backward::<E>(&client, plan, heads, inputs, outputs.clone(), d_y, gradients);
    let [y, d_q, d_k, d_v] = [outputs.y, d_q, d_k, d_v].map(|of| download::<E>(&client, &of));
    [y, download::<f32>(&client, &outputs.log_sums), d_q, d_k, d_v]
}

fn check<E: Stored>(heads: Heads, pack: &Pack) {
    let seen = pack.seen();
    let [q, k, v, d_y] = inputs::<E>(heads, pack.tokens());
    let found = on_device::<E>(heads, pack);
    let [y, log_sums] = reference(heads, &seen, [&q, &k, &v]);
    let [d_q, d_k, d_v] = reference_backward(heads, &seen, [&q, &k, &v, &d_y]);
    let [found_y, found_log_sums, gradients @ ..] = found;
    assert_close("y", &found_y, &y, E::TOLERANCE);
    assert_close("log_sums", &found_log_sums, &log_sums, E::TOLERANCE);
    let most = [&d_q, &d_k, &d_v].map(|expected| largest(expected)).into_iter().fold(0.0, f64::max);
    for (name, (found, expected)) in ["d_q", "d_k", "d_v"].into_iter().zip(gradients.iter().zip([d_q, d_k, d_v])) {
        // Tokens that see themselves alone have no gradient but of values: what cancels altogether is held to those.
        let own = largest(&expected);
        assert_close_by(name, found, &expected, E::TOLERANCE, if own < 1e-12 * most { most } else { own });
    }
}

fn heads(heads: usize, kv_heads: usize, dim: usize, softcap: Option<f32>) -> Heads {
    // Larger than 1/√dim, so that weights differ and caps bend.
    Heads { heads, kv_heads, dim, scale: 3.0 / (dim as f32).sqrt(), softcap, matrix: false }
}

#[test]
fn the_reference_has_the_derivatives_of_differences() {
    for (softcap, window) in [(None, None), (Some(2.0), Some(3))] {
        let (heads, pack) = (heads(2, 1, 3, softcap), Pack::new(&[(3, &[2, 1]), (0, &[3])], window));
        let seen = pack.seen();
        let [q, k, v, d_y] = inputs::<f32>(heads, pack.tokens());
        let [d_q, d_k, d_v] = reference_backward(heads, &seen, [&q, &k, &v, &d_y]);
        let of_q = differences(&q, &d_y, |q| reference(heads, &seen, [q, &k, &v])[0].clone());
        let of_k = differences(&k, &d_y, |k| reference(heads, &seen, [&q, k, &v])[0].clone());
        let of_v = differences(&v, &d_y, |v| reference(heads, &seen, [&q, &k, v])[0].clone());
        for (name, found, expected) in [("d_q", d_q, of_q), ("d_k", d_k, of_k), ("d_v", d_v, of_v)] {
            assert_close(name, &found, &expected, 1e-8);
        }
    }
}

#[test]
fn head_dimensions() {
    let pack = Pack::new(&[(37, &[30, 1]), (0, &[20])], None);
    for dim in [8, 48, 128] {
        check::<f32>(heads(4, 2, dim, None), &pack);
        check::<f16>(heads(4, 2, dim, Some(3.0)), &pack);
    }
}

#[test]
fn tile_borders() {
    for length in [1, 32, 65] {
        check::<f32>(heads(2, 1, 16, None), &Pack::new(&[(length, &[1, 32, length]), (length, &[33])], None));
        check::<f32>(heads(1, 1, 16, Some(2.0)), &Pack::new(&[(32, &[length]), (length, &[])], Some(length)));
    }
}

#[test]
fn no_tokens_are_no_work() {
    check::<f32>(heads(2, 1, 16, None), &Pack::new(&[], None));
}

#[test]
fn large_scores_do_not_overflow() {
    let heads = Heads { heads: 1, kv_heads: 1, dim: 32, scale: 200.0, softcap: None, matrix: false };
    let pack = Pack::new(&[(20, &[40, 7])], None);
    let [y, log_sums, ..] = on_device::<f32>(heads, &pack);
    let [q, k, v, _] = inputs::<f32>(heads, pack.tokens());
    let [expected, sums] = reference(heads, &pack.seen(), [&q, &k, &v]);
    // Scores of a thousand have steps of 6e-5 in f32.
    assert_close("y", &y, &expected, 1e-3);
    assert_close("log_sums", &log_sums, &sums, 1e-5);
}

#[test]
fn bits_are_the_same_from_run_to_run() {
    let (heads, pack) = (heads(4, 2, 64, Some(5.0)), Pack::new(&[(70, &[30, 50]), (0, &[9])], Some(40)));
    assert_eq!(on_device::<f32>(heads, &pack), on_device::<f32>(heads, &pack));
    assert_eq!(on_device::<f16>(heads, &pack), on_device::<f16>(heads, &pack));
}

fn packs() -> impl Strategy<Value = Pack> {
    let length = || prop_oneof![Just(0usize), Just(1), Just(32), 1usize..70];
    let answers = proptest::collection::vec(prop_oneof![Just(1usize), Just(32), 1usize..70], 0..4);
    let group = (length(), answers).prop_map(|(prompt, answers)| Group { prompt, answers });
    let window = prop_oneof![Just(None), Just(Some(1usize)), (1usize..90).prop_map(Some)];
    (proptest::collection::vec(group, 1..4), window).prop_map(|(groups, window)| Pack { groups, window })
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn random_packs(pack in packs(), shared in 1usize..4, kv_heads in 1usize..3, capped in any::<bool>()) {
        let heads = heads(shared * kv_heads, kv_heads, 16, capped.then_some(2.0));
        check::<f32>(heads, &pack);
        check::<f16>(heads, &pack);
    }
}
