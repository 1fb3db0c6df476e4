"""Weights of a model by their names in a file, which may differ in the layers around them."""

import pytest
import tensorflow as tf

from tf_movprune.core.named_weights import matching


def matched(in_model, in_file):
    """The name in the model of each name in the file."""
    weights = {name: tf.Variable(tf.zeros([2]), name=name) for name in in_model}
    specs = {name: tf.TensorSpec([2], tf.float32) for name in in_file}
    found = matching("model", weights, specs, "file")
    by_variable = {id(variable): name for name, variable in weights.items()}
    return {name: by_variable[id(variable)] for name, variable in found.items()}


@pytest.mark.parametrize(
    "in_model, in_file",
    [
        (["a/kernel", "a/bias"], ["a/kernel", "a/bias"]),
        (["b/kernel", "a/kernel"], ["a/kernel", "b/kernel"]),
        (["dense_3/kernel", "dense_4/kernel"], ["dense/kernel", "dense_1/kernel"]),
        (["outer/a/kernel", "outer/b/kernel"], ["a/kernel", "b/kernel"]),
        (["a/kernel", "b/kernel"], ["outer/a/kernel", "outer/b/kernel"]),
        (["kernel", "outer/a/kernel"], ["outer/kernel", "outer/x/outer/a/kernel"]),
    ],
)
def test_names_that_are_matched(in_model, in_file):
    found = matched(in_model, in_file)
    if set(in_model) == set(in_file):
        assert found == {name: name for name in in_file}
    else:
        assert found == dict(zip(in_file, in_model, strict=True))


@pytest.mark.parametrize(
    "in_model, in_file",
    [
        (["outer/a/kernel", "b/kernel"], ["a/kernel", "outer/b/kernel"]),  # in two directions
        (["x/a/kernel", "y/a/kernel"], ["kernel", "a/kernel"]),  # these could change places
        (["outer/b/kernel", "outer/a/kernel"], ["a/kernel", "b/kernel"]),  # in another order
        (["outer/ba/kernel", "outer/b/kernel"], ["a/kernel", "b/kernel"]),  # half a name
    ],
)
def test_names_that_do_not_tell(in_model, in_file):
    with pytest.raises(ValueError, match="weights in file are not those of 'model'"):
        matched(in_model, in_file)
