"""What is shown of pruning while a model trains: progress bars, announcements and histories."""

import re

import numpy as np
import pytest
import tf_keras as keras
from runs import STEPS, compiled, cubic, data, fit, kept, kept_at

import tf_movprune


def last_shown(text, epochs):
    """The last sparsity on the progress bar of each epoch."""
    parts = re.split(r"Epoch \d+/\d+", text)[1:] if epochs > 1 else [text]
    assert len(parts) == epochs
    return [float(re.findall(r"\bsparsity: ([\d.e+-]+)", part)[-1]) for part in parts]


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_bar_shows_the_current_sparsity(capsys, verbose):
    model = compiled(cubic(begin_step=0, end_step=12))
    recorder, history = fit(model, verbose=verbose, validation_data=data(2))
    shown = last_shown(capsys.readouterr().out, epochs=2)
    np.testing.assert_allclose(shown, recorder.epoch_sparsity, atol=6e-5)
    np.testing.assert_allclose(history.history["sparsity"], recorder.epoch_sparsity, atol=1e-6)
    averages = [
        np.mean([1 - sum(counts) / 96 for counts in recorder.kept[start : start + STEPS]])
        for start in (0, STEPS)
    ]
    assert np.all(np.abs(np.array(averages) - shown) > 0.01)


def test_progress_bar_shows_the_current_sparsity_between_epochs_too(capsys):
    """Every value that the bar goes through is the sparsity of a step, not a running mean."""
    schedule = cubic(begin_step=0, end_step=12)
    fit(compiled(schedule), verbose=1)
    shown = re.findall(r"\bsparsity: ([\d.e+-]+)", capsys.readouterr().out)
    exact = {round(1 - sum(kept_at(schedule, step)) / 96, 4) for step in range(13)}
    assert len(shown) > 2
    assert {round(float(value), 4) for value in shown} <= exact


def test_ramp_is_announced_before_training(capsys):
    model = compiled(cubic(begin_step=0, end_step=6))
    fit(model, epochs=1, verbose=2)
    text = capsys.readouterr().out
    line = "Pruning 96 weights in 2 matrices. Sparsity by step: 0.00 at 0, 0.66 at 3, 0.75 at 6."
    assert text.count(line) == 1
    assert text.find(line) < text.find("loss:")


def test_history_and_validation(capsys):
    schedule = cubic(begin_step=0, end_step=12)
    model = compiled(schedule, metrics=["mae"])
    seen = []
    watch = keras.callbacks.LambdaCallback()
    watch.on_test_begin = lambda logs=None: seen.append(kept(model))
    _, history = fit(model, validation_data=data(2), callbacks=[watch])
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae", "sparsity"}
    assert [type(value) for value in history.history["sparsity"]] == [float, float]
    assert history.history["sparsity"][1] == 0.75
    assert seen == [kept_at(schedule, 6), kept_at(schedule, 12)]  # as of the steps just taken
    assert [metric.name for metric in model.metrics] == ["loss", "mae"]
    assert set(model.evaluate(data(2), return_dict=True, verbose=0)) == {"loss", "mae"}
    assert capsys.readouterr().out == ""


def test_pruning_step_is_the_optimizer_step(capsys):
    """A second fit goes on where the optimizer stands, and shows it."""
    schedule = cubic(begin_step=0, end_step=12)
    model = compiled(schedule)
    update = tf_movprune.UpdatePruningStep(num_train_steps=12)
    first, _ = fit(model, epochs=1, update=update)
    second, _ = fit(model, epochs=2, initial_epoch=1, update=update, verbose=2)
    assert first.steps + second.steps == list(range(12))
    assert first.kept + second.kept == [kept_at(schedule, step) for step in range(12)]
    assert kept(model) == [16, 8]
    shown = last_shown(capsys.readouterr().out, epochs=1)
    np.testing.assert_allclose(shown, second.epoch_sparsity, atol=6e-5)
