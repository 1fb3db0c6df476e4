"""The snippets of the documentation, each run on a model of its own."""

import importlib
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from berts import stripped_bert

import tf_movprune

transformers = pytest.importorskip("transformers")

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def snippets(page, quick=None):
    """The snippets of a page; if sections are named as `quick`, those of the others are slow."""
    sections = re.split(r"^## ", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [
        pytest.param(
            code,
            id=f"{section.splitlines()[0]} {i}",
            marks=() if quick is None or section.splitlines()[0] in quick else pytest.mark.slow,
        )
        for section in sections
        for i, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    ]


KEEP = "Keep the zeros: sparse transfer"
SNIPPETS = snippets("methods.md", quick=("Hard movement", "Distillation", KEEP))


def bert():
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = transformers.TFBertForSequenceClassification(config)
    model(model.dummy_inputs)
    return model


def test_every_method_has_its_snippet():
    code = "".join(param.values[0] for param in SNIPPETS)
    methods = ("HardMovement", "SoftMovement", "L0", "Magnitude", "KeepZeros")
    for name in (*methods, "Distiller", "OnceSparse"):
        assert f"tf_movprune.{name}(" in code


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    ids = np.random.RandomState(0).randint(0, 99, [80, 8])
    batches = tf.data.Dataset.from_tensor_slices({"input_ids": ids, "labels": ids[:, 0] % 2})
    namespace = {
        "tf_movprune": tf_movprune,
        "keras": keras,
        "model": stripped_bert() if "KeepZeros" in code else bert(),
        "teacher": bert() if "teacher" in code else None,
        "dataset": batches.batch(4),
    }
    exec(code, namespace)
    if "compact(" in code:
        (layer,) = namespace["plain"].bert.encoder.layer
        assert layer.attention.self_attention.num_attention_heads == 1
        assert layer.intermediate.dense.units == 8
        return
    report = tf_movprune.summarize_sparsity(namespace.get("plain", namespace["model"]))
    if any(x in code for x in ("CubicSparsity(0.9", "final_sparsity=0.9", "KeepZeros")):
        assert report.sparsity == pytest.approx(0.9, abs=0.01)
    elif "CubicSparsity(0.8" in code:
        assert next(iter(report.groups.values())).sparsity == pytest.approx(0.8, abs=0.01)
    else:
        assert float(sum(namespace["model"].losses)) > 0


@pytest.mark.parametrize("name", ["keras", pytest.param("tf_keras", marks=pytest.mark.slow)])
@pytest.mark.parametrize("code", snippets("which_layers.md"))
def test_snippet_on_layers(code, name, tmp_path, monkeypatch):
    if "transformers" in code and name == "keras":
        pytest.skip("has classes for tf_keras only")
    monkeypatch.chdir(tmp_path)
    ids = np.random.RandomState(0).randint(0, 5000, [80, 40])
    namespace = {
        "dataset": tf.data.Dataset.from_tensor_slices((ids, ids[:, 0] % 2)).batch(4),
        "keras": importlib.import_module(name),
        "tf": tf,
        "tf_movprune": tf_movprune,
        "transformers": transformers,
    }
    exec(code, namespace)
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=0.01)
    if "model.movprune" in code:
        sizes = tf_movprune.size_report(namespace["plain"]).bytes["dense float32"]
        assert sizes["embeddings"] > 0.5 * sum(sizes.values())
        assert (tmp_path / "model.movprune").stat().st_size < 0.2 * sum(sizes.values()) / 4


@pytest.mark.parametrize("code", snippets("keras3.md"))
def test_snippet_on_keras_3(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(code, namespace)
    if "HEADS" in code:
        blocks = [x for x in namespace["smaller"].layers if hasattr(x, "_self_attention_layer")]
        assert [x._self_attention_layer._num_heads for x in blocks] == [2, 2]
        assert [x._feedforward_intermediate_dense.units for x in blocks] == [32, 32]
        return
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=0.01)
    loaded = namespace["keras"].models.load_model(tmp_path / "pruned.keras")
    x = namespace["x"][:4]
    np.testing.assert_array_equal(loaded(x), namespace["plain"](x))


@pytest.mark.parametrize("code", snippets("moving_weights.md"))
def test_snippets_that_move_weights_assert_equal_outputs(code):
    assert "assert_allclose" in code
    exec(code, {})


def test_files_that_are_named_exist():
    """Tests and modules in pages, and in the commands of the Makefile."""
    root = DOCS.parent
    pages = [*DOCS.rglob("*.md"), *root.glob("*.md"), root / "Makefile"]
    for page in pages:
        for path in re.findall(r"\b(?:tests|tf_movprune)/[\w/]+\.py\b", page.read_text("utf-8")):
            assert (root / path).exists(), f"{page.name} names {path}"


def test_tests_that_are_named_exist():
    """Those that SECURITY.md gives as evidence."""
    root = DOCS.parent
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for path, name in named:
        assert f"def {name}(" in (root / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_pages_have_no_gaps_that_were_to_be_filled():
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    assert not [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")]
