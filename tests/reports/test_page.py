"""The page that a report is: what is on it, and what is said if something is missing."""

import html.parser
import os
import re
import sys

import matplotlib
import pytest
from recorded_runs import pruning, write_run

import tf_movprune
from tf_movprune.reports import curves, sections
from tf_movprune.reports.drawing import style
from tf_movprune.reports.formats import labels
from tf_movprune.reports.runs import load_run

PICTURES = [
    "Quality and sparsity",
    "Mask churn",
    "What remains of each matrix",
    "What remains of each attention head",
    "Neurons that remain",
    "Weight against score",
    "Distribution of scores",
    "Agreement with magnitude",
    "Size by format and part",
]


class Page(html.parser.HTMLParser):
    """Headings of drawn pictures, texts, and everything that could come from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.pictures, self.svgs, self.links, self.words, self.tags = [], 0, [], [], []
        self.ids, self._open = [], []
        self.feed(self.text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.svgs += tag == "svg"
        if tag not in ("meta",):
            self._open.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "h3" and "figure" in self._open:
            self.pictures.append(data)
        if "style" not in self._open:
            self.words.append(data)

    def says(self, text):
        return text in " ".join(" ".join(self.words).split()).replace("\u202f", " ")


def make(*folders, **kwargs):
    return Page(tf_movprune.report(folders[0] if len(folders) == 1 else folders, **kwargs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run")
    assert tf_movprune.report(str(folder)) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "report.html")


def test_the_page_of_a_run(folder, page):
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["history.jsonl", "pruning.json", "report.html", "run.json"]
    assert page.pictures == PICTURES and page.svgs == len(PICTURES)
    assert page.text.count('role="img" aria-label=') == len(PICTURES)
    assert page.says("87.3 % accuracy with 10 % of the pruned matrices")
    assert page.says("bert-base-uncased · hard movement pruning · 100 steps")
    for text in ("SST-2", "71 %", "31.0 MB", "12.5 ms", "60 min", "16, 32", "2.21.0", "67349"):
        assert page.says(text), text
    assert page.says("tf-movprune train sst2 --output_dir runs/hard")
    assert not page.says("not shown") and not page.says("Not recorded")


def test_the_page_needs_nothing_else(page):
    outside = [link for link in page.links if not link.startswith("#")]
    assert outside == ["https://arxiv.org/abs/2005.07683"]
    assert not {"script", "link", "iframe", "img", "object", "image"} & set(page.tags)
    assert "@import" not in page.text and not re.search(r"url\((?!#)", page.text)
    assert set(re.findall(r"url\(#([^)]*)\)", page.text)) <= set(page.ids)
    assert len(page.text) < 400_000


def test_colours_are_those_of_the_page(page):
    assert not re.search(r"#000[0-9]{3}", page.text)
    used = set(re.findall(r"var\(--([\w-]+)\)", page.text))
    assert {"ink", "muted", "grid", "cell", "on-cell", "series-1"} <= used
    for block in re.findall(r":root \{(.*?)\}", page.text, re.DOTALL):
        assert used <= set(re.findall(r"--([\w-]+):", block))
    assert "DejaVu" not in page.text


def test_settings_of_matplotlib_stay(tmp_path):
    before = {"font.size": 31.0, "text.usetex": True, "axes.grid": True}
    with matplotlib.rc_context(before):
        make(write_run(tmp_path, info=None, pruned={}))
        assert {key: matplotlib.rcParams[key] for key in before} == before


def test_several_runs(tmp_path):
    dense = write_run(
        tmp_path / "dense",
        pruned={},
        lines=[{"step": 100, "metrics": {"val_accuracy": 0.9}}],
        method="dense",
        remaining=1.0,
        metrics={"accuracy": 0.9},
    )
    hard = write_run(tmp_path / "hard")
    worse = {"method": "magnitude", "metrics": {"accuracy": 0.82}}
    magnitude = write_run(tmp_path / "magnitude", pruned={}, **worse)
    page = make(dense, hard, magnitude, path=tmp_path / "all.html")
    assert page.says("SST-2: 3 runs compared")
    assert page.says("Hard movement: 87.3 % accuracy with 10 % of the pruned matrices")
    assert page.says("best of 2 pruned runs · 90 % accuracy without pruning")
    assert page.pictures[:3] == ["Over training", "Accuracy against size", "Accuracy against speed"]
    assert page.pictures.count("What remains of each matrix") == 1
    assert page.tags.count("tr") > 3 and page.says("agrees with magnitude")
    assert (tmp_path / "all.html").exists() and not (dense / "report.html").exists()


@pytest.mark.parametrize("split", ["", "held_out_"])
def test_a_metric_is_that_of_validation_or_held_out_data(split, tmp_path):
    metrics = {"accuracy": 0.99, f"val_{split}accuracy": 0.9}
    run = load_run(write_run(tmp_path, lines=[{"step": 100, "metrics": metrics}]))
    assert run.metric_series("accuracy") == ([100], [0.9])


def test_labels_tell_runs_apart(tmp_path):
    changes = {
        "one": {},
        "other": {},
        "few": {"remaining": 0.03},
        "heads": {"structure": "heads"},
        "distilled": {"distilled": True},
        "custom": {"method": None},
    }
    runs = [load_run(write_run(tmp_path / name, **changes[name])) for name in changes]
    assert labels(runs) == [
        "hard movement 10\u202f% one",
        "hard movement 10\u202f% other",
        "hard movement 3\u202f%",
        "hard movement heads",
        "hard movement, distilled",
        "custom",
    ]


def test_many_lines_look_different(tmp_path):
    run = load_run(write_run(tmp_path))
    with style():
        svg = curves.progress([run] * 7)
    lines = re.findall(r'style="fill: none; (stroke[^"]*)"', svg)
    assert len({line for line in lines if "series" in line}) == 7


@pytest.mark.parametrize(
    "files, drawn, said",
    [
        (
            {"info": None, "pruned": {}},
            PICTURES[:2],
            [
                "85 % accuracy with 10 % of the pruned matrices",
                "the run has no pruning.json",
                "Not recorded: results, data, settings, versions, commands, latency",
            ],
        ),
        (
            {"lines": [], "pruned": {}, "finished": None, "latency": None},
            PICTURES[8:],
            [
                "the run has no history.jsonl",
                "Not recorded: latency, the end of the run, which may have been interrupted",
            ],
        ),
        ({"info": None, "lines": []}, PICTURES[2:8], ["9.9 % of the pruned matrices remain"]),
    ],
    ids=("history", "settings", "pruning"),
)
def test_what_is_missing_is_said(tmp_path, files, drawn, said):
    folder = write_run(tmp_path / "a run", **files)
    with open(folder / "history.jsonl", "a") as file:
        file.write('{"step": 110, "lo')  # killed while it wrote
    page = make(folder)
    assert page.pictures == drawn
    for text in said:
        assert page.says(text), text


def test_other_models_and_methods(tmp_path):
    pruned = pruning()
    for matrix in pruned["matrices"]:
        matrix |= {"layer": None, "title": matrix["path"], "agreement": None}
    group = pruned["groups"][0]
    units = {**group, "pieces": "heads", "shown": None, "threshold": None}
    magnitude = {**group, "method": "Magnitude", "quantity": "magnitude", "points": None}
    zeros = {"name": "KeepZeros", "method": "KeepZeros", "pieces": "weights"}
    pruned |= {"groups": [units, magnitude, zeros], "neurons": [], "agreement": None}
    pruned["heads"] = [{"layer": None, "remaining": [1.0, 0.0]}] * 3
    page = make(write_run(tmp_path, pruned=pruned))
    assert "What remains of each matrix" in page.pictures
    assert page.says("Strong cells are heads that stay: 3 of 6.")
    for text in ("Magnitude learns no scores", "KeepZeros ranks nothing", "magnitude itself"):
        assert page.says(text), text
    assert page.says("the neurons of this model are not known")


EVIL = "</text></style><script>alert(1)</script>\"'><img src=x onerror=alert(2)> $\\frac{$ & ]]>"


@pytest.mark.parametrize(
    "start, said",
    [
        ("magnitudes", "Scores start from the magnitude of each weight, rise where training"),
        ("zeros", "Scores start at zero for each weight, whatever its size, rise where training"),
        ("an initializer", "Scores rise where training"),
    ],
)
def test_captions_say_where_scores_start(start, said):
    picture, _ = sections._scores({**pruning()["groups"][0], "scores_start_from": start}, "")
    assert said in picture.text


def test_text_of_files_is_escaped(tmp_path):
    pruned = pruning()
    pruned["matrices"] = [{**m, "layer": None, "title": EVIL} for m in pruned["matrices"][:2]]
    keys = ("task", "title", "model", "library", "method", "structure", "machine", "main_metric")
    changes = dict.fromkeys(keys, EVIL)
    changes |= {
        "settings": {EVIL: EVIL},
        "versions": {EVIL: EVIL},
        "data": {EVIL: {EVIL: EVIL}},
        "commands": [EVIL],
        "metrics": {EVIL: 0.5},
        "sizes": [{"format": EVIL, "bytes": 10.0, "parts": {"layers": 10.0}}],
        "latency": [{"format": EVIL, "milliseconds": 1.0}],
    }
    pruned["groups"] = [{**pruned["groups"][0], "name": EVIL, "shown": EVIL, "quantity": EVIL}]
    pruned["heads"] = []
    folder = write_run(tmp_path / "one", pruned=pruned, **changes)
    other = write_run(tmp_path / "other", pruned={}, lines=[], **changes)
    for page in (make(folder), make(other, folder)):
        assert not {"script", "img"} & set(page.tags)
        assert page.says("<script>alert(1)</script>")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("run.json", '{"format": 1,\n "task"}', r"run\.json', line 2: this is not JSON"),
        ("run.json", "[1]", r"run\.json' must hold a JSON object, got \[1\]"),
        ("run.json", '{"format": 7}', r"run\.json' has the format 7.*Update tf_movprune"),
        ("run.json", '{"metrics": "x"}', r"run\.json': metrics must be an object, got 'x'"),
        ("run.json", '{"sizes": [3]}', r"run\.json': sizes\[0\] must be an object, got 3"),
        ("run.json", '{"sizes": [{"bytes": "3"}]}', r"sizes\[0\]\.bytes must be a number, got '3'"),
        ("history.jsonl", '{"step": 0}\n{"st\n{"step": 2}\n', r"history\.jsonl', line 2: this is"),
        ("history.jsonl", '{"step": 0}\n{"loss": 2}\n', r"line 2: expected an object with a step"),
        ("history.jsonl", '{"step": 0, "loss": "x"}\n', r"line 1: loss must be a number, got 'x'"),
        ("pruning.json", '{"matrices": [[]]}', r"pruning\.json': matrices\[0\] must be an object"),
        ("pruning.json", "\0", r"pruning\.json', line 1: this is not JSON"),
        ("pruning.json", "\udcff", r"pruning\.json' is not UTF-8 text"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, text, message):
    write_run(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        tf_movprune.report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_folders_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run: expected run\.json.*RunRecorder"):
        tf_movprune.report(tmp_path)
    with pytest.raises(FileNotFoundError, match="'nowhere' is not a folder"):
        tf_movprune.report("nowhere")
    with pytest.raises(ValueError, match="at least one run, got an empty list"):
        tf_movprune.report([])


def test_places_that_cannot_be_written(tmp_path):
    folder = write_run(tmp_path / "run")
    with pytest.raises(IsADirectoryError, match="Pass the path of a file in it"):
        tf_movprune.report(folder, folder)
    with pytest.raises(FileNotFoundError, match="Make it first"):
        tf_movprune.report(folder, tmp_path / "missing" / "report.html")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(tmp_path):
    folder = write_run(tmp_path / "run")
    folder.chmod(0o555)
    with pytest.raises(PermissionError):
        tf_movprune.report(folder)


@pytest.mark.parametrize("package", ("matplotlib", "jinja2"))
def test_packages_that_are_needed(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"need {package}.*tf_movprune\[reports\]"):
        tf_movprune.report(write_run(tmp_path))


def test_a_page_is_replaced_whole(tmp_path, monkeypatch):
    folder = write_run(tmp_path)
    (folder / "report.html").write_text("before")
    monkeypatch.setattr("tf_movprune.reports.page._render", lambda runs: "after")
    with monkeypatch.context() as context:
        context.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            tf_movprune.report(folder)
    assert (folder / "report.html").read_text() == "before"
    assert len(list(folder.iterdir())) == 4
    assert tf_movprune.report(folder).read_text() == "after"
