"""The demo's own code, on less."""

import functools
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("keras_hub")
pytest.importorskip("ai_edge_litert")
pytest.importorskip("zstandard")

import pretrained_bert

from examples import deploy, downloads, movie_sentiment
from tf_movprune.runs.record import RunPaths
from tf_movprune.runs.settings import TrainSettings
from tf_movprune.tasks.catalog import task

WORDS = {"good": ["great", "fine", "superb", "lovely"], "bad": ["awful", "poor", "dull", "clumsy"]}
RATED = {
    "superb": 3.5,
    "fine": 1.0,
    "so-so": 0.9,
    'a "dull" film': -1.5,
    "awful": -4.0,
    "bad": -2.0,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sentences whose words tell their labels, in the place of movie reviews."""
    folder = tmp_path_factory.mktemp("sentences")
    found = {}
    random = np.random.RandomState(0)
    for split, count in (("train", 1000), ("validation", 10), ("test", 60)):
        lines = ["text\tlabel"]
        for label in random.choice([*WORDS], count):
            text = " ".join(random.choice(WORDS[label], random.randint(3, 20)))
            lines.append(f'{text} "\t{label}')  # a lone quote is no quoting
        found[split] = folder / f"{split}.tsv"
        found[split].write_text("\n".join(lines) + "\n")
    return found


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    words = ['"', *WORDS["good"], *WORDS["bad"]]
    return pretrained_bert.write(tmp_path_factory.mktemp("bert"), words)


@pytest.mark.slow
@pytest.mark.parametrize("keras", ["3", "2"])
def test_demo_and_deploy(files, tiny_bert, keras, tmp_path, monkeypatch, capsys):
    """The demo is interrupted in its last run, goes on, and what it made is exported."""
    plain = functools.partial(TrainSettings, xla=False)
    monkeypatch.setattr(movie_sentiment, "TrainSettings", plain)
    monkeypatch.setattr(movie_sentiment, "movie_review_files", lambda cache: files)
    arguments = (
        f"--keras {keras} --quick --model {tiny_bert} --learning_rate 3e-3 "
        f"--num_train_steps 40 --output_dir {tmp_path} --cache_dir {tmp_path}/cache"
    ).split()

    def interrupted(settings, **kwargs):
        if settings.method == "magnitude":
            raise KeyboardInterrupt
        return train(settings, **kwargs)

    train = movie_sentiment.train
    with monkeypatch.context() as until, pytest.raises(KeyboardInterrupt):
        until.setattr(movie_sentiment, "train", interrupted)
        movie_sentiment.main(arguments)
    capsys.readouterr()
    results = movie_sentiment.main(arguments)
    printed = capsys.readouterr().out
    assert printed.count("is finished.") == 2  # dense and hard
    assert [r.record["method"] for r in results] == ["dense", "hard", "magnitude"]
    assert results[0].record["remaining"] == 1.0
    assert results[0].record["metrics"]["accuracy"] > 0.9
    for result in results[1:]:
        assert result.record["remaining"] == pytest.approx(0.1, abs=0.002)
    for result in results:
        assert result.tflite.max_abs_diff is not None
        assert result.tflite.path.is_file() and result.saved_model.path.is_dir()
    assert "| hard | 10.0% |" in printed and "| hard |" in (tmp_path / "results.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") > 3 and "Accuracy against size" in page

    formats = deploy.main(
        f"--model {tmp_path}/hard --dense {tmp_path}/dense --max_examples 5 --rounds 2 "
        f"--output_dir {tmp_path}/deploy".split()
    )
    dense, by_name = formats[0], {f.name: f for f in formats}
    assert len(by_name) == len(formats) == 8
    pruned = by_name["TFLite float32"]
    assert dense.bytes >= pruned.bytes > by_name["TFLite float32, sparse"].bytes
    assert pruned.bytes > by_name["TFLite float16"].bytes > by_name["TFLite int8"].bytes
    assert by_name["compressed int8"].bytes < by_name["compressed float32"].bytes
    assert by_name["compressed float32"].accuracy == pruned.accuracy > 0.5
    assert (tmp_path / "deploy/formats.md").read_text().count("\n") == 10
    (latency,) = RunPaths(tmp_path / "dense").read()["latency"]
    assert latency["format"] == "TFLite float32" and latency["relative"] == 1.0
    assert "TFLite float32" in (tmp_path / "deploy/report.html").read_text()


def test_the_demo_trains_on_movie_reviews_unless_told_otherwise(files, tmp_path, monkeypatch):
    monkeypatch.setattr(movie_sentiment, "movie_review_files", lambda cache: files)
    monkeypatch.setattr(movie_sentiment, "minilm_folder", lambda cache: tmp_path / "minilm")

    def settings(*argv):
        return movie_sentiment.settings_of("hard", movie_sentiment.parse_arguments([*argv]))

    found = settings()
    assert (found.task, found.train_file) == ("own", str(files["train"]))
    assert found.validation_file == str(files["test"]) and found.held_out == 700
    assert (found.num_train_steps, found.batch_size, found.learning_rate) == (400, 32, 3.2e-4)
    assert found.teacher == "runs/movie_sentiment/dense" and found.alpha_hidden == 1.0
    dense = movie_sentiment.settings_of("dense", movie_sentiment.parse_arguments([]))
    assert (dense.learning_rate, dense.teacher, dense.dropout) == (1.6e-4, None, None)
    assert found.lengths == (16, 24, 32, 48, 64) and found.max_length == 64
    assert found.folder == "runs/movie_sentiment/hard" and found.library == "keras_hub"
    assert found.model == str(tmp_path / "minilm")
    found = settings("--data_dir", "GLUE", "--quick", "--keras", "2")
    assert (found.task, found.data_dir, found.train_file) == ("sst2", "GLUE", None)
    assert (found.num_train_steps, found.library) == (120, "transformers")
    assert settings("--task", "glue/sst2").task == "glue/sst2"


def test_files_of_movie_reviews(tmp_path, monkeypatch):
    def fetch(requirement, folder, *, source):
        inner = io.BytesIO()
        rows = "\n".join(f"{i}\t{rating}\t{text}" for i, (text, rating) in enumerate(RATED.items()))
        with tarfile.open(fileobj=inner, mode="w:gz") as archive:
            member = tarfile.TarInfo("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            member.size = len(rows)
            archive.addfile(member, io.BytesIO(rows.encode()))
        with zipfile.ZipFile(folder / "package.zip", "w") as archive:
            archive.writestr("package/hutto_ICWSM_2014.tar.gz", inner.getvalue())
        return folder / "package.zip"

    monkeypatch.setattr(downloads, "fetch_package", fetch)
    monkeypatch.setattr(downloads, "TEST_SIZE", 2)
    monkeypatch.setattr(downloads, "VALIDATION_SIZE", 1)
    files = downloads.movie_review_files(tmp_path)
    monkeypatch.delattr(downloads, "fetch_package")  # once is enough
    assert downloads.movie_review_files(tmp_path) == files
    data = task("own").load(files=files)
    assert [len(data[split]) for split in ("train", "validation", "test")] == [2, 1, 2]
    found = {
        text: examples.label_names[label]
        for examples in data.values()
        for text, label in zip(examples.texts, examples.targets)
    }
    expected = {x: "positive" if RATED[x] > 0 else "negative" for x in RATED if abs(RATED[x]) >= 1}
    assert found == expected


def test_the_demo_for_keras_3_imports_no_other_keras():
    program = (
        "import sys; from examples import deploy, movie_sentiment; "
        "from tf_movprune.runs.libraries import shell_of; "
        "shell_of('keras_hub'); sys.exit('tf_keras' in sys.modules)"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    assert subprocess.run([sys.executable, "-c", program], env=variables).returncode == 0


def test_deploy_needs_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        deploy.main(["--model", str(tmp_path), "--dense", str(tmp_path)])
    assert "Run `make demo` first" in capsys.readouterr().err
