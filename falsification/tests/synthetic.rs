//! Synthetic models against an independent forward pass in f64.

#![allow(clippy::unwrap_used)]

use brick_falsification::claim::Refusal;
use brick_falsification::runs;
use brick_falsification::synthetic::{LogitError, NAMES, Synthetic};
use brick_runtime::Model;
use bricks::DType;
use bricks::reference::argmax;

fn load(name: &str) -> Synthetic {
    Synthetic::load(name).unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

fn logits(model: &Model, s: &Synthetic) -> Vec<Vec<f32>> {
    runs::logits(model, &runs::options(64, 64), &s.golden.ids()).unwrap_or_else(|e| panic!("{}: {e:?}", s.name))
}

fn error(s: &Synthetic, logits: &[Vec<f32>]) -> LogitError {
    s.golden.compare(logits).unwrap()
}

/// Whether logits are those of the reference where no activation is rounded to 8 bits. What remains is f32 sums, and keys and
/// values so near the middle between two f16 that the last bit of an f32 decides which is stored: few, but each is a step of
/// 5e-4 of one element.
fn exact(e: LogitError) -> bool {
    e.mean < 2e-4 && e.largest < 2e-3
}

#[test]
fn f32_weights_give_the_reference_to_four_digits() {
    for name in NAMES {
        let s = load(name);
        let e = error(&s, &logits(&s.widened().unwrap(), &s));
        println!("{name}: {e}");
        assert!(exact(e), "{name}: {e}");
    }
}

/// With BF16 weights activations are rounded to BF16: 2⁻⁹ of an element at worst, 0.1 % rms, several times in a row.
fn rounded(e: LogitError) -> bool {
    e.mean < 6e-3 && e.largest < 5e-2
}

/// Weights as stored. Activations of quantised matrices are rounded to 8 bits per block of 32: relative 1/254 of the block's
/// largest value at worst, about 0.4 % rms, several times in a row. llama.cpp's own error on these files is 3 to 5 % of a
/// deviation in the mean and up to 50 % (`synthetic.py --oracle`); ours is the same, and the limit a little above.
#[test]
fn stored_weights_give_the_reference_up_to_the_rounding_of_activations() {
    for name in NAMES {
        let s = load(name);
        let found = logits(&s.model, &s);
        let e = error(&s, &found);
        let all = |which: fn(DType) -> bool| s.model.gguf.tensors().iter().all(|t| t.dtype.is_some_and(which));
        if all(|t| t.is_float() && t != DType::BF16) {
            assert!(exact(e), "{name}: {e}");
        } else if all(DType::is_float) {
            assert!(rounded(e), "{name}: {e}");
        }
        println!("{name}: {e}");
        assert!(e.mean < 0.06 && e.largest < 0.8, "{name}: {e}");
        // Where the reference is sure, the choice is the same.
        let sure = 8.0 * e.mean * s.golden.deviation();
        let mut compared = 0;
        for (position, (found, expected)) in found.iter().zip(&s.golden.logits).enumerate() {
            let mut sorted = expected.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            if sorted[0] - sorted[1] > sure {
                let best = expected.iter().position(|x| *x == sorted[0]);
                assert_eq!(argmax(found), best, "{name} at {position}, margin {}", sorted[0] - sorted[1]);
                compared += 1;
            }
        }
        assert!(compared >= 8, "{name}: only {compared} positions with a margin above {sure}");
    }
}

#[test]
fn greedy_continuations_are_those_of_the_reference() {
    for name in NAMES {
        let s = load(name);
        let n = s.golden.greedy_ids.len();
        assert!(n >= 16);
        let found = runs::greedy(&s.widened().unwrap(), &runs::options(64, 64), &s.golden.prompt_ids, n, |_| false);
        assert_eq!(found.unwrap_or_default(), s.golden.greedy_ids, "{name}, margins {:?}", s.golden.greedy_margins);
    }
}

/// The files cover what they are there for.
#[test]
fn together_they_hold_every_storage_type_and_every_rotation() {
    let models: Vec<Synthetic> = NAMES.iter().map(|n| load(n)).collect();
    for dtype in DType::ALL {
        let somewhere =
            models.iter().flat_map(|s| s.model.gguf.tensors()).any(|t| t.dtype == Some(*dtype) && !t.is_vector());
        assert!(somewhere, "no matrix in {dtype}");
    }
    assert!(models.iter().any(|s| s.model.spec.rope.dims < s.model.spec.head_dim));
    assert!(models.iter().any(|s| s.model.spec.head_dim % 32 != 0));
    assert!(models.iter().any(|s| s.model.spec.q_dim() != s.model.spec.hidden));
}

#[test]
fn unknown_names_are_refused() {
    assert!(matches!(Synthetic::load("gpt-17"), Err(Refusal::Falsified { .. })));
}
