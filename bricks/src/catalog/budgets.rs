//! Budgets that were written down.

use crate::budget::{BudgetOrigin, TokenBudget};
use crate::kind::BrickKind;

/// One explicit budget per kind of brick, in microseconds per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetTable {
    us: [f64; BrickKind::COUNT],
}

impl BudgetTable {
    /// What bricks are built with: round figures for one layer of a small model on a GPU, to start from until the machine is
    /// measured.
    pub const DEFAULT: Self = Self {
        us: [
            3.0,   // Embed
            10.0,  // RmsNorm
            10.0,  // FinalNorm
            15.0,  // Qkv
            5.0,   // Rope
            3.0,   // KvWrite
            25.0,  // Attention
            10.0,  // OProj
            3.0,   // Residual
            20.0,  // GateUp
            5.0,   // Activation
            15.0,  // Down
            250.0, // LmHead: 191 MB of weights take 190 µs at 1008 GB/s
            50.0,  // Sample
            50.0,  // Custom
        ],
    };

    /// The target for a 1.5B model in Q4_K_M on an RTX 4090 (1008 GB/s), one token at a time: a layer is 36.7 µs, the model
    /// 976 tok/s.
    pub const TARGET_1_5B_RTX_4090: Self = Self {
        us: [
            0.8,   // Embed
            1.5,   // RmsNorm
            1.2,   // FinalNorm
            6.0,   // Qkv
            1.0,   // Rope
            1.0,   // KvWrite
            10.0,  // Attention
            3.5,   // OProj
            0.5,   // Residual
            6.0,   // GateUp
            2.0,   // Activation
            4.2,   // Down
            190.0, // LmHead: the time its 191 MB take at full bandwidth
            5.0,   // Sample
            5.0,   // Custom
        ],
    };

    /// The budget of a kind.
    pub fn get(&self, kind: BrickKind) -> TokenBudget {
        sum_us(self.us[kind.index()])
    }

    /// The sum of the budgets of several kinds, for a brick made of these.
    pub fn sum(&self, kinds: &[BrickKind]) -> TokenBudget {
        sum_us(kinds.iter().map(|k| self.us[k.index()]).sum())
    }
}

/// An explicit budget of the sum of positive figures.
fn sum_us(us: f64) -> TokenBudget {
    TokenBudget::from_latency(us, BudgetOrigin::Explicit).expect("invariant: the tables hold positive, finite figures")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_a_budget_that_round_trips() {
        for table in [BudgetTable::DEFAULT, BudgetTable::TARGET_1_5B_RTX_4090] {
            for kind in BrickKind::ALL {
                let b = table.get(kind);
                assert_eq!(b.origin(), BudgetOrigin::Explicit);
                assert!(b.us_per_token() > 0.0 && b.us_per_token().is_finite(), "{kind}");
                assert!((b.us_per_token() * b.tokens_per_sec() / 1e6 - 1.0).abs() < 1e-12, "{kind}");
            }
        }
    }

    #[test]
    fn the_figures_are_at_the_right_kinds() {
        use BrickKind as K;
        let named = [(K::RmsNorm, 10.0), (K::Qkv, 15.0), (K::Rope, 5.0), (K::Attention, 25.0), (K::OProj, 10.0)];
        let ffn = [(K::GateUp, 20.0), (K::Activation, 5.0), (K::Down, 15.0), (K::Residual, 3.0)];
        for (kind, us) in named.into_iter().chain(ffn) {
            assert_eq!(BudgetTable::DEFAULT.get(kind).us_per_token(), us, "{kind}");
        }
        let t = BudgetTable::TARGET_1_5B_RTX_4090;
        assert_eq!(t.get(K::Attention).us_per_token(), 10.0);
        assert!((t.sum(&[K::GateUp, K::Activation, K::Down]).us_per_token() - 12.2).abs() < 1e-9);
    }
}
