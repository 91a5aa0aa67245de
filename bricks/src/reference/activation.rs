//! Functions of the gate in feed-forward networks.

use crate::error::BrickError;
use crate::op::ActKind;

/// The function of the gate at `x`.
///
/// - `Silu`: `x / (1 + e^(-x))`
/// - `GeluTanh`: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))` (Hendrycks and Gimpel, arXiv 1606.08415)
pub fn activate(act: ActKind, x: f64) -> f64 {
    match act {
        ActKind::Silu => x / (1.0 + (-x).exp()),
        ActKind::GeluTanh => {
            let inner = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            0.5 * x * (1.0 + (inner * (x + 0.044_715 * x * x * x)).tanh())
        }
    }
}

/// `act(gate) · up`, element by element.
///
/// # Errors
/// [`BrickError::Shape`] if the lengths differ.
pub fn gated_activation(act: ActKind, gate: &[f32], up: &[f32]) -> Result<Vec<f32>, BrickError> {
    if gate.len() != up.len() {
        return Err(BrickError::shape(
            "gated_activation",
            "up",
            format_args!("{} values as gate", gate.len()),
            up.len(),
        ));
    }
    Ok(gate.iter().zip(up).map(|(&g, &u)| (activate(act, f64::from(g)) * f64::from(u)) as f32).collect())
}
