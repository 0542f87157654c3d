"""ArviZ's functions on trees of draws, one after another: which run, in what time and memory.

    pyro-bmf fit --data ml100k --out runs/ml100k
    python benchmarks/arviz_functions.py runs/ml100k --users 3 30 --out benchmarks/results/arviz.json

Each function runs on the draws of users' own ratings, each size in a process of its own. A netCDF file that
`pyro-bmf export` or `DataTree.to_netcdf` wrote can be given instead of a run: then this needs ArviZ alone, of
either version, and not the package.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import xarray as xr

Call = Callable[[Any, xr.DataTree], object]
_MATPLOTLIB = {"backend": "matplotlib"}
#: Draws whose plots are of a few pairs, one panel each.
_PANELS = 3


def few(tree: xr.DataTree) -> dict[str, Any]:
    """Return coordinates of a few pairs, for plots with a panel each."""
    return {"pair": tree["posterior"]["pair"].values[:_PANELS]}


def halves(tree: xr.DataTree) -> xr.DataTree:
    """Return the tree with the first and the second half of its draws as two chains, so that drift shows."""
    q = tree["posterior"].to_dataset()
    half = q.sizes["draw"] // 2
    parts = [q.isel(draw=slice(s * half, (s + 1) * half)).assign_coords(draw=range(half)) for s in (0, 1)]
    # Not `chain` itself: it is a dimension that the parts have.
    joined = xr.concat(parts, "chain").assign_coords(chain=[0, 1])
    return xr.DataTree.from_dict({"posterior": joined})


def one_user(tree: xr.DataTree) -> xr.DataTree:
    """Return one user's part, with its own likelihood and the log-prior of its bias alone.

    Power-scaling reads whatever prior and likelihood it is given as a whole; those of all rows at once have
    no use.
    """
    user = tree["posterior"]["user"].values[0]
    pairs = tree["log_likelihood"]["user_id"].values == user
    keep = {
        "posterior": tree["posterior"].to_dataset()[["user_bias"]].sel(user=[user]),
        "log_prior": tree["log_prior"].to_dataset()[["user_bias"]].sel(user=[user]),
        "log_likelihood": tree["log_likelihood"].to_dataset().isel(pair=pairs),
    }
    return xr.DataTree.from_dict(keep)


def _loo(az: Any, tree: xr.DataTree) -> Any:
    return az.loo(tree, pointwise=True)


def _compared(az: Any, tree: xr.DataTree) -> Any:
    return az.compare({"one": _loo(az, tree), "other": _loo(az, tree)})


def _whole(tree: xr.DataTree) -> xr.DataTree:
    """Return the tree with ratings as whole numbers, where they are such: what counts are plotted by."""
    groups = {
        name: node.to_dataset().assign(rating=node["rating"].astype(int))
        for name, node in tree.children.items()
        if name in ("posterior_predictive", "prior_predictive", "observed_data")
    }
    return xr.DataTree.from_dict(groups)


#: By name: what is run. Everything here takes ArviZ (with version 1's interface) and a tree.
CALLS: dict[str, Call] = {
    "summary": lambda az, t: az.summary(t, var_names=["eta"]),
    "ess": lambda az, t: az.ess(halves(t), var_names=["eta"]),
    "rhat": lambda az, t: az.rhat(halves(t), var_names=["eta"]),
    "mcse": lambda az, t: az.mcse(t, var_names=["eta"]),
    "hdi": lambda az, t: az.hdi(t, var_names=["eta"]),
    "eti": lambda az, t: az.eti(t, var_names=["eta"]),
    "extract": lambda az, t: az.extract(t, var_names=["eta"], num_samples=20),
    "loo": _loo,
    "loo_i": lambda az, t: az.loo_i(0, t),
    "loo_subsample": lambda az, t: az.loo_subsample(t, observations=20),
    "loo_pit": lambda az, t: az.loo_pit(t),
    "loo_expectations": lambda az, t: az.loo_expectations(t),
    "loo_metrics": lambda az, t: az.loo_metrics(t),
    "loo_r2": lambda az, t: az.loo_r2(t, var_name="rating"),
    "loo_score": lambda az, t: az.loo_score(t),
    "compare": _compared,
    "residual_r2": lambda az, t: az.residual_r2(t, pred_mean="eta", obs_name="rating"),
    "metrics": lambda az, t: az.metrics(t),
    "psense": lambda az, t: az.psense(one_user(t), var_names=["user_bias"], group="prior"),
    "psense_summary": lambda az, t: az.psense_summary(one_user(t), var_names=["user_bias"]),
    "plot_ppc_dist": lambda az, t: az.plot_ppc_dist(t, **_MATPLOTLIB),
    "plot_ppc_rootogram": lambda az, t: az.plot_ppc_rootogram(_whole(t), **_MATPLOTLIB),
    "plot_ppc_tstat": lambda az, t: az.plot_ppc_tstat(t, **_MATPLOTLIB),
    "plot_ppc_pit": lambda az, t: az.plot_ppc_pit(t, **_MATPLOTLIB),
    "plot_ppc_interval": lambda az, t: az.plot_ppc_interval(t, **_MATPLOTLIB),
    "plot_ppc_pava": lambda az, t: az.plot_ppc_pava(_whole(t), data_type="ordinal", **_MATPLOTLIB),
    "plot_loo_pit": lambda az, t: az.plot_loo_pit(t, **_MATPLOTLIB),
    "plot_khat": lambda az, t: az.plot_khat(_loo(az, t), **_MATPLOTLIB),
    "plot_compare": lambda az, t: az.plot_compare(_compared(az, t), **_MATPLOTLIB),
    "plot_dist": lambda az, t: az.plot_dist(t, var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_forest": lambda az, t: az.plot_forest(t, var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_ridge": lambda az, t: az.plot_ridge(t, var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_pair": lambda az, t: az.plot_pair(t, var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_prior_posterior": lambda az, t: az.plot_prior_posterior(
        t, var_names=["eta"], coords=few(t), **_MATPLOTLIB
    ),
    "plot_trace": lambda az, t: az.plot_trace(halves(t), var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_rank": lambda az, t: az.plot_rank(halves(t), var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_autocorr": lambda az, t: az.plot_autocorr(
        halves(t), var_names=["eta"], coords=few(t), **_MATPLOTLIB
    ),
    "plot_ess": lambda az, t: az.plot_ess(halves(t), var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_mcse": lambda az, t: az.plot_mcse(halves(t), var_names=["eta"], coords=few(t), **_MATPLOTLIB),
    "plot_convergence_dist": lambda az, t: az.plot_convergence_dist(
        halves(t), var_names=["eta"], **_MATPLOTLIB
    ),
}


def arviz() -> Any:
    """Return ArviZ with version 1's interface."""
    module = import_module("arviz")
    return module if int(module.__version__.split(".")[0]) >= 1 else import_module("arviz.preview")


def tree_of(source: Path, n_users: int) -> xr.DataTree:
    """Return the draws of the first users' ratings, from a run or from a file of draws."""
    if source.suffix == ".nc":
        with xr.open_datatree(source, engine="h5netcdf") as tree:
            return tree.load()
    from pyro_bmf.export.arviz import to_arviz
    from pyro_bmf.posterior import Posterior

    posterior = Posterior.load(source / "model.safetensors" if source.is_dir() else source)
    ids = posterior.user_vocabulary.ids[:n_users]
    return to_arviz(posterior, user_ids=ids, rating_probability=True)


def measure(source: Path, n_users: int, names: list[str]) -> dict[str, Any]:
    """Run the calls in this process, and return seconds of each, in all and the size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    az = arviz()
    tree = tree_of(source, n_users)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calls = {}
    for name in names:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                CALLS[name](az, tree)
                failed = None
            except Exception as problem:  # whatever it is, it is what the table has to say
                failed = f"{type(problem).__name__}: {problem}"[:200]
        plt.close("all")
        calls[name] = {"seconds": round(time.perf_counter() - started, 2), "failed": failed}
    sizes = tree["posterior"].sizes
    return {
        "pairs": sizes["pair"],
        "draws": sizes["draw"],
        "arviz": import_module("arviz").__version__,
        "calls": calls,
        "gb_before": before / 2**20,
        "gb_at_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(found: dict[str, Any]) -> str:
    """Return seconds by function and size as a markdown table."""
    columns = list(found.values())
    heads = [f"{column['pairs']:,} pairs (s)" for column in columns]
    lines = [f"| function | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for name in CALLS:
        cells = []
        for column in columns:
            call = column["calls"].get(name)
            cells.append("" if call is None else call["failed"] or f"{call['seconds']:.1f}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every size in a process of its own, and write and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="A run's folder, a saved posterior or a netCDF file.")
    parser.add_argument("--users", type=int, nargs="+", default=[3, 30])
    parser.add_argument("--functions", nargs="+", choices=list(CALLS), default=list(CALLS), metavar="NAME")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.source, options.one, options.functions)))
        return
    found = {}
    for n_users in options.users:
        command = [sys.executable, __file__, str(options.source), "--one", str(n_users), "--functions"]
        output = subprocess.run(
            [*command, *options.functions], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        found[str(n_users)] = json.loads(output.splitlines()[-1])
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
