//! Which tensor is which: one table from roles to names and shapes, used by every path that touches weights.

use super::ArchSpec;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the table below describes each
pub enum WeightRole {
    TokenEmbedding,
    RopeFreqs,
    AttnNorm,
    AttnQ,
    AttnK,
    AttnV,
    AttnQBias,
    AttnKBias,
    AttnVBias,
    AttnOutput,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
    OutputNorm,
    Output,
}

/// Role, name in GGUF (`{}` stands for the layer), description.
const TABLE: &[(WeightRole, &str, &str)] = &[
    (WeightRole::TokenEmbedding, "token_embd.weight", "token embedding"),
    (WeightRole::RopeFreqs, "rope_freqs.weight", "rotary frequency divisors"),
    (WeightRole::AttnNorm, "blk.{}.attn_norm.weight", "attention norm"),
    (WeightRole::AttnQ, "blk.{}.attn_q.weight", "query projection"),
    (WeightRole::AttnK, "blk.{}.attn_k.weight", "key projection"),
    (WeightRole::AttnV, "blk.{}.attn_v.weight", "value projection"),
    (WeightRole::AttnQBias, "blk.{}.attn_q.bias", "query bias"),
    (WeightRole::AttnKBias, "blk.{}.attn_k.bias", "key bias"),
    (WeightRole::AttnVBias, "blk.{}.attn_v.bias", "value bias"),
    (WeightRole::AttnOutput, "blk.{}.attn_output.weight", "attention output projection"),
    (WeightRole::FfnNorm, "blk.{}.ffn_norm.weight", "feed-forward norm"),
    (WeightRole::FfnGate, "blk.{}.ffn_gate.weight", "gate projection"),
    (WeightRole::FfnUp, "blk.{}.ffn_up.weight", "up projection"),
    (WeightRole::FfnDown, "blk.{}.ffn_down.weight", "down projection"),
    (WeightRole::OutputNorm, "output_norm.weight", "final norm"),
    (WeightRole::Output, "output.weight", "LM head"),
];

/// Names of tensors in one kind of file.
#[derive(Debug, Clone, Copy)]
pub struct WeightNames {
    table: &'static [(WeightRole, &'static str, &'static str)],
}

impl WeightNames {
    /// The names used in GGUF files.
    pub const GGUF: Self = Self { table: TABLE };

    /// The tensor's name; `layer` counts for nothing in roles outside layers.
    pub fn name(&self, role: WeightRole, layer: usize) -> String {
        self.pattern(role).replace("{}", &layer.to_string())
    }

    /// The role, and the layer of roles inside layers, of a tensor's name. The inverse of [`name`](Self::name).
    pub fn parse(&self, name: &str) -> Option<(WeightRole, Option<usize>)> {
        self.table.iter().find_map(|&(role, pattern, _)| match pattern.split_once("{}") {
            None => (name == pattern).then_some((role, None)),
            Some((head, tail)) => {
                let digits = name.strip_prefix(head)?.strip_suffix(tail)?;
                let layer: usize = digits.parse().ok()?;
                // Only the way `name` writes numbers: not `+1`, not `01`.
                (layer.to_string() == digits).then_some((role, Some(layer)))
            }
        })
    }

    fn pattern(&self, role: WeightRole) -> &'static str {
        self.table.iter().find(|(r, ..)| *r == role).map_or("", |(_, pattern, _)| pattern)
    }
}

impl WeightRole {
    /// Every role, embedding first, LM head last.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(role, ..)| *role)
    }

    /// What the tensor is, for messages.
    pub fn description(self) -> &'static str {
        TABLE.iter().find(|(r, ..)| *r == self).map_or("", |(.., description)| description)
    }

    /// Whether each layer has one.
    pub fn is_per_layer(self) -> bool {
        WeightNames::GGUF.pattern(self).contains("{}")
    }
}

impl ArchSpec {
    /// Whether a model of this specification has such a tensor.
    pub fn has(&self, role: WeightRole) -> bool {
        match role {
            WeightRole::AttnQBias | WeightRole::AttnKBias | WeightRole::AttnVBias => self.qkv_bias,
            WeightRole::Output => !self.tied_embeddings,
            WeightRole::RopeFreqs => self.rope.freq_factors.is_some(),
            _ => true,
        }
    }

    /// Rows and columns of a tensor: `[outputs, inputs]`, `[1, length]` for vectors.
    pub fn weight_shape(&self, role: WeightRole) -> (usize, usize) {
        let (q, kv) = (self.q_dim(), self.kv_dim());
        match role {
            WeightRole::TokenEmbedding | WeightRole::Output => (self.vocab, self.hidden),
            WeightRole::RopeFreqs => (1, self.rope.dims / 2),
            WeightRole::AttnNorm | WeightRole::FfnNorm | WeightRole::OutputNorm => (1, self.hidden),
            WeightRole::AttnQ => (q, self.hidden),
            WeightRole::AttnK | WeightRole::AttnV => (kv, self.hidden),
            WeightRole::AttnQBias => (1, q),
            WeightRole::AttnKBias | WeightRole::AttnVBias => (1, kv),
            WeightRole::AttnOutput => (self.hidden, q),
            WeightRole::FfnGate | WeightRole::FfnUp => (self.ffn, self.hidden),
            WeightRole::FfnDown => (self.hidden, self.ffn),
        }
    }

    /// Every tensor the model has, with its layer, in the order of a forward pass.
    pub fn weights(&self) -> impl Iterator<Item = (WeightRole, usize)> + '_ {
        let present = |role: &WeightRole| self.has(*role);
        let before = WeightRole::all().take_while(|r| !r.is_per_layer());
        let after = WeightRole::all().skip_while(|r| !r.is_per_layer()).filter(|r| !r.is_per_layer());
        let layers = (0..self.n_layers)
            .flat_map(|layer| WeightRole::all().filter(|r| r.is_per_layer()).map(move |role| (role, layer)));
        let outside = |role| (role, 0);
        before.map(outside).chain(layers).chain(after.map(outside)).filter(move |(role, _)| present(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for role in WeightRole::all() {
            let layer = role.is_per_layer().then_some(17);
            let name = WeightNames::GGUF.name(role, 17);
            assert_eq!(WeightNames::GGUF.parse(&name), Some((role, layer)), "{name}");
            assert!(!role.description().is_empty());
        }
        for wrong in ["blk.01.attn_q.weight", "blk.+1.attn_q.weight", "blk.{}.attn_q.weight", "blk.1.attn_q", "output"]
        {
            assert_eq!(WeightNames::GGUF.parse(wrong), None, "{wrong}");
        }
    }
}
