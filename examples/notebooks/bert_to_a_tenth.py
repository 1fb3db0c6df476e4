# %% [markdown]
# # A BERT to a tenth of its weights
#
# MiniLM, a BERT of six layers, is fine-tuned on sentences of movie reviews and keeps one in ten of
# the weights in its layers. Then it is written as a file for phones. About a quarter of an hour on
# two cores; `pip install ".[examples]"` in a clone.

# %%
import html
import os
import pathlib
import sys
import tempfile

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

    output, cache = root / "runs/bert_to_a_tenth", root / "runs/cache"
keras.utils.set_random_seed(0)

# %% [markdown]
# ## Sentences and their labels

# %%
data = task("own").load(files=downloads.movie_review_files(cache))
for split, examples in data.items():
    print(f"{split}: {len(examples):,} sentences")
print(data["train"].texts[0], "→", data["train"].label_names[data["train"].targets[0]])


def sentences(split):
    return tf.data.Dataset.from_tensor_slices((data[split].texts, data[split].targets))


train = sentences("train").shuffle(10_000).batch(32, drop_remainder=True)
validation = sentences("validation").batch(32, drop_remainder=True)
epochs = 1 if QUICK else 3
steps = epochs * len(train)

# %% [markdown]
# ## The pretrained model
#
# Its embeddings are frozen, as in the paper.

# %%
preset = str(downloads.minilm_folder(cache))
models = keras_hub.models
preprocessor = models.BertTextClassifierPreprocessor.from_preset(preset, sequence_length=64)


def pretrained():
    model = models.BertTextClassifier.from_preset(preset, preprocessor=preprocessor, num_classes=2)
    for layer in model.backbone.layers:
        if "embedding" in layer.name:
            layer.trainable = False
    return model


# %% [markdown]
# ## Prune while it is fine-tuned
#
# `ShortRun` has the settings that work in hundreds or a few thousand steps: weights go from a
# tenth of the run on, and nine in ten are gone after 70 % of it. Accuracy falls on the way, and
# comes back afterwards.

# %%
recipe = tf_movprune.ShortRun(num_train_steps=steps, final_sparsity=0.9)
model = recipe.prune(pretrained())
model.compile(
    recipe.create_optimizer(1.6e-4, model=model),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    jit_compile=not QUICK,
)
model.fit(
    train,
    validation_data=validation,
    epochs=epochs,
    callbacks=[tf_movprune.UpdatePruningStep(), tf_movprune.RunRecorder(output / "run")],
)
print(tf_movprune.summarize_sparsity(model))

# %% [markdown]
# ## See what happened
#
# The report shows accuracy and sparsity over the steps, what is left in each matrix and head, and
# how far the weights that stayed are those that magnitude pruning would have kept.

# %%
page = tf_movprune.report(output / "run")
print(page)
if "get_ipython" in globals():  # the page, inside of the notebook
    from IPython.display import HTML, display

    text = html.escape(page.read_text(encoding="utf-8"))
    display(HTML(f'<iframe srcdoc="{text}" width="100%" height="800"></iframe>'))

# %% [markdown]
# ## Keep it
#
# `strip_pruning` leaves an ordinary model of KerasHub, with zeros in it. The `.tflite` file is
# int8, and small once it is compressed; the `.movprune` file stores the non-zeros alone.

# %%
plain = tf_movprune.strip_pruning(model)
plain.save_to_preset(str(output / "pruned"))
print(tf_movprune.export_tflite(plain, output / "pruned.tflite", sequence_length=64))
print(tf_movprune.export_compressed(plain, output / "pruned.movprune"))
print(tf_movprune.size_report(plain))

# %% [markdown]
# ## The accuracy of the file that ships

# %%
inputs = {name: np.int32(x) for name, x in preprocessor(data["test"].texts).items()}
run = Interpreter(str(output / "pruned.tflite")).get_signature_runner()
rows = tf.data.Dataset.from_tensor_slices(inputs).batch(1).as_numpy_iterator()
predictions = [run(**row)["logits"].argmax() for row in rows]
accuracy = np.mean(predictions == data["test"].targets)
print(f"{accuracy:.1%} of {len(predictions):,} test sentences")
