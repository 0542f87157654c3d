"""Saving and loading: the same bits come back, and a file that is not whole says so."""

from __future__ import annotations

import json
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import LogNormalLikelihood, PoissonLikelihood, handmade, planted, random_rows, train_posterior
from safetensors import safe_open
from safetensors.torch import save_file

from pyro_bmf import tensor_files
from pyro_bmf.data import Ratings, RatingScale, Vocabulary
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.posterior import Posterior, saved

Rewrite = Callable[[dict[str, torch.Tensor], dict[str, str], dict[str, Any]], None]


def assert_same(one: Posterior, other: Posterior) -> None:
    for mine, its in ((one.user_rows, other.user_rows), (one.item_rows, other.item_rows)):
        assert mine.tensors().keys() == its.tensors().keys()
        for name, tensor in mine.tensors().items():
            assert tensor.dtype == its.tensors()[name].dtype
            assert torch.equal(tensor, its.tensors()[name])
    assert one.info == other.info
    assert one.train.data_hash == other.train.data_hash
    assert one.train.scale == other.train.scale
    assert one.train.name == other.train.name
    users, items = one.user_vocabulary.ids, one.item_vocabulary.ids
    pairs = users[:9], items[:9]
    pd.testing.assert_frame_equal(one.predict(*pairs), other.predict(*pairs), check_exact=True)
    pd.testing.assert_frame_equal(one.recommend(n=5), other.recommend(n=5), check_exact=True)
    np.testing.assert_array_equal(one.sample(*pairs, 5, 1), other.sample(*pairs, 5, 1))
    for side, ids in (("user", items), ("item", users)):
        given = {ids[0]: 4.0, ids[3]: 2.0}
        mine, its = one.fold_in(given, side=side), other.fold_in(given, side=side)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(mine.recommend(n=5), its.recommend(n=5), check_exact=True)


def test_a_file_gives_the_same_bits_back(posterior: Posterior, tmp_path: Path) -> None:
    path = posterior.save(tmp_path / "run" / "model.safetensors")
    assert path == tmp_path / "run" / "model.safetensors"
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]
    loaded = Posterior.load(path)
    assert_same(posterior, loaded)
    assert loaded.item_titles is not None
    assert loaded.item_titles.tolist() == posterior.item_titles.tolist()  # type: ignore[union-attr]
    again = loaded.save(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_a_folder_has_a_readable_copy(posterior: Posterior, tmp_path: Path) -> None:
    path = posterior.save(tmp_path / "here")
    assert sorted(p.name for p in path.parent.iterdir()) == ["posterior.json", "posterior.safetensors"]
    described = json.loads((tmp_path / "here" / "posterior.json").read_text(encoding="utf-8"))
    assert described["format_version"] == 3
    assert described["model"]["n_factors"] == 3
    assert described["tensors"]["users.loc"] == ["float32", [60, 3]]
    (tmp_path / "here" / "posterior.json").unlink()
    assert_same(posterior, Posterior.load(tmp_path / "here"))
    assert_same(posterior, Posterior.load(path))


def test_text_ids_without_titles_or_biases(text_posterior: Posterior, tmp_path: Path) -> None:
    loaded = Posterior.load(text_posterior.save(tmp_path / "a.safetensors"))
    assert_same(text_posterior, loaded)
    assert loaded.item_titles is None
    assert loaded.user_rows.bias_loc is None


def test_ids_and_titles_of_any_text(tmp_path: Path) -> None:
    ids = ["", "a", "é", "日本", "🎬🎬", "\ud800", "new\nline", "nul\0"][1:]
    train = Ratings(
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.array([0.1]),  # not exact in single precision
        None,
        Vocabulary(ids, "user"),
        Vocabulary(np.array([-(2**63), 0, 2**63 - 1]), "item"),
        RatingScale(-1.5, 7.25, None, "inferred"),
        np.array(["", "Amélie", "\udfff"], dtype=object),
        "name \ud83c",
    )
    posterior = handmade(random_rows(len(ids), 2), random_rows(3, 2), train=train)
    loaded = Posterior.load(posterior.save(tmp_path / "a.safetensors"))
    assert loaded.user_vocabulary.ids.tolist() == posterior.user_vocabulary.ids.tolist()
    assert loaded.item_vocabulary.ids.tolist() == posterior.item_vocabulary.ids.tolist()
    assert loaded.item_titles.tolist() == ["", "Amélie", "\udfff"]  # type: ignore[union-attr]
    assert loaded.train.ratings.tolist() == [0.1]
    assert loaded.train.name == "name \ud83c"
    assert loaded.scale == train.scale


def test_double_precision_stays(train: Ratings, tmp_path: Path) -> None:
    posterior = train_posterior(train, iterations=1, dtype=torch.float64)
    loaded = Posterior.load(posterior.save(tmp_path / "a.safetensors"))
    assert loaded.user_rows.loc.dtype == torch.float64
    assert_same(posterior, loaded)


def test_a_posterior_that_was_loaded_can_be_trained_on(posterior: Posterior, tmp_path: Path) -> None:
    loaded = Posterior.load(posterior.save(tmp_path / "a.safetensors"))
    assert isinstance(loaded.guide, CrossFeedbackGuide)
    assert all(p.requires_grad for p in loaded.guide.parameters())
    assert loaded.model.likelihood.noise_sd.requires_grad


def test_loading_leaves_random_numbers_alone(posterior: Posterior, tmp_path: Path) -> None:
    path = posterior.save(tmp_path / "a.safetensors")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    Posterior.load(path)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_pickled(posterior: Posterior, tmp_path: Path) -> None:
    content = posterior.save(tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"opcode|pickle|STOP|exhausted|unknown"):
        list(pickletools.genops(content))


# ------------------------------------------------------------------ your own kinds


class MyPrior(NormalPrior):
    """A prior of the user's own."""

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "kind": "mine"}


def test_your_own_prior_and_likelihood_are_given_to_load(tmp_path: Path) -> None:
    ratings = planted(n_ratings=600)
    posterior = train_posterior(
        Ratings(
            ratings.users,
            ratings.items,
            2 * ratings.ratings,
            None,
            ratings.user_vocabulary,
            ratings.item_vocabulary,
            RatingScale.parse("1:10:1"),
        ),
        iterations=2,
        likelihood=PoissonLikelihood(0.25),
    )
    posterior.model.user_prior = MyPrior(scale=2.0)
    path = posterior.save(tmp_path / "a.safetensors")
    likelihoods = {"my-poisson": PoissonLikelihood}
    loaded = Posterior.load(path, likelihoods=likelihoods, priors={"mine": MyPrior})
    assert_same(posterior, loaded)
    assert isinstance(loaded.model.user_prior, MyPrior)
    assert loaded.model.user_prior.scale == 2.0
    with pytest.raises(SavedFileError, match="my-poisson"):
        Posterior.load(path, priors={"mine": MyPrior})
    with pytest.raises(SavedFileError, match="mine"):
        Posterior.load(path, likelihoods=likelihoods)


def test_your_own_guide_is_given_to_load(tmp_path: Path) -> None:
    class MyGuide(CrossFeedbackGuide):
        def settings(self) -> dict[str, Any]:
            return {**super().settings(), "kind": "my-guide"}

    posterior = handmade(random_rows(4, 2), random_rows(3, 2))
    guide = posterior.guide
    assert isinstance(guide, CrossFeedbackGuide)
    mine = MyGuide.from_settings(guide.settings())
    mine.load_state_dict(guide.state_dict())
    posterior = Posterior(
        posterior.model, mine, posterior.user_rows, posterior.item_rows, posterior.train, posterior.info
    )
    path = posterior.save(tmp_path / "a.safetensors")
    assert isinstance(Posterior.load(path, guides={"my-guide": MyGuide}).guide, MyGuide)
    with pytest.raises(SavedFileError, match=r"kind 'my-guide'.*guides="):
        Posterior.load(path)


# ------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved posterior of a few kilobytes."""
    posterior = handmade(random_rows(4, 2), random_rows(3, 2), likelihood=None)
    return posterior.save(tmp_path_factory.mktemp("saved") / "small.safetensors")


def test_cut_short_anywhere(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    broken = tmp_path / "broken.safetensors"
    lengths = [*range(0, 40), *np.linspace(40, len(content) - 1, 120).astype(int).tolist()]
    for length in lengths:
        broken.write_bytes(content[:length])
        with pytest.raises(SavedFileError, match=r"broken\.safetensors"):
            Posterior.load(broken)
    broken.write_bytes(content + b"\0")
    with pytest.raises(SavedFileError):
        Posterior.load(broken)


def test_one_bit_flipped_anywhere(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    broken = tmp_path / "broken.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    places = np.concatenate(
        (np.arange(24), rng.integers(0, header, 300), rng.integers(header, len(content), 100))
    )
    for place, bit in zip(places.tolist(), rng.integers(0, 8, len(places)).tolist(), strict=True):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        broken.write_bytes(bytes(flipped))
        with pytest.raises(SavedFileError, match=r"broken\.safetensors"):
            Posterior.load(broken)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for content in (b"", b"hello", np.random.default_rng(0).bytes(5000), b"{}" * 4000, b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(SavedFileError, match="not a safetensors file, or a damaged one"):
            Posterior.load(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(SavedFileError, match="not a saved posterior of pyro-bmf"):
        Posterior.load(path)
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(SavedFileError, match="not a saved posterior of pyro-bmf"):
        Posterior.load(path)
    with pytest.raises(SavedFileError, match="no such file"):
        Posterior.load(tmp_path / "nothing.safetensors")
    with pytest.raises(SavedFileError, match="neither posterior"):
        Posterior.load(tmp_path)


def rewritten(source: Path, target: Path, change: Rewrite, *, sign: bool = True) -> Path:
    """Write the file again after a change, with a right checksum: what a faulty program would write."""
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    head, _, text = metadata[saved.FORMAT].partition("\n")
    version, digest = head.split(" ")
    document, about = json.loads(text), {"version": version}
    change(tensors, about, document)
    text = json.dumps(document)
    if sign:
        digest = tensor_files.digest(saved.FORMAT, about["version"], text, tensors)
    save_file(tensors, target, {saved.FORMAT: f"{about['version']} {digest}\n{text}"})
    return target


def test_a_newer_format_asks_for_an_update(small: Path, tmp_path: Path) -> None:
    def newer(tensors: Any, about: Any, document: Any) -> None:
        about["version"] = "4"

    with pytest.raises(SavedFileError, match=r"version 4 is newer than the 3 .*Update it"):
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", newer))

    def odd(tensors: Any, about: Any, document: Any) -> None:
        about["version"] = "one"

    with pytest.raises(SavedFileError, match="'one' is not a number"):
        Posterior.load(rewritten(small, tmp_path / "b.safetensors", odd))


def test_an_older_format_is_refused_with_the_remedy(small: Path, tmp_path: Path) -> None:
    def older(tensors: Any, about: Any, document: Any) -> None:
        about["version"] = "2"

    with pytest.raises(SavedFileError, match=r"version 2 is older than the 3 .*Fit again"):
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", older))


@pytest.mark.parametrize("version", ["-1", "0", "1" * 6000, "1.0", "\u0661", " 1"])
def test_versions_that_are_no_versions(small: Path, tmp_path: Path, version: str) -> None:
    def change(tensors: Any, about: Any, document: Any) -> None:
        about["version"] = version

    with pytest.raises(SavedFileError, match=r"format version .* is not a number") as caught:
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", change))
    assert len(str(caught.value)) < 400


def test_a_changed_description_is_noticed(small: Path, tmp_path: Path) -> None:
    def edit(tensors: Any, about: Any, document: Any) -> None:
        document["info"]["beta_user"] = 1.0

    with pytest.raises(SavedFileError, match="checksum"):
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", edit, sign=False))


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("users.loc", lambda t: None, r"users\.loc is missing"),
        ("items.bias_scale", lambda t: None, r"items\.bias_scale is missing"),
        ("users.loc", lambda t: t[:, :1].contiguous(), r"users\.loc is .*\(4, 2\) is needed"),
        ("users.loc", lambda t: t[:3].contiguous(), r"users\.loc is .*\(4, 2\) is needed"),
        ("items.scale", lambda t: t.long(), r"items\.scale is torch\.int64"),
        ("users.scale", lambda t: t * torch.nan, r"users\.scale holds numbers that are not finite"),
        ("guide.item_factors", lambda t: t + torch.inf, r"guide\.item_factors holds numbers"),
        ("users.loc", lambda t: t * 0 + 1e38, r"users\.loc holds 1e\+38, too large"),
        ("users.loc", lambda t: t.double(), "its rows are of mixed types"),
        ("items.scale", lambda t: t.half(), "its rows are of mixed types"),
        ("items.scale", lambda t: -t, r"items\.scale holds a number below 0"),
        ("guide.item_factors", lambda t: t.double(), r"guide\.item_factors is torch\.float64"),
        ("model.centre", lambda t: t.half(), r"model\.centre is torch\.float16"),
        ("guide.item_factors", lambda t: None, "item_factors|do not fit"),
        ("guide.user_factors", lambda t: t[:1].contiguous(), "do not fit together"),
        ("model.centre", lambda t: None, "do not fit together"),
        ("train.users", lambda t: t + 99, "outside"),
        ("train.items", lambda t: None, "do not fit together"),
        ("user_ids", lambda t: t * 0, "repeat"),
        ("item_ids", lambda t: t[:2].contiguous(), r"items\.loc|items\."),
    ],
)
def test_tensors_that_do_not_fit(
    small: Path, tmp_path: Path, name: str, change: Callable[[torch.Tensor], Any], named: str
) -> None:
    def edit(tensors: Any, about: Any, document: Any) -> None:
        new = change(tensors.pop(name))
        if new is not None:
            tensors[name] = new

    with pytest.raises(SavedFileError, match=named) as caught:
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", edit))
    assert "a.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("model"),
        lambda d: d["model"].pop("n_factors"),
        lambda d: d["model"].update(n_factors="many"),
        lambda d: d["guide"].update(encoder={"depth": 3}),
        lambda d: d["scale"].update(low=9),
        lambda d: d.update(titles=True),
        lambda d: d.update(user_ids="text"),
        lambda d: d["model"].update(likelihood={"kind": "none such"}),
    ],
)
def test_descriptions_that_do_not_fit(small: Path, tmp_path: Path, edit: Callable[[Any], Any]) -> None:
    def change(tensors: Any, about: Any, document: Any) -> None:
        edit(document)

    with pytest.raises(SavedFileError, match=r"a\.safetensors"):
        Posterior.load(rewritten(small, tmp_path / "a.safetensors", change))


def test_broken_lengths_of_text(text_posterior: Posterior, tmp_path: Path) -> None:
    source = text_posterior.save(tmp_path / "source.safetensors")

    def longer(tensors: Any, about: Any, document: Any) -> None:
        tensors["user_ids.lengths"] = tensors["user_ids.lengths"] + 1

    with pytest.raises(SavedFileError, match="lengths of user_ids"):
        Posterior.load(rewritten(source, tmp_path / "a.safetensors", longer))


def test_a_crash_while_writing_keeps_the_old_file(
    posterior: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = handmade(random_rows(4, 2), random_rows(3, 2)).save(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def crash(tensors: Any, file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensor_files, "save_file", crash)
    with pytest.raises(KeyboardInterrupt):
        posterior.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_info_must_be_plain(posterior: Posterior) -> None:
    with pytest.raises(SettingsError, match="plain values"):
        Posterior.from_fit(posterior.model, posterior.guide, posterior.train, info={"x": float("nan")})


def test_likelihoods_without_a_probability_of_a_rating_save_too(tmp_path: Path) -> None:
    posterior = handmade(random_rows(4, 2), random_rows(3, 2), likelihood=LogNormalLikelihood(), scale="0:9")
    path = posterior.save(tmp_path / "a.safetensors")
    loaded = Posterior.load(path, likelihoods={"my-log-normal": LogNormalLikelihood})
    assert_rows_equal(loaded.user_rows, posterior.user_rows)
    assert isinstance(loaded.model, FactorizationModel)


def assert_rows_equal(one: RowPosterior, other: RowPosterior) -> None:
    assert torch.equal(one.loc, other.loc)
    assert torch.equal(one.scale, other.scale)


def test_the_folder_of_a_finished_run_is_loaded(tmp_path: Path) -> None:
    run = Path(__file__).parents[1] / "fixtures" / "runs" / "default"
    folder, file = Posterior.load(run), Posterior.load(run / "model.safetensors")
    users, items = np.arange(3), np.arange(3)
    np.testing.assert_array_equal(folder.predict_mean(users, items), file.predict_mean(users, items))
    with pytest.raises(SavedFileError, match=r"neither posterior\.safetensors .* nor model\.safetensors"):
        Posterior.load(tmp_path)
    for name in ("posterior.safetensors", "model.safetensors"):
        shutil.copy(run / "model.safetensors", tmp_path / name)
    with pytest.raises(SavedFileError, match=r"it holds posterior\.safetensors and model\.safetensors"):
        Posterior.load(tmp_path)
