"""Policies that choose the layers to prune."""

from __future__ import annotations

from typing import Any

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import Layer, PruningPolicy, keras
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree


class PruneTransformerBlocks(PruningPolicy):
    """Chooses the matrices of every transformer block of Hugging Face models.

    Blocks are the numbered parts of encoders and decoders, with self-attention, cross-attention and
    feed-forward layers: the dense layers in them, GPT-2's `Conv1D`, and the query, key, value,
    output and position kernels of XLNet's attention. Embeddings, poolers and heads stay dense, and
    so do matrices that a layer holds besides other layers, such as Funnel's `r_kernel`.

    Without a policy the encoder's dense layers alone are pruned, as in the paper.

        pruned = tf_movprune.prune_low_movement(
            model, schedule, pruning_policy=tf_movprune.PruneTransformerBlocks()
        )
    """

    def __init__(self) -> None:
        self._blocks: list[Layer] = []

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Finds the blocks of a model.

        Raises:
          ValueError: the model has none.
        """
        self._blocks = list(blocks_of(LayerTree(model)).values())
        if not self._blocks:
            raise ValueError(
                "PruneTransformerBlocks expected a Hugging Face model, or a model with one inside, "
                f"got {type(model).__name__} {model.name!r}, which has no transformer blocks of "
                "theirs. Choose its layers with a mapping of path patterns to schedules."
            )

    def allow_pruning(self, layer: Layer) -> bool:
        """Returns whether a layer is one of the blocks that were found last.

        Raises:
          ValueError: no model was searched yet.
        """
        if not self._blocks:
            raise ValueError(
                "PruneTransformerBlocks chooses among the layers of a model, and got a layer "
                "without its model. Prune the model that the layer is in."
            )
        return any(layer is block for block in self._blocks)


def blocks_of(tree: LayerTree) -> dict[str, Layer]:
    """The prunable layers in the transformer blocks of Hugging Face models, by path."""
    found: dict[str, Layer] = {}
    for start, outer in (("", tree.root), *((f"{path}.", layer) for path, layer in tree.walk())):
        if hugging_face.is_hugging_face(outer):
            for path, layer in tree.walk(is_prunable, outer):
                is_matrix = isinstance(layer, keras.layers.Dense) or hugging_face.kernel_names(
                    layer
                )
                if is_matrix and hugging_face.is_in_block(path):
                    found.setdefault(start + path, layer)
    return found
