"""The snippets of the tutorials, concepts and guides, each page run on a tiny model of its own."""

import pathlib
import re
import types

import keras
import keras_hub
import numpy as np
import pretrained_bert
import pytest
import tensorflow as tf
import tiny_pretrained

import tf_movprune

DOCS = pathlib.Path(__file__).parents[1] / "docs"
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
X = np.random.RandomState(0).standard_normal([80, 8]).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
WORDS = [*("this", "film", "is", "good", "bad", "a", "cafe", "un"), "##believ", "##able", *".!'"]


def snippets(page):
    return SNIPPET.findall((DOCS / page).read_text(encoding="utf-8"))


def run(page, namespace, replacements=()):
    """Runs a page from top to bottom, without XLA, and returns its names."""
    module = types.ModuleType("page")
    names = vars(module)
    names |= {"keras": keras, "np": np, "tf": tf, "tf_movprune": tf_movprune, **namespace}
    code = "".join(snippets(page)).replace("jit_compile=True", "run_eagerly=True")
    for old, new in replacements:
        assert old in code, old
        code = code.replace(old, new)
    exec(code, names)
    return module


def mlp():
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input([8]), *layers])


def data(rows=2):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(rows)


def sparsity(model):
    return tf_movprune.summarize_sparsity(model).sparsity


@pytest.fixture(autouse=True)
def empty_folder_without_xla(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "pretrained").mkdir()
    return pretrained_bert.write(tmp_path / "pretrained", WORDS, layers=1)


def test_every_page_with_snippets_is_run_by_a_test():
    folder = pathlib.Path(__file__).parent
    tests = "".join(path.read_text("utf-8") for path in folder.rglob("test_*.py"))
    pages = [path for path in DOCS.rglob("*.md") if SNIPPET.search(path.read_text("utf-8"))]
    assert len(pages) > 15
    assert not [path.name for path in pages if f'{path.name}"' not in tests]


def test_start(capsys):
    names = run("index.md", {})
    assert sparsity(names.plain) == pytest.approx(0.9, abs=1e-3)
    assert names.model.history.history["accuracy"][-1] > 0.9
    printed = re.sub(r"dense(_\d+)?\.kernel", "dense.kernel", capsys.readouterr().out)
    table = re.search(r"```text\n(.*?)```", (DOCS / "index.md").read_text("utf-8"), re.DOTALL)[1]
    for line in table.splitlines()[1:3]:
        assert line.split()[1:] in [
            printed_line.split()[1:] for printed_line in printed.splitlines()
        ]


def test_a_bert_to_10_percent(preset, capsys):
    shorter = [('"bert_small_en_uncased"', repr(preset)), ("epochs = 3", "epochs = 1")]
    names = run("tutorials/bert_to_10_percent.md", {}, shorter)
    assert sparsity(names.plain) == pytest.approx(0.9, abs=0.01)
    assert "pruned.tflite: int8" in capsys.readouterr().out
    loaded = keras_hub.models.BertTextClassifier.from_preset("pruned")
    assert sparsity(loaded) == pytest.approx(0.9, abs=0.01)


@pytest.mark.slow
def test_twice_as_fast():
    ids = np.random.RandomState(0).randint(1, 20, [40, 64])
    inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    batches = tf.data.Dataset.from_tensor_slices((inputs, ids[:, 0] % 2)).batch(4)

    def pretrained():
        backbone = keras_hub.models.BertBackbone(20, 1, 2, 16, 48, max_sequence_length=64)
        return keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)

    given = {"dataset": batches, "pretrained": pretrained, "teacher": pretrained()}
    changes = [(".batch(32,", ".batch(4,"), ("run_eagerly=True", "jit_compile=False")]
    names = run("tutorials/twice_as_fast.md", given, changes)
    [block] = [x for x in names.small.backbone.layers if hasattr(x, "_self_attention_layer")]
    assert block._self_attention_layer._num_heads == 1
    assert block._feedforward_intermediate_dense.units == 12


def test_concepts(capsys):
    run("concepts.md", {})
    expected = re.search(r"# (0, .*)", (DOCS / "concepts.md").read_text("utf-8"))[1]
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert [float(value) for value in printed] == [float(value) for value in expected.split(",")]


def test_choosing(capsys):
    run("guides/choosing.md", {})
    hard, magnitude = capsys.readouterr().out.splitlines()
    assert "HardMovement" in hard and "Magnitude(" in magnitude


def test_short_runs():
    names = run("short_runs.md", {})
    assert isinstance(names.recipe.method, tf_movprune.Magnitude)


def test_settings():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = run("guides/settings.md", {"dataset": data(4), "model": mlp(), "loss": loss})
    assert sparsity(names.model) == pytest.approx(0.9, abs=0.01)
    assert len(names.schedules) == 2


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_if_training_is_interrupted(tmp_path, monkeypatch, dtype):
    """With a loss scale too, which is restored with the optimizer around which it is."""

    def trained(folder, *replacements):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(dtype)
        try:
            model = mlp()
        finally:
            keras.config.set_dtype_policy("float32")
        recipe = tf_movprune.ShortRun(num_train_steps=40, final_sparsity=0.75)
        given = {"recipe": recipe, "model": recipe.prune(model), "dataset": data(4)}
        given |= {"steps_per_epoch": len(data(4)), "epochs": 2}
        model = run("guides/interrupted.md", given, replacements).model
        return [np.array(v) for v in [*model.weights, *model.optimizer.variables]], model

    straight, model = trained("straight")
    assert sparsity(model) == pytest.approx(0.75, abs=0.01)
    _, model = trained("interrupted", ("epochs=epochs,", "epochs=1,"))
    assert int(model.optimizer.iterations) == len(data(4))
    for value, expected in zip(trained("interrupted")[0], straight, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_your_own_model(capsys):
    run("guides/your_own_model.md", {})
    printed = capsys.readouterr().out.split()
    assert len(printed) == 7 and all("attention" in path for path in printed[:4])
    assert printed[4:] == ["hidden", "embedding", "hidden"]


def test_training_loop():
    names = run("guides/training_loop.md", {"dataset": data(), "model": mlp()})
    assert names.optimizer.iterations == names.recipe.num_train_steps == 40
    assert sparsity(names.plain) == pytest.approx(0.9, abs=0.01)


def test_your_own_method():
    names = run("guides/your_own_method.md", {"dataset": data(), "model": mlp()})
    assert sparsity(names.plain) == pytest.approx(0.9, abs=0.01)
    assert names.method == names.MovementTimesMagnitude.from_config(names.method.get_config())
    [method, _] = snippets("guides/your_own_method.md")
    lines = method.partition("class ")[2].splitlines()
    assert len([line for line in lines if line]) <= 15


def test_tasks(tmp_path, capsys):
    """The page trains on SST-2's files, in place of those of tensorflow_datasets."""
    small = tiny_pretrained.settings("sst2", "runs/sst2-hard", method="dense", num_train_steps=1)
    values = {**small.as_dict(), "data_dir": str(tiny_pretrained.write_data("sst2", tmp_path))}
    settings = tf_movprune.TrainSettings.from_dict(values)
    tf_movprune.train(settings, verbose=0)
    others = {**values, "output_dir": "runs/other", "lengths": (48,), "block_size": (4, 1)}
    changed = ("num_train_steps=1500, final_sparsity=0.9", "**others")
    others = {key: value for key, value in others.items() if key != "task"}
    page = run("guides/tasks.md", {"others": others}, [changed])
    assert page.record["metrics"].keys() == {"accuracy"}
    assert len(page.predict(["a film"])) == 1 and page.model.count_params()


def test_distillation():
    given = {"dataset": data(), "student": mlp(), "make_student": mlp, "teacher": mlp()}
    known = ("distiller(pruned, teacher)", "distiller(pruned, teacher, hidden_states='dense*')")
    named = ("hidden_states=True", "hidden_states='dense*'")
    names = run("guides/distillation.md", given, [known, named])
    assert sparsity(names.pruned) == pytest.approx(0.9, abs=0.01)
    assert sparsity(names.plain) == pytest.approx(0.9, abs=0.01)
    assert names.plain is not names.teacher
    assert np.isfinite(names.distiller.evaluate(names.cached.take(2), verbose=0)).all()


ONE_OF_SEVERAL = types.SimpleNamespace(cluster_resolver=types.SimpleNamespace(task_id=0))
"""In place of a strategy that has to be made before any operation; see test_multi_worker.py."""


@pytest.mark.parametrize("page", ["several_gpus.md", "mixed_precision.md"])
def test_models_that_are_made_elsewhere(page):
    try:
        given = {"dataset": data(), "make_model": mlp, "workers": ONE_OF_SEVERAL}
        strategy = ("tf.distribute.MultiWorkerMirroredStrategy()", "workers")
        names = run(f"guides/{page}", given, [strategy] if page == "several_gpus.md" else [])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert sparsity(names.plain) == pytest.approx(0.9, abs=0.01)
    compute = {layer.compute_dtype for layer in names.plain.layers}
    assert compute == {"bfloat16" if page == "mixed_precision.md" else "float32"}


TEXTS = [
    "This film is GOOD!",
    "un café unbelievable, isn't it?",
    "",
    "  a\tfilm\nis (bad).  a$b 電影",
    " ".join(["unbelievable film"] * 40),
]


def test_on_the_phone(preset):
    models = keras_hub.models
    preprocessor = models.BertTextClassifierPreprocessor.from_preset(preset, sequence_length=64)
    plain = models.BertTextClassifier.from_preset(preset, preprocessor=preprocessor, num_classes=2)
    given = {"plain": plain, "preprocessor": preprocessor}
    given |= {"texts": TEXTS, "labels": np.array([0, 1, 0, 1, 0])}
    names = run("guides/on_the_phone.md", given)
    for text in TEXTS:
        expected = preprocessor([text])
        found = names.features_of(text, names.ids)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} of {text!r}")
    expected = plain.predict(["A good film."], verbose=0)[0]
    np.testing.assert_allclose(names.logits, expected, atol=0.1 * np.abs(expected).max())
    assert 0 <= names.accuracy("model.tflite", TEXTS, given["labels"]) <= 1


@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_other_languages_use_the_names_of_the_inputs(language):
    page = (DOCS / "guides/on_the_phone.md").read_text("utf-8")
    code = "".join(re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL))
    for name in ("token_ids", "padding_mask", "segment_ids", "logits", "serving_default"):
        assert f'"{name}"' in code
    for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "##"):
        assert token in code
