//! The list of all brick types.

use super::{
    ActivationBrick, ActivationQuantBrick, AttentionBrick, DownBrick, EmbedBrick, FfnBrick, GateUpBrick, LayerParts,
    LmHeadBrick, OProjBrick, Part, QkvBrick, ResidualBrick, RmsNormBrick, RopeBrick, TransformerLayerBrick,
};
use crate::brick::{ComputeBrick, RunBrick};
use crate::error::BrickError;
use crate::op::{ActKind, AttentionSpec};
use crate::reference::Weight;
use crate::rope::{RopeScaling, RopeSpec, RopeStyle};

/// Declares the brick types, each with a small instance. A type that does not keep the contract does not compile here.
macro_rules! bricks {
    ($($brick:ident = $instance:expr;)*) => {
        /// Names of the brick types in [`registry`], in its order.
        pub const TYPE_NAMES: &[&str] = &[$(stringify!($brick)),*];

        fn instances() -> Result<Vec<Box<dyn ComputeBrick>>, BrickError> {
            /// Asks each type for the whole contract, execution included.
            fn declared<B: RunBrick + 'static>(brick: B) -> Box<dyn ComputeBrick> {
                Box::new(brick)
            }
            Ok(vec![$(declared::<$brick>($instance)),*])
        }
    };
}

bricks! {
    EmbedBrick = EmbedBrick::new(matrix(VOCAB, HIDDEN)?, 1.0)?;
    RmsNormBrick = norm()?;
    QkvBrick = qkv()?;
    RopeBrick = rope()?;
    AttentionBrick = attention()?;
    OProjBrick = o_proj()?;
    GateUpBrick = gate_up()?;
    ActivationBrick = ActivationBrick::new(ActKind::Silu, FFN)?;
    DownBrick = down()?;
    FfnBrick = FfnBrick::new(gate_up()?, ActKind::Silu, down()?)?;
    LmHeadBrick = LmHeadBrick::new([Part::new(matrix(VOCAB, HIDDEN)?)])?;
    ResidualBrick = ResidualBrick::new(HIDDEN)?;
    ActivationQuantBrick = ActivationQuantBrick::new(HIDDEN)?;
    TransformerLayerBrick = TransformerLayerBrick::new(0, LayerParts {
        attn_norm: norm()?,
        qkv: qkv()?,
        rope: rope()?,
        attention: attention()?,
        o_proj: o_proj()?,
        residual: ResidualBrick::new(HIDDEN)?,
        ffn_norm: norm()?,
        ffn: FfnBrick::new(gate_up()?, ActKind::Silu, down()?)?,
    });
}

/// One small instance of every brick type: hidden 32, 4 query heads on 2 KV heads of 8, feed-forward 64, vocabulary 48.
pub fn registry() -> Vec<Box<dyn ComputeBrick>> {
    instances().expect("invariant: the sizes below fit each other")
}

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const FFN: usize = 64;
const VOCAB: usize = 48;

/// A matrix of small values without a pattern that a transpose or an offset would keep.
fn matrix(rows: usize, cols: usize) -> Result<Weight<'static>, BrickError> {
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 + 13) % 1009) as f32 / 5045.0 - 0.1).collect();
    Weight::from_f32(rows, cols, &values)
}

fn norm() -> Result<RmsNormBrick, BrickError> {
    RmsNormBrick::new(&matrix(1, HIDDEN)?, 1e-6)
}

fn qkv() -> Result<QkvBrick, BrickError> {
    let part = |rows| Part::new(matrix(rows, HIDDEN)?).with_bias(&matrix(1, rows)?);
    QkvBrick::new([part(HEADS * HEAD_DIM)?, part(KV_HEADS * HEAD_DIM)?, part(KV_HEADS * HEAD_DIM)?])
}

fn rope() -> Result<RopeBrick, BrickError> {
    let spec = RopeSpec {
        style: RopeStyle::SplitHalves,
        base: 1e4,
        dims: HEAD_DIM,
        scaling: RopeScaling::None,
        freq_factors: None,
    };
    RopeBrick::new(HEADS, KV_HEADS, HEAD_DIM, spec)
}

fn attention() -> Result<AttentionBrick, BrickError> {
    AttentionBrick::new(AttentionSpec {
        n_heads: HEADS,
        n_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        scale: 1.0 / (HEAD_DIM as f32).sqrt(),
        window: None,
        softcap: None,
    })
}

fn o_proj() -> Result<OProjBrick, BrickError> {
    OProjBrick::new([Part::new(matrix(HIDDEN, HEADS * HEAD_DIM)?)])
}

fn gate_up() -> Result<GateUpBrick, BrickError> {
    GateUpBrick::new([Part::new(matrix(FFN, HIDDEN)?), Part::new(matrix(FFN, HIDDEN)?)])
}

fn down() -> Result<DownBrick, BrickError> {
    DownBrick::new([Part::new(matrix(HIDDEN, FFN)?)])
}
