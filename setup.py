import gzip
import os
import pathlib
import re
import tarfile
import time

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tf_movprune/__init__.py").read_text())[1]

TRANSFORMERS = "transformers>=4.46,<4.55"  # later releases cannot load into, or lack, TF classes

# KerasHub's tokenizers need it, which older releases name in an extra alone.
TENSORFLOW_TEXT = "tensorflow-text>=2.18; platform_system != 'Windows'"

EXTRAS = {
    "transformers": [TRANSFORMERS],
    "keras-hub": ["keras-hub>=0.19"],
    "tensorboard": ["tensorboard>=2.18"],
    "tflite": ["ai-edge-litert>=1.2"],
    "onnx": ["tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.19"],
    "compress": ["zstandard>=0.22"],
    "pytorch": ["safetensors>=0.4.3", "huggingface-hub>=0.23.2"],
    "reports": ["matplotlib>=3.8", "jinja2>=3.1"],
    "tasks": [
        "filelock>=3.12",
        "keras-hub>=0.19",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "scikit-learn>=1.4",
        "scipy>=1.11.1",
        "tensorflow-datasets>=4.9.6",
        "importlib_resources",  # which tensorflow-datasets needs, and does not name
        TENSORFLOW_TEXT,
        "sentencepiece>=0.2",  # KerasHub 0.25 imports it, and does not name it
        "safetensors>=0.4.3",
        "zstandard>=0.22",
    ],
    "examples": [
        TRANSFORMERS,
        "filelock>=3.12",
        "keras-hub>=0.19",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "scikit-learn>=1.4",
        "scipy>=1.11.1",
        "tensorflow-datasets>=4.9.6",
        "importlib_resources",
        TENSORFLOW_TEXT,
        "sentencepiece>=0.2",  # KerasHub 0.25 imports it, and does not name it
        "safetensors>=0.4.3",
        "ai-edge-litert>=1.2",
        "zstandard>=0.22",
    ],
    "gpu-benchmark": ["jax>=0.6"],
    "test": [
        "jupytext>=1.16",
        "psutil>=5.9",
        "pytest>=8",
        "pytest-cov>=5",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
    ],
    "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29", "l2m4m>=1.0.4"],
    "lint": ["ruff>=0.6", "mypy>=1.11", "import-linter>=2.1"],
    "dist": [
        "build>=1.2",
        "setuptools>=77,<82",  # tensorflow-hub imports pkg_resources, which 82 lacks
        "uv>=0.5",
        "wheel",
    ],
}
for extra in (
    "examples",
    "docs",
    "tasks",
    "keras-hub",
    "tensorboard",
    "gpu-benchmark",
    "tflite",
    "onnx",
    "compress",
    "pytorch",
):
    EXTRAS["test"] += EXTRAS[extra]


class ReproducibleSdist(sdist):
    """An sdist with the same bytes from the same files.

    The archive of setuptools has the time, owner and permissions of each file, and the time of
    packing. This one has SOURCE_DATE_EPOCH for all times, if that is set, and no owner.
    """

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        if format != "gztar":
            raise ValueError(f"Expected the format gztar, got {format!r}.")
        path = f"{base_name}.tar.gz"
        now = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())

        def normalized(member):
            member.mtime, member.uid, member.gid, member.uname, member.gname = now, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        with (
            gzip.GzipFile(path, "wb", mtime=now) as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            tar.add(base_dir, filter=normalized)  # in the order of names
        return path


setup(
    name="tf_movprune",
    version=VERSION,
    description="Movement pruning for TensorFlow and Keras, while fine-tuning pretrained models",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["movement pruning", "pruning", "sparsity", "compression", "Keras", "TensorFlow"],
    packages=find_packages(include=["tf_movprune", "tf_movprune.*"]),
    package_data={
        "tf_movprune": ["py.typed", "__init__.pyi"],
        "tf_movprune.reports": ["page.css", "*.jinja"],
    },
    entry_points={"console_scripts": ["tf-movprune = tf_movprune.cli:main"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18,<2.22",
        "keras>=3.8,<4",
        "tf-keras>=2.18,<2.22",
        "tensorflow-model-optimization>=0.8,<0.9",
        "numpy>=1.26",
        "lazy-loader>=0.4",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    cmdclass={"sdist": ReproducibleSdist},
)
