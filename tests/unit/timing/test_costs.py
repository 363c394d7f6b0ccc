"""Seconds that are a sum of what a step reads are found again, at lengths that were not seen too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.attention.call import Geometry
from sahub.builders.build import build_stack
from sahub.timing.costs import FEATURES, Step, StepCosts, errors_of, fitted, step_of

GEOMETRY = Geometry(num_layers=2, num_heads=8, num_kv_heads=2, head_dim=16)
POINTS = [(density, page, bits) for density in (0.05, 0.3) for page in (4, 16) for bits in (2, 8)]


def stack(density, page, bits):
    return build_stack([{"name": "quest", "density": density, "page_size": page, "label_bits": bits}])


def steps(truth, lengths=(512, 1024, 4096), noise=0.0):
    """Steps that cost `truth` for each feature, off by up to `noise`."""
    found, rng = [], np.random.default_rng(0)
    for length in lengths:
        for point in POINTS:
            shares = {"density": point[0], "kv_density": 1 - (1 - point[0]) ** 3}
            one = step_of(stack(*point), GEOMETRY, length, **shares)
            seconds = float(np.dot(truth, one.features)) * (1 + noise * rng.uniform(-1, 1))
            found.append(Step(length=one.length, features=one.features, seconds=seconds))
    return found


@settings(max_examples=20)
@given(st.lists(st.floats(0, 10), min_size=6, max_size=6).filter(lambda scale: scale[0] > 0.1))
def test_what_is_a_sum_of_features_is_predicted(scale):
    truth = np.array(scale) * np.array([1e-3, 1e-6, 1e-6, 1e-6, 1e-6, 1e-7])
    taken = steps(truth)
    model = fitted(taken)
    assert all(one >= 0 for one in model.coefficients)
    assert model.error < 1e-6
    for step in steps(truth, lengths=(2048, 16384)):
        assert model.seconds(step) == pytest.approx(step.seconds, rel=1e-4)


def test_noise_shows_in_the_error():
    truth = [1e-3, 1e-6, 0, 1e-6, 0, 0]
    errors = [fitted(steps(truth, noise=noise)).error for noise in (0.0, 0.05, 0.3)]
    assert errors == sorted(errors)
    assert 0.01 < errors[1] < 0.05 < errors[2] < 0.3


def test_the_error_is_of_lengths_that_were_left_out():
    """Steps that jump at one length are fitted well and predicted badly."""
    taken = [
        Step(length=one.length, features=one.features, seconds=one.seconds * (3 if one.length == 1024 else 1))
        for one in steps([1e-3, 1e-6, 0, 0, 0, 0])
    ]
    found = errors_of(taken)
    assert len(found) == len(taken)
    assert min(found[8:16]) > 0.5


def test_two_lengths_say_nothing_of_a_third():
    assert fitted(steps([1e-3, 1e-6, 0, 0, 0, 0], lengths=(512, 1024))).error is None


def test_dense_attention_has_a_model_of_its_own():
    sparse, dense = fitted(steps([1e-3, 0, 0, 1e-6, 0, 0])), fitted(steps([1e-3, 5e-6, 0, 0, 0, 0]))
    costs = StepCosts(sparse=sparse, dense=dense, machine={"cpu": "a"})
    shares = {"density": 0.05, "kv_density": 0.1}
    assert costs.seconds(stack(0.05, 4, 2), GEOMETRY, 1000.0, **shares) == pytest.approx(1e-3 + 1e-6 * 0.05 * 8000)
    assert costs.seconds(None, GEOMETRY, 1000.0, density=1.0, kv_density=1.0) == pytest.approx(1e-3 + 5e-3)
    assert {*costs.document()["sparse"]} == {"error", *FEATURES}
