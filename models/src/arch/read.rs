//! From metadata to [`ArchSpec`].
//!
//! Keys and defaults are those of the GGUF specification and llama.cpp; `{arch}` below stands for the architecture's name.

use bricks::{DType, RopeScaling, RopeSpec};

use super::family::{self, Family, QkvBias};
use super::{ArchError, ArchSpec, WeightNames, WeightRole};
use crate::format::gguf::{FromValue, Gguf, Metadata, MetadataError, Value};

/// `{arch}.rope.freq_base` when it is absent.
const DEFAULT_ROPE_BASE: f32 = 10_000.0;

/// Ceiling for widths, head counts, layers and the like. Far above any model, and low enough that products of two such
/// numbers fit 64 bits.
const MAX_SIZE: u32 = 1 << 30;

/// Features that files may ask for and that would give wrong answers if ignored: key, the value (beside 0) that asks for
/// nothing, feature.
const UNSUPPORTED: &[(&str, f64, &str)] = &[
    ("expert_count", 0.0, "a mixture of experts"),
    ("use_parallel_residual", 0.0, "parallel residuals"),
    ("attn_logit_softcapping", 0.0, "capped attention scores"),
    ("final_logit_softcapping", 0.0, "capped logits"),
    ("attention.clamp_kqv", 0.0, "clamped projections"),
    ("attention.max_alibi_bias", 0.0, "ALiBi positions"),
    ("attention.scale", 0.0, "scaled attention scores"),
    ("embedding_scale", 1.0, "scaled embeddings"),
    ("residual_scale", 1.0, "scaled residuals"),
    ("logit_scale", 1.0, "scaled logits"),
];

impl ArchSpec {
    /// Reads a model's specification and checks that the file's tensors are exactly those it asks for: none missing, none
    /// unknown, each of the right shape `[out, in]` and of a type that can be decoded, biases not lost, as many layers as
    /// announced.
    ///
    /// # Errors
    /// [`ArchError`] names the key or tensor, what was expected and what was found.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ArchError> {
        let metadata = gguf.metadata();
        let architecture = metadata.get_str("general.architecture")?;
        let family = family::find(architecture)?;
        let spec = Reader { gguf, metadata, family }.spec()?;
        spec.check()?;
        spec.check_tensors(gguf, family)?;
        Ok(spec)
    }
}

/// Metadata of one architecture.
struct Reader<'a> {
    gguf: &'a Gguf,
    metadata: Metadata<'a>,
    family: &'static Family,
}

impl<'a> Reader<'a> {
    fn spec(&self) -> Result<ArchSpec, ArchError> {
        self.refuse_unsupported()?;
        let n_layers = self.size("block_count")?;
        let hidden = self.size("embedding_length")?;
        let n_heads =
            self.per_layer("attention.head_count", n_layers)?.ok_or_else(|| self.missing("attention.head_count"))?;
        let n_kv_heads = self.per_layer("attention.head_count_kv", n_layers)?.unwrap_or(n_heads);
        let ffn =
            self.per_layer("feed_forward_length", n_layers)?.ok_or_else(|| self.missing("feed_forward_length"))?;
        let head_dim = self.head_dim(hidden, n_heads)?;
        let vocab = self.gguf.require(&WeightNames::GGUF.name(WeightRole::TokenEmbedding, 0))?.shape()?.rows;
        let context_length = self.size("context_length")?;
        let present = |role| self.gguf.tensor(&WeightNames::GGUF.name(role, 0)).is_some();
        Ok(ArchSpec {
            architecture: self.family.name.to_owned(),
            name: self.metadata.opt::<&str>("general.name")?.map(str::to_owned),
            n_layers,
            hidden,
            n_heads,
            n_kv_heads,
            head_dim,
            ffn,
            vocab,
            context_length,
            norm_eps: self.metadata.get(&self.key("attention.layer_norm_rms_epsilon"))?,
            rope: self.rope(head_dim, context_length)?,
            qkv_bias: match self.family.qkv_bias {
                QkvBias::Required => true,
                QkvBias::IfPresent => present(WeightRole::AttnQBias),
            },
            activation: self.family.activation,
            tied_embeddings: !present(WeightRole::Output),
            embedding_scale: 1.0,
            sliding_window: self.sliding_window(context_length)?,
        })
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.family.name)
    }

    fn opt<T: FromValue<'a>>(&self, suffix: &str) -> Result<Option<T>, MetadataError> {
        self.metadata.opt(&self.key(suffix))
    }

    fn missing(&self, suffix: &str) -> MetadataError {
        MetadataError::Missing { key: self.key(suffix), expected: u32::EXPECTED }
    }

    fn value_error(&self, suffix: &str, expected: impl Into<String>, found: &dyn std::fmt::Display) -> ArchError {
        ArchError::Value { what: self.key(suffix), expected: expected.into(), found: found.to_string() }
    }

    /// A required positive number.
    fn size(&self, suffix: &str) -> Result<usize, ArchError> {
        self.positive(suffix, self.metadata.get_u32(&self.key(suffix))?)
    }

    fn positive(&self, suffix: &str, v: u32) -> Result<usize, ArchError> {
        match v {
            1..=MAX_SIZE => Ok(v as usize),
            _ => Err(self.value_error(suffix, format!("1..={MAX_SIZE}"), &v)),
        }
    }

    /// A number that some files give once and others once per layer. Layers that differ are not supported.
    fn per_layer(&self, suffix: &str, n_layers: usize) -> Result<Option<usize>, ArchError> {
        let key = self.key(suffix);
        let Some(Value::Array(array)) = self.metadata.value(&key) else {
            return self.opt::<u32>(suffix)?.map(|v| self.positive(suffix, v)).transpose();
        };
        if array.len() != n_layers {
            return Err(self.value_error(
                suffix,
                format!("a number or {n_layers} of them"),
                &format_args!("{} of them", array.len()),
            ));
        }
        let values: Vec<u32> = self.metadata.get(&key)?;
        match values.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v == first) => self.positive(suffix, *first).map(Some),
            _ => Err(ArchError::Unsupported {
                what: key,
                found: Value::Array(array).to_string(),
                feature: "layers of different sizes",
            }),
        }
    }

    fn head_dim(&self, hidden: usize, n_heads: usize) -> Result<usize, ArchError> {
        let head_dim = match self.opt::<u32>("attention.key_length")? {
            Some(v) => self.positive("attention.key_length", v)?,
            None if hidden.is_multiple_of(n_heads) => hidden / n_heads,
            None => {
                let expected = format!("a divisor of {} = {hidden}", self.key("embedding_length"));
                return Err(self.value_error("attention.head_count", expected, &n_heads));
            }
        };
        match self.opt::<u32>("attention.value_length")? {
            Some(v) if v as usize != head_dim => Err(ArchError::Unsupported {
                what: self.key("attention.value_length"),
                found: v.to_string(),
                feature: "values of another length than keys",
            }),
            _ => Ok(head_dim),
        }
    }

    fn sliding_window(&self, context_length: usize) -> Result<Option<usize>, ArchError> {
        if !self.family.sliding_window {
            return Ok(None);
        }
        let window = self.opt::<u32>("attention.sliding_window")?.map(|w| w as usize);
        // A window that never leaves anything out is none.
        Ok(window.filter(|w| *w > 0 && *w < context_length))
    }

    fn refuse_unsupported(&self) -> Result<(), ArchError> {
        for (suffix, neutral, feature) in UNSUPPORTED {
            let key = self.key(suffix);
            let Some(value) = self.metadata.value(&key) else { continue };
            let number = match value {
                Value::Bool(v) => Some(f64::from(v)),
                Value::F32(v) => Some(f64::from(v)),
                Value::F64(v) => Some(v),
                other => other.as_integer().map(|v| v as f64),
            };
            if !number.is_some_and(|v| v == 0.0 || v == *neutral) {
                return Err(ArchError::Unsupported { what: key, found: value.to_string(), feature });
            }
        }
        match self.opt::<bool>("attention.causal")? {
            Some(false) => Err(ArchError::Unsupported {
                what: self.key("attention.causal"),
                found: "false".into(),
                feature: "attention that sees the future",
            }),
            _ => Ok(()),
        }
    }

    fn rope(&self, head_dim: usize, context_length: usize) -> Result<RopeSpec, ArchError> {
        let dims = match self.opt::<u32>("rope.dimension_count")? {
            Some(v) => self.positive("rope.dimension_count", v)?,
            None => head_dim,
        };
        Ok(RopeSpec {
            style: self.family.rope_style,
            base: self.opt("rope.freq_base")?.unwrap_or(DEFAULT_ROPE_BASE),
            dims,
            scaling: self.rope_scaling(context_length)?,
            freq_factors: self.freq_factors()?,
        })
    }

    fn rope_scaling(&self, context_length: usize) -> Result<RopeScaling, ArchError> {
        // 0 means absent, as in llama.cpp.
        let given = |v: Option<f32>| v.filter(|f| *f != 0.0);
        let factor = match given(self.opt("rope.scaling.factor")?) {
            Some(f) => Some(f),
            None => given(self.opt("rope.scale_linear")?),
        };
        if let Some(f) = factor.filter(|f| !(f.is_finite() && *f > 0.0)) {
            return Err(self.value_error("rope.scaling.factor", "a positive number", &f));
        }
        // A factor without a type is linear: files older than the key.
        match self.opt::<&str>("rope.scaling.type")? {
            Some("none") => Ok(RopeScaling::None),
            None | Some("linear") => match factor {
                None | Some(1.0) => Ok(RopeScaling::None),
                Some(factor) => Ok(RopeScaling::Linear { factor }),
            },
            Some("yarn") => self.yarn(factor, context_length),
            Some(other) => Err(ArchError::Unsupported {
                what: self.key("rope.scaling.type"),
                found: other.to_owned(),
                feature: "a rotary scaling other than none, linear and yarn",
            }),
        }
    }

    fn yarn(&self, factor: Option<f32>, context_length: usize) -> Result<RopeScaling, ArchError> {
        let factor = factor.ok_or_else(|| MetadataError::Missing {
            key: self.key("rope.scaling.factor"),
            expected: "the factor of yarn scaling",
        })?;
        let original_context = match self.opt::<u32>("rope.scaling.original_context_length")? {
            Some(v) => self.positive("rope.scaling.original_context_length", v)?,
            None => context_length,
        };
        let number = |suffix: &str, default: f32| -> Result<f32, ArchError> {
            let v = self.opt(suffix)?.unwrap_or(default);
            if v.is_finite() && v > 0.0 { Ok(v) } else { Err(self.value_error(suffix, "a positive number", &v)) }
        };
        let attn_factor = match self.opt::<f32>("rope.scaling.yarn_attn_factor")? {
            Some(_) => number("rope.scaling.yarn_attn_factor", 1.0)?,
            None => number("rope.scaling.attn_factor", 1.0)?,
        };
        // Negative means "the default for yarn", which is 1; anything between interpolates less than yarn does.
        if let Some(ext) = self.opt::<f32>("rope.scaling.yarn_ext_factor")?.filter(|e| *e >= 0.0 && *e != 1.0) {
            return Err(ArchError::Unsupported {
                what: self.key("rope.scaling.yarn_ext_factor"),
                found: ext.to_string(),
                feature: "partial yarn extrapolation",
            });
        }
        Ok(RopeScaling::Yarn {
            factor,
            original_context: original_context as u32,
            attn_factor,
            beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
        })
    }

    /// `rope_freqs.weight`: Llama-3 scaling, worked out by the converter. Its length is checked with the other shapes.
    fn freq_factors(&self) -> Result<Option<Vec<f32>>, ArchError> {
        let name = WeightNames::GGUF.name(WeightRole::RopeFreqs, 0);
        let Some(tensor) = self.gguf.tensor(&name) else { return Ok(None) };
        let value_error = |expected: &str, found: String| ArchError::Value {
            what: name.clone(),
            expected: expected.to_owned(),
            found,
        };
        if tensor.dtype != Some(DType::F32) {
            return Err(value_error("storage type F32", tensor.type_name().to_owned()));
        }
        let (values, _) = self.gguf.bytes(tensor)?.as_chunks::<4>();
        let factors: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            Some(f) => Err(value_error("positive numbers", f.to_string())),
            None => Ok(Some(factors)),
        }
    }
}
