"""`pyro-bmf compare`: which of several runs predicts best, with the uncertainty of the differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import write_json

from ..given import refuse_unread
from ..printing.output import TableWriter, note, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..printing.report import split_words
from ..runs.folder import RUN, RunFolder
from ..runs.several import common_split, names_of
from ..shared_options import data_dir_option, moved_data_option, seed_option

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.posterior import Posterior


@click.command()
@click.argument("paths", metavar="RUN RUN...", type=RUN, nargs=-1, required=True)
@click.option(
    "--part",
    type=click.Choice(("test", "valid")),
    default="test",
    show_default=True,
    help="Which held-out ratings to score.",
)
@click.option("--loo", is_flag=True, help="Also leave training ratings out by importance sampling (PSIS).")
@click.option(
    "--loo-ratings",
    type=click.IntRange(2),
    metavar="N",
    help="With --loo: so many training ratings, drawn at random.  [default: all]",
)
@click.option(
    "--new-users",
    type=click.IntRange(2),
    metavar="N",
    help="Also leave N users out, drawn at random, each with all its training ratings; where the split "
    "holds whole users out, those are folded in with half of their ratings too, and the rest scored.",
)
@click.option(
    "--draws",
    type=click.IntRange(25),
    metavar="S",
    help="Posterior draws.  [default: 400; of a chain, those it kept]",
)
@seed_option
@data_dir_option
@moved_data_option
@click.option(
    "--out",
    type=OutputPath(),
    metavar="FILE",
    help="Write all figures to FILE as JSON; --csv writes the tables.",
)
@table_options
def command(
    paths: tuple[Path, ...],
    part: Literal["test", "valid"],
    loo: bool,
    loo_ratings: int | None,
    new_users: int | None,
    draws: int | None,
    seed: int,
    data_dir: Path | None,
    data: str | None,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Compare runs by the log-probability that they gave to ratings (ELPD, nats: higher is better).

    Held-out ratings lead. Differences are to the best run, paired rating by rating, with two standard errors:
    as if ratings were independent, and as if only users were. All runs must have one split.

    \b
    Examples:
      pyro-bmf compare runs/normal runs/ordered
      pyro-bmf compare runs/* --loo --loo-ratings 20000 --out compare.json
      pyro-bmf compare runs/normal runs/ordered --new-users 300
    """
    from pyro_bmf.checking.held_out import held_out_log_prob
    from pyro_bmf.evaluation.elpd import compare_elpd

    names = names_of(paths)
    if not loo:
        refuse_unread(("loo_ratings",), "with --loo alone")
    folders = [RunFolder.existing(path) for path in paths]
    posteriors = [folder.load_posterior() for folder in folders]
    split = common_split(folders, names, data_dir, data)
    _check(names, posteriors, loo, new_users, draws)
    _remarks(names, posteriors, split, part)
    held_out = split.test if part == "test" else split.valid
    kind = "density" if held_out.scale.levels is None else "probability"
    with bar("Held-out ratings", len(held_out) * len(names), "ratings") as advance:
        values = [
            held_out_log_prob(posterior, held_out, num_samples=draws, seed=seed, advance=advance)
            for posterior in posteriors
        ]
    rows = compare_elpd(names, values, held_out.users, [kind] * len(names))
    betas = dict(zip(names, map(_tempering, posteriors), strict=True))
    everything: dict[str, Any] = {
        "data": split.ratings.name,
        "split_hash": split.hash,
        "part": part,
        "of": kind,
        "held_out": [row.to_dict() | {"beta": betas[row.name]} for row in rows],
    }
    which = "test" if part == "test" else "validation"
    tables.show(
        f"{split.ratings.name}: held-out ELPD of {len(held_out):,} {which} ratings ({split_words(split)}), "
        f"log-{kind} in nats",
        everything["held_out"],
        name="held-out",
        screen=[_screen(row.to_dict(), betas[row.name]) for row in rows],
    )
    if loo:
        everything["loo"] = _loo(names, posteriors, draws, seed, loo_ratings, tables)
    if new_users is not None:
        everything["leave_one_user_out"] = _new_users(names, posteriors, new_users, draws, seed, tables)
        if split.scheme == "users" and held_out.scale.levels is not None:
            everything["fold_in_half"] = _folded(names, posteriors, split, seed, tables)
    if out is not None:
        write_json(out, everything)
        tables.say(f"All figures are in {out}.")


def _check(
    names: list[str], posteriors: list[Posterior], loo: bool, new_users: int | None, draws: int | None
) -> None:
    """Refuse what some run cannot give, before anything is computed."""
    from pyro_bmf.numerics.psis import MIN_DRAWS

    if not loo and new_users is None and posteriors[0].scale.levels is not None:
        refuse_unread(("draws", "seed"), "with --loo, with --new-users or on a continuous scale alone")
        return
    for name, posterior in zip(names, posteriors, strict=True):
        try:
            n_draws = posterior.number_of_draws(draws)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from error
        # Where rows are integrated out, each draw counts several times for --loo.
        few = ["--loo"] if loo and "implicit" in posterior.info else []
        few += [] if new_users is None else [f"--new-users {new_users}"]
        if few and n_draws < MIN_DRAWS:
            raise SettingsError(
                f"{' and '.join(few)} of {name}: its {n_draws} draws are too few to smooth importance "
                f"weights, which takes {MIN_DRAWS}. Fit it again with more draws kept (--kept-draws), or "
                f"leave out {' and '.join(few)}, or the run."
            )
        if new_users is not None and posterior.model.user_prior.positive:
            raise SettingsError(
                f"--new-users {new_users}: {name} has positive factors, and rows on all numbers alone can be "
                "left out: leave out --new-users, or the run."
            )
        if loo and len(posterior.train) != len(posteriors[0].train):
            raise SettingsError(
                f"--loo: {names[0]} and {name} were trained on different ratings, "
                f"{len(posteriors[0].train):,} and {len(posterior.train):,}, and have no leave-one-out in "
                "common: leave out --loo, or one of the runs."
            )


def _remarks(names: list[str], posteriors: list[Posterior], split: Split, part: str) -> None:
    from pyro_bmf.evaluation.provenance import check_provenance

    for name, posterior in zip(names, posteriors, strict=True):
        if posterior.tempered:
            user, item = posterior.beta
            note(
                f"{name} is tempered (beta {user:g} for users, {item:g} for items): its spread was chosen by "
                "beta, and no ELBO may be compared with it. Held-out ELPD may."
            )
        if check_provenance(posterior, split, part=part, name=name) == "train+valid":
            note(f"{name} was fitted to train and validation together.")


def _tempering(posterior: Posterior) -> str:
    if posterior.sampling.settles:
        return "chain"
    user, item = posterior.beta
    return f"{user:g}" if user == item else f"{user:g}, {item:g}"


def _screen(row: dict[str, Any], beta: str) -> dict[str, object]:
    best = row["difference"] == 0.0
    return {
        "run": row["name"],
        "ELPD": row["elpd"],
        "a rating": f"{row['elpd_per_rating']:.4f}",
        "difference": None if best else row["difference"],
        "se": None if best else row["difference_se"],
        "se by user": None if best else row["difference_se_by_user"],
        "clear": "best" if best else "yes" if row["clear"] else "no",
        "beta": beta,
    }


def _loo(
    names: list[str],
    posteriors: list[Posterior],
    draws: int | None,
    seed: int,
    subset: int | None,
    tables: TableWriter,
) -> list[dict[str, Any]]:
    from pyro_bmf.checking.loo import compare_loo, psis_loo
    from pyro_bmf.numerics.psis import good_k

    total = min(len(posteriors[0].train), subset or 10**18)
    results = []
    with bar("Leave-one-out", total * len(names), "ratings") as advance:
        for name, posterior in zip(names, posteriors, strict=True):
            try:
                options: dict[str, Any] = {"subset": subset, "advance": advance}
                results.append(psis_loo(posterior, num_samples=draws, seed=seed, **options))
            except SettingsError as error:
                raise SettingsError(f"--loo of {name}: {error}") from error
    compared = compare_loo(names, results)
    found = dict(zip(names, results, strict=True))
    full = [
        _without_nan(row.to_dict()) | found[row.name].to_dict() | {"ranked": compared.ranked}
        for row in compared.rows
    ]
    screen = []
    for row in compared.rows:
        own = found[row.name]
        line: dict[str, object] = {"run": row.name, "ELPD": row.elpd}
        if compared.ranked:
            best = row.difference == 0
            line["difference"] = None if best else row.difference
            line["se by user"] = None if best else row.difference_se_by_user
        line |= {
            "p_loo": own.to_dict()["p_loo"],
            f"k-hat > {good_k(own.n_draws):.2g}": f"{100 * own.share_high_k:.1f} %",
            **own.k_counts(),
            "draws": own.n_draws,
            "rows": "integrated out" if own.integrated else "as drawn",
            "efficiency": f"{own.efficiency:.2f}",
        }
        screen.append(line)
    some = "" if total == len(posteriors[0].train) else " drawn at random"
    order = "" if compared.ranked else ", NOT RANKED"
    tables.show(
        f"PSIS-LOO of {total:,} training ratings{some}, and how many k-hats are how large{order}",
        full,
        name="loo",
        screen=screen,
    )
    refusal = compared.refusal()
    if refusal is not None:
        tables.say(refusal)
    return full


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with None in place of what is not a number, which JSON has not."""
    return {
        name: None if isinstance(value, float) and value != value else value for name, value in row.items()
    }


def _new_users(
    names: list[str],
    posteriors: list[Posterior],
    n: int,
    draws: int | None,
    seed: int,
    tables: TableWriter,
) -> list[dict[str, Any]]:

    from pyro_bmf.checking.new_users import leave_users_out, some_users
    from pyro_bmf.evaluation.elpd import compare_elpd
    from pyro_bmf.numerics.psis import count_k_hats

    users = some_users(posteriors[0], n, seed)
    with bar("Users left out", len(names) * 200, "draws") as advance:
        results = [
            leave_users_out(posterior, users, num_samples=draws, seed=seed, advance=advance)
            for posterior in posteriors
        ]
    kind = "density" if posteriors[0].scale.levels is None else "probability"
    rows = compare_elpd(names, [one.elpd for one in results], users, [kind] * len(names))
    found = dict(zip(names, results, strict=True))
    counts = {name: count_k_hats(one.k_hat) for name, one in found.items()}
    full = [
        row.to_dict()
        | {
            "n_users": len(users),
            "n_ratings": int(found[row.name].n_ratings.sum()),
            "elpd_per_rating": found[row.name].elpd_per_rating,
            "inner_error": found[row.name].inner_error,
            "draws": found[row.name].n_draws,
            **counts[row.name],
        }
        for row in rows
    ]
    tables.show(
        f"Leave one user out: {len(users):,} users with all training ratings, their rows integrated out",
        full,
        name="leave-one-user-out",
        screen=[
            {
                "run": line["name"],
                "ELPD": line["elpd"],
                "a rating": f"{line['elpd_per_rating']:.4f}",
                "difference": line["difference"] or None,
                "se": line["difference_se"] or None,
                **counts[str(line["name"])],
                "draws": line["draws"],
            }
            for line in full
        ],
    )
    if any((one.k_hat > 1.0).any() for one in results):
        tables.say(
            "Where k-hat is above 0.7 the items lean on the user too much to be reweighted: such a user's "
            "part is rough, and too kind. A split by users (--scheme users) needs no reweighting."
        )
    return full


def _folded(
    names: list[str], posteriors: list[Posterior], split: Split, seed: int, tables: TableWriter
) -> list[dict[str, Any]]:
    from pyro_bmf.checking.new_users import fold_in_half
    from pyro_bmf.evaluation.elpd import compare_elpd

    results = [fold_in_half(posterior, split, seed=seed) for posterior in posteriors]
    rows = compare_elpd(names, [values for _, values in results], results[0][0], ["probability"] * len(names))
    full = [row.to_dict() for row in rows]
    tables.show(
        f"New users folded in with half of their ratings: {rows[0].n_ratings:,} ratings of the other half of "
        f"{rows[0].n_users:,} users",
        full,
        name="fold-in-half",
        screen=[
            {
                "run": line["name"],
                "ELPD": line["elpd"],
                "a rating": f"{line['elpd_per_rating']:.4f}",
                "difference": line["difference"] or None,
                "se by user": line["difference_se_by_user"] or None,
            }
            for line in full
        ],
    )
    return full
