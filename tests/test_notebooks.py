"""The notebooks, run from top to bottom as rehearsals, and in both of their formats."""

import pathlib
import runpy
import sys
import tempfile

import pytest

import tf_movprune

for package in ("keras_hub", "ai_edge_litert", "matplotlib", "jinja2", "zstandard"):
    pytest.importorskip(package)

FOLDER = pathlib.Path(__file__).parents[1] / "examples/notebooks"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a notebook where Jupyter would, and returns its names."""
    monkeypatch.setenv("QUICK", "1")
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.mark.slow
def test_a_bert_to_a_tenth(run, capsys):
    names = run("bert_to_a_tenth")
    assert tf_movprune.summarize_sparsity(names["plain"]).sparsity == pytest.approx(0.9, abs=0.01)
    assert "val_accuracy" in (names["output"] / "run/history.jsonl").read_text()
    assert "<svg" in names["page"].read_text()
    assert capsys.readouterr().out.endswith(f"{names['accuracy']:.1%} of 32 test sentences\n")


@pytest.mark.slow
def test_twice_as_fast(run, capsys):
    names = run("twice_as_fast")
    loaded = tf_movprune.load_compacted(names["output"] / "small.keras")
    [block] = [x for x in loaded.backbone.layers if hasattr(x, "_self_attention_layer")]
    assert block._self_attention_layer._num_heads == 1
    assert block._feedforward_intermediate_dense.units == 17  # of 64
    assert loaded.count_params() < names["before"]
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("small, int8: ") and last.endswith(" times as fast")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_the_notebook_has_the_cells_of_the_script_and_no_outputs(name):
    jupytext = pytest.importorskip("jupytext")
    script, notebook = (jupytext.read(FOLDER / f"{name}.{end}") for end in ("py", "ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (script, notebook)]
    assert len(cells[0]) > 9 and cells[0] == cells[1], "write it anew: make notebooks"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
