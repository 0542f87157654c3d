"""Factorisations without a wait: those of torch where there are some, NaN where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_bmf.numerics import factorise, room


@pytest.fixture(params=[False, True], ids=["as on a CPU", "as on a card"])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(room, "waits", lambda device: request.param)
    return bool(request.param)


def positive(n: int, width: int) -> Tensor:
    root = torch.randn(n, width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return root @ root.mT + torch.eye(width, dtype=torch.float64)


def test_what_can_be_factorised(card: bool) -> None:
    matrices = positive(5, 4)
    root = factorise.cholesky(matrices)
    assert torch.equal(root, torch.linalg.cholesky(matrices))
    right = matrices[0, 0]
    found = (
        factorise.inverse(matrices),
        factorise.inverse_of_root(root),
        factorise.inverse_of_triangle(root),
        factorise.solve(matrices[1], right),
    )
    expected = (
        torch.linalg.inv(matrices),
        torch.cholesky_inverse(root),
        torch.linalg.inv(root),
        torch.linalg.solve(matrices[1], right),
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert card or all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.usefixtures("card")
def test_what_cannot_be_is_nan_and_makes_nan_of_what_is_computed_of_it() -> None:
    matrices = positive(3, 4)
    matrices[1] = -matrices[1]
    root = factorise.cholesky(matrices)
    assert root.isnan().any(2).any(1).tolist() == [False, True, False]
    inverses = factorise.inverse_of_root(root)
    solved = torch.cholesky_solve(torch.ones(3, 4, 1, dtype=torch.float64), root)
    for computed in (inverses.diagonal(dim1=1, dim2=2).sum(1), solved.sum((1, 2))):
        assert computed.isnan().tolist() == [False, True, False]
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    assert factorise.cholesky(nothing).isnan().any()
    assert factorise.inverse(nothing).diagonal().isnan().all()
    assert factorise.solve(nothing, torch.ones(2, dtype=torch.float64)).isnan().all()
