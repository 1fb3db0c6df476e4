"""The scripts behind the documentation's numbers, on less."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("tensorflow_datasets")

from benchmarks import (
    accuracy,
    accuracy_figure,
    compressed,
    gpu_step,
    models,
    sentiment_data,
    speed,
)


def test_every_committed_result_has_a_row_and_every_recipe_a_meaning():
    results = [json.loads(line) for line in accuracy.RESULTS.read_text().splitlines()]
    keys = [accuracy.key_of(result) for result in results]
    assert len(set(keys)) == len(keys) and all(len(key) == 7 for key in keys)
    assert {key[1] for key in keys} <= set(accuracy.RECIPES)
    table = accuracy.table(results)
    assert "| sst2 | 6 × 32 | 1500 | 10.0% | `movement` | 84.2, 83.9 | 84.1 % |" in table


def test_figure(tmp_path, monkeypatch):
    lines = [
        {"key": ["sst2", "dense", 600, 0.0, 0], "test_accuracy": 0.9, "remaining": 1.0},
        {"key": ["sst2", "movement", 600, 0.9, 0], "test_accuracy": 0.8, "remaining": 0.1},
        {"key": ["sst2", "movement", 600, 0.97, 0], "test_accuracy": 0.7, "remaining": 0.03},
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(json.dumps(line) for line in lines))
    arguments = ["figure", "--results", str(results), "--output", str(tmp_path / "figure.png")]
    monkeypatch.setattr(sys, "argv", arguments)
    accuracy_figure.main()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", [*arguments, "--num_train_steps", "7"])
    with pytest.raises(SystemExit):
        accuracy_figure.main()


@pytest.mark.parametrize("layers", [1, 12])
def test_models_of_other_depths_have_the_original_layers(layers, monkeypatch):
    original = models.bert_classifier("tiny", vocab_size=40)
    original.config.num_hidden_layers = 2
    monkeypatch.setattr(accuracy.bert, "load", lambda folder, seed: original)
    other = accuracy.classifier("", 0, layers)
    assert len(other.bert.encoder.layer) == layers
    assert other.bert.embeddings.trainable is False
    for i, layer in enumerate(other.bert.encoder.layer):
        source = original.bert.encoder.layer[i * 2 // layers]
        for got, want in zip(layer.get_weights(), source.get_weights(), strict=True):
            assert (got == want).all()


def test_a_missed_target_is_marked():
    table = speed.Table()
    table.add("quick", 1.004, 1.0)  # 1.00 as it is printed
    table.add("slow", 1.2, 1.0)
    table.add("beside them", 9.0)
    assert table.missed == ["slow"]
    assert [line for line in str(table).splitlines() if "missed" in line] == [
        "| slow | ≤ 1 | 1.20 **missed** |"
    ]


def test_measurements_take_turns():
    calls = []
    times = speed.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b"] * 3 and set(times) == {"a", "b"}


@pytest.mark.slow
def test_exported_train_steps_are_those_of_tensorflow(tmp_path):
    pytest.importorskip("jax")
    block = "import sys; sys.modules.update(tensorflow=None, tf_keras=None, tf_movprune=None); "
    main = "import sys; from benchmarks import gpu_step; sys.exit(gpu_step.main())"
    sizes = "--shape tiny --batch_size 4 --length 16 --policies float32 --dropout 0"

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *arguments, "--output_dir", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    export = run(main, "export", *sizes.split(), "--reference_steps", "3")
    assert export.returncode == 0, export.stderr
    text = gzip.decompress((tmp_path / "float32-hard-refresh.mlir.gz").read_bytes()).decode()
    assert 'dense<"0x' not in text  # of a large model, gigabytes
    ran = run(block + main, "run", "--allow_cpu", "--rounds", "2", "--copy_mib", "16")
    # A target is missed, as tiny models do; but an exception exits with 1 as well.
    assert ran.returncode == 1 and "Missed: refresh / reading" in ran.stdout, ran.stderr
    assert "hard, refresh at each 10th step: step / dense" in (tmp_path / "gpu_step.md").read_text()

    for variant in ("dense", "hard"):
        with np.load(tmp_path / f"float32-{variant}-reference.npz") as reference:
            want = dict(reference)
        with np.load(tmp_path / f"float32-{variant}-results.npz") as results:
            got = dict(results)
        assert got.keys() == want.keys() and len(got["losses"]) == 3
        kinds = ["kernel:0", "bias:0"]
        kinds += ["movement_scores:0", "mask:0", "threshold:0"] if variant == "hard" else []
        assert all(any(name.endswith(kind) for name in got) for kind in kinds)
        for name, value in want.items():
            if value.dtype == bool:
                assert 0 < value.sum() < value.size
                np.testing.assert_array_equal(got[name], value)
            else:  # a weight moves by up to 2e-4
                assert np.isfinite(value).all()
                np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=2e-7)


@pytest.mark.slow
def test_compressed_files_beside_xz(tmp_path, monkeypatch, capsys):
    pytest.importorskip("zstandard")
    report = tmp_path / "compressed.md"
    monkeypatch.setattr(sys, "argv", ["compressed", "--shapes", "--report", str(report)])
    compressed.main()
    table = report.read_text()
    for what in ("two equal halves", "two equal matrices", "positions"):
        assert f"| {what}, int8: " in table and f"| {what}, float32: " in table
    missed = capsys.readouterr().out.splitlines()[-1].removeprefix("Missed: ").split("; ")
    assert {what.split(",")[0] for what in missed} == {"zeros", "one value"}  # of few bytes


def test_a_training_that_went_another_way_is_refused():
    want = {"losses": np.array([0.7, 0.6]), "kernel": np.ones(3), "mask": np.array([True, False])}
    gpu_step.compare({**want, "losses": np.array([0.701, 0.6])}, want, "rounded")
    for other in ([0.7, 0.62], [0.7, np.nan]):
        with pytest.raises(ValueError, match="Expected losses"):
            gpu_step.compare({**want, "losses": np.array(other)}, want, "other")


@pytest.mark.slow
def test_speed_of_a_tiny_model(tmp_path):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.speed", "--shape", "tiny", "--rounds", "2"),
            *("--lengths", "16", "8", "--largest", "tiny", "--output_dir", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
    )
    # A target is missed, as tiny models do; but an exception exits with 1 as well.
    assert (tmp_path / "speed.md").exists(), run.stderr
    assert run.returncode == 1 and "Missed:" in run.stdout, run.stderr
    table = (tmp_path / "speed.md").read_text()
    for what in (
        "hard: step at 32 × 16",
        "local refresh",
        "memory of a masked weight",
        "tfmot",
        "Keras 3, hard: step",
        "looks for NaN",
    ):
        assert what in table
    assert (tmp_path / "scaling.png").exists()


def test_batches_have_few_shapes_and_hold_what_they_should():
    random = np.random.RandomState(0)
    ids = [random.randint(1, 50, random.randint(2, 65)) for _ in range(300)]
    data = sentiment_data.Sentences(ids, np.arange(300))
    seen = set()
    for rows, labels in sentiment_data.training_batches(data, 8, seed=1).take(60):
        assert rows.shape[0] == 8 and rows.shape[1] in sentiment_data.LENGTHS
        for row, label in zip(rows.numpy(), labels.numpy()):
            length = len(ids[label])
            np.testing.assert_array_equal(row[:length], ids[label])
            assert not row[length:].any()
            seen.add(label)
    assert len(seen) > 200
    rows = [label for _, labels in sentiment_data.evaluation_batches(data) for label in labels]
    assert sorted(rows) == list(range(300))
