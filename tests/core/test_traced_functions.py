import tensorflow as tf

from tf_movprune.core.traced_functions import forget_traces, untraced_functions


class Traced:
    """Has functions of TensorFlow as a method, in an attribute and in a container."""

    def __init__(self):
        self.times = 2
        self.doubled = tf.function(lambda x: x * self.times)
        self.listed = {"all": [tf.function(lambda x: x - self.times)]}

    @tf.function
    def call(self, x):
        return x + self.times

    def results(self):
        functions = self.call, self.doubled, self.listed["all"][0]
        return [int(function(tf.constant(1))) for function in functions]


def test_untraced_functions():
    layer = Traced()
    assert layer.results() == [3, 2, -1]
    layer.times = 5
    assert layer.results() == [3, 2, -1]  # as they were traced
    functions = untraced_functions(layer)
    assert {name: int(f(tf.constant(1))) for name, f in functions.items()} == {
        "call": 6,
        "doubled": 5,
    }
    assert untraced_functions(tf.Module()) == {}


def test_forget_traces():
    layer, other = Traced(), Traced()
    for each in (layer, other):
        each.results()
        each.times = 5
    forget_traces(layer, [layer.listed])
    assert layer.results() == [6, 5, -4]
    assert other.results() == [3, 2, -1]
