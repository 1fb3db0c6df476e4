"""PruningSummaries: what TensorBoard is shown of a training, in either Keras."""

import contextlib
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from shells import kernels
from small_models import fit, mlp, prune

import tf_movprune
from tf_movprune import CubicSparsity

PATHS = ("first", "second")


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


def mask_history(keras):
    """A callback with masks and thresholds at points of a training, of which -1 is its begin."""

    class MaskHistory(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.at = {}

        def record(self, key):
            found = kernels(self.model)
            self.at[key] = [(k.mask.numpy(), float(k.threshold)) for k in found]

        def on_train_begin(self, logs=None):
            self.record(-1)

        def on_train_batch_end(self, batch, logs=None):
            self.record(int(self.model.optimizer.iterations))

        def on_epoch_end(self, epoch, logs=None):
            self.record(f"epoch {epoch}")

        def on_train_end(self, logs=None):
            self.record("end")

    return MaskHistory()


def check_events(found, history, written):
    """`written` lists pairs of the step in the file and the key of the masks that it shows."""
    tags = {"sparsity", "churn"}
    tags |= {f"{kind}/{path}" for kind in ("sparsity", "churn", "threshold") for path in PATHS}
    assert set(found) == tags
    taken = {tag: [] for tag in tags}
    previous = history[-1]
    for _, key in written:
        flips, left = [], []
        for path, (mask, threshold), (before, _) in zip(PATHS, history[key], previous):
            flips.append(np.sum(mask != before))
            left.append(mask.sum())
            taken[f"sparsity/{path}"].append(1 - mask.mean())
            taken[f"churn/{path}"].append(flips[-1] / mask.size)
            taken[f"threshold/{path}"].append(threshold)
        total = sum(mask.size for mask, _ in history[key])
        taken["sparsity"].append(1 - sum(left) / total)
        taken["churn"].append(sum(flips) / total)
        previous = history[key]
    steps = sorted({step for step, _ in written})
    for tag, expected in taken.items():
        assert sorted(found[tag]) == steps
        actual = [value for step in steps for value in found[tag][step]]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=tag)
    assert max(taken["churn"]) > 0 and taken["sparsity"][-1] == 0.75


def test_summaries_of_each_epoch_and_every_few_steps(keras, tmp_path, tensorboard):
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 8, frequency=2))
    history = mask_history(keras)
    callbacks = [
        tf_movprune.PruningSummaries(str(tmp_path / "epochs")),
        tf_movprune.PruningSummaries(str(tmp_path / "steps"), update_freq=3),
        history,
    ]
    fit(keras, pruned, callbacks=callbacks)
    epochs = [(4, "epoch 0"), (8, "epoch 1"), (8, "end")]
    check_events(events(tmp_path / "epochs"), history.at, epochs)
    check_events(events(tmp_path / "steps"), history.at, [(3, 3), (6, 6), (8, "end")])


def test_summaries_of_a_dense_model(keras, tmp_path, tensorboard):
    model = mlp(keras)
    model.compile("sgd", "mse")
    summaries = tf_movprune.PruningSummaries(str(tmp_path))
    summaries.set_model(model)
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        summaries.on_train_begin()
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "pruning").iterdir())


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


def test_tensorboard_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs TensorBoard.*pip install tensorboard"):
        tf_movprune.PruningSummaries(str(tmp_path))
