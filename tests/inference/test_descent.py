"""Joint steps are Pyro's, to rounding; recorded ones are the joint ones, on filled blocks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_tools import N_ITEMS, N_USERS, K, Problem, make_model
from recorders import Failing, OnTheSpot
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pyro_bmf.methods.cross_feedback.descent import (
    Descent,
    JointDescent,
    PlainDescent,
    StepKind,
    descent_of,
    has_joint_descent,
)
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.recorded import RecordedDescent, Shape, descent_on, tensors_of
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.methods.cross_feedback.steps import Step
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import TrainingBlocks
from pyro_bmf.model.feedback import Feedback

KINDS: tuple[StepKind, StepKind] = ("plain", "joint")
ENCODERS: list[dict[str, Any]] = [
    {},
    {"attention": "none"},
    {"attention": "softmax"},
    {"attention_scope": "global"},
    {"attention_merge": "add"},
    {"n_tower_layers": 0},
    {"n_tower_layers": 2, "n_head_layers": 2},
    {"feedback": False, "attention": "none"},
    {"data_input": False},
    {"input_dropout": 0.4},
    {"count_input": False, "input_power": 0.0},
]


def adam(objective: Objective) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=1e-2, fused=True)


def objective_of(n_factors: int = K, **changes: Any) -> Objective:
    """An objective in double precision; both sides differ in all that they can."""
    torch.manual_seed(1)
    encoder = EncoderSettings(**{"n_tower_layers": 1, "n_tower_outputs": 6, "n_units": 5, **changes})
    model = make_model().double()
    scales: dict[str, Any] = {"user_scales": (0.8, 0.4), "item_scales": (0.6, 0.3)}
    guide = CrossFeedbackGuide(encoder, N_USERS, N_ITEMS, n_factors, biases=True, **scales)
    return Objective(model, guide.double())


def run(steps: Descent, blocks: TrainingBlocks) -> Tensor:
    """Take a step in every block; return all losses and their parts."""
    found = []
    for p in range(len(blocks.user_batches)):
        for q in range(len(blocks.item_batches)):
            torch.manual_seed(10 * p + q)
            loss, parts = steps(Step(blocks, p, q), (0.3, 0.7), 1e-2)
            found += [loss, *(parts[name] for name in sorted(parts))]
    return torch.stack([value.double() for value in found])


def assert_same_weights(one: Objective, other: Objective) -> None:
    expected = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("changes", ENCODERS, ids=str)
def test_joint_steps_are_pyros(changes: dict[str, Any], clip: float | None) -> None:
    joint = objective_of(**changes)
    plain = copy.deepcopy(joint)
    blocks = Problem.draw().blocks(4, 3)
    assert has_joint_descent(joint)
    found = run(JointDescent(joint, blocks, adam(joint), clip), blocks)
    expected = run(PlainDescent(plain, adam(plain), clip), blocks)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert_same_weights(joint, plain)


def test_what_embeddings_give_is_taken_anew() -> None:
    joint = objective_of()
    plain = copy.deepcopy(joint)
    blocks = Problem.draw().blocks(4, 3)
    steps = JointDescent(joint, blocks, adam(joint), None)
    for objective in (joint, plain):
        objective.guide.item_factors.mul_(-0.7)
        objective.guide.user_factors.add_(0.2)
    steps.begin()
    expected = run(PlainDescent(plain, adam(plain), None), blocks)
    torch.testing.assert_close(run(steps, blocks), expected, rtol=1e-10, atol=1e-12)


class Halved(FactorizationModel):
    def forward(self, block: Any, *, beta: tuple[float, float]) -> None:
        super().forward(block, beta=(beta[0] / 2, beta[1] / 2))


def test_a_program_of_its_own_is_run_as_it_is() -> None:
    guide = objective_of().guide
    assert not has_joint_descent(Objective(Halved(K).double(), guide))
    with pytest.raises(ValueError, match="no joint steps"):
        JointDescent(Objective(Halved(K), guide), Problem.draw().blocks(4, 3), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"covariance": "full"},
        {"residual": True},
        {"bayesian_input": True},
        {"n_bases": 2},
        {"latent_input": "average"},
        {"held_out_input": True},
    ],
    ids=str,
)
def test_uncommon_encoders_go_by_pyro(changes: dict[str, Any]) -> None:
    assert not has_joint_descent(objective_of(**changes))


def test_other_bounds_go_by_pyro() -> None:
    joint = objective_of()
    assert not has_joint_descent(Objective(joint.model, joint.guide, elbo="trace"))
    assert not has_joint_descent(Objective(joint.model, joint.guide, num_particles=2))


def test_they_take_fewer_launches_and_wait_for_nothing() -> None:
    """Of what a step asks for, the optimizer apart, which a CPU does parameter by parameter."""
    objective = objective_of()
    blocks = Problem.draw().blocks(100, 100)
    counts = {}
    for kind in KINDS:
        steps: Any = descent_of(kind, objective, blocks, adam(objective), None)

        def loss(steps: Any = steps) -> Tensor:
            if isinstance(steps, PlainDescent):
                found: Tensor = objective(blocks.block(0, 0), beta=(1.0, 1.0))[0]
                return found
            return steps.loss(steps.input(0, 0, (1.0, 1.0)))[0]  # type: ignore[no-any-return]

        with pyro.validation_enabled(False), profile(activities=[ProfilerActivity.CPU]) as asked:
            loss().backward()  # type: ignore[no-untyped-call]
            if isinstance(steps, JointDescent):
                steps.finish_gradients()
        names = [event.name for event in asked.events() if event.name.startswith("aten::")]
        counts[kind] = len(names), names.count("aten::_local_scalar_dense")
    assert counts["joint"][0] < 0.65 * counts["plain"][0]
    assert counts["joint"][1] == 0


# ---------------------------------------------------------------- recorded


def ragged(n_factors: int = 16) -> tuple[Objective, TrainingBlocks]:
    """Blocks of 8 users on 7 or 6 items, of unlike numbers of ratings.

    Sixteen factors: a CPU draws sixteen Normals at once, so that rows which are filled in, the items' last
    one, leave the draws of the others as they are.
    """
    n_users, n_items = 24, 19
    rng = np.random.default_rng(0)
    seen = rng.random((n_users, n_items)) < 0.5
    seen[3] = False
    users, items = (torch.from_numpy(one) for one in np.nonzero(seen))
    ratings = torch.from_numpy(rng.integers(1, 6, len(users)).astype(float))
    blocks = TrainingBlocks.build(
        Feedback.from_coo(users, items, ratings - 3.0, n_users, n_items),
        Feedback.from_coo(items, users, ratings - 3.0, n_items, n_users),
        users,
        items,
        ratings,
        user_batch_size=8,
        item_batch_size=7,
    )
    torch.manual_seed(1)
    model = FactorizationModel(n_factors, biases=False).double()
    model.start(ratings.numpy())
    encoder = EncoderSettings(n_tower_layers=1, n_tower_outputs=6, n_units=5)
    guide = CrossFeedbackGuide(encoder, n_users, n_items, n_factors, biases=False).double()
    return Objective(model, guide), blocks


@pytest.mark.parametrize("clip", [None, 0.5])
def test_filling_up_changes_nothing(clip: float | None) -> None:
    """Loss, parts and all weights after nine steps, Adam's included, are those of the blocks."""
    joint, blocks = ragged()
    recorded = copy.deepcopy(joint)
    recorder = OnTheSpot()
    steps = RecordedDescent(JointDescent(recorded, blocks, adam(recorded), clip), recorder, piece=4)
    found = run(steps, blocks)
    expected = run(JointDescent(joint, blocks, adam(joint), clip), blocks)
    assert (recorder.recorded, recorder.runs) == (1, 9)
    # The learning rate and the weights of the KL stand on the device in single precision.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for name, value in joint.state_dict().items():
        torch.testing.assert_close(recorded.state_dict()[name], value, rtol=1e-6, atol=1e-6)


def test_everything_stays_in_its_place() -> None:
    """What a recording reads and writes is at the same address at every step."""
    objective, blocks = ragged()
    steps = RecordedDescent(JointDescent(objective, blocks, adam(objective), None), OnTheSpot(), piece=4)
    inputs = [one.data_ptr() for one in tensors_of(steps.place)]
    state = [one.data_ptr() for one in objective.state_dict().values()]
    run(steps, blocks)
    steps.begin()
    assert [one.data_ptr() for one in tensors_of(steps.place)] == inputs
    assert [one.data_ptr() for one in objective.state_dict().values()] == state
    assert len({tuple(one.shape for one in tensors_of(block)) for block in steps.blocks}) == 1
    shape = Shape.of(blocks, 4)
    assert (shape.rows.user, shape.rows.item) == (8, 7)


def test_recording_draws_nothing() -> None:
    objective, blocks = ragged()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    RecordedDescent(JointDescent(objective, blocks, adam(objective), None), OnTheSpot())
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_the_host_asks_for_little_outside_a_recording() -> None:
    """At most sixty operations: copies into place, the replay, what the loss is added to."""
    objective, blocks = ragged()
    recorder = OnTheSpot()
    steps = RecordedDescent(JointDescent(objective, blocks, adam(objective), None), recorder)
    steps.result = torch.zeros(3)
    steps.names = ["log_likelihood", "kl_user_factors"]
    steps.replay = lambda: None
    with profile(activities=[ProfilerActivity.CPU]) as found:
        steps(Step(blocks, 1, 1), (1.0, 1.0), 1e-3)
    names = [event.name for event in found.events() if event.name.startswith("aten::")]
    copies = names.count("aten::copy_")
    # A card copies a list of tensors of one type in one launch; a CPU does it one by one.
    assert len(names) - copies <= 60
    assert names.count("aten::_local_scalar_dense") == 0


def test_steps_are_recorded_where_there_is_a_recorder() -> None:
    objective, blocks = ragged()
    notes: list[str] = []
    joint = JointDescent(objective, blocks, adam(objective), None)
    device = torch.device("cpu")
    assert descent_on(device, joint, notes.append) is joint
    assert isinstance(descent_on(device, joint, notes.append, OnTheSpot()), RecordedDescent)
    plain = PlainDescent(objective, adam(objective), None)
    assert descent_on(device, plain, notes.append, OnTheSpot()) is plain
    assert notes == []
    assert descent_on(device, joint, notes.append, Failing()) is joint
    assert len(notes) == 1
    assert "(operation not permitted when stream is capturing)" in notes[0]


def test_joint_steps_are_taken_wherever_the_model_is() -> None:
    """On torch's device without numbers, which every build has: on a card it is the same."""
    with pyro.validation_enabled(False):  # which reads numbers
        assert has_joint_descent(objective_of().to("meta"))


def test_a_prior_without_an_analytic_kl_goes_by_pyro() -> None:
    class Heavy(type(FactorizationModel(K).user_prior)):  # type: ignore[misc]
        def forward(self, side: str, n_factors: int | None) -> Any:
            shape = () if n_factors is None else (n_factors,)
            tails = dist.StudentT(torch.tensor(4.0)).expand(shape)  # type: ignore[no-untyped-call]
            return tails if n_factors is None else tails.to_event(1)

    guide = objective_of().guide
    assert not has_joint_descent(Objective(FactorizationModel(K, user_prior=Heavy()), guide))
