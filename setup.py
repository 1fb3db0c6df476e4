import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tf_movprune/__init__.py").read_text())[1]

TRANSFORMERS = "transformers>=4.46,<4.55"  # later releases cannot load into, or lack, TF classes

EXTRAS = {
    "transformers": [TRANSFORMERS],
    "keras-hub": ["keras-hub>=0.19"],
    "tensorboard": ["tensorboard>=2.18"],
    "tflite": ["ai-edge-litert>=1.2"],
    "onnx": ["tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.19"],
    "compress": ["zstandard>=0.22"],
    "pytorch": ["safetensors>=0.4.3", "huggingface-hub>=0.23"],
    "reports": ["matplotlib>=3.8", "jinja2>=3.1"],
    "tasks": [
        "filelock>=3.12",
        "keras-hub>=0.19",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorflow-datasets>=4.9.6",
        "importlib_resources",  # which tensorflow-datasets needs, and does not name
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
        "scipy>=1.11",
        "tensorflow-datasets>=4.9.6",
        "importlib_resources",
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

setup(
    name="tf_movprune",
    version=VERSION,
    description="Movement pruning for TensorFlow and Keras, while fine-tuning pretrained models",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
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
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
