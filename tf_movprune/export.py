"""SavedModel and TFLite files with a fixed, named signature, each checked against its model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune._keras import ExportArchive, keras
from tf_movprune.arguments import check_integer
from tf_movprune.checks import check_stripped
from tf_movprune.selection import is_hugging_face
from tf_movprune.traversal import is_graph_network

_QUANTIZATIONS = {"none": "float32", "dynamic": "dynamic-range int8"}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its outputs are from the model's.

    `inputs` and `outputs` map names to shapes (None: any size). `max_abs_diff` is None where the
    export was not verified. `gzip_bytes` is what the files take after `gzip -6`. `quantization` is
    `"float32"` or `"dynamic-range int8"`, and None for a SavedModel.
    """

    path: pathlib.Path
    bytes: int
    gzip_bytes: int
    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]
    max_abs_diff: float | None
    quantization: str | None = None

    def __str__(self) -> str:
        checked = "not verified"
        if self.max_abs_diff is not None:
            checked = f"largest difference from the Keras model {self.max_abs_diff:.2g}"
        quantization = f"{self.quantization}, " if self.quantization else ""
        return (
            f"{self.path}: {quantization}{_size(self.bytes)}, {_size(self.gzip_bytes)} gzipped; "
            f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}; {checked}"
        )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@dataclasses.dataclass(frozen=True)
class _Signature:
    """A model as a function from named tensors to named tensors."""

    specs: list[tf.TensorSpec]
    function: Callable[..., dict[str, tf.Tensor]]

    @functools.cached_property
    def concrete(self) -> Any:
        return tf.function(self.function, input_signature=self.specs).get_concrete_function()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = self.function(*(tf.constant(inputs[s.name], s.dtype) for s in self.specs))
        return {name: output.numpy() for name, output in outputs.items()}


def export_saved_model(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    seq_len: int | None = None,
    batch_size: int | None = None,
    verify: bool = True,
    atol: float | None = None,
    representative_inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a SavedModel for serving, loads it again and compares its outputs with the model's.

    The signature `serving_default` takes the model's inputs and gives its outputs by name:
    `input_ids`, `attention_mask`, ... and `logits` for Hugging Face classifiers.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
      path: folder to write.
      seq_len: size of the open axes but the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      verify: whether to reload and compare.
      atol: largest difference that passes; unless given, 1e-4 times the larger of 1 and the
        largest output.
      representative_inputs: arrays by input name to compare on; random ones unless given.

    Returns:
      An `ExportReport`.

    Raises:
      RuntimeError: the reloaded model's outputs differ. The files stay for inspection.
      TypeError: not a Keras model, or a size is not an integer.
      ValueError: the model is still pruned, its inputs are not known, or it cannot take inputs of
        these sizes.
    """
    signature = _signature(model, seq_len, batch_size)
    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", signature.function, input_signature=signature.specs)
    with _quietly():  # Keras prints a line for each variable
        archive.write_out(str(path))

    def reload() -> Callable[..., dict[str, Any]]:
        return tf.saved_model.load(str(path)).signatures["serving_default"]

    allowed = _rounding if atol is None else functools.partial(_constant, atol)
    return _report(model, path, signature, verify and reload, allowed, representative_inputs)


def export_tflite(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    seq_len: int | None = 128,
    batch_size: int | None = 1,
    quantize: str = "dynamic",
    verify: bool = True,
    atol: float | None = None,
    representative_inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a TFLite file, runs it in LiteRT and compares its outputs with the model's.

    Zeros stay zeros: the file gets small when it is compressed. Unstructured zeros do not make it
    faster.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
      path: file to write.
      seq_len: size of the open axes but the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      quantize: `"dynamic"` stores weights as int8 and quantizes activations while it runs, four
        times smaller and about three times faster on x86; `"none"` keeps float32.
      verify: whether to reload and compare, in `ai_edge_litert` where it is installed and else in
        TensorFlow's own interpreter, with its default delegate.
      atol: largest difference that passes. Unless given: in float32 1e-4 times the larger of 1 and
        the largest output; in int8 half the largest output, which only finds what is broken.
      representative_inputs: arrays by input name to compare on; random ones unless given.

    Returns:
      An `ExportReport`.

    Raises:
      RuntimeError: the converted model's outputs differ. The file stays for inspection.
      TypeError: not a Keras model, or a size is not an integer.
      ValueError: the model is still pruned, its inputs are not known, it cannot take inputs of
        these sizes, or `quantize` is not known.
    """
    if quantize not in _QUANTIZATIONS:
        raise ValueError(f"quantize must be one of {tuple(_QUANTIZATIONS)}, got {quantize!r}.")
    signature = _signature(model, seq_len, batch_size)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature.concrete], model)
    if quantize == "dynamic":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = pathlib.Path(path)
    path.write_bytes(converter.convert())

    def reload() -> Callable[..., dict[str, Any]]:
        interpreter = _interpreter(path)
        details = interpreter.get_input_details()
        by_name = {spec.name: spec for spec in signature.specs}

        def run(**inputs):
            for detail in details:
                name = detail["name"].removeprefix("serving_default_").split(":")[0]
                if name in by_name and not by_name[name].shape.is_fully_defined():
                    interpreter.resize_tensor_input(detail["index"], inputs[name].shape)
            return interpreter.get_signature_runner()(**inputs)

        return run

    allowed = _quantization if quantize == "dynamic" else _rounding
    if atol is not None:
        allowed = functools.partial(_constant, atol)
    report = _report(model, path, signature, verify and reload, allowed, representative_inputs)
    return dataclasses.replace(report, quantization=_QUANTIZATIONS[quantize])


def _constant(atol: float, reference: np.ndarray) -> float:
    return atol


def _rounding(reference: np.ndarray) -> float:
    return 1e-4 * max(1.0, float(np.max(np.abs(reference))))


def _quantization(reference: np.ndarray) -> float:
    return max(_rounding(reference), 0.5 * float(np.max(np.abs(reference))))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    was_enabled = keras.utils.is_interactive_logging_enabled()
    keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if was_enabled:
            keras.utils.enable_interactive_logging()


def _interpreter(path: pathlib.Path) -> Any:
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError:
        litert = tf.lite
    return litert.Interpreter(model_path=str(path))


def _signature(model: keras.Model, seq_len: int | None, batch_size: int | None) -> _Signature:
    check_stripped(model)
    for name, size in (("seq_len", seq_len), ("batch_size", batch_size)):
        if size is not None and check_integer(name, size, example=128) < 1:
            raise ValueError(f"{name} must be at least 1, or None for any size, got {size}.")
    if is_hugging_face(model) and seq_len is not None:
        _check_positions(model, seq_len)

    def fixed(spec: Any, name: str) -> tf.TensorSpec:
        sizes = [size if size is not None else seq_len for size in spec.shape]
        if sizes:
            sizes[0] = spec.shape[0] if spec.shape[0] is not None else batch_size
        return tf.TensorSpec(sizes, spec.dtype, name=name)

    structure = _input_structure(model)
    flat = tf.nest.flatten(structure)
    specs = [fixed(spec, _input_name(spec, i)) for i, spec in enumerate(flat)]
    output_names = model.output_names if is_graph_network(model) else None

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = tf.nest.pack_sequence_as(structure, tensors)
        return _named(model(inputs, training=False), output_names)

    signature = _Signature(specs, function)
    try:
        _ = signature.concrete
    except ValueError as error:
        shapes = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in specs)
        raise ValueError(
            f"{model.name!r} cannot be called on inputs of these shapes: {shapes}. Pass another "
            "seq_len or batch_size, or None for any size."
        ) from error
    return signature


def _check_positions(model: keras.Model, seq_len: int) -> None:
    """Beyond its table of positions a model fails when it runs, and not everywhere."""
    for module in model.submodules:
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, tf.Variable):
            count = table.shape[0]
            offset = getattr(module, "padding_idx", -1) + 1  # RoBERTa's positions begin there
            if seq_len > count - offset:
                raise ValueError(
                    f"seq_len must be at most {count - offset} for this "
                    f"{type(model).__name__}, whose max_position_embeddings is {count}, got "
                    f"{seq_len}. Pass a shorter seq_len."
                )


def _input_structure(model: keras.Model) -> Any:
    """TensorSpecs in the structure in which the model takes its inputs."""
    if is_hugging_face(model):
        return dict(model.input_signature)
    if is_graph_network(model) and model.inputs:

        def spec(tensor):
            return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.node.layer.name)

        return tf.nest.map_structure(spec, model.input)
    saved = model.save_spec(dynamic_batch=True)
    if saved is None:
        raise ValueError(
            f"The inputs of {model.name!r} are not known. Call the model once on example inputs "
            "before exporting."
        )
    args, _ = saved
    return args[0]


def _input_name(spec: Any, index: int) -> str:
    return (spec.name or f"input_{index}").split(":")[0].replace("/", "_")


def _named(outputs: Any, names: list[str] | None) -> dict[str, tf.Tensor]:
    if isinstance(outputs, Mapping):
        return {name: value for name, value in outputs.items() if tf.is_tensor(value)}
    flat = tf.nest.flatten(outputs)
    return dict(zip(names or [f"output_{i}" for i in range(len(flat))], flat))


def _report(model, path, signature, reload, allowed, inputs) -> ExportReport:
    path = pathlib.Path(path)
    inputs = inputs if inputs is not None else _random_inputs(model, signature.specs)
    inputs = {s.name: np.asarray(inputs[s.name], s.dtype.as_numpy_dtype) for s in signature.specs}
    expected = signature.run(inputs)
    difference = None
    if reload:
        outputs = reload()(**{name: tf.constant(x) for name, x in inputs.items()})
        difference = _compare(path, expected, outputs, allowed)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return ExportReport(
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        gzip_bytes=sum(len(gzip.compress(file.read_bytes(), 6)) for file in files),
        inputs={spec.name: tuple(spec.shape) for spec in signature.specs},
        outputs={n: tuple(x.shape) for n, x in signature.concrete.structured_outputs.items()},
        max_abs_diff=difference,
    )


def _compare(path, expected, outputs, allowed) -> float:
    largest = 0.0
    for name, reference in expected.items():
        difference = float(np.max(np.abs(np.asarray(outputs[name]) - reference)))
        if not difference <= allowed(reference):  # NaN fails too
            raise RuntimeError(
                f"The model written to {path} gives another {name!r} than the Keras model: the "
                f"largest difference is {difference:.3g}, at most "
                f"{allowed(reference):.3g} was expected. If "
                "that is good enough, raise atol."
            )
        largest = max(largest, difference)
    return largest


def _random_inputs(model: keras.Model, specs: list[tf.TensorSpec]) -> dict[str, np.ndarray]:
    """Inputs that look like real ones: token ids within the vocabulary, and some padding."""
    random = np.random.RandomState(0)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", 2)
    inputs: dict[str, np.ndarray] = {}
    for spec in specs:
        open_sizes = [2, *[16] * (spec.shape.rank - 1)]
        shape = [size or other for size, other in zip(spec.shape, open_sizes)]
        if not spec.dtype.is_integer:
            inputs[spec.name] = random.standard_normal(shape)
        elif "mask" in spec.name:
            inputs[spec.name] = np.arange(shape[-1]) < max(1, shape[-1] // 2) + np.zeros(shape)
        else:
            high = 1 if "type" in spec.name else vocabulary
            inputs[spec.name] = random.randint(0, high, shape)
    return inputs
