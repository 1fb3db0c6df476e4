"""The snippets of docs/coming_from_tfmot.md, run one after the other as they stand there."""

import pathlib
import re

import tf_movprune

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "coming_from_tfmot.md"


def test_snippets():
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    magnitude, movement, every_layer, one_layer, loop = snippets
    namespace = {}
    exec(magnitude, namespace)
    assert tf_movprune.summarize_sparsity(namespace["plain"]).sparsity == 0.75
    exec(movement, namespace)
    exec(every_layer, namespace)
    exec(one_layer, namespace)
    exec(loop, namespace)
    (layer,) = tf_movprune.pruned_layers(namespace["pruned"]).values()
    assert layer.kernels[0].mask.numpy().mean() == 0.25
