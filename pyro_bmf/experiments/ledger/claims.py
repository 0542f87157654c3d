"""What sections 3.3 to 4.6 of the paper claim, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyro_bmf.experiments.ledger.judgements import (
    AUTOENCODERS,
    NOT_RUN,
    PRINTED,
    Outcome,
    attention_surpasses,
    differs,
    i_rec_last,
    lowest_rmse,
    margins,
    mean_ranks,
    no_worse_ranking,
    parts_printed,
    second,
    sparse_autoencoders,
    times,
    user_side,
)
from pyro_bmf.experiments.ledger.runs import Runs
from pyro_bmf.experiments.papers.judging import OPEN


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes
    ----------
    section, text : str
    experiment : str
        Whose runs judge it.
    keys : tuple of str
        Of that experiment's own verdicts.
    judged : callable or None
        Gives outcomes from the runs; those of the keys where it is None.
    """

    section: str
    text: str
    experiment: str
    keys: tuple[str, ...] = ()
    judged: Callable[[Runs], Iterator[Outcome]] | None = None

    def outcomes(self, runs: Runs) -> list[Outcome]:
        """Return what became of it; one that says so where nothing was run."""
        found = list(self.judged(runs)) if self.judged is not None else []
        for one in runs.claims(self.experiment):
            if one["key"] in self.keys:
                found.append(_of_experiment(one))
        if all(one.where == PRINTED for one in found):
            found.append(Outcome("ours", NOT_RUN, f"experiment {self.experiment}"))
        return found


def _of_experiment(one: Mapping[str, Any]) -> Outcome:
    """Return a verdict that an experiment gave; one for want of runs is said to be not run."""
    share = "" if one.get("percent") is None else f", {one['percent']:g} % trained on"
    unrun = one["verdict"] == OPEN and one["difference"] is None
    return Outcome(
        f"{one['title']}{share}",
        NOT_RUN if unrun else one["verdict"],
        f"{one['claim']}: {one['told'] or one['verdict']}",
    )


CLAIMS: tuple[Claim, ...] = (
    Claim("3.3", "nested iteration is more accurate than sequential", "table4", ("sequential",)),
    Claim(
        "3.4",
        "local attention is better where ratings are dense, global where they are sparse",
        "sparsity",
        ("local-or-global",),
    ),
    Claim("4.4", "lower test RMSE than all baselines", "table3", judged=lowest_rmse),
    Claim("4.4", "by 0.017 (ML-1M) to 0.032 (Amazon-Kindle) less than the second", "table3", judged=margins),
    Claim("4.4", "I-Rec is second on MovieLens, NCF on Amazon", "table3", judged=second),
    Claim("4.4", "sparse ratings degrade I-Rec and U-Rec (Amazon)", "table3", judged=sparse_autoencoders),
    Claim(
        "4.4, Figure 2",
        "mean ranks in RMSE: 1, NCF and I-Rec 2.58 and 2.79",
        "significance",
        judged=mean_ranks,
    ),
    Claim("4.4, Figure 2", "RMSE differs from VAE-CF's", "significance", judged=differs("RMSE", ("vae-cf",))),
    Claim(
        "4.4, Figure 2",
        "NDCG@50 differs from the other top models'",
        "significance",
        judged=differs("NDCG@50", ()),
    ),
    Claim("4.4", "no ranking figure is below a baseline's", "table3", judged=no_worse_ranking),
    Claim("4.4", "U-Rec, DAE-CF and VAE-CF fare better in ranking than in RMSE", "table3", judged=user_side),
    Claim("4.4", "I-Rec ranks worst", "table3", judged=i_rec_last),
    Claim("4.4, Figure 3", "on 1 to 10 % of the ratings, the lowest RMSE", "sparsity", ("lowest-rmse",)),
    Claim("4.4, Figure 3", "there NCF is second in RMSE", "sparsity", ("ncf-second",)),
    Claim("4.4, Figure 3", "there VAE-CF is second in ranking", "sparsity", ("vae-cf-second-ranking",)),
    Claim(
        "4.4, Figure 3",
        "there the smallest margin is 0.005 (Amazon-Pet, 3 %)",
        "sparsity",
        ("smallest-margin",),
    ),
    Claim("4.4, Figure 3", "there I-Rec suffers most in ranking", "sparsity", ("i-rec-suffers-most",)),
    Claim(
        "4.5",
        "every part matters in every figure",
        "table4",
        ("data-input", "feedback", "attention", "full-ranking"),
        parts_printed,
    ),
    Claim("4.5", "the data input matters most", "table4", ("data-input-largest",)),
    Claim("4.5", "attention matters least", "table4", ("attention-least",)),
    Claim(
        "4.5",
        "with attention it surpasses baselines that it does not without",
        "table4",
        judged=attention_surpasses,
    ),
    Claim(
        "4.6, Figure 4",
        "variants with cross feedback are below those without",
        "convergence",
        ("b-below-a", "d-below-c"),
    ),
    Claim(
        "4.6, Figure 4",
        "cross feedback converges faster",
        "convergence",
        ("b-faster-than-a", "b-faster-than-a-seconds", "d-faster-than-c", "d-faster-than-c-seconds"),
    ),
    Claim("4.6, Figure 4", "B's curve is smoother than A's", "convergence", ("b-smoother-than-a",)),
    Claim(
        "4.6, Figure 4",
        "attention lowers RMSE further, steady after 20 iterations",
        "convergence",
        ("e-below-d", "e-steady-after-20"),
    ),
    Claim(
        "4.6, Figure 4",
        "attention is slower at the beginning",
        "convergence",
        ("attention-slower-early", "e-faster-than-d", "e-faster-than-d-seconds"),
    ),
    Claim(
        "4.6",
        "4 to 5 times slower than VAE-CF, DAE-CF, U-Rec and I-Rec (ML-20M, Amazon)",
        "table3",
        judged=times(AUTOENCODERS, 3.5, 5.5),
    ),
    Claim("4.6", "about as fast as NCF and CNN-CF", "table3", judged=times(("ncf", "cnn-cf"), 0.5, 2.0)),
    Claim("4.6", "an average as latent input is worse than a concatenation", "table4", ("average-input",)),
)
