"""The verdicts over many experiments are those of the pairs, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.selection import many_differences
from gridsweep.selection.many_differences import beaten
from gridsweep.selection.paired_differences import Measured, difference
from gridsweep.sweep.losses import Losses


def one_by_one(scores: dict[str, Measured], ranked: list[str], confidence: float, noise: float):
    """As it was before: every pair is a difference of its own."""
    better, worse = [0] * len(ranked), [0] * len(ranked)
    for i in range(len(ranked)):
        for j in range(i + 1, len(ranked)):
            apart = difference(scores[ranked[i]], scores[ranked[j]])
            if abs(apart.mean) > noise and apart.separable(confidence):
                ahead, behind = (i, j) if apart.mean < 0 else (j, i)
                better[behind] += 1
                worse[ahead] += 1
    return better, worse


@st.composite
def measured(draw: st.DrawFn) -> dict[str, Measured]:
    samples = draw(st.integers(1, 6))
    tokens = tuple(draw(st.lists(st.sampled_from([0.0, 1.0, 7.5, 30.0]), min_size=samples - 1, max_size=samples - 1)))
    level = st.one_of(st.sampled_from([1.0, 1.5, 1.5 + 1e-12]), st.floats(0, 10))
    scores: dict[str, Measured] = {}
    for n in range(draw(st.integers(1, 7))):
        losses = [Losses(tuple(draw(level) for _ in range(samples)), (*tokens, 4.0)) for _ in range(3)]
        seeds = draw(st.sampled_from([(), (0,), (0, 1), (0, 1, 2), (0, 2)]))
        scores[f"e{n}"] = {seed: losses[seed] for seed in seeds} if seeds else losses[0]
    return scores


@given(measured(), st.sampled_from([0.5, 0.95, 0.9999]), st.sampled_from([0.0, 0.01, 1.0]), st.integers(1, 3))
def test_the_verdicts_are_those_of_the_pairs(scores, confidence, noise, block):
    before, many_differences.BLOCK = many_differences.BLOCK, block
    try:
        assert beaten(scores, list(scores), confidence, noise) == one_by_one(scores, list(scores), confidence, noise)
    finally:
        many_differences.BLOCK = before


def test_the_verdicts_of_a_hundred_are_those_of_the_pairs():
    rng = np.random.default_rng(3)
    hard = rng.normal(2, 1, 50)
    names = [f"e{n}" for n in range(100)]
    scores = {
        name: Losses(tuple(hard + 0.002 * n + rng.normal(0, 0.05, 50)), tuple(rng.integers(5, 90, 1).tolist() * 50))
        for n, name in enumerate(names)
    }
    tokens = tuple(float(n) for n in rng.integers(5, 90, 50))
    scores = {name: Losses(losses.values, tokens) for name, losses in scores.items()}
    assert beaten(scores, names, 0.9995, 0.004) == one_by_one(scores, names, 0.9995, 0.004)


def test_losses_of_other_samples_or_seeds_are_refused():
    one, other = Losses((1.0, 2.0), (3.0, 4.0)), Losses((1.0, 2.0), (4.0, 3.0))
    with pytest.raises(ValueError, match="different samples"):
        beaten({"a": one, "b": other}, ["a", "b"], 0.95, 0.0)
    with pytest.raises(ValueError, match="none in common"):
        beaten({"a": {1: one}, "b": {2: one}}, ["a", "b"], 0.95, 0.0)
