r"""The scales of implicit weights, drawn with what they predict: the rows integrated out.

Given the weights of a column k their precision moves by a few percent a sweep, however little the ratings
say of it. Multiplying both, :math:`y_{jk} \to g y_{jk}` and :math:`\lambda_k \to \lambda_k / g^2`, moves the
rows' prior means, of which the ratings say a Normal of precision :math:`G_i` (`mean_information`): with
:math:`f = A y`, and :math:`s_i` the precision times what they say it is, the logarithm of the density is

.. math::

   -\frac{1}{2} g^T M g + g^T l - \sum_k (2 \log g_k + s^2 \lambda_k g_k^{-2}), \qquad
   M_{kl} = \sum_i f_{ik} G_{i,kl} f_{il}, \quad l_k = \sum_i f_{ik} (s_i - G_i \mu)_k,

and each g_k is drawn given the others. Interweaving: Yu and Meng (2011), doi 10.1198/jcgs.2011.203main.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...numerics import room
from ...numerics.slice_draw import slice_draw
from .chain_state import SideState
from .mean_information import Information

#: First interval of the slices of log g.
_WIDTH = 0.4


def scale_tables(
    own: SideState, means: Tensor, said: Tensor, information: Information, scale: float
) -> Tensor:
    r"""Return what the density of the scales is made of: :math:`s^2 \lambda`, l and M, (D + 2, D), float64.

    Parameters
    ----------
    own : SideState
    means : Tensor, shape (n, D)
        f: what the weights add to the rows' prior means.
    said : Tensor, shape (n, D)
        G_i times what each row's ratings say of its prior mean.
    information : Information
        G_i.
    scale : float
        s of the prior of the weights' precisions.
    """
    about = said - information.apply(own.location.expand_as(means))
    tables = (
        (scale**2 * own.weights_precision.double()).unsqueeze(0),
        (means * about).double().sum(0).unsqueeze(0),
        information.products(means).double(),
    )
    return torch.cat(tables)


def rescale_weights(own: SideState, tables: Tensor) -> None:
    """Draw the scale of each column of one side's weights given its `scale_tables`, in place."""
    rates, linear, *quadratic = tables.tolist()
    g = [1.0] * len(rates)
    for k, rate in enumerate(rates):
        row = quadratic[k]
        pull = linear[k] - sum(m * other for m, other in zip(row, g, strict=True)) + row[k] * g[k]

        def log_density(t: float, square: float = row[k], pull: float = pull, rate: float = rate) -> float:
            if abs(t) > 300.0:
                return -math.inf
            factor = math.exp(t)
            return factor * (pull - 0.5 * square * factor) - 2.0 * t - rate / factor**2

        g[k] = math.exp(slice_draw(log_density, _WIDTH))
    drawn = room.to_device(g, own.weights.device).to(own.weights.dtype)
    own.weights = own.weights * drawn
    own.weights_precision = own.weights_precision / drawn**2
