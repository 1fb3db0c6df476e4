"""Settings of a run: each option of `tf-movprune train`, with its default and what it means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tf_movprune.core.arguments import check_fraction, check_integer, check_number
from tf_movprune.runs import unused_options
from tf_movprune.runs.unused_options import FINE_TUNE as FINE_TUNE

METHODS = ("hard", "soft", "l0", "magnitude", "dense")
STRUCTURES = ("weights", "blocks", "heads", "neurons", "heads+neurons")
RECIPES = ("short", "paper")
KINDS = ("classification", "regression")
LIBRARIES = ("keras_hub", "transformers")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_DEFAULT_MODELS = {"keras_hub": "bert_base_en_uncased", "transformers": "bert-base-uncased"}


def _option(group: str, text: str, default: Any = None, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(
        default=default, metadata={"group": group, "help": text, "choices": choices}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of training and pruning in a run; each field is an option of the command line.

    Steps are optimizer steps: an integer, or a fraction of the run if a number has a point, such
    as 0.1. A negative one counts from the end of the run.

    Raises:
      TypeError: a value is not of its type.
      ValueError: a value is out of its range, two of them contradict each other, or one has no
        effect beside the others.
    """

    task: str
    # ---- data
    data_dir: str | None = _option("data", "folder with the task's own files; tfds without it")
    train_file: str | None = _option("data", "a file of your own: .csv, .tsv, .jsonl, SQuAD .json")
    validation_file: str | None = _option("data", "the same, to evaluate on")
    text_column: str | None = _option("data", "name of the column with texts in such files")
    pair_column: str | None = _option("data", "name of the column with the second texts, if any")
    label_column: str | None = _option("data", "name of the column with labels or scores")
    kind: str | None = _option("data", "what such columns hold: labels, if not given", None, KINDS)
    held_out: int = _option(
        "data", "training examples to evaluate on while training; 0: the validation split", 0
    )
    max_train_examples: int | None = _option("data", "use so many, chosen at random")
    max_validation_examples: int | None = _option("data", "evaluate on the first so many")
    max_length: int | None = _option("data", "tokens of a text or window: 128, questions 384")
    stride: int = _option("data", "tokens from the start of a window to that of the next", 128)
    lengths: tuple[int, ...] | None = _option(
        "data", "lengths that batches are padded to; each is compiled once"
    )
    cache_dir: str | None = _option(
        "data", "folder for token ids; OUTPUT_DIR/../cache if not given"
    )
    # ---- model
    model: str | None = _option(
        "model", "folder, preset, or name on a hub; BERT base, uncased, if not given"
    )
    library: str = _option("model", "whose model classes", "keras_hub", LIBRARIES)
    freeze_embeddings: bool = _option("model", "do not train embeddings, as in the paper", True)
    dropout: float | None = _option(
        "model",
        "rate of dropout; the model's own if not given, as in a teacher that is trained first",
    )
    # ---- pruning
    method: str = _option(
        "pruning", "how to choose what stays; dense prunes nothing", "hard", METHODS
    )
    final_sparsity: float = _option("pruning", "fraction of the encoder that goes", 0.9)
    structure: str = _option("pruning", "what stays or goes as one", "weights", STRUCTURES)
    block_size: tuple[int, int] = _option("pruning", "rows and columns of a block", (4, 1))
    head_sparsity: float | None = _option(
        "pruning", "fraction of the heads that go, if not final_sparsity"
    )
    scope: str = _option(
        "pruning", "one cut for each matrix, or one for all", "local", ("local", "global")
    )
    recipe: str = _option(
        "pruning",
        "short: scores from magnitudes, by gradient descent; paper: from zero, by Adam",
        "short",
        RECIPES,
    )
    begin: float | int = _option("pruning", "step at which the first weights go", 0.1)
    end: float | int = _option("pruning", "step at which final_sparsity is reached", 0.7)
    compact_at: float | int | None = _option(
        "pruning", "step at which empty heads and neurons are removed; once trained if not given"
    )
    final_threshold: float | None = _option(
        "pruning", "of soft movement, which then has no final_sparsity; 0.1 in the paper"
    )
    penalty: float | None = _option("pruning", "lambda of soft movement or L0")
    score_learning_rate: float | None = _option("pruning", "of recipe paper; 1e-2 if not given")
    # ---- training
    num_train_steps: int | None = _option("training", "optimizer steps")
    num_train_epochs: float = _option(
        "training", "passes over the data, if no steps are given", 3.0
    )
    batch_size: int = _option("training", "examples to a batch", 32)
    gradient_accumulation_steps: int = _option("training", "batches to a step", 1)
    learning_rate: float = _option("training", "peak rate of the weights", 8e-5)
    warmup: float | int = _option("training", "steps over which the rate rises", 0.1)
    weight_decay: float = _option("training", "decoupled weight decay", 0.0)
    clipnorm: float = _option("training", "global norm of all gradients", 1.0)
    recovery_steps: int = _option(
        "training", "steps of the smaller model once heads and neurons are removed", 0
    )
    precision: str = _option("training", "of the computation", "float32", PRECISIONS)
    xla: bool = _option("training", "compile steps with XLA", True)
    seed: int = _option("training", "of everything random", 0)
    # ---- distillation
    teacher: str | None = _option(
        "distillation",
        f"folder of a fine-tuned model, or {FINE_TUNE}: one as long as this run; none: that of a "
        "preset is left out",
    )
    teacher_learning_rate: float | None = _option(
        "distillation", "peak rate of a teacher that is trained first; learning_rate if not given"
    )
    alpha_distil: float = _option("distillation", "weight of the teacher's outputs", 0.9)
    alpha_ce: float = _option("distillation", "weight of the labels", 0.1)
    temperature: float = _option("distillation", "of both outputs", 2.0)
    alpha_hidden: float = _option(
        "distillation", "weight of the teacher's hidden states, block by block", 0.0
    )
    # ---- run
    output_dir: str | None = _option("run", "folder of the run; runs/TASK-METHOD if not given")
    evaluations: int = _option("run", "evaluations during training, at the last step for one", 5)
    save_every: int | None = _option(
        "run", "steps between checkpoints; at evaluations if not given"
    )
    evaluation_batch_size: int = _option("run", "examples to a batch of evaluation", 64)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        _check(self)

    @property
    def model_or_default(self) -> str:
        """The model to start from."""
        return self.model or _DEFAULT_MODELS[self.library]

    @property
    def folder(self) -> str:
        """The folder of the run."""
        return folder_of(vars(self))

    @property
    def is_structured(self) -> bool:
        """True if heads or neurons go."""
        return unused_options.is_structured(self)

    @property
    def prunes_to_target(self) -> bool:
        """True if the run ends at `final_sparsity`."""
        return unused_options.prunes_to_target(self)

    @property
    def note(self) -> str:
        """A line on options that are set and that only other methods have a use for; or ""."""
        return unused_options.note_on_other_methods(vars(self), DEFAULTS)

    def as_dict(self) -> dict[str, Any]:
        """Values by name, as JSON has them."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """Settings from what `as_dict` returned, in this version or an older one.

        Options without effect beside the others, which older versions took, get their defaults, as
        do those that older versions did not have.
        """
        unused = unused_options.unused_options({"task": "", **DEFAULTS, **values})
        arguments: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k not in unused
        }
        return cls(**arguments)


DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(TrainSettings) if field.name != "task"
}
"""Default of each option."""


def folder_of(values: Mapping[str, Any]) -> str:
    """The folder of the run with some settings, those without an entry being defaults."""
    task, method = values["task"].replace("/", "-"), values.get("method", DEFAULTS["method"])
    return values.get("output_dir") or f"runs/{task}-{method}"


def step_of(value: float | int, steps: int) -> int:
    """The step that a setting means in a run of some steps; see `TrainSettings`."""
    if isinstance(value, float):
        value = math.floor(value * steps + 1e-9)
    return value if value >= 0 else steps + value


def _check_type(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None and "None" in str(field.type):
        return
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}.")
    expected = {"int": int, "float": (int, float), "str": str, "bool": bool}
    wanted = str(field.type).removesuffix(" | None")
    if wanted in expected:
        types: Any = expected[wanted]
        if not isinstance(value, types) or (isinstance(value, bool) and wanted != "bool"):
            raise TypeError(f"{field.name} must be {_NAMES[wanted]}, got {value!r}.")


_NAMES = {"int": "an integer", "float": "a number", "str": "a text", "bool": "True or False"}


def _check(s: TrainSettings) -> None:
    at_least_1 = (
        "max_length", "stride", "batch_size", "evaluation_batch_size", "num_train_steps",
        "gradient_accumulation_steps", "max_train_examples", "max_validation_examples",
        "evaluations", "save_every",
    )  # fmt: skip
    for name in at_least_1:
        value = getattr(s, name)
        if value is not None:
            check_integer(name, value, example=1, minimum=1)
    for name in (
        "held_out",
        "recovery_steps",
        "weight_decay",
        "alpha_distil",
        "alpha_ce",
        "alpha_hidden",
    ):
        check_number(name, getattr(s, name), example=0, minimum=0)
    above_0 = ("learning_rate", "clipnorm", "temperature", "num_train_epochs", "penalty")
    for name in (*above_0, "score_learning_rate", "teacher_learning_rate", "final_threshold"):
        value = getattr(s, name)
        if value is not None:
            check_number(name, value, example=1, above=0)
    for name in ("final_sparsity", "head_sparsity", "dropout"):
        value = getattr(s, name)
        if value is not None:
            check_fraction(name, value)
    for name in ("begin", "end", "warmup", "compact_at"):
        value = getattr(s, name)
        if isinstance(value, float) and not -1 < value <= 1:
            raise ValueError(
                f"{name} must be a whole number of steps, or a fraction in (-1, 1], got {value}."
            )
    if s.lengths is not None and (not s.lengths or min(s.lengths) < 2):
        raise ValueError(f"lengths must be whole numbers of at least 2, got {s.lengths}.")
    _check_combinations(s)


def _check_combinations(s: TrainSettings) -> None:
    for name, reason in unused_options.unused_options(vars(s)).items():
        if getattr(s, name) != DEFAULTS[name]:
            raise ValueError(reason)
    if s.method == "soft" and s.final_threshold is None and s.recipe == "paper":
        raise ValueError(
            "Soft movement as in the paper needs final_threshold, such as 0.1, and penalty. Or use "
            "recipe short, which ends at final_sparsity."
        )
    if s.num_train_steps is not None and s.num_train_steps < 10 and s.method != "dense":
        raise ValueError(f"num_train_steps must be at least 10 to prune, got {s.num_train_steps}.")
    if s.final_threshold is not None and s.penalty is None:
        raise ValueError("final_threshold needs penalty, such as 400: without it nothing goes.")
    if s.final_threshold is not None and s.recipe == "short":
        raise ValueError(
            "final_threshold is for recipe paper; a short run ends at final_sparsity. Pass recipe "
            "paper, or leave final_threshold out."
        )
    if s.method == "l0" and s.recipe == "short":
        raise ValueError("l0 has no target sparsity. Pass recipe paper, and penalty, such as 125.")
    if s.method in ("soft", "l0") and s.structure != "weights" and s.structure != "blocks":
        raise ValueError(f"structure {s.structure} needs method hard or magnitude, got {s.method}.")
    if s.teacher is not None and s.alpha_distil == s.alpha_ce == s.alpha_hidden == 0:
        raise ValueError(
            "alpha_distil, alpha_ce and alpha_hidden are 0: there is nothing to learn from."
        )
    if s.teacher is not None and s.alpha_distil == s.alpha_hidden == 0:
        raise ValueError(
            "alpha_distil and alpha_hidden are 0: the teacher would teach nothing. Leave it out."
        )
    sums_batches = s.gradient_accumulation_steps > 1
    if s.library == "transformers" and s.precision == "mixed_float16" and sums_batches:
        raise ValueError(
            "In tf_keras, mixed_float16 cannot sum the gradients of several batches: a batch that "
            "overflows would count as a step. Use mixed_bfloat16, or larger batches."
        )
    if (s.train_file is None) != (s.validation_file is None) and not s.held_out:
        raise ValueError(
            "train_file and validation_file belong together. Or pass held_out, to take examples to "
            "evaluate on from the training file."
        )
