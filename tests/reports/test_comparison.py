"""Tables of runs in Markdown."""

import pytest
from recorded_runs import INFO, write_run

from tf_movprune.reports.comparison import comparison
from tf_movprune.reports.runs import load_run


def run(folder, name, accuracy, **changes):
    settings = {**INFO["settings"], **changes.pop("settings", {})}
    metrics = {"accuracy": accuracy, "loss": 0.3}
    info = {"settings": settings, "metrics": metrics, **changes}
    return load_run(write_run(folder / name, lines=[], pruned={}, **info))


def test_seeds_share_a_line(tmp_path):
    dense = {"method": "dense", "remaining": 1.0}
    runs = [
        run(tmp_path, "dense-0", 0.9, **dense, settings={"seed": 0}),
        run(tmp_path, "hard-0", 0.8, settings={"seed": 0, "method": "hard"}),
        run(tmp_path, "dense-1", 0.8, **dense, settings={"seed": 1, "alpha_hidden": 0.0}),
        run(tmp_path, "hard-1", 0.75, settings={"seed": 1, "method": "hard"}),
        run(tmp_path, "faster", 0.82, settings={"seed": 1, "method": "hard", "batch_size": 8}),
        run(tmp_path, "taught", 0.85, distilled=True, settings={"teacher": "dense-0"}),
    ]
    assert comparison(runs).splitlines() == [
        "| method | remaining | accuracy | of dense |",
        "| --- | --- | --- | --- |",
        "| dense | 100 % | 85 % (90.0, 80.0) | 100 % |",
        "| hard movement | 10 % | 77.5 % (80.0, 75.0) | 91.2 % |",
        "| hard movement | 10 % | 82 % | 96.5 % |",
        "| hard movement, distilled | 10 % | 85 % | 100 % |",
    ]


def test_several_metrics_and_no_dense_run(tmp_path):
    changes = {"main_metric": "f1", "structure": "heads", "metrics": {}}
    changes["metrics"] = {"exact_match": 65, "f1": 75, "held_out_f1": 80, "loss": 1}
    found = comparison([run(tmp_path, "squad", 0, **changes)])
    assert found.splitlines()[0] == "| method | remaining | F1 | exact match |"
    assert found.splitlines()[2] == "| hard movement heads | 10 % | 75 % | 65 % |"


def test_a_run_that_was_cut_short(tmp_path):
    changes = {"metrics": {}, "remaining": None}
    line = comparison(
        [run(tmp_path, "a", 0.8), run(tmp_path, "b", 0, **changes, settings={"seed": 1})]
    )
    assert line.splitlines()[2:] == ["| hard movement | 10 % | 80 % |"]


def test_runs_of_several_tasks(tmp_path):
    runs = [run(tmp_path, "a", 0.8), run(tmp_path, "b", 0.8, title="RTE")]
    with pytest.raises(ValueError, match=r"of one task, got runs of SST-2, RTE"):
        comparison(runs)


@pytest.mark.parametrize(
    "teachers, count",
    [
        (["sst2-dense", "sst2-dense", "sst2-dense"], 1),
        (["sst2-dense-0", "sst2-dense-1", "sst2-dense-2"], 1),
        (["large", "base", "base"], 2),
        (["sst2-dense-1", "sst2-dense-1", "sst2-dense-2"], 2),
        ([None, "fine-tune", "fine-tune"], 2),
    ],
)
def test_teachers_that_differ_in_the_seed_alone(teachers, count, tmp_path):
    runs = [
        run(tmp_path, str(i), 0.8, settings={"seed": i, "teacher": teacher})
        for i, teacher in enumerate(teachers)
    ]
    assert len(comparison(runs).splitlines()) == 2 + count


def test_runs_of_one_seed_are_no_repetitions(tmp_path):
    numbers = {"a": (0, 0.8), "b": (0, 0.9), "c": (1, 0.7), "d": (1, 0.6)}
    runs = [run(tmp_path, x, value, settings={"seed": s}) for x, (s, value) in numbers.items()]
    lines = comparison(runs).splitlines()[2:]
    assert [line.split(" | ")[2] for line in lines] == [
        "75 % (80.0, 70.0) |",
        "75 % (90.0, 60.0) |",
    ]


def test_several_dense_models(tmp_path):
    dense = {"method": "dense", "remaining": 1.0}
    runs = [
        run(tmp_path, model, 0.9, **dense, settings={"model": model}) for model in ("base", "small")
    ]
    lines = comparison([*runs, run(tmp_path, "hard", 0.8)]).splitlines()
    assert lines[0] == "| method | remaining | accuracy |" and len(lines) == 5
