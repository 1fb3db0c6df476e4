"""Encoders whose checkpoints are known: their names, in configurations and of their weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_BUFFERS = re.compile(r".*\.embeddings\.(position_ids|token_type_ids)")
_OLD_ENDS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}


def todays_name(name: str) -> str:
    """The name that today's classes have for a weight; old ones had gamma and beta."""
    for old, today in _OLD_ENDS.items():
        if name.endswith(old):
            return name.removesuffix(old) + today
    return name


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of encoders.

    Attributes:
      prefix: first part of the names of the encoder's weights, before which a head has none.
      blocks: name of the list of blocks.
      query, key, value, attention_output, intermediate, output: names of the dense layers in a
        block.
      layer_count, head_count, width, neuron_count: keys of the configuration.
      defaults: values of these keys in a configuration that does not have them.
      first_position: the position of the first token.
    """

    prefix: str
    blocks: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    layer_count: str = "num_hidden_layers"
    head_count: str = "num_attention_heads"
    width: str = "hidden_size"
    neuron_count: str = "intermediate_size"
    defaults: tuple[int, int, int, int] = (12, 12, 768, 3072)
    first_position: int = 0

    def block(self, index: int) -> str:
        """The first part of the names of a block's weights."""
        return f"{self.prefix}.{self.blocks}.{index}."

    @property
    def attention(self) -> tuple[str, str, str, str]:
        return self.query, self.key, self.value, self.attention_output

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """The dense layers of a block, which are pruned."""
        return *self.attention, self.intermediate, self.output

    @property
    def pooler(self) -> tuple[str, str]:
        """The names of the weight and the bias of the pooler."""
        return f"{self.prefix}.pooler.dense.weight", f"{self.prefix}.pooler.dense.bias"

    def matrices(self, config: Mapping[str, Any]) -> Iterator[str]:
        """The names of the weights that are pruned."""
        for index in range(self.size(config, "layer_count")):
            for layer in self.dense_layers:
                yield f"{self.block(index)}{layer}.weight"

    def todays_names(self, names: Iterable[str]) -> dict[str, str]:
        """The names that today's classes have for weights, by the names in a checkpoint.

        Those of an encoder by itself get its prefix. Buffers, which hold no weights, are left out.
        """
        names = list(names)
        is_bare = not any(name.startswith(f"{self.prefix}.") for name in names)
        first_parts = {self.blocks.split(".")[0], "embeddings", "embeddings_project", "pooler"}
        found = {}
        for name in names:
            new = f".{todays_name(name)}"
            if is_bare and name.split(".")[0] in first_parts:
                new = f".{self.prefix}{new}"
            if not _BUFFERS.fullmatch(new):
                found[name] = new[1:]
        return found

    def size(self, config: Mapping[str, Any], which: str) -> int:
        """A number in a configuration: `"layer_count"`, `"head_count"`, `"width"` or
        `"neuron_count"`."""
        key = getattr(self, which)
        keys = ("layer_count", "head_count", "width", "neuron_count")
        value = config.get(key, self.defaults[keys.index(which)])
        if type(value) is not int or value < 1:
            raise ValueError(f"{key} in config.json must be a positive integer, got {value!r}.")
        return value


def with_todays_names(tensors: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Tensors of a checkpoint under the names of `Family.todays_names`.

    Raises:
      ValueError: two of them have the same name today.
    """
    found: dict[str, Any] = {}
    for old, new in family.todays_names(tensors).items():
        if new in found:
            raise ValueError(f"The checkpoint has {new!r} twice, once under an older name.")
        found[new] = tensors[old]
    return found


def task_of(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Tells what a checkpoint is for, by the last part of the name of its class.

    Args:
      config: its configuration, which may name an architecture.
      names: names of its weights, which tell the head otherwise.

    Returns:
      `"ForQuestionAnswering"`, `"ForSequenceClassification"`, `"ForTokenClassification"` or
      `"Model"`; or the last part of another architecture.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    if isinstance(architecture, str):
        return "For" + architecture.partition("For")[2] if "For" in architecture else "Model"
    names = list(names)
    if any(name.startswith("qa_outputs.") for name in names):
        return "ForQuestionAnswering"
    if not any(name.startswith("classifier.") for name in names):
        return "Model"
    of_sequences = (".pooler.dense.weight", "pre_classifier.weight", "classifier.dense.weight")
    is_of_sequences = any(name.endswith(of_sequences) for name in names)
    return "ForSequenceClassification" if is_of_sequences else "ForTokenClassification"


_BERT = Family("bert")
_ROBERTA = Family("roberta", first_position=2)
_ELECTRA = Family("electra", defaults=(12, 4, 256, 1024))
_DISTILBERT = Family(
    "distilbert",
    blocks="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    layer_count="n_layers",
    head_count="n_heads",
    width="dim",
    neuron_count="hidden_dim",
    defaults=(6, 12, 768, 3072),
)
_BY_MODEL_TYPE = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def family_of(model_type: Any) -> Family:
    """The family of a `model_type` of Hugging Face.

    Raises:
      ValueError: it is not known.
    """
    if model_type not in _BY_MODEL_TYPE:
        raise ValueError(
            f"model_type in config.json must be one of {', '.join(_BY_MODEL_TYPE)}, or one of "
            f"these after masked_, got {model_type!r}."
        )
    return _BY_MODEL_TYPE[model_type]
