"""Outputs of layers, recorded while their model is called."""

import threading

import pytest
import tensorflow as tf

from tf_movprune.core.layer_outputs import recorded_outputs


class Double:
    """A layer as Keras calls it, by its attribute `call`."""

    def call(self, x):
        return 2 * x

    def __call__(self, x):
        return self.call(x)


ONE = tf.ones([])


def test_outputs_of_each_call_in_order():
    first, second = Double(), Double()
    with recorded_outputs({"first": first, "second": second}) as outputs:
        second(first(first(ONE)))
    assert [float(x) for x in outputs["first"]] == [2, 4]
    assert [float(x) for x in outputs["second"]] == [8]
    assert not vars(first) and not vars(second)


@pytest.mark.parametrize(
    "outputs",
    [(ONE, 3), [ONE], {"states": ONE, "cache": 3}, ((ONE, 3), 4)],
)
def test_the_first_tensor_of_several_outputs(outputs):
    layer = Double()
    vars(layer)["call"] = own = lambda x: outputs
    with recorded_outputs({"layer": layer}) as found:
        assert layer(ONE) is outputs
    assert found["layer"] == [ONE]
    assert vars(layer) == {"call": own}  # as it was


def test_an_error_leaves_the_layer_as_it_was():
    layer = Double()
    with pytest.raises(KeyError), recorded_outputs({"layer": layer}):
        raise KeyError
    assert not vars(layer)
    with (
        pytest.raises(ValueError, match=r"'layer' was not called"),
        recorded_outputs({"layer": layer}),
    ):
        pass
    message = r"floats as the first output of 'layer', got <dtype: 'int"
    with pytest.raises(TypeError, match=message), recorded_outputs({"layer": layer}):
        layer(tf.constant(1))
    assert not vars(layer)


def test_contexts_in_threads_that_end_in_the_order_of_their_beginning():
    """Replicas do so, which take turns where they wait for one another."""
    layer, found = Double(), {}
    begun, ended = threading.Barrier(2), [threading.Event(), threading.Event()]

    def run(i):
        with recorded_outputs({"layer": layer}) as outputs:
            begun.wait()
            if i == 1:  # inside its context, after the other one has ended
                ended[0].wait()
            layer(ONE * (i + 1))
        ended[i].set()
        found[i] = [float(x) for x in outputs["layer"]]

    threads = [threading.Thread(target=run, args=[i]) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [2], 1: [4]}
    assert not vars(layer)


def test_a_context_within_another():
    layer = Double()
    with recorded_outputs({"layer": layer}) as outer:
        layer(ONE)
        with recorded_outputs({"layer": layer}) as inner:
            layer(3 * ONE)
        layer(5 * ONE)
    assert [float(x) for x in outer["layer"]] == [2, 10]
    assert [float(x) for x in inner["layer"]] == [6]
