"""The encoder as the paper writes it (sections 3.2 and 3.4): dense, Z built: an independent statement.

Only the *names* of the parameters are the package's; every product, mask and quotient is written out from the
text: Eq. 8 for the towers, Eq. 9-10 for the attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bmf.methods.cross_feedback.encoder import Encoder
from pyro_bmf.model.feedback import Feedback


@dataclass(frozen=True)
class Dense:
    """A small ratings matrix with its 0/1 mask of the observed entries."""

    observed: Tensor  # (n_rows, n_columns), 0 or 1
    ratings: Tensor  # (n_rows, n_columns), zero where not observed

    @classmethod
    def draw(cls, n_rows: int, n_columns: int, share: float, seed: int) -> Dense:
        """Draw ratings; row 0 has none, the last row has all, the last column only that one."""
        generator = torch.Generator().manual_seed(seed)
        observed = (torch.rand(n_rows, n_columns, generator=generator) < share).double()
        observed[0] = 0.0
        observed[:, -1] = 0.0
        observed[-1] = 1.0
        # An observed rating of zero is a rating all the same: masks come from presence, not from value.
        ratings = torch.randint(-2, 3, (n_rows, n_columns), generator=generator).double() * 0.75
        return cls(observed, ratings * observed)

    def feedback(self) -> Feedback:
        """The same entries, sparse, given in a scrambled order."""
        rows, columns = self.observed.nonzero(as_tuple=True)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
        rows, columns = rows[order], columns[order]
        return Feedback.from_coo(rows, columns, self.ratings[rows, columns], *self.observed.shape)


def latent_input(observed: Tensor, embeddings: Tensor) -> Tensor:
    """Z: for each row all embeddings one after the other, those of unrated columns masked by zeros."""
    rows = []
    for mask in observed:
        rows.append(torch.cat([float(m) * v for m, v in zip(mask, embeddings, strict=True)]))
    return torch.stack(rows)


def literal_attention(
    query: Tensor, embeddings: Tensor, observed: Tensor, *, normalization: str, scope: str
) -> Tensor:
    """Eq. 9 and 10 row by row: a_ij = s_ij / sum_j s_ij (or its softmax), c_i = sum_j a_ij v_j."""
    result = []
    for q, mask in zip(query, observed, strict=True):
        attended = [j for j in range(len(embeddings)) if scope == "global" or mask[j] == 1.0]
        if not attended:
            result.append(torch.zeros_like(q))
            continue
        scores = torch.stack([q @ embeddings[j] for j in attended])
        if normalization == "softmax":
            scores = torch.exp(scores - scores.max().detach())
        shares = scores / scores.sum()
        result.append(sum(a * embeddings[j] for a, j in zip(shares, attended, strict=True)))
    return torch.stack(result)


def score_ratio(query: Tensor, embeddings: Tensor, observed: Tensor, *, scope: str) -> Tensor:
    """|sum_j s_ij| / sqrt(n_i sum_j s_ij^2) of each row: what the guard is about. One if n_i = 0."""
    mask = observed if scope == "local" else torch.ones_like(observed)
    scores = (query @ embeddings.T) * mask
    size = torch.sqrt(mask.sum(1) * (scores**2).sum(1))
    return torch.where(size > 0, scores.sum(1).abs() / size, 1.0)


def literal_encoder(encoder: Encoder, data: Dense, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior means and *variances* (as a share of the prior's) of the rows of a dense matrix.

    The third result is each row's smallest `score_ratio`: where it is not above the guard's, the package does
    not promise Eq. 9 to the letter.
    """
    settings = encoder.settings
    k = encoder.n_factors
    n_other = data.observed.shape[1]
    mean_count = torch.exp(encoder.log_mean_count) - 1.0
    counts = data.observed.sum(1, keepdim=True)
    # Not in the paper, whose inputs are plain sums (power 0): inputs divided by a power of the row's count.
    divisor = ((1.0 + counts) / (1.0 + mean_count)) ** settings.input_power
    x = data.ratings / divisor
    z = latent_input(data.observed, embeddings) / divisor
    outputs = []
    ratio = torch.ones(len(z))
    for index, network in enumerate((encoder.mean, encoder.variance)):
        towers = []
        if settings.data_input:
            width = encoder.data_weight.shape[-1] // 2
            own = slice(index * width, (index + 1) * width)
            h = torch.relu(x @ encoder.data_weight[:, own] + encoder.data_bias[own])
            for layer in linear_layers(network.data_tower):
                h = torch.relu(h @ layer.weight.T + layer.bias)
            towers.append(h)
        if settings.feedback and settings.latent_input == "average":
            # The mean of the rated embeddings, which no power of the count divides again.
            width = encoder.latent_matrix.shape[-1] // 2
            own = slice(index * width, (index + 1) * width)
            means = []
            for mask in data.observed:
                rated = [v for m, v in zip(mask, embeddings, strict=True) if m == 1.0]
                means.append(torch.stack(rated).mean(0) if rated else torch.zeros_like(embeddings[0]))
            g = torch.relu(torch.stack(means) @ encoder.latent_matrix[:, own] + encoder.latent_bias[own])
            for layer in linear_layers(network.latent_tower):
                g = torch.relu(g @ layer.weight.T + layer.bias)
            towers.append(g)
        elif settings.feedback:
            width = encoder.latent_weight.shape[-1] // 2
            own = slice(index * width, (index + 1) * width)
            phi = torch.cat([encoder.latent_weight[j, :, own] for j in range(n_other)])  # (J*K, M)
            g = torch.relu(z @ phi + encoder.latent_bias[own])
            for layer in linear_layers(network.latent_tower):
                g = torch.relu(g @ layer.weight.T + layer.bias)
            towers.append(g)
        if settings.count_input:
            towers.append(torch.log((1.0 + counts) / (1.0 + mean_count)))
        s = torch.cat(towers, dim=1)
        head = linear_layers(network.head)
        for layer in head[:-1]:
            s = torch.relu(s @ layer.weight.T + layer.bias)
        out = s @ head[-1].weight.T + head[-1].bias
        if settings.attention != "none":
            query = out[:, :k] @ network.attention_weight
            if settings.attention == "sum":
                scope = settings.attention_scope
                ratio = torch.minimum(ratio, score_ratio(query, embeddings, data.observed, scope=scope))
            context = literal_attention(
                query,
                embeddings,
                data.observed,
                normalization=settings.attention,
                scope=settings.attention_scope,
            )
            if settings.attention_merge == "concat":
                out = torch.cat([out, context], dim=1) @ network.merge.weight.T + network.merge.bias
            else:
                out = torch.cat([out[:, :k] + context, out[:, k:]], dim=1)
        outputs.append(out)
    return outputs[0], torch.sigmoid(outputs[1]), ratio


def linear_layers(module: torch.nn.Module) -> list[torch.nn.Linear]:
    """The affine maps of a network, in order."""
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.4) -> None:
    """Draw every parameter afresh, so that no starting value (zeros, identities) hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if name.endswith("bias"):
                parameter.add_(0.5)  # so that few units are dead: a dead network hides every error
