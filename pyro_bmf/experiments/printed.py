"""The figures that the paper prints (Jin et al., arXiv 2002.09145v3, Tables 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping

#: Models of the rows, by our names.
MODELS: tuple[str, ...] = ("ncf", "cnn-cf", "u-rec", "i-rec", "dae-cf", "vae-cf", "ours")
SETS: tuple[str, ...] = ("ML-1M", "ML-10M", "ML-20M", "Amazon-Pet", "Amazon-Kindle")
#: By metric and model, a figure for each of `SETS`.
TABLE3: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "RMSE": {
        "ncf": (0.870, 0.831, 0.822, 1.098, 0.734),
        "cnn-cf": (0.875, 0.844, 0.839, 1.119, 0.770),
        "u-rec": (0.883, 0.893, 0.833, 1.136, 0.772),
        "i-rec": (0.859, 0.823, 0.818, 1.213, 0.787),
        "dae-cf": (0.911, 0.852, 0.841, 1.247, 0.762),
        "vae-cf": (0.903, 0.834, 0.836, 1.211, 0.747),
        "ours": (0.842, 0.804, 0.798, 1.074, 0.702),
    },
    "NDCG@20": {
        "ncf": (0.797, 0.799, 0.797, 0.908, 0.963),
        "cnn-cf": (0.774, 0.778, 0.796, 0.886, 0.948),
        "u-rec": (0.796, 0.794, 0.802, 0.896, 0.963),
        "i-rec": (0.767, 0.759, 0.776, 0.883, 0.942),
        "dae-cf": (0.797, 0.801, 0.799, 0.899, 0.961),
        "vae-cf": (0.798, 0.801, 0.803, 0.909, 0.962),
        "ours": (0.802, 0.806, 0.809, 0.911, 0.966),
    },
    "NDCG@50": {
        "ncf": (0.788, 0.791, 0.791, 0.907, 0.963),
        "cnn-cf": (0.758, 0.762, 0.790, 0.882, 0.946),
        "u-rec": (0.788, 0.788, 0.796, 0.894, 0.963),
        "i-rec": (0.754, 0.744, 0.771, 0.879, 0.941),
        "dae-cf": (0.789, 0.793, 0.795, 0.898, 0.960),
        "vae-cf": (0.787, 0.794, 0.793, 0.908, 0.960),
        "ours": (0.793, 0.797, 0.800, 0.910, 0.965),
    },
    "Recall@20": {
        "ncf": (0.775, 0.778, 0.790, 0.905, 0.959),
        "cnn-cf": (0.756, 0.761, 0.792, 0.882, 0.939),
        "u-rec": (0.776, 0.781, 0.784, 0.893, 0.958),
        "i-rec": (0.749, 0.740, 0.755, 0.879, 0.933),
        "dae-cf": (0.778, 0.782, 0.785, 0.896, 0.958),
        "vae-cf": (0.777, 0.782, 0.786, 0.906, 0.958),
        "ours": (0.781, 0.784, 0.790, 0.906, 0.961),
    },
    "Recall@50": {
        "ncf": (0.763, 0.768, 0.782, 0.904, 0.958),
        "cnn-cf": (0.742, 0.749, 0.779, 0.880, 0.937),
        "u-rec": (0.764, 0.763, 0.775, 0.892, 0.957),
        "i-rec": (0.738, 0.726, 0.743, 0.876, 0.932),
        "dae-cf": (0.766, 0.772, 0.782, 0.896, 0.957),
        "vae-cf": (0.767, 0.773, 0.783, 0.905, 0.958),
        "ours": (0.770, 0.774, 0.783, 0.906, 0.961),
    },
}
#: By metric and what was taken away, a figure for each of `SETS`; of nothing, they are Table 3's own.
TABLE4: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "RMSE": {
        "no-data-input": (0.917, 0.902, 0.878, 1.241, 0.813),
        "no-feedback": (0.864, 0.829, 0.824, 1.110, 0.739),
        "no-attention": (0.852, 0.812, 0.809, 1.087, 0.718),
        "full": (0.842, 0.804, 0.798, 1.074, 0.702),
    },
    "NDCG@20": {
        "no-data-input": (0.795, 0.797, 0.804, 0.907, 0.961),
        "no-feedback": (0.798, 0.801, 0.807, 0.908, 0.963),
        "no-attention": (0.800, 0.803, 0.808, 0.910, 0.965),
        "full": (0.802, 0.806, 0.809, 0.911, 0.966),
    },
    "NDCG@50": {
        "no-data-input": (0.787, 0.790, 0.793, 0.906, 0.961),
        "no-feedback": (0.790, 0.793, 0.796, 0.907, 0.963),
        "no-attention": (0.792, 0.795, 0.798, 0.909, 0.964),
        "full": (0.793, 0.797, 0.800, 0.910, 0.965),
    },
    "Recall@20": {
        "no-data-input": (0.775, 0.776, 0.786, 0.902, 0.956),
        "no-feedback": (0.778, 0.779, 0.788, 0.904, 0.958),
        "no-attention": (0.780, 0.782, 0.789, 0.905, 0.960),
        "full": (0.781, 0.784, 0.790, 0.906, 0.961),
    },
    "Recall@50": {
        "no-data-input": (0.764, 0.767, 0.781, 0.901, 0.955),
        "no-feedback": (0.767, 0.771, 0.782, 0.903, 0.957),
        "no-attention": (0.768, 0.773, 0.782, 0.905, 0.959),
        "full": (0.770, 0.774, 0.783, 0.906, 0.961),
    },
}


def printed_part(metric: str, part: str, title: str) -> float | None:
    """Return a printed figure of Table 4; None of a part or a set that the paper has not."""
    if title not in SETS or part not in TABLE4[metric]:
        return None
    return TABLE4[metric][part][SETS.index(title)]


def printed(metric: str, model: str, title: str) -> float | None:
    """Return a printed figure; None of a model or a set that the paper has not."""
    if title not in SETS or model not in TABLE3[metric]:
        return None
    return TABLE3[metric][model][SETS.index(title)]
