"""How many numbers the encoders have."""

from __future__ import annotations

from .network import first_width
from .settings import EncoderSettings


def estimate_parameters(
    n_users: int, n_items: int, n_factors: int, encoder: EncoderSettings, *, biases: bool
) -> int:
    """Return the number of weights of the first layers and of residuals, which are nearly all there are."""
    rows, width, n_bases = n_users + n_items, first_width(encoder), encoder.n_bases
    tables = encoder.data_input * rows * 2 * width
    matrix = 0
    if encoder.latent_input == "average":
        matrix = 2 * n_factors * 2 * width * encoder.feedback
    elif encoder.feedback:
        tables += rows * 2 * (width * n_factors if n_bases is None else n_bases)
    bases = 0 if n_bases is None else 2 * n_bases * n_factors * 2 * width
    residuals = encoder.residual * rows * 2 * (n_factors + biases)
    return tables * (1 + encoder.bayesian_input) + matrix + bases + residuals
