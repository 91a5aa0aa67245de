//! One entry for every operation, for checks that walk a graph.

use super::linear::{embed, linear};
use super::{
    Arithmetic, Weight, add, add_rms_norm, attention, gated_activation, gather_rows, kv_write, rms_norm, rope,
};
use crate::error::BrickError;
use crate::op::{Op, OpError, Rows};

/// What an operation needs beside its inputs and weights: the batch, and the state of one sequence. Fields that an operation
/// does not use may stay empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Token ids of the rows ([`Op::Embed`]).
    pub tokens: &'a [u32],
    /// Position of each row in its sequence ([`Op::Rope`], [`Op::KvWrite`], [`Op::Attention`]).
    pub positions: &'a [u32],
    /// Numbers of the rows whose logits are wanted ([`Op::RmsNorm`] with [`Rows::Wanted`]).
    pub wanted: &'a [usize],
    /// Keys of the sequence, `[S, kv_dim]`.
    pub keys: &'a [f32],
    /// Values of the sequence, `[S, kv_dim]`.
    pub values: &'a [f32],
    /// What linear maps multiply with.
    pub arithmetic: Arithmetic,
}

/// Evaluates any operation. `inputs` are its f32 ports in order, `weights` those its variant of [`Op`] lists.
///
/// The result has one buffer per f32 output. Where the operation's output is the KV cache, two buffers stand for it: keys and
/// values `[S, kv_dim]`, those of the context with the new ones at their places. So:
///
/// | operation | `inputs` | result |
/// | --- | --- | --- |
/// | `Input` | none | none (tokens are in the context) |
/// | `Embed` | none (tokens are in the context) | `x` |
/// | `KvWrite` | `k`, `v` | keys, values |
/// | `RopeKvWrite` | `q`, `k`, `v` | rotated `q`, keys, values |
/// | `Attention` | `q` (the cache is in the context) | `y` |
/// | others | as the variant says | as the variant says |
///
/// A batch of several sequences is evaluated sequence by sequence wherever the cache takes part.
///
/// # Errors
/// [`BrickError`] if the number of inputs or weights, a shape or an index does not fit.
pub fn run(
    op: &Op,
    inputs: &[&[f32]],
    weights: &[Weight<'_>],
    context: &Context<'_>,
) -> Result<Vec<Vec<f32>>, BrickError> {
    let error = |source: OpError| BrickError::Op { brick: op.name().to_owned(), source };
    let Context { tokens, positions, wanted, keys, values, arithmetic } = *context;
    let take = |n: usize| {
        if inputs.len() == n { Ok(()) } else { Err(error(OpError::InputCount { expected: n, found: inputs.len() })) }
    };
    let take_weights = |n: usize| {
        if weights.len() == n { Ok(()) } else { Err(error(OpError::WeightCount { expected: n, found: weights.len() })) }
    };
    let gain = |x: &Weight<'_>| x.vector(op.name(), "gain", x.cols());
    let with_written = |k: &[f32], v: &[f32], kv_dim: usize| {
        let (mut keys, mut values) = (keys.to_vec(), values.to_vec());
        kv_write(&mut keys, kv_dim, k, positions)?;
        kv_write(&mut values, kv_dim, v, positions)?;
        Ok::<_, BrickError>((keys, values))
    };
    let kv_dim =
        |n_kv_heads: usize, head_dim: usize| super::width_of(op.name(), "KV heads, head_dim", &[n_kv_heads, head_dim]);

    let named = |e: BrickError| e.in_brick(op.name());
    let evaluate = || match op {
        Op::Input => {
            take(0)?;
            take_weights(0)?;
            Ok(vec![])
        }
        Op::Embed { scale } => {
            take(0)?;
            take_weights(1)?;
            Ok(vec![embed(&weights[0], tokens, *scale)?])
        }
        Op::RmsNorm { eps, rows } => {
            take(1)?;
            take_weights(1)?;
            let gain = gain(&weights[0])?;
            match rows {
                Rows::All => Ok(vec![rms_norm(inputs[0], &gain, *eps)?]),
                Rows::Wanted => Ok(vec![rms_norm(&gather_rows(inputs[0], gain.len(), wanted)?, &gain, *eps)?]),
            }
        }
        Op::AddRmsNorm { eps } => {
            take(2)?;
            take_weights(1)?;
            let (sum, norm) = add_rms_norm(inputs[0], inputs[1], &gain(&weights[0])?, *eps)?;
            Ok(vec![sum, norm])
        }
        Op::Linear { input, .. } | Op::GatedLinear { input, .. } => {
            let parts = op.parts();
            take(1)?;
            take_weights(parts.iter().map(|p| 1 + usize::from(p.bias)).sum())?;
            let mut outputs = Vec::with_capacity(parts.len());
            let mut i = 0;
            for part in parts {
                weights[i].expect_shape(op.name(), "matrix", part.rows, *input)?;
                let bias = if part.bias { Some(weights[i + 1].vector(op.name(), "bias", part.rows)?) } else { None };
                outputs.push(linear(&weights[i], bias.as_deref(), inputs[0], arithmetic)?);
                i += 1 + usize::from(part.bias);
            }
            match (op, &outputs[..]) {
                (Op::GatedLinear { act, .. }, [gate, up]) => Ok(vec![gated_activation(*act, gate, up)?]),
                _ => Ok(outputs),
            }
        }
        Op::Rope { n_heads, head_dim, spec } => {
            take(1)?;
            take_weights(0)?;
            Ok(vec![rope(spec, *n_heads, *head_dim, inputs[0], positions)?])
        }
        Op::KvWrite { n_kv_heads, head_dim } => {
            take(2)?;
            take_weights(0)?;
            let (keys, values) = with_written(inputs[0], inputs[1], kv_dim(*n_kv_heads, *head_dim)?)?;
            Ok(vec![keys, values])
        }
        Op::RopeKvWrite { n_heads, n_kv_heads, head_dim, spec } => {
            take(3)?;
            take_weights(0)?;
            let q = rope(spec, *n_heads, *head_dim, inputs[0], positions)?;
            let k = rope(spec, *n_kv_heads, *head_dim, inputs[1], positions)?;
            let (keys, values) = with_written(&k, inputs[2], kv_dim(*n_kv_heads, *head_dim)?)?;
            Ok(vec![q, keys, values])
        }
        Op::Attention(spec) => {
            take(1)?;
            take_weights(0)?;
            Ok(vec![attention(spec, inputs[0], keys, values, positions)?])
        }
        Op::Add => {
            take(2)?;
            take_weights(0)?;
            Ok(vec![add(inputs[0], inputs[1])?])
        }
        Op::GatedActivation { act } => {
            take(2)?;
            take_weights(0)?;
            Ok(vec![gated_activation(*act, inputs[0], inputs[1])?])
        }
    };
    evaluate().map_err(named)
}
