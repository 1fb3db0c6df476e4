"""Pruned models with the scores of a checkpoint, whose training goes on."""

import json

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints
from shells import kernels

import tf_movprune
from tf_movprune.shells import module_for

TARGETS = (None, "hub")


@pytest.fixture(params=TARGETS, ids=["hugging_face", "keras_hub"])
def cls(request):
    return checkpoints.hub_class("bert_questions") if request.param else None


def scored(folder, method, *, block=(1, 1), threshold=0.3, scale=1.0):
    """A folder with a BERT whose encoder has scores, and the scores by name of the weight."""
    arrays = checkpoints.weights("bert_questions")
    random = np.random.RandomState(0)
    scores = {}
    for name, array in arrays.items():
        if ".layer." in name and array.ndim == 2:
            shape = [size // part for size, part in zip(array.shape, block)]
            scores[name] = scale * random.standard_normal(shape).astype("float32")
    named = {name.replace(".weight", ".mask_scores"): value for name, value in scores.items()}
    config = {
        **checkpoints.config("bert_questions"),
        "model_type": "masked_bert",
        "pruning_method": method,
    }
    return checkpoints.write(folder, {**arrays, **named}, config), scores


def features(model):
    ids = np.random.RandomState(1).randint(0, 30, [8, 6]).astype("int32")
    if hasattr(model, "config"):
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": ids * 0}


def train(model, steps):
    keras = __import__("tf_keras" if hasattr(model, "config") else "keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf_movprune.create_optimizer(1e-3, 10, 1, model=model)
    losses = {"start_logits": loss, "end_logits": loss}
    model.compile(optimizer, losses)
    answers = {name: np.arange(8) % 6 for name in losses}
    callback = tf_movprune.UpdatePruningStep()
    model.fit(features(model), answers, 4, steps // 2, verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    ("method", "threshold"), [("topK", 0.3), ("sigmoied_threshold", 0.6), ("l0", None)]
)
@pytest.mark.parametrize("block", [(1, 1), (4, 8)])
def test_scores_and_masks_are_those_of_the_checkpoint(tmp_path, cls, method, threshold, block):
    folder, scores = scored(tmp_path / "a", method, block=block)
    plain = tf_movprune.load_pytorch(folder, cls, threshold=threshold)
    pruned = tf_movprune.load_pytorch(folder, cls, threshold=threshold, masks=True)
    found = sorted(
        (float(np.sum(kernel.paper_scores(), dtype="float64")), kernel.size)
        for kernel in kernels(pruned)
    )
    wanted = sorted((float(x.sum(dtype="float64")), x.size) for x in scores.values())
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(checkpoints.logits(pruned), checkpoints.logits(plain), atol=1e-6)
    stripped = tf_movprune.strip_pruning(pruned)
    for weight, other in zip(stripped.weights, plain.weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-7)


def test_latent_weights_are_unmasked(tmp_path, cls):
    folder, _ = scored(tmp_path / "a", "topK")
    pruned = tf_movprune.load_pytorch(folder, cls, threshold=0.3, masks=True)
    latent = sorted(float(np.abs(kernel.weights()).sum()) for kernel in kernels(pruned))
    arrays = checkpoints.weights("bert_questions")
    wanted = sorted(
        float(np.abs(array).sum())
        for name, array in arrays.items()
        if ".layer." in name and array.ndim == 2
    )
    np.testing.assert_allclose(latent, wanted, rtol=1e-5)


def test_training_goes_on_at_the_same_sparsity(tmp_path, cls):
    folder, _ = scored(tmp_path / "a", "topK", scale=1e-3)
    pruned = tf_movprune.load_pytorch(folder, cls, threshold=0.3, masks=True)
    before = [np.array(kernel.mask) for kernel in kernels(pruned)]
    train(pruned, 6)
    after = [np.array(kernel.mask) for kernel in kernels(pruned)]
    assert [mask.sum() for mask in after] == [int(0.3 * mask.size) for mask in before]
    assert any((new != old).any() for new, old in zip(after, before))


@pytest.mark.slow
def test_a_schedule_and_a_rate_of_scores_can_be_given(tmp_path, cls):
    folder, _ = scored(tmp_path / "a", "topK")
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=4, initial_sparsity=0.7)
    pruned = tf_movprune.load_pytorch(
        folder,
        cls,
        threshold=0.3,
        masks=True,
        pruning_schedule=schedule,
        score_learning_rate_multiplier=50.0,
    )
    assert {kernel.settings.score_scale.multiplier for kernel in kernels(pruned)} == {50.0}
    train(pruned, 6)
    assert all(
        np.count_nonzero(kernel.mask) == int(np.floor(0.1 * kernel.size + 1e-9))
        for kernel in kernels(pruned)
    )


ARGUMENTS = {  # of nn_pruning, for dense layers alone
    "attention_pruning_method": "disabled",
    "attention_output_with_dense": 0,
    "dense_pruning_method": "sigmoied_threshold:1d_alt",
    "final_threshold": 0.5,
    "bias_mask": False,
}


def with_rows(folder, sides=((0,), (1,)), **arguments):
    """A folder with scores of rows (0) or columns (1) of the two dense layers of each block."""
    arrays = checkpoints.weights("bert_questions")
    for i in range(2):
        for name, those in zip(("intermediate.dense", "output.dense"), sides):
            layer = f"bert.encoder.layer.{i}.{name}"
            for side in those:
                scores = np.linspace(-2, 2, arrays[f"{layer}.weight"].shape[side])
                scores = scores.astype("float32")
                arrays[f"{layer}.mask_module.context_modules.{side}.mask_scores"] = scores
    checkpoints.write(folder, arrays, checkpoints.config("bert_questions"))
    (folder / "sparse_args.json").write_text(json.dumps({**ARGUMENTS, **arguments}))
    return folder


def test_scores_of_rows_or_columns_become_blocks(tmp_path, cls):
    folder = with_rows(tmp_path / "a")
    pruned = tf_movprune.load_pytorch(folder, cls, masks=True)
    assert [kernel.size for kernel in kernels(pruned)] == [24] * 4
    assert [np.count_nonzero(kernel.mask) for kernel in kernels(pruned)] == [12] * 4
    plain = tf_movprune.load_pytorch(folder, cls)
    np.testing.assert_allclose(checkpoints.logits(pruned), checkpoints.logits(plain), atol=1e-6)


@pytest.mark.parametrize(
    ("sides", "arguments", "message"),
    [
        (((0, 1), (0, 1)), {}, r"rows and of columns.* without masks=True"),
        (
            ((0,), (1,)),
            {"dense_pruning_method": "topK:1d_alt", "final_threshold": 0.53},
            r"ends within a row or column .* without masks=True",
        ),
        (((0,), (1,)), {"bias_mask": True}, r"masks '.*bias' too.* without masks=True"),
    ],
)
def test_masks_that_no_model_here_has_are_refused(tmp_path, cls, sides, arguments, message):
    folder = with_rows(tmp_path / "a", sides, **arguments)
    with pytest.raises(ValueError, match=message):
        tf_movprune.load_pytorch(folder, cls, masks=True)


def test_paths_of_pruned_layers_are_those_with_scores(tmp_path, cls):
    folder, scores = scored(tmp_path / "a", "topK")
    pruned = tf_movprune.load_pytorch(folder, cls, threshold=0.3, masks=True)
    assert len(module_for(pruned, "layer_tree").pruned_layers(pruned)) == len(scores)
