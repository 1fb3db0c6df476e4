"""Steps of optimizers, which may be wrapped to scale losses, or take one for several batches."""

import types

import pytest
import tensorflow as tf

from tf_movprune.core.optimizer_steps import accumulation_steps, inner_optimizer, step_of


def optimizer(step=0, **attributes):
    return types.SimpleNamespace(iterations=tf.Variable(step, dtype=tf.int64), **attributes)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_steps_are_those_of_the_optimizer_inside(is_scaled):
    inner = optimizer(3)
    outer = optimizer(5, inner_optimizer=inner) if is_scaled else inner
    assert inner_optimizer(outer) is inner
    assert step_of(types.SimpleNamespace(optimizer=outer)) == 3


@pytest.mark.parametrize("told, expected", [({}, 1), ({"gradient_accumulation_steps": 5}, 5)])
def test_accumulation_steps(told, expected):
    inner = optimizer(**told)
    assert accumulation_steps(inner) == expected
    assert accumulation_steps(optimizer(inner_optimizer=inner)) == expected


def test_accumulation_that_is_off():
    assert accumulation_steps(optimizer(gradient_accumulation_steps=None)) == 1
