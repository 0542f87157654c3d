"""A file of ML-20M's size loads in under 20 s and 3 GB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Each in a process of its own: a child's peak memory starts at its parent's.
WRITE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.csv as pcsv
from pyro_bmf.data import generated_pairs
path, n_users, n_items, n, shuffle = sys.argv[1], *map(int, sys.argv[2:])
users, items = generated_pairs(n_users, n_items, n, seed=1)
rng = np.random.default_rng(1)
ratings = rng.integers(1, 11, n) / 2
order = rng.permutation(n) if shuffle else slice(None)
columns = {
    "userId": users[order] + 1,
    "movieId": items[order] * 5 + 1,  # ids with gaps, as MovieLens has them
    "rating": ratings,
    "timestamp": rng.integers(789_652_009, 1_427_784_002, n),
}
pcsv.write_csv(pa.table(columns), path)
print(ratings.sum())
"""
MEASURE = """
import json, re, sys, time
from pathlib import Path
started = time.perf_counter()
from pyro_bmf.data import load_ratings
ratings = load_ratings(sys.argv[1], scale="0.5:5:0.5")
wall, cpu = time.perf_counter() - started, time.process_time()
# Not getrusage: what that calls the peak starts at the peak of the process that started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
total = float(ratings.ratings.sum())
print(json.dumps([wall, cpu, peak, len(ratings), ratings.n_users, ratings.n_items, total]))
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [0, 1], ids=["sorted", "shuffled"])
def test_twenty_million_ratings(tmp_path: Path, shuffle: int) -> None:
    path = tmp_path / "ratings.csv"
    try:
        total = float(run(WRITE, path, 138_493, 26_744, 20_000_263, shuffle))
        wall, cpu, peak, n, n_users, n_items, found = json.loads(run(MEASURE, path))
    finally:
        path.unlink(missing_ok=True)
    print(f"\n20,000,263 ratings: {wall:.1f} s ({cpu:.1f} s of processor time), peak {peak / 1e9:.2f} GB")
    assert (n, n_users, n_items) == (20_000_263, 138_493, 26_744)
    assert found == total
    # Processor time of all threads: an idle machine needs no more wall time, a busy one does not matter.
    assert cpu < 20
    assert peak < 3e9


def test_memory_grows_with_the_ratings_not_with_users_times_items(tmp_path: Path) -> None:
    # 200,000 x 150,000 cells would take 30 GB as bytes; the libraries alone take 0.12 GB.
    path = tmp_path / "ratings.csv"
    total = float(run(WRITE, path, 200_000, 150_000, 400_000, 1))
    _, _, peak, n, n_users, n_items, found = json.loads(run(MEASURE, path))
    assert (n, n_users, n_items, found) == (400_000, 200_000, 150_000, total)
    assert peak < 0.5e9
