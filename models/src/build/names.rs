//! Names of tensors in GGUF files and of the bricks that read them: a brick is called like its tensor without the suffix.

pub(super) const TOKEN_EMBD: &str = "token_embd";
pub(super) const OUTPUT_NORM: &str = "output_norm";
pub(super) const OUTPUT: &str = "output";

pub(super) const ATTN_NORM: &str = "attn_norm";
pub(super) const ATTN_Q: &str = "attn_q";
pub(super) const ATTN_K: &str = "attn_k";
pub(super) const ATTN_V: &str = "attn_v";
pub(super) const ATTN_OUTPUT: &str = "attn_output";
pub(super) const FFN_NORM: &str = "ffn_norm";
pub(super) const FFN_GATE: &str = "ffn_gate";
pub(super) const FFN_UP: &str = "ffn_up";
pub(super) const FFN_DOWN: &str = "ffn_down";

/// `blk.{layer}.{part}`.
pub(super) fn block(layer: u32, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

/// `{brick}.weight`.
pub(super) fn weight(brick: &str) -> String {
    format!("{brick}.weight")
}

/// `{brick}.bias`.
pub(super) fn bias(brick: &str) -> String {
    format!("{brick}.bias")
}
