"""Compiled train steps and refreshes of masks, as TensorFlow runs them and as StableHLO text."""

from __future__ import annotations

import gzip
import pathlib
import re
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from benchmarks import models, speed
from benchmarks.measuring import IN_A_ROW, draw
from tf_movprune.core.masked_kernel import overall_sparsity
from tf_movprune.core.refresh import refresh_masks
from tf_movprune.core.scores import is_scores
from tf_movprune.keras2.layer_tree import built_layers, kernels_of

_TYPES = {"float32": "f32", "int32": "i32", "int64": "i64", "bool": "i1"}


class TensorFlowTraining:
    """A model in the middle of its schedule, with random weights, and its compiled programs.

    Args:
      variant: of `speed.prune`.
      policy: of mixed precision.
      dropout: rate, 0 where results are compared.
    """

    def __init__(
        self, shape: str, batch_size: int, length: int, policy: str, variant: str, dropout: float
    ):
        self.policy, self.variant = policy, variant
        self.model = _model(shape, policy, variant, dropout)
        ids = [batch_size, length]
        self.inputs = [
            _argument("attention_mask", ids, "int32", "constant", 1),
            _argument("input_ids", ids, "int32", "integers", 1000, self.model.config.vocab_size),
            _argument("labels", ids[:1], "int32", "integers", 0, 2),
        ]
        self.programs: dict[str, _Program] = {}
        self._add("step", ["attention_mask", "input_ids", "labels"], "loss", self._step)
        if variant != "dense":
            self.inputs.append(_argument("sparsity", [], "float32", "constant", 0.0))
            self._add("refresh", ["sparsity"], "sparsity", self._refresh(frequency=1))
            self._add("refresh every 10th", ["sparsity"], "sparsity", self._refresh(frequency=10))
        found = {v.ref(): v for p in self.programs.values() for v in p.variables}
        self.variables = _by_name(found.values())
        self.arguments = self.inputs + [_recipe(*item) for item in self.variables.items()]
        self.draw()

    def _add(self, name: str, takes: list[str], gives: str, function: Callable) -> None:
        values = [tf.constant(draw(**a)) for a in self.inputs if a["name"] in takes]
        self.programs[name] = _Program(function, values, takes, gives)

    def _step(self, attention_mask, input_ids, labels):
        inputs = {"attention_mask": attention_mask, "input_ids": input_ids}
        return self.model.train_step((inputs, labels))["loss"]

    def _refresh(self, frequency: int) -> Callable:
        """The refresh that `UpdatePruningStep` compiles."""
        layers = built_layers(self.model).values()
        kernels = kernels_of(layers)
        schedule = speed.cubic(tf_movprune.CubicSparsity, 0.9, frequency)

        def refresh_all(sparsity):
            for layer in layers:
                layer.pruning_schedule = schedule
            refreshed = refresh_masks(kernels, self.model.optimizer.iterations + 0)
            return tf.cond(refreshed, lambda: overall_sparsity(kernels), lambda: sparsity)

        return refresh_all

    def draw(self) -> None:
        """Sets all values to what is drawn for them."""
        self.values = {a["name"]: tf.constant(draw(**a)) for a in self.inputs}
        for argument in self.arguments[len(self.inputs) :]:
            self.variables[argument["name"]].assign(draw(**argument))

    def call(self, name: str) -> None:
        program = self.programs[name]
        values = [self.values[taken] for taken in program.takes]
        self.values[program.gives] = program.function(*values)

    def get(self, name: str) -> np.ndarray:
        return (self.variables if name in self.variables else self.values)[name].numpy()

    def write(self, folder: pathlib.Path) -> dict:
        """Writes the programs, and returns what `gpu_step.JaxTraining` has to know of them."""
        names = {v.ref(): name for name, v in self.variables.items()}
        types = {a["name"]: _mlir_type(a) for a in self.arguments}
        prefix = f"{self.policy}-{self.variant}".replace(" ", "_")
        programs = {}
        for name, program in self.programs.items():
            text = program.text()
            takes = program.takes + [names[v.ref()] for v in program.variables]
            _check_parameters(text, [types[taken] for taken in takes])
            gives = [program.gives, *(takes[i] for i in _updated(text))]
            file = f"{prefix}-{name}.mlir.gz".replace(" ", "_")
            (folder / file).write_bytes(gzip.compress(text.encode()))
            programs[name] = {"file": file, "takes": takes, "gives": gives}
        return {
            "policy": self.policy,
            "variant": self.variant,
            "prefix": prefix,
            "arguments": self.arguments,
            "programs": programs,
        }


class _Program:
    """A traced function of tensors, which by being called also changes variables."""

    def __init__(
        self, function: Callable, values: Sequence[tf.Tensor], takes: list[str], gives: str
    ):
        self.values, self.takes, self.gives = values, takes, gives
        self.function = tf.function(function, jit_compile=True, autograph=False)
        # Masks are selected in another way where there is a GPU, and the machine that traces needs
        # none: it is told that it has one.
        with mock.patch.object(tf.config, "list_physical_devices", lambda kind=None: ["GPU"]):
            concrete = self.function.get_concrete_function(*values)
        by_handle = {id(v.handle): v for v in concrete.graph.variables}
        self.variables = [by_handle[id(handle)] for handle in concrete.captured_inputs]

    def text(self) -> str:
        """StableHLO, without the one operation that is none and does nothing."""
        text = self.function.experimental_get_compiler_ir(*self.values)(stage="stablehlo")
        return text.replace(" = mhlo.copy ", " = stablehlo.convert ")


def _model(shape: str, policy: str, variant: str, dropout: float) -> keras.Model:
    """Compiled and with all of its variables; its wrappers believe that masks are refreshed."""
    keras.backend.clear_session()  # so that variables have the same names in each model
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = models.bert_classifier(
            shape, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
        optimizer = speed.prune(model, variant)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=True)
    optimizer.build(model.trainable_variables)
    if variant != "dense":
        for layer in built_layers(model).values():
            layer.guard.allow(True)
    return model


def _argument(name: str, shape: Sequence[int], dtype: str, *how) -> dict:
    return {"name": name, "shape": list(shape), "dtype": dtype, "how": list(how)}


def _recipe(name: str, variable: tf.Variable) -> dict:
    """How to draw values like those that a variable has."""
    shape, dtype, values = variable.shape, variable.dtype.name, variable.numpy()
    if is_scores(variable) and variable.trainable:  # not the optimizer's slots of scores
        return _argument(name, shape, dtype, "scores")
    if name.startswith("iteration:"):  # in the middle of the schedule
        return _argument(name, shape, dtype, "constant", speed.STEPS // 2)
    if (values == values.flat[0]).all():
        return _argument(name, shape, dtype, "constant", values.flat[0].item())
    return _argument(name, shape, dtype, "normal", float(values.mean()), float(values.std()))


def _by_name(variables) -> dict[str, tf.Variable]:
    """Variables by their names, with a mark where several share one."""
    found: dict[str, tf.Variable] = {}
    for variable in variables:
        name = variable.name
        while name in found:
            name += "'"
        found[name] = variable
    return found


def _mlir_type(argument: dict) -> str:
    return "x".join([*map(str, argument["shape"]), _TYPES[argument["dtype"]]])


def _check_parameters(text: str, types: list[str]) -> None:
    """Raises unless the program's parameters are the inputs, and then the captured variables."""
    (line,) = (line for line in text.splitlines() if "func.func @main(" in line)
    found = re.findall(r"%arg\d+: tensor<([^>]+)>", line)
    if found != types:
        raise ValueError(f"Expected a program of parameters {types}, got {found}.")


def _updated(text: str) -> list[int]:
    """The parameters that the outputs after the first, which is the function's, replace."""
    pattern = r"parameter_number = (\d+) : i64}, output_index = array<i64: (\d+)>"
    found = {int(output): int(parameter) for parameter, output in re.findall(pattern, text)}
    (line,) = (line for line in text.splitlines() if "func.func @main(" in line)
    outputs = line.split(" -> ")[1].count("tensor<")
    if sorted(found) != list(range(1, outputs)):
        raise ValueError(f"Expected {outputs - 1} outputs that replace variables, got {found}.")
    return [found[i] for i in range(1, outputs)]


def copier(entries: int) -> Callable[[], object]:
    """Reads and writes a vector ten times."""
    copy = tf.function(lambda x: x + 1.0, jit_compile=True)
    vector = tf.random.normal([entries])

    def copies():
        for _ in range(IN_A_ROW):
            copied = copy(vector)
        copied[:1].numpy()

    return copies


def device() -> str | None:
    """The name of the GPU that TensorFlow sees."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
    return f"{name}, TensorFlow {tf.__version__}"
