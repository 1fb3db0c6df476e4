"""Ten thousand steps: what grows with them, and whether masks stay exact."""

import gc

import numpy as np
import psutil
import pytest
import tensorflow as tf
from shells import KERASES, keras_of, kernels
from small_models import START, X, Y, mlp

import tf_movprune
from tf_movprune.core.masks import kept_count

EPOCHS, STEPS = 100, 100
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", KERASES)
def test_ten_thousand_steps(name, jit_compile):
    """Nothing is traced again, memory stays, and each mask has what its schedule says."""
    keras = keras_of(name)
    keras.utils.set_random_seed(0)
    schedule = tf_movprune.CubicSparsity(0.75, 1000, 7000, frequency=3)
    method = tf_movprune.HardMovement(START, scope="global")
    traces, memory, objects, kept, expected = [], [], [], [], []

    class CountsTraces(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = mlp(keras)
    model = keras.Sequential([keras.Input([8]), CountsTraces(), *model.layers])
    pruned = tf_movprune.prune_low_movement(model, schedule, method)
    optimizer = tf_movprune.create_optimizer(
        *(1e-3, EPOCHS * STEPS, 100), score_optimizer=keras.optimizers.SGD(1.0), model=pruned
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(optimizer, loss, jit_compile=jit_compile)
    traces.clear()
    total, process = sum(kernel.size for kernel in kernels(pruned)), psutil.Process()

    def look(epoch, logs):
        gc.collect()
        memory.append(process.memory_info().rss)
        objects.append(len(gc.get_objects()))
        step = (epoch + 1) * STEPS
        refreshed = step - (step - 1000) % 3 if step < 7000 else step
        sparsity = schedule(tf.constant(refreshed, tf.int64))[1]
        kept.append(sum(int(np.count_nonzero(kernel.mask)) for kernel in kernels(pruned)))
        expected.append(int(kept_count(total, sparsity)))

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    update = tf_movprune.UpdatePruningStep(num_train_steps=EPOCHS * STEPS)
    pruned.fit(
        data,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[update, keras.callbacks.LambdaCallback(on_epoch_end=look)],
    )
    assert int(pruned.optimizer.iterations) == EPOCHS * STEPS and len(traces) == 1
    assert kept == expected and kept[-1] == total // 4
    assert objects[-1] - objects[20] < 100
    assert memory[-1] - memory[20] < 2**21  # 262 bytes a step
