"""PruningSummaries: what TensorBoard is shown."""

import contextlib
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from runs import (
    FIRST,
    SECOND,
    compiled,
    cubic,
    data,
    dense_model,
    fit,
    masks,
)
from wrapped import threshold_of, wrappers

import tf_movprune


@pytest.fixture
def tensorboard(monkeypatch):
    """TensorBoard where it is not installed: what its plugin of scalars makes of a value."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:

        def scalar(name, data, step=None):
            metadata = tf.compat.v1.SummaryMetadata(
                plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
            )
            return tf.summary.write(name, tf.cast(data, tf.float32), step, metadata)

        monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
        monkeypatch.setattr(tf.summary, "scalar", scalar)


def test_tensorboard_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs TensorBoard.*pip install tensorboard"):
        tf_movprune.PruningSummaries(str(tmp_path))


def events(log_dir):
    """Values by tag and step, in the order in which they were written."""
    found = {}
    for file in sorted(pathlib.Path(log_dir, "pruning").iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                steps.setdefault(event.step, []).append(float(tf.make_ndarray(value.tensor)))
    return found


class MaskHistory(keras.callbacks.Callback):
    """Masks and thresholds after each step and epoch; -1 is before training, None after it."""

    def __init__(self):
        super().__init__()
        self.at = {}

    def record(self, key):
        thresholds = [threshold_of(layer) for layer in wrappers(self.model)]
        self.at[key] = (masks(self.model), thresholds)

    def on_train_begin(self, logs=None):
        self.record(-1)

    def on_train_batch_end(self, batch, logs=None):
        self.record(int(self.model.optimizer.iterations))

    def on_epoch_end(self, epoch, logs=None):
        self.record(f"epoch {epoch}")

    def on_train_end(self, logs=None):
        self.record(None)


def check_events(found, history, written):
    """`written` lists pairs of the step in the file and the key of the masks that it shows."""
    tags = {"sparsity", "churn"}
    tags |= {f"{kind}/{path}" for kind in ("sparsity", "churn", "threshold") for path in PATHS}
    assert set(found) == tags
    steps = sorted({step for step, _ in written})
    previous, _ = history.at[-1]
    taken = {tag: [] for tag in tags}
    for _, key in written:
        current, thresholds = history.at[key]
        flips = [int(np.sum(a != b)) for a, b in zip(current, previous)]
        taken["sparsity"].append(1 - sum(mask.sum() for mask in current) / (FIRST + SECOND))
        taken["churn"].append(sum(flips) / (FIRST + SECOND))
        for path, mask, flipped, threshold in zip(PATHS, current, flips, thresholds):
            taken[f"sparsity/{path}"].append(1 - mask.mean())
            taken[f"churn/{path}"].append(flipped / mask.size)
            taken[f"threshold/{path}"].append(threshold)
        previous = current
    for tag, expected in taken.items():
        assert sorted(found[tag]) == steps
        actual = [value for step in steps for value in found[tag][step]]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=tag)
    assert max(taken["churn"]) > 0 and taken["sparsity"][-1] == 0.75


PATHS = ("first", "second")


def fit_with_summaries(log_dir, schedule, **kwargs):
    model = compiled(schedule)
    history = MaskHistory()
    callbacks = [tf_movprune.PruningSummaries(str(log_dir), **kwargs), history]
    fit(model, callbacks=callbacks)
    return events(log_dir), history


def test_summaries_of_each_epoch(tmp_path, tensorboard):
    found, history = fit_with_summaries(tmp_path, cubic(begin_step=0, end_step=10))
    check_events(found, history, [(6, "epoch 0"), (12, "epoch 1"), (12, None)])


def test_summaries_every_few_steps(tmp_path, tensorboard):
    found, history = fit_with_summaries(
        tmp_path, cubic(begin_step=0, end_step=12, frequency=3), update_freq=5
    )
    check_events(found, history, [(5, 5), (10, 10), (12, None)])


def test_summaries_with_steps_per_execution(tmp_path, tensorboard):
    model = compiled(cubic(begin_step=0, end_step=10), steps_per_execution=4)
    fit(
        model,
        dataset=data(12),
        epochs=1,
        callbacks=[tf_movprune.PruningSummaries(str(tmp_path), update_freq=6)],
    )
    assert sorted(events(tmp_path)["sparsity"]) == [8, 12]


@pytest.mark.parametrize(
    "update_freq, error, message",
    [
        (0, ValueError, "update_freq must be at least 1, got 0"),
        (-2, ValueError, "update_freq must be at least 1, got -2"),
        ("batch", ValueError, "update_freq must be \"epoch\" or a number of steps, got 'batch'"),
        (2.5, TypeError, r"update_freq must be an integer such as 100, got 2\.5"),
        (None, TypeError, "update_freq must be an integer such as 100, got None"),
    ],
)
def test_update_freq_out_of_range(tmp_path, tensorboard, update_freq, error, message):
    with pytest.raises(error, match=message):
        tf_movprune.PruningSummaries(str(tmp_path), update_freq=update_freq)


def test_summaries_of_a_dense_model(tmp_path, tensorboard):
    model = dense_model()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        model.fit(data(), callbacks=[tf_movprune.PruningSummaries(str(tmp_path))], verbose=0)
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "pruning").iterdir())
