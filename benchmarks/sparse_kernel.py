r"""The exact sparse first layer against the literal dense one, at the shape of MovieLens 1M.

The literal layer builds Z of a batch, rows of J*K numbers with zeros where an item is not rated, and
multiplies it by Phi_0 (J*K x M). The sparse one never builds it: A P with P_j = v_j Phi_0j. Both are given
the same rows, the same number of rows a batch and the same threads, and do a whole side: forward, and
backward to Phi_0. Every batch is timed several times and its fastest time counts, for either kernel.

The sparse kernel's cost of a batch has a part that does not shrink with the batch: P, and the gradient of
Phi_0, are J*K*M numbers read and written. It is what remains at 100 rows a batch, where the ratio is memory
traffic against arithmetic; the bound `--require` is therefore asked of batches of 500 rows (the default
block) and of the whole side as one batch, and the figure for 100 is told beside them.

`csr` is for information: torch's CSR product by P, with the transpose stored for the backward pass.
Exactness is checked in float64, values and gradient, on some batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_bmf.data.synthetic import generated_pairs
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.feedback_sums import feedback_sum, row_tables

N_USERS, N_ITEMS, N_RATINGS = 6040, 3706, 700_000  # MovieLens 1M, 70 % for training


class CsrSum(torch.autograd.Function):
    """``A @ table`` by torch's CSR product, with the transpose stored."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        """Multiply, and keep the transpose."""
        ctx.transpose = transpose
        return matrix @ table

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Multiply by the transpose."""
        return ctx.transpose @ grads[0], None, None


class Side:
    """All rows of the user side, in batches, with one set of weights."""

    def __init__(self, n_factors: int, n_units: int, batch_size: int, dtype: torch.dtype) -> None:
        users, items = generated_pairs(N_USERS, N_ITEMS, N_RATINGS, seed=0)
        rows, columns = torch.from_numpy(users), torch.from_numpy(items)
        generator = torch.Generator().manual_seed(0)
        ratings = torch.randn(N_RATINGS, generator=generator, dtype=torch.float64).to(dtype)
        self.whole = Feedback.from_coo(rows, columns, ratings, N_USERS, N_ITEMS)
        self.batches = torch.arange(N_USERS).split(batch_size)
        self.parts = [self.whole.select(batch) for batch in self.batches]
        self.csr = [self._csr(part) for part in self.parts]
        draw = {"generator": generator, "dtype": torch.float64}
        self.weight = torch.randn(N_ITEMS, n_factors, n_units, **draw).to(dtype).div_(100).requires_grad_()
        self.v = torch.randn(N_ITEMS, n_factors, **draw).to(dtype)
        self.pulls = torch.randn(N_USERS, n_units, **draw).to(dtype).split(batch_size)

    @staticmethod
    def _csr(part: Feedback) -> tuple[Tensor, Tensor]:
        ones = torch.ones(part.nnz, dtype=part.values.dtype)
        size = (part.n_rows, part.n_columns)
        return (
            torch.sparse_csr_tensor(part.indptr.long(), part.indices.long(), ones, size),
            torch.sparse_csr_tensor(part.t_indptr.long(), part.t_indices.long(), ones, size[::-1]),
        )

    def dense(self, index: int) -> Tensor:
        """Apply the literal layer to one batch: Z built, then Z Phi_0."""
        part = self.parts[index]
        z = torch.zeros(part.n_rows, *self.v.shape, dtype=self.v.dtype)
        z[part.row_of_entry, part.indices.long()] = self.v[part.indices.long()]
        return z.reshape(part.n_rows, -1) @ self.weight.reshape(-1, self.weight.shape[-1])

    def sparse(self, index: int) -> Tensor:
        """Apply the package's layer to one batch."""
        return feedback_sum(self.parts[index], row_tables(self.weight, self.v))

    def csr_product(self, index: int) -> Tensor:
        """Apply the same layer by a CSR product."""
        result: Tensor = CsrSum.apply(row_tables(self.weight, self.v), *self.csr[index])
        return result

    def step(self, layer: Callable[[int], Tensor], index: int) -> tuple[Tensor, Tensor]:
        """Forward and backward of one batch: the output, and the gradient of Phi_0."""
        output = layer(index)
        (grad,) = torch.autograd.grad(output, self.weight, self.pulls[index])
        return output.detach(), grad


def seconds_a_side(
    side: Side, layer: Callable[[int], Tensor], *, repeats: int, budget: float
) -> tuple[float, int]:
    """Return seconds for all batches, and how many of them were measured within the budget."""
    n_batches = len(side.batches)
    side.step(layer, 0)  # the first call allocates
    started = time.perf_counter()
    total, done = 0.0, 0
    # Spread over the side, so that batches which are measured are like those which are not.
    order = torch.randperm(n_batches, generator=torch.Generator().manual_seed(0)).tolist()
    for index in order:
        fastest = float("inf")
        for _ in range(repeats):
            before = time.perf_counter()
            side.step(layer, index)
            fastest = min(fastest, time.perf_counter() - before)
        total += fastest
        done += 1
        if time.perf_counter() - started > budget and done >= 3:
            break
    return total * n_batches / done, done


def largest_differences(n_factors: int, n_units: int, batch_size: int) -> tuple[float, float]:
    """Return the largest absolute float64 difference of sparse and dense: of values and of the gradient."""
    side = Side(n_factors, n_units, batch_size, torch.float64)
    value, gradient = 0.0, 0.0
    for index in range(min(3, len(side.batches))):
        (dense, dense_grad), (sparse, sparse_grad) = (
            side.step(layer, index) for layer in (side.dense, side.sparse)
        )
        value = max(value, float((dense - sparse).abs().max()))
        gradient = max(gradient, float((dense_grad - sparse_grad).abs().max()))
    return value, gradient


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one record a batch size and kernel."""
    records = []
    for batch_size in arguments.batch_sizes:
        # In float64 the whole side's Z would take 1.8 GB: 500 rows say as much.
        differences = largest_differences(arguments.factors, arguments.units, min(batch_size, 500))
        side = Side(arguments.factors, arguments.units, batch_size, torch.float32)
        dense = 0.0
        for name, layer in (("dense", side.dense), ("sparse", side.sparse), ("csr", side.csr_product)):
            seconds, done = seconds_a_side(side, layer, repeats=arguments.repeats, budget=arguments.budget)
            dense = seconds if name == "dense" else dense
            record: dict[str, Any] = {
                "rows_a_batch": len(side.batches[0]),
                "kernel": name,
                "seconds": seconds,
                "times_faster": dense / seconds,
                "batches": len(side.batches),
                "batches_measured": done,
            }
            if name == "sparse":
                record["max_difference"], record["max_gradient_difference"] = differences
            records.append(record)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Return the records as markdown."""
    lines = [
        "| rows a batch | kernel | seconds a side | times faster | batches measured "
        "| max difference in float64: values, gradient |",
        "|---:|---|---:|---:|---:|---|",
    ]
    for line in records:
        differences = [line.get(k) for k in ("max_difference", "max_gradient_difference")]
        shown = ", ".join("–" if d is None else f"{d:.1e}" for d in differences)
        measured = f"{line['batches_measured']} of {line['batches']}"
        if line["batches_measured"] < line["batches"]:
            measured += ", the rest extrapolated"
        lines.append(
            f"| {line['rows_a_batch']} | {line['kernel']} | {line['seconds']:.3f} "
            f"| {line['times_faster']:.1f} | {measured} | {shown} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write; fail if the sparse kernel is not exact or not fast enough."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--factors", type=int, default=10, help="K")
    parser.add_argument("--units", type=int, default=100, help="M, the width of the layer")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[100, 500, N_USERS], help="rows a batch"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a kernel before extrapolating")
    parser.add_argument("--repeats", type=int, default=3, help="of every batch; the fastest counts")
    parser.add_argument("--require", type=float, default=25.0, help="times faster than dense, at least")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="Sparse")  # torch's CSR tensors call themselves beta
    records = measure(arguments)
    report = {
        "users": N_USERS,
        "items": N_ITEMS,
        "ratings": N_RATINGS,
        "factors": arguments.factors,
        "units": arguments.units,
        "threads": arguments.threads,
        "dtype": "float32",
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "kernels": records,
    }
    print(
        f"{N_USERS} x {N_ITEMS}, {N_RATINGS} ratings, K = {arguments.factors}, M = {arguments.units}, "
        f"float32, {arguments.threads} threads, torch {torch.__version__}: a side, forward and backward\n"
    )
    print(table(records))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    else:
        print("\n" + json.dumps(report))
    sparse = [line for line in records if line["kernel"] == "sparse"]
    slow = [
        line for line in sparse if line["rows_a_batch"] >= 500 and line["times_faster"] < arguments.require
    ]
    wrong = [line for line in sparse if max(line["max_difference"], line["max_gradient_difference"]) > 1e-10]
    for line in slow:
        print(f"too slow: {line['times_faster']:.1f} times at {line['rows_a_batch']} rows", file=sys.stderr)
    for line in wrong:
        print(f"not exact at {line['rows_a_batch']} rows a batch", file=sys.stderr)
    return 1 if slow or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
