"""Random small networks of either Keras: what they are made of, without making them.

Every block reads and gives 8 features, so that blocks can follow each other in any order.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st
from shells import precision
from small_models import Block

WIDTH = 8
SHAPES = {"vectors": [WIDTH], "sequences": [4, WIDTH], "images": [4, 4, WIDTH], "tokens": [4]}
HEADS, TOKENS, CLASSES = 4, 11, 3


def _recurrent(keras, kind, name, **kwargs):
    cls = getattr(keras.layers, kind)
    return cls(kwargs.pop("units", WIDTH), return_sequences=True, unroll=True, name=name, **kwargs)


# Layers of each kind of block: functions of a Keras and the block's name.
_ANYWHERE = {
    "dense": lambda keras, name: [keras.layers.Dense(WIDTH, "relu", name=name)],
    "mlp": lambda keras, name: [
        keras.layers.Dense(12, "gelu", name=f"{name}_up"),
        keras.layers.Dense(WIDTH, name=f"{name}_down"),
    ],
    "normalized": lambda keras, name: [
        keras.layers.LayerNormalization(name=f"{name}_norm"),
        keras.layers.Dense(WIDTH, use_bias=False, name=name),
        keras.layers.Dropout(0.1, name=f"{name}_dropout"),
    ],
    "composite": lambda keras, name: [Block(keras, name=name)],
}
_SEQUENCES = {
    "conv": lambda keras, name: [keras.layers.Conv1D(WIDTH, 2, padding="same", name=name)],
    "separable": lambda keras, name: [
        keras.layers.SeparableConv1D(WIDTH, 2, padding="same", name=name)
    ],
    "einsum": lambda keras, name: [
        keras.layers.EinsumDense("abc,cd->abd", (4, WIDTH), bias_axes="d", name=name)
    ],
    "distributed": lambda keras, name: [
        keras.layers.TimeDistributed(keras.layers.Dense(WIDTH, name=f"{name}_inner"), name=name)
    ],
    "attention": lambda keras, name: [keras.layers.MultiHeadAttention(HEADS, 2, name=name)],
    "lstm": lambda keras, name: [_recurrent(keras, "LSTM", name)],
    "bidirectional": lambda keras, name: [
        keras.layers.Bidirectional(_recurrent(keras, "GRU", f"{name}_gru", units=4), name=name)
    ],
}
_IMAGES = {
    "conv": lambda keras, name: [keras.layers.Conv2D(WIDTH, 2, padding="same", name=name)],
    "transposed": lambda keras, name: [
        keras.layers.Conv2DTranspose(WIDTH, 2, padding="same", name=name)
    ],
    "separable": lambda keras, name: [
        keras.layers.SeparableConv2D(WIDTH, 2, padding="same", name=name)
    ],
    "depthwise": lambda keras, name: [keras.layers.DepthwiseConv2D(2, padding="same", name=name)],
}
BLOCKS = {
    "vectors": _ANYWHERE,
    "sequences": {**_ANYWHERE, **_SEQUENCES},
    "tokens": {**_ANYWHERE, **_SEQUENCES},
    "images": {**_ANYWHERE, **_IMAGES},
}
LEFT_OUT = ("lstm", "bidirectional")
"""Blocks that the default choice of layers leaves dense."""

DENSE = (*LEFT_OUT, "depthwise")
"""Blocks that are dense if no pattern names them, or in any case."""

MATRICES = ("dense", "mlp", "normalized", "composite", "einsum", "distributed")
"""Blocks whose kernels are matrices of even sizes."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A block, and how the network goes through it."""

    kind: str
    wiring: str = "plain"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network before its output layer, which has `CLASSES` outputs."""

    kind: str
    data: str
    parts: tuple[Part, ...]
    pooling: str = "flat"
    policy: str = "float32"

    @property
    def names(self) -> list[str]:
        """The names of the blocks."""
        return [f"{part.kind}{i}" for i, part in enumerate(self.parts)]

    @property
    def has_known_layers(self) -> bool:
        """True if files of the whole pruned network keep its masks in both Kerases."""
        has_own = any(
            part.kind in ("attention", "bidirectional", "composite") for part in self.parts
        )
        return self.kind != "subclassed" and not has_own

    @property
    def has_lists(self) -> bool:
        """True if layers are in lists, which Keras 3 leaves out of TensorFlow checkpoints."""
        return self.kind == "subclassed" or any(part.kind == "composite" for part in self.parts)

    def inputs(self, seed: int) -> np.ndarray:
        random, shape = np.random.RandomState(seed), [2, *SHAPES[self.data]]
        if self.data == "tokens":
            return random.randint(0, TOKENS, shape)
        return random.standard_normal(shape).astype("float32")

    def build(self, keras, seed: int = 0):
        """A built model."""
        keras.utils.set_random_seed(seed)
        with precision(keras, self.policy):
            model = getattr(self, f"_{self.kind}")(keras)
        model(self.inputs(0))
        return model

    def _layers(self, keras):
        """Layers of each part, those that merge its branches, and those around all parts."""
        kinds, found = BLOCKS[self.data], []
        for name, part in zip(self.names, self.parts):
            merge = {
                "residual": lambda name: keras.layers.Add(name=name),
                "branches": lambda name: keras.layers.Average(name=name),
            }.get(part.wiring)
            beside = [keras.layers.Dense(WIDTH, name=f"beside{len(found)}")]
            found.append(
                (
                    kinds[part.kind](keras, name),
                    beside if part.wiring == "branches" else [],
                    merge(f"merge{len(found)}") if merge else None,
                )
            )
        dimensions = "2D" if self.data == "images" else "1D"
        is_pooled = self.pooling == "mean" and self.data != "vectors"
        pool = getattr(keras.layers, f"GlobalAveragePooling{dimensions}") if is_pooled else None
        first = [keras.layers.Embedding(TOKENS, WIDTH, name="table")] * (self.data == "tokens")
        last = [
            pool(name="pool") if pool else keras.layers.Flatten(name="pool"),
            keras.layers.Dense(CLASSES, dtype="float32", name="logits"),
        ]
        return first, found, last

    def _input(self, keras):
        dtype = "int32" if self.data == "tokens" else "float32"
        return keras.Input(SHAPES[self.data], dtype=dtype)

    def _sequential(self, keras):
        first, parts, last = self._layers(keras)
        chain = [layer for layers, _, _ in parts for layer in layers]
        return keras.Sequential([self._input(keras), *first, *chain, *last])

    def _functional(self, keras):
        x = self._input(keras)
        return keras.Model(x, _through(self._layers(keras), self.parts, x))

    def _nested(self, keras):
        first, parts, last = self._layers(keras)
        x = self._input(keras)
        y = _chain(first, x)
        inner = keras.Input(tuple(y.shape[1:]), dtype=y.dtype)
        half = _through(([], parts[:1], []), self.parts[:1], inner)
        y = keras.Model(inner, half, name="inner")(y)
        return keras.Model(x, _through(([], parts[1:], last), self.parts[1:], y))

    def _subclassed(self, keras):
        network = self

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.table, parts, (self.pool, self.logits) = network._layers(keras)
                for name, (chain, _, _) in zip(network.names, parts):
                    setattr(self, name, chain)  # for the paths of its layers
                self.beside = [layers for _, layers, _ in parts]
                self.merges = [merge for _, _, merge in parts]

            def call(self, x):
                chains = [getattr(self, name) for name in network.names]
                parts = list(zip(chains, self.beside, self.merges))
                return _through((self.table, parts, [self.pool, self.logits]), network.parts, x)

        return Net()


def _through(layers, parts, x):
    first, middle, last = layers
    x = _chain(first, x)
    for part, (chain, beside, merge) in zip(parts, middle):
        if part.wiring == "shared":
            x = _chain(chain, _chain(chain, x))
        elif part.wiring == "plain":
            x = _chain(chain, x)
        else:
            x = merge([_chain(chain, x), _chain(beside, x)])
    return _chain(last, x)


def _chain(layers, x):
    for layer in layers:
        x = layer(x, x) if "attention" in layer.name else layer(x)
    return x


@st.composite
def networks(draw, data=None, must_have=(), kinds=None, may_share=True):
    """Networks.

    Args:
      data: what the network reads; any if None.
      must_have: kinds of blocks of which one has to be in it.
      kinds: kinds of models; all if None.
      may_share: whether layers may be used twice.
    """
    data = draw(st.sampled_from(data or list(SHAPES)))
    kind = draw(st.sampled_from(kinds or ["sequential", "functional", "nested", "subclassed"]))
    names = [n for n in BLOCKS[data] if kind != "sequential" or n != "attention"]
    wirings = ["plain", *["residual", "branches", *["shared"] * may_share] * (kind != "sequential")]
    part = st.builds(Part, st.sampled_from(names), st.sampled_from(wirings))
    parts = draw(st.lists(part, min_size=1, max_size=2))
    wanted = [n for n in must_have if n in names] or [n for n in names if n not in DENSE]
    if not any(part.kind in wanted for part in parts):
        one = Part(draw(st.sampled_from(wanted)), draw(st.sampled_from(wirings)))
        parts.insert(draw(st.integers(0, len(parts))), one)
    return Network(
        kind,
        data,
        tuple(parts),
        draw(st.sampled_from(["flat", "mean"])),
        draw(st.sampled_from(["float32"] * 4 + ["mixed_bfloat16", "mixed_float16"])),
    )
