# %% [markdown]
# # Twice as fast on a phone
#
# Zeros that are scattered over a matrix make no phone faster. A model without half of its
# attention heads and most of its neurons is an ordinary, smaller one, and faster everywhere.
# MiniLM, a BERT of six layers, loses them here while it learns from its own fine-tuned copy, and
# its file is timed in LiteRT. Three trainings, less than an hour on two cores; `pip install
# ".[examples]"` in a clone.

# %%
import os
import pathlib
import sys
import tempfile
import time

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from tf_movprune.tasks.catalog import task

QUICK = bool(os.environ.get("QUICK"))  # a rehearsal in a minute: a tiny model, and no network
here = pathlib.Path.cwd()
root = next(folder for folder in [here, *here.parents] if (folder / "examples").is_dir())
sys.path.insert(0, str(root))
if QUICK:
    from examples import rehearsal as downloads

    output = cache = pathlib.Path(tempfile.mkdtemp())
else:
    from examples import downloads

    output, cache = root / "runs/twice_as_fast", root / "runs/cache"
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% [markdown]
# ## Sentences, as token ids

# %%
preset = str(downloads.minilm_folder(cache))
models = keras_hub.models
preprocessor = models.BertTextClassifierPreprocessor.from_preset(preset, sequence_length=64)
data = task("own").load(files=downloads.movie_review_files(cache))


def sentences(split):
    found = tf.data.Dataset.from_tensor_slices((data[split].texts, data[split].targets))
    return found.batch(32, drop_remainder=split == "train").map(preprocessor)


train = sentences("train").cache()
epochs = 1 if QUICK else 3
steps = epochs * len(train)

# %% [markdown]
# ## A dense model: what to compare with, and the teacher


# %%
def pretrained():
    model = models.BertTextClassifier.from_preset(preset, preprocessor=None, num_classes=2)
    for layer in model.backbone.layers:
        if "embedding" in layer.name:
            layer.trainable = False  # as in the paper
    return model


def fit(model, optimizer, dataset, callbacks=()):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = {} if isinstance(model, tf_movprune.Distiller) else {"loss": loss}
    model.compile(optimizer, metrics=["accuracy"], jit_compile=not QUICK, **loss)
    model.fit(dataset, epochs=epochs, callbacks=callbacks)


teacher = pretrained()
optimizer = tf_movprune.create_optimizer(8e-5, steps, steps // 10, model=teacher)
fit(teacher, optimizer, train.unbatch().shuffle(10_000).batch(32, drop_remainder=True))

# %% [markdown]
# ## Half of the heads and 73 % of the neurons go
#
# Patterns over the layers' paths name what may go, each with a sparsity of its own. A head
# is a large piece to lose: the outputs of the teacher, which are computed once, help more than
# labels alone.

# %%
half = tf_movprune.ShortRun(num_train_steps=steps, final_sparsity=0.5)
most = tf_movprune.ShortRun(num_train_steps=steps, final_sparsity=0.73)
attention = "*_attention_layer.*"
model = tf_movprune.prune_low_movement(
    pretrained(),
    {attention: half.schedule, "*": most.schedule},
    half.method,
    block_size={attention: tf_movprune.HEADS, "*": tf_movprune.NEURONS},
)
taught = tf_movprune.cache_teacher_logits(train, teacher)
taught = taught.unbatch().shuffle(10_000).batch(32, drop_remainder=True)
distiller = tf_movprune.Distiller(model, None, alpha_distil=0.9, alpha_ce=0.1)
optimizer = half.create_optimizer(1.6e-4, model=distiller)
fit(distiller, optimizer, taught, [tf_movprune.UpdatePruningStep()])

# %% [markdown]
# ## Take them out, and recover
#
# `compact` makes a smaller dense model with the same outputs. It trains on like any model, and
# wins back most of what was lost.

# %%
before = teacher.count_params()
small = tf_movprune.compact(tf_movprune.strip_pruning(distiller))
print(f"{small.count_params():,} of {before:,} parameters")
distiller = tf_movprune.Distiller(small, None, alpha_distil=0.9, alpha_ce=0.1)
fit(distiller, tf_movprune.create_optimizer(1.6e-4, steps, steps // 10, model=distiller), taught)
small.save(output / "small.keras")  # tf_movprune.load_compacted reads it

# %% [markdown]
# ## Files, their accuracy and their speed
#
# The dense model as it would ship without any of this, in float32; the small one in float32 and in
# int8. Calls of the files take turns. Time them on the phone itself before you trust a number from
# another machine.

# %%
files = {
    "dense, float32": (teacher, None),
    "small, float32": (small, None),
    "small, int8": (small, "int8"),
}
runners = {}
for name, (each, quantization) in files.items():
    path = output / f"{name.replace(', ', '-')}.tflite"
    print(tf_movprune.export_tflite(each, path, quantization=quantization, sequence_length=64))
    runners[name] = Interpreter(str(path), num_threads=1).get_signature_runner()

# %%
rows = [
    {name: np.int32(x) for name, x in inputs.items()}
    for inputs, _ in sentences("test").unbatch().batch(1).as_numpy_iterator()
]
milliseconds = {name: [] for name in files}
for row in rows[:31]:
    for name, run in runners.items():
        start = time.perf_counter()
        run(**row)
        milliseconds[name].append(1000 * (time.perf_counter() - start))
times = {name: np.median(found) for name, found in milliseconds.items()}
for name, run in runners.items():
    predictions = [run(**row)["logits"].argmax() for row in rows]
    accuracy = np.mean(predictions == data["test"].targets)
    faster = times["dense, float32"] / times[name]
    print(f"{name}: {accuracy:.1%}, {times[name]:.1f} ms, {faster:.1f} times as fast")
