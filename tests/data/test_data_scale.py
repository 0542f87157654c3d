import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import DataNotice, RatingScale
from pyro_bmf.data.units import Units
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError


def test_levels_of_a_parsed_scale() -> None:
    scale = RatingScale.parse("0.5:5:0.5")
    assert scale.levels is not None
    assert scale.levels.tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert (str(scale), scale.source) == ("0.5:5:0.5", "given")
    assert RatingScale.parse("-10:10").levels is None
    tenths = RatingScale.parse("0:1:0.1").levels
    assert tenths is not None
    assert tenths.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    "text", ["", "5", "1:5:1:1", "a:b", "5:1:1", "1:1", "1:5:0", "1:5:-1", "1:5:3", "1:inf", "1:5:nan"]
)
def test_unfit_scales_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="scale"):
        RatingScale.parse(text)


def test_inference() -> None:
    def infer(*values: float) -> str:
        return str(RatingScale.infer(np.array(values * 3)))

    assert infer(1, 2, 4, 5) == "1:5:1"  # the skipped 3 is a level
    assert infer(0.5, 1, 3.5) == "0.5:3.5:0.5"
    assert infer(0.1, 0.2, 0.3) == "0.1:0.3:0.1"
    assert infer(0, 0.5, 500) == "0:500"  # a thousand steps are no levels
    assert infer(1, 2.5, 3.7) == "1:3.7"
    assert str(RatingScale.infer(np.linspace(0, 1, 500))) == "0:1"
    assert str(RatingScale.infer(np.arange(0, 101.0))) == "0:100:1"
    assert str(RatingScale.infer(np.arange(0, 102.0))) == "0:101"
    # A value that first shows late in a long column counts.
    assert str(RatingScale.infer(np.r_[np.tile([1.0, 2.0, 3.0], 5_000), 5.0])) == "1:5:1"
    with pytest.raises(DataError, match="all ratings are 3"):
        RatingScale.infer(np.full(5, 3.0))


def test_an_inferred_scale_is_said() -> None:
    with pytest.warns(DataNotice, match=r"inferred as 1:4:1 \(levels\)"):
        ratings = ratings_from_arrays([1, 1, 2], [1, 2, 1], [1, 2, 4])
    assert ratings.scale == RatingScale(1, 4, 1, "inferred")


def test_nearest_level_and_clip() -> None:
    scale = RatingScale.parse("1:5:1")
    assert scale.nearest_level([0, 1.4, 1.5, 2.5, 4.49, 9]).tolist() == [1, 1, 2, 3, 4, 5]
    assert scale.clip([0, 3.3, 7]).tolist() == [1, 3.3, 5]
    assert RatingScale.parse("1:5").nearest_level([0, 3.3]).tolist() == [1, 3.3]


def test_off_scale() -> None:
    values = np.array([0.5, 1.0, 3.2, 5.0, 5.5, 6.0])
    assert RatingScale.parse("1:5:1").off_scale(values).tolist() == [True, False, True, False, True, True]
    assert RatingScale.parse("1:5").off_scale(values).tolist() == [True, False, False, False, True, True]


@given(
    st.integers(-50, 50),
    st.integers(1, 100),
    st.sampled_from([0.1, 0.25, 0.5, 1, 2, 3]),
    st.sampled_from(["given", "declared", "inferred"]),
)
def test_scales_survive_text_and_dicts(low: int, steps: int, step: float, source: str) -> None:
    scale = RatingScale(low * step, low * step + steps * step, step, source)
    assert RatingScale.from_dict(scale.to_dict()) == scale
    assert scale.levels is not None
    assert len(scale.levels) == steps + 1
    assert not scale.off_scale(scale.levels).any()
    again = RatingScale.parse(str(scale)).levels
    assert again is not None
    np.testing.assert_allclose(again, scale.levels, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e-9, 0.1, 3.0, 1e5, 1e29])
def test_levels_are_as_exact_in_every_unit(unit: float) -> None:
    ratings = unit * np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    scale = RatingScale.infer(ratings)
    assert scale.levels is not None
    np.testing.assert_allclose(scale.levels, ratings, rtol=1e-9)
    made = ratings_from_arrays([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], ratings, scale=scale)
    units = Units.of(made)
    np.testing.assert_allclose(units.raw(units.standard(ratings)), ratings, rtol=1e-9)
    assert not scale.off_scale(scale.levels).any()


def test_levels_of_tenths_are_the_nearest_doubles() -> None:
    scale = RatingScale(0.1, 0.9, 0.1)
    assert scale.levels is not None
    assert scale.levels.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("unit", [1e-300, 1e-40, 1e38, 1e300])
def test_ratings_beyond_single_precision_are_refused(unit: float) -> None:
    with pytest.raises(DataError, match=r"cannot be computed with: write the ratings in another unit"):
        ratings_from_arrays([0, 1, 0], [0, 1, 1], unit * np.array([1.0, 2.0, 5.0]))
