//! Small bricks for experiments.

use bricks::catalog::{
    ActivationBrick, AttentionBrick, DownBrick, EmbedBrick, FfnBrick, GateUpBrick, LayerParts, LmHeadBrick, OProjBrick,
    Part, QkvBrick, ResidualBrick, RmsNormBrick, RopeBrick,
};
use bricks::reference::Weight;
use bricks::{ActKind, AttentionSpec, BrickError, RopeScaling, RopeSpec, RopeStyle};

use crate::noise::Noise;

pub(super) const HIDDEN: usize = 16;
pub(super) const HEADS: usize = 4;
pub(super) const KV_HEADS: usize = 2;
pub(super) const HEAD_DIM: usize = 6;
pub(super) const FFN: usize = 24;
pub(super) const VOCAB: usize = 11;

/// A matrix `[rows, cols]` of seeded noise.
pub(super) fn matrix(seed: u64, rows: usize, cols: usize) -> Result<Weight<'static>, BrickError> {
    Weight::from_f32(rows, cols, &Noise::new(seed).values(rows * cols, 0.5))
}

pub(super) fn rope_spec(style: RopeStyle, dims: usize, base: f32) -> RopeSpec {
    RopeSpec { style, base, dims, scaling: RopeScaling::None, freq_factors: None }
}

pub(super) fn embed() -> Result<EmbedBrick, BrickError> {
    EmbedBrick::new(matrix(1, VOCAB, HIDDEN)?, 1.0)
}

pub(super) fn lm_head() -> Result<LmHeadBrick, BrickError> {
    LmHeadBrick::new([Part::new(matrix(2, VOCAB, HIDDEN)?)])
}

pub(super) fn gate_up() -> Result<GateUpBrick, BrickError> {
    GateUpBrick::new([Part::new(matrix(3, FFN, HIDDEN)?), Part::new(matrix(4, FFN, HIDDEN)?)])
}

pub(super) fn activation() -> Result<ActivationBrick, BrickError> {
    ActivationBrick::new(ActKind::Silu, FFN)
}

pub(super) fn down() -> Result<DownBrick, BrickError> {
    DownBrick::new([Part::new(matrix(5, HIDDEN, FFN)?)])
}

/// A whole layer; sizes differ from each other wherever they may.
pub(super) fn layer_parts() -> Result<LayerParts, BrickError> {
    let part = |seed, rows| Part::new(matrix(seed, rows, HIDDEN)?).with_bias(&matrix(seed + 50, 1, rows)?);
    let attention = AttentionSpec {
        n_heads: HEADS,
        n_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        scale: 1.0 / (HEAD_DIM as f32).sqrt(),
        window: None,
        softcap: None,
    };
    Ok(LayerParts {
        attn_norm: RmsNormBrick::new(&matrix(10, 1, HIDDEN)?, 1e-6)?,
        qkv: QkvBrick::new([
            part(11, HEADS * HEAD_DIM)?,
            part(12, KV_HEADS * HEAD_DIM)?,
            part(13, KV_HEADS * HEAD_DIM)?,
        ])?,
        rope: RopeBrick::new(HEADS, KV_HEADS, HEAD_DIM, rope_spec(RopeStyle::SplitHalves, HEAD_DIM, 1e6))?,
        attention: AttentionBrick::new(attention)?,
        o_proj: OProjBrick::new([Part::new(matrix(14, HIDDEN, HEADS * HEAD_DIM)?)])?,
        residual: ResidualBrick::new(HIDDEN)?,
        ffn_norm: RmsNormBrick::new(&matrix(15, 1, HIDDEN)?, 1e-6)?,
        ffn: FfnBrick::new(gate_up()?, ActKind::Silu, down()?)?,
    })
}
