"""The progress bar of tf_keras shows how sparse a model is while it trains."""

import re

import numpy as np
from runs import STEPS, compiled, cubic, data, fit, kept_at


def shown_by_epoch(text):
    """The sparsities that the progress bar goes through in each of two epochs."""
    parts = re.split(r"Epoch \d+/\d+", text)[1:]
    assert len(parts) == 2
    return [[float(x) for x in re.findall(r"\bsparsity: ([\d.e+-]+)", part)] for part in parts]


def test_progress_bar_shows_the_current_sparsity(capsys):
    """Every value that the bar goes through is the sparsity of a step, not a running mean."""
    schedule = cubic(begin_step=0, end_step=12)
    model = compiled(schedule, metrics=["mae"])
    recorder, _ = fit(model, verbose=1, validation_data=data(2))
    shown = shown_by_epoch(capsys.readouterr().out)
    np.testing.assert_allclose([x[-1] for x in shown], recorder.epoch_sparsity, atol=6e-5)
    exact = {round(1 - sum(kept_at(schedule, step)) / 96, 4) for step in range(13)}
    values = {round(value, 4) for epoch in shown for value in epoch}
    assert len(values) > 2 and values <= exact
    averages = [
        np.mean([1 - sum(counts) / 96 for counts in recorder.kept[start : start + STEPS]])
        for start in (0, STEPS)
    ]
    assert np.all(np.abs(np.array(averages) - [x[-1] for x in shown]) > 0.01)
    assert [metric.name for metric in model.metrics] == ["loss", "mae"]
    assert set(model.evaluate(data(2), return_dict=True, verbose=0)) == {"loss", "mae"}


def test_one_line_for_each_epoch_shows_it_too(capsys):
    model = compiled(cubic(begin_step=0, end_step=12))
    recorder, _ = fit(model, verbose=2)
    text = capsys.readouterr().out
    ((first,), (second,)) = shown_by_epoch(text)
    np.testing.assert_allclose([first, second], recorder.epoch_sparsity, atol=6e-5)
    line = "Pruning 96 weights in 2 matrices. Sparsity by step: 0.00 at 0, 0.66 at 6, 0.75 at 12."
    assert text.count(line) == 1
    assert text.find(line) < text.find("loss:")
