"""RunRecorder: what it writes of trainings in either Keras."""

import json

import numpy as np
import pytest
from shells import kernels
from small_models import X, Y, mlp, prune

import tf_movprune
from tf_movprune import CubicSparsity, HardMovement

RAMP = CubicSparsity(0.75, 0, 8, frequency=2)


def train(keras, model, folder, callbacks=(), rate=0.1, epochs=2, recorder=None, **kwargs):
    """Two epochs of four batches, recorded."""
    if getattr(model, "optimizer", None) is None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"], run_eagerly=True)
    recorder = recorder or tf_movprune.RunRecorder(folder, update_freq=2)
    update = [tf_movprune.UpdatePruningStep(8)] if tf_movprune.pruned_layers(model) else []
    model.fit(
        *(X, Y, 8, epochs),
        shuffle=False,
        verbose=0,
        callbacks=[*update, *callbacks, recorder],
        **kwargs,
    )


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def pruning(folder):
    return json.loads((folder / "pruning.json").read_text())


def of_steps(lines, key):
    return {line["step"]: line[key] for line in lines if key in line}


def mask_history(keras):
    """A callback with all mask entries before training and after each step."""

    class Masks(keras.callbacks.Callback):
        def now(self):
            return np.concatenate([k.mask.numpy().ravel() for k in kernels(self.model)])

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 0:
                self.at = [self.now()]

        def on_train_batch_end(self, batch, logs=None):
            self.at.append(self.now())

    return Masks()


def test_a_pruned_model(keras, tmp_path):
    masks = mask_history(keras)
    method = HardMovement(tf_movprune.MagnitudeScores(0.01), scope="global")
    model = prune(mlp(keras), RAMP, method)
    train(keras, model, tmp_path, [masks], validation_data=(X, Y))
    check_history(history(tmp_path), masks)
    found, report = pruning(tmp_path), tf_movprune.summarize_sparsity(model)
    assert (found["format"], found["step"]) == (1, 8)
    assert (found["remaining"], found["total"]) == (report.remaining, report.total)
    rows = [(m["path"], tuple(m["shape"]), m["remaining"]) for m in found["matrices"]]
    assert rows == [(w.path, w.shape, w.remaining) for w in report.weights]
    assert 0 < found["agreement"] <= 1
    page = tf_movprune.report(tmp_path).read_text(encoding="utf-8")
    assert "25\u202f% of the pruned matrices" in page and "first.kernel" in page


def check_history(lines, masks):
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps) and set(steps) == {0, 2, 4, 6, 8}
    sparsity, churn = of_steps(lines, "sparsity"), [line for line in lines if "churn" in line]
    for step in (2, 6):
        assert sparsity[step] == pytest.approx(1 - masks.at[step].mean())
    assert sparsity[0] == 0 and sparsity[8] == 0.75
    by_step = {step: sum(c["churn"] for c in churn if c["step"] == step) for step in (2, 4, 6, 8)}
    assert by_step[2] == pytest.approx(np.mean(masks.at[2] != masks.at[0]))
    assert sum(by_step.values()) >= 0.75
    metrics = of_steps(lines, "metrics")
    assert set(metrics) == {4, 8}
    assert set(metrics[8]) == {"accuracy", "val_accuracy", "val_loss"}
    assert of_steps(lines, "learning_rate") == pytest.approx(dict.fromkeys((2, 4, 6, 8), 0.1))


def test_losses_are_means_since_the_last_line(keras, tmp_path):
    model = mlp(keras)
    train(keras, model, tmp_path, rate=0.0)
    losses = [model.evaluate(X[i : i + 8], Y[i : i + 8], 8, verbose=0)[0] for i in range(0, 32, 8)]
    first, second = np.mean(losses[:2]), np.mean(losses[2:])
    expected = {2: first, 4: second, 6: first, 8: second}
    assert of_steps(history(tmp_path), "loss") == pytest.approx(expected, rel=1e-4)
    assert not (tmp_path / "pruning.json").exists()


def test_epochs_alone(keras, tmp_path):
    recorder = tf_movprune.RunRecorder(tmp_path / "new" / "folder", update_freq="epoch")
    train(keras, mlp(keras), None, recorder=recorder)
    lines = history(tmp_path / "new" / "folder")
    assert [line["step"] for line in lines] == [4, 8]
    assert all({"loss", "metrics", "learning_rate"} <= set(line) for line in lines)


def test_a_run_that_goes_on(keras, tmp_path):
    """Lines after the step at which it goes on are cut off, and a line that is cut short."""
    model = prune(mlp(keras), RAMP)
    train(keras, model, tmp_path, epochs=1)
    before = history(tmp_path)
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    train(keras, model, tmp_path, epochs=1)
    lines = history(tmp_path)
    assert lines[: len(before)] == before
    assert [line["step"] for line in lines[len(before) :]][:1] == [6]
    assert {line["step"] for line in lines} == {0, 2, 4, 6, 8}
    churn = sum(line.get("churn", 0) for line in lines)
    assert pruning(tmp_path)["churn"] == pytest.approx(churn)


@pytest.mark.parametrize(
    "update_freq, error, message",
    [
        (0, ValueError, "update_freq must be at least 1, got 0"),
        ("batch", ValueError, "update_freq must be \"epoch\" or a number of steps, got 'batch'"),
        (2.5, TypeError, r"update_freq must be an integer such as 100, got 2\.5"),
    ],
)
def test_update_freq_out_of_range(tmp_path, update_freq, error, message):
    with pytest.raises(error, match=message):
        tf_movprune.RunRecorder(tmp_path, update_freq=update_freq)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        tf_movprune.RunRecorder(tmp_path / "file")
