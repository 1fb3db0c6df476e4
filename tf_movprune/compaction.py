"""Physical removal of empty heads and neurons; the model or its file decides how."""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from tf_movprune.core.archives import read_member
from tf_movprune.core.json_files import parse_object
from tf_movprune.core.load_errors import named_errors
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.optimizer_state import read_state, without_scores, write_state
from tf_movprune.core.optimizer_steps import inner_optimizer, step_of
from tf_movprune.core.scores import is_scores
from tf_movprune.distillation import Distiller
from tf_movprune.pruning import strip_pruning
from tf_movprune.pytorch.load import holds_pytorch, load_pytorch
from tf_movprune.pytorch.weight_files import TF_WEIGHTS
from tf_movprune.shells import module_for


def compact(model: Any, *, multiple_of: int = 1) -> Any:
    """Removes empty heads and neurons, for a smaller dense model with the same outputs.

    A neuron between two dense layers is removed if nothing reads it, or if it reads nothing: then
    it is a constant, which is added to the next bias. Attention heads are removed likewise. At
    least one head and one neuron of each layer stay. Scattered zeros remove nothing. In Keras 3,
    units stay too without which the outputs on a made-up example would change, as do, in a graph of
    tf_keras, heads whose mask has an axis for them.

    Candidates in both Kerases are every Keras `MultiHeadAttention`, unless a graph asks it for its
    attention scores; and, in Sequential and Functional models, dense layers that follow each other
    with nothing between them but dropout and activations that Keras knows, if no other part of the
    model holds them. Further ones are, in tf_keras, the encoder layers of Hugging Face's BERT,
    RoBERTa (also CamemBERT, XLM-RoBERTa), ELECTRA and DistilBERT. In Keras 3 they are KerasHub's
    `TransformerEncoder` and `TransformerDecoder`, with which BERT, RoBERTa, ALBERT, GPT-2, OPT,
    BART and others are made; ViT, DeBERTaV3, Gemma, Llama, Mistral, Phi3, Qwen and T5; the neurons
    of FNet, and the heads of Mixtral and Keras's `GroupQueryAttention`. Heads that share keys and
    values go together, as one group. Quantized layers stay as they are, and so do layers with LoRA.
    Attention scores that your own code asks for (`output_attentions`, `return_attention_scores`),
    and a `head_mask`, have as many heads as remain.

    Models of Keras 3 are changed in place, and returned. Save them with `save`, or those of
    KerasHub with `save_to_preset`. In tf_keras, Sequential and Functional models are cloned around
    the layers that do not change, others are changed in place. A Hugging Face model gets a copy of
    its configuration that says what was removed, as `pruned_heads` and `intermediate_sizes`. What
    these said before counts for layers that have fewer heads or neurons than their full size: some
    models on the hub list heads as removed that are still there. Save it with `save_pretrained`,
    and other models with `save`, subclassed ones to a folder. Load models of KerasHub and Hugging
    Face with `load_compacted`. If anything is raised, the model is as it was.

    Args:
      model: a built model without pruned layers.
      multiple_of: number, at least 1, such as 8 for hardware that is fastest then. The neurons left
        in each layer are a multiple of it: some empty ones stay, as zeros. Numbers of heads are not
        rounded, nor is that of a layer that had fewer neurons.

    Returns:
      The smaller model, of the same class or, in Keras 3, a subclass that tells its sizes, and not
      compiled. Its outputs are equal up to rounding.

    Raises:
      TypeError: `model` is not a Keras model, or `multiple_of` no integer.
      ValueError: the model is still pruned, or not built, or `multiple_of` is less than 1; or a
        layer has another number of heads or neurons than its Hugging Face configuration says.

    Warns if there is nothing to remove, and of empty heads and neurons that have to stay.
    """
    return module_for(model, "compact").compact(model, multiple_of=multiple_of)


def compact_in_training(model: Any) -> tuple[Any, Any]:
    """Removes the heads and neurons that were pruned so far, for a training that goes on.

    The rest of the run then trains the smaller model alone, and takes less time. Compile it with
    the optimizer that is returned, and go on with the data where the first part stopped:

        update = tf_movprune.UpdatePruningStep(num_train_steps=1500)
        model.fit(data.take(750), callbacks=[update])
        small, optimizer = tf_movprune.compact_in_training(model)
        small.compile(optimizer, loss, metrics=["accuracy"], jit_compile=True)
        small.fit(data.skip(750))

    The optimizer has the class, the settings and the state of the one so far: its count of steps,
    by which learning rates go on, and its slots, cut as the weights are. Those of scores are gone,
    as are the scores. Do this where the ramp ends: what is left is not pruned any further.

    Args:
      model: a compiled model that `prune_low_movement` prepared with a `block_size` of `HEADS` or
        `NEURONS`, and that was trained for some steps; or a `Distiller` around one. It is stripped
        and compacted in place where `strip_pruning` and `compact` do so.

    Returns:
      The smaller model, not compiled, and the optimizer. Given a `Distiller`, the model is its
      student: make a new `Distiller` around it, with `hidden_states` of layers that kept their
      width, as blocks do.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: no pruned layers, or no steps of an optimizer; several replicas; schedules that
        are not at their ends; single weights or blocks that are pruned, and would be trained again;
        or an optimizer that keeps slots of other shapes, or cannot be made anew. The model is as it
        was then. Or what `compact` raises, after pruning was stripped.

    Warns as `strip_pruning` and `compact` do.
    """
    student: Any = model
    if isinstance(model, Distiller):
        student = vars(model)["student"]
    compat = module_for(student, "compat")
    tree = module_for(student, "layer_tree")
    optimizer = getattr(model, "optimizer", None)
    strategy = getattr(model, "distribute_strategy", None)
    _check_trained(model.name, optimizer, strategy, compat)
    for path, (kernels, _) in tree.named_kernels(tree.built_layers(student)).items():
        _check_done(path, kernels, step_of(model))
    before = [variable for variable in student.trainable_variables if not is_scores(variable)]
    shapes = {id(variable): tuple(variable.shape) for variable in student.weights}
    state, new = read_state(optimizer, before, compat), without_scores(optimizer, compat)
    decayed = [compat.is_decayed(inner_optimizer(optimizer), v) for v in before]
    plain = strip_pruning(student)
    small, cut = module_for(plain, "compact").compact_and_tell(plain)
    after = small.trainable_variables
    pairs = list(zip(before, after, strict=True))
    if not all(decayed):
        undecayed = [v for v, is_decayed in zip(after, decayed) if not is_decayed]
        inner_optimizer(new).exclude_from_weight_decay(undecayed)
    new.build(after)
    write_state(state, new, {id(old): made for old, made in pairs}, shapes, cut, compat)
    return small, new


def _check_done(path: str, kernels: Sequence[MaskedKernel], step: int) -> None:
    """Raises ValueError if a layer is pruned further, or in pieces that would come back."""
    end = max(kernel.settings.ramp.end_step or 0 for kernel in kernels)
    if step < end:
        raise ValueError(
            f"{path} is pruned until step {end}, and this is step {step}: what is left of the "
            "schedule would be dropped with the masks. Train to its end_step first."
        )
    if not all(kernel.has_units for kernel in kernels):
        raise ValueError(
            f"{path} is pruned in single weights or blocks, which would be trained again in a "
            "model without masks. Prune heads and neurons alone, by block_size=HEADS and NEURONS, "
            "or train to the end before compacting."
        )


def _check_trained(name: str, optimizer: Any, strategy: Any, compat: ModuleType) -> None:
    """Raises ValueError if a model has no optimizer whose state can be carried over."""
    kind = compat.keras.optimizers.Optimizer
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"{name!r} is trained by {strategy.num_replicas_in_sync} replicas, and a model that "
            "becomes smaller in training by one. Train to the end, and use tf_movprune.compact."
        )
    if optimizer is not None and not isinstance(inner_optimizer(optimizer), kind):
        cls = type(inner_optimizer(optimizer))
        raise ValueError(
            f"{name!r} has the optimizer {cls.__module__}.{cls.__name__}, whose slots are kept "
            f"in another way. Train with one of {kind.__module__.split('.')[0]}.optimizers."
        )
    if optimizer is None or not compat.is_built(optimizer):
        raise ValueError(
            f"{name!r} was not trained: its optimizer has no state to go on with. Train it until "
            "heads and neurons are pruned, or use tf_movprune.compact."
        )


def load_compacted(path: str | os.PathLike[str], model_class: Any = None) -> Any:
    """Loads a compacted model that `save_pretrained`, `save_to_preset`, `save` or `save_pytorch`
    wrote.

    `from_pretrained`, `from_preset` and `load_model` would make it in full size, or refuse it.
    Compacted models of tf_keras that are not of Hugging Face tell their sizes themselves: load what
    their `save` wrote with `tf_keras.models.load_model`.

    What `save_pytorch` wrote loads into Hugging Face's TF classes, unless `model_class` is one of
    KerasHub's.

    Args:
      path: folder of a Hugging Face model or of a preset of KerasHub, or `.keras` file of Keras 3.
      model_class: class of the model, if it is not one of `transformers`, or not the one that was
        saved as a preset.

    Returns:
      The model, as it was saved.

    Raises:
      TypeError: `model_class` is not a class of Hugging Face's or KerasHub's models.
      ValueError: no compacted model is there, its class is not known or another one, or its weights
        are not those that its configuration describes.

    Warns if `model_class` is another task of KerasHub around the same backbone, whose head is new.
    """
    if holds_pytorch(pathlib.Path(path)):
        if (pathlib.Path(path) / TF_WEIGHTS).is_file():
            raise ValueError(
                f"{path} has {TF_WEIGHTS} and PyTorch's weights, which save_pretrained and "
                "save_pytorch wrote. Remove one of them, or save into another folder."
            )
        return load_pytorch(path, model_class, weights="pytorch")
    shell = _shell_of(pathlib.Path(path))
    module = importlib.import_module(f"tf_movprune.{shell}.compact")
    module.check_model_class(model_class)
    with named_errors(path, "makes no model"):
        return module.load_compacted(path, model_class)


def _shell_of(path: pathlib.Path) -> str:
    """The shell for a file or folder; if it has no configuration, the one that is in use."""
    if zipfile.is_zipfile(path):
        version = _value(lambda: read_member(path, "metadata.json"), "keras_version")
        return "keras2" if version.startswith("2.") else "keras3"
    if (path / "config.json").is_file():
        name = _value((path / "config.json").read_bytes, "registered_name")
        return "keras3" if name else "keras2"
    return "keras2" if "tf_keras" in sys.modules and path.suffix != ".keras" else "keras3"


def _value(read: Callable[[], bytes], key: str) -> str:
    """A value in a JSON object; empty if it has none, or there is no such object."""
    try:
        return str(parse_object(read(), pathlib.Path()).get(key) or "")
    except ValueError:
        return ""
