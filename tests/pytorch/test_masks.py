"""Masks of a checkpoint's scores are those of the code that trained it."""

import json

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints

import tf_movprune

# ---- what the paper's code, and nn_pruning, do in evaluation


def topk(scores, share):
    order = np.argsort(-scores.ravel(), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[: int(share * scores.size)]] = True
    return mask.reshape(scores.shape)


def above(scores, cut, share=0.005):
    mask = 1 / (1 + np.exp(-scores)) > cut
    minimum = int(share * scores.size) + 1
    if mask.sum() >= minimum:
        return mask
    return scores > np.sort(scores.ravel())[max(scores.size - minimum, 1) - 1]


def gates(scores):
    return np.clip(1 / (1 + np.exp(-scores)) * 1.2 - 0.1, 0, 1)


def expanded(mask, shape):
    rows, columns = (size // count for size, count in zip(shape, mask.shape))
    return mask.repeat(rows, 0).repeat(columns, 1)


MATRICES = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)
LAYERS = [f"bert.encoder.layer.{i}.{name}" for i in range(2) for name in MATRICES]


def with_scores(block=(1, 1), scale=1.0, suffix="mask_scores"):
    """The tensors of a checkpoint with random scores, and the scores by layer."""
    arrays = checkpoints.weights("bert_questions")
    random = np.random.RandomState(0)
    scores = {
        layer: (
            scale
            * random.standard_normal(
                [size // part for size, part in zip(arrays[f"{layer}.weight"].shape, block)]
            )
        ).astype("float32")
        for layer in LAYERS
    }
    return {**arrays, **{f"{layer}.{suffix}": value for layer, value in scores.items()}}, scores


def folded(arrays, masks):
    """The tensors of a checkpoint with masks folded in."""
    found = {name: array for name, array in arrays.items() if "mask_scores" not in name}
    for layer, mask in masks.items():
        weight = found[f"{layer}.weight"]
        found[f"{layer}.weight"] = weight * expanded(np.float32(mask), weight.shape)
    return found


def masked_config(**values):
    return {**checkpoints.config("bert_questions"), "model_type": "masked_bert", **values}


def check(tmp_path, arrays, masks, config, sparse_args=None, **arguments):
    """Compares a checkpoint with scores with one in which masks are folded in."""
    folder = checkpoints.write(tmp_path / "scores", arrays, config)
    if sparse_args is not None:
        (folder / "sparse_args.json").write_text(json.dumps(sparse_args))
    plain = checkpoints.write(
        tmp_path / "folded", folded(arrays, masks), checkpoints.config("bert_questions")
    )
    found, wanted = (
        tf_movprune.load_pytorch(path, **given)
        for path, given in ((folder, arguments), (plain, {}))
    )
    for weight, other in zip(found.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-6, atol=1e-7, err_msg=weight.name)
    assert found.config.model_type == "bert"


@pytest.mark.parametrize("block", [(1, 1), (4, 2)])
@pytest.mark.parametrize("share", [0.29, 0.5])
def test_topk(tmp_path, block, share):
    arrays, scores = with_scores(block)
    masks = {layer: topk(value, share) for layer, value in scores.items()}
    check(tmp_path, arrays, masks, masked_config(pruning_method="topK"), threshold=share)


@pytest.mark.parametrize("method", ["topK", "threshold"])
def test_global_topk_keeps_one_more_and_a_minimum_of_each(tmp_path, method):
    arrays, scores = with_scores()
    scores[LAYERS[3]] -= 100  # of which the cut alone would leave nothing
    arrays[f"{LAYERS[3]}.mask_scores"] = scores[LAYERS[3]]
    everything = np.concatenate([value.ravel() for value in scores.values()])
    cut = np.sort(everything)[-(int(0.3 * everything.size) + 1)]
    masks = {layer: value >= cut for layer, value in scores.items()}
    lowest = np.sort(scores[LAYERS[3]].ravel())[-2]  # int(0.005 * 256) + 1 stay
    masks[LAYERS[3]] = scores[LAYERS[3]] >= lowest
    given = tf_movprune.HardMovement(scope="global")
    config = masked_config(pruning_method=method)
    check(tmp_path, arrays, masks, config, method=given, threshold=0.3)


def test_a_minimum_that_is_given_counts_after_a_global_cut(tmp_path):
    arrays, scores = with_scores()
    scores[LAYERS[3]] -= 100
    arrays[f"{LAYERS[3]}.mask_scores"] = scores[LAYERS[3]]
    given = tf_movprune.HardMovement(scope="global", minimum_remaining=0.25)
    folder = checkpoints.write(tmp_path / "a", arrays, masked_config(pruning_method="topK"))
    model = tf_movprune.load_pytorch(folder, method=given, threshold=0.3)
    kernel = model.bert.encoder.layer[0].attention.dense_output.dense.kernel
    assert np.count_nonzero(kernel) == 64


@pytest.mark.parametrize("cut", [0.3, 0.999])
def test_sigmoid_threshold_keeps_its_minimum(tmp_path, cut):
    arrays, scores = with_scores()
    masks = {layer: above(value, cut) for layer, value in scores.items()}
    assert all(mask.any() for mask in masks.values())
    config = masked_config(pruning_method="sigmoied_threshold")
    check(tmp_path, arrays, masks, config, threshold=cut)


def test_l0_has_gates(tmp_path):
    arrays, scores = with_scores(scale=3.0)
    masks = {layer: gates(value) for layer, value in scores.items()}
    check(tmp_path, arrays, masks, masked_config(pruning_method="l0"))


def test_magnitude(tmp_path):
    arrays = checkpoints.weights("bert_questions")
    masks = {layer: topk(np.abs(arrays[f"{layer}.weight"]), 0.4) for layer in LAYERS}
    check(tmp_path, arrays, masks, masked_config(pruning_method="magnitude"), threshold=0.4)


def test_magnitudes_count_and_not_the_scores_beside_them(tmp_path):
    arrays, scores = with_scores()
    masks = {layer: topk(np.abs(arrays[f"{layer}.weight"]), 0.4) for layer in scores}
    check(tmp_path, arrays, masks, masked_config(pruning_method="magnitude"), threshold=0.4)
    given = tf_movprune.Magnitude()
    config = masked_config(pruning_method="topK")
    check(tmp_path / "b", arrays, masks, config, method=given, threshold=0.4)


def test_folded_masks_need_nothing(tmp_path):
    arrays, scores = with_scores()
    masks = {layer: topk(value, 0.4) for layer, value in scores.items()}
    check(tmp_path, folded(arrays, masks), masks, masked_config(pruning_method="topK"))


# ---- nn_pruning

MODULE = "mask_module.context_modules.0.mask_scores"
SPARSE_ARGS = {
    "attention_pruning_method": "sigmoied_threshold",
    "dense_pruning_method": "sigmoied_threshold",
    "final_threshold": 0.4,
}


def test_nn_pruning_blocks(tmp_path):
    arrays, scores = with_scores((4, 4), suffix=MODULE)
    masks = {layer: above(value, 0.99) for layer, value in scores.items()}
    args = {**SPARSE_ARGS, "final_threshold": 0.99, "linear_min_parameters": None}
    check(tmp_path, arrays, masks, checkpoints.config("bert_questions"), args)


@pytest.mark.parametrize("with_dense", [True, False, None])
def test_nn_pruning_methods_of_attention_and_dense_layers(tmp_path, with_dense):
    arrays, scores = with_scores((4, 4), suffix=MODULE)
    args = {**SPARSE_ARGS, "attention_pruning_method": "topK", "linear_min_parameters": 0.3}
    if with_dense is not None:
        args["attention_output_with_dense"] = with_dense
    in_attention = ["attention.self"] if with_dense in (True, None) else ["attention"]
    masks = {
        layer: topk(value, 0.4)
        if any(part in layer for part in in_attention)
        else above(value, 0.4, 0.3)
        for layer, value in scores.items()
    }
    check(tmp_path, arrays, masks, checkpoints.config("bert_questions"), args)


def test_nn_pruning_masks_the_biases_of_rows_that_are_gone(tmp_path):
    arrays, scores = with_scores((4, 4), suffix=MODULE)
    layer = LAYERS[4]
    scores[layer][[1, 3]] = -9  # eight rows
    arrays[f"{layer}.{MODULE}"] = scores[layer]
    masks = {name: above(value, 0.4) for name, value in scores.items()}
    plain = folded(arrays, masks)
    for name, mask in masks.items():
        plain[f"{name}.bias"] = plain[f"{name}.bias"] * mask.any(axis=1).repeat(4)
    assert np.count_nonzero(plain[f"{layer}.bias"] == 0) == 8
    config = checkpoints.config("bert_questions")
    folder = checkpoints.write(tmp_path / "a", arrays, config)
    (folder / "sparse_args.json").write_text(json.dumps({**SPARSE_ARGS, "bias_mask": True}))
    wanted = tf_movprune.load_pytorch(checkpoints.write(tmp_path / "b", plain, config))
    found = tf_movprune.load_pytorch(folder)
    for weight, other in zip(found.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-6, atol=1e-7, err_msg=weight.name)


@pytest.mark.parametrize("target", [None, "hub"])
def test_nn_pruning_has_relus_before_its_configuration_says_so(tmp_path, target):
    cls = checkpoints.hub_class("bert_questions") if target else None
    arrays, _ = with_scores((4, 4), suffix=MODULE)
    config = checkpoints.config("bert_questions")
    folder = checkpoints.write(tmp_path / "a", arrays, config)
    (folder / "sparse_args.json").write_text(json.dumps({**SPARSE_ARGS, "gelu_patch": True}))
    other = checkpoints.write(tmp_path / "b", arrays, {**config, "hidden_act": "relu"})
    (other / "sparse_args.json").write_text(json.dumps(SPARSE_ARGS))
    models = [tf_movprune.load_pytorch(path, cls) for path in (folder, other)]
    np.testing.assert_array_equal(*map(checkpoints.logits, models))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rewind_model_name_or_path": "bert"}, r"was rewound"),
        ({"layer_norm_patch": True}, r"another normalisation"),
    ],
)
def test_nn_pruning_arguments_that_are_refused(tmp_path, arguments, message):
    arrays, _ = with_scores((4, 4), suffix=MODULE)
    folder = checkpoints.write(tmp_path / "a", arrays, checkpoints.config("bert_questions"))
    (folder / "sparse_args.json").write_text(json.dumps({**SPARSE_ARGS, **arguments}))
    with pytest.raises(ValueError, match=message):
        tf_movprune.load_pytorch(folder)


def test_missing_scores_are_told_of_unless_they_are_disabled(tmp_path):
    arrays, scores = with_scores((4, 4), suffix=MODULE)
    arrays = {k: v for k, v in arrays.items() if "attention" not in k or "mask" not in k}
    folder = checkpoints.write(tmp_path / "a", arrays, checkpoints.config("bert_questions"))
    args = {**SPARSE_ARGS, "attention_output_with_dense": 0}
    (folder / "sparse_args.json").write_text(json.dumps(args))
    with pytest.raises(ValueError, match=r"none for bert\.encoder\.layer\.0\.attention\.self"):
        tf_movprune.load_pytorch(folder)
    masks = {
        layer: above(value, 0.4) for layer, value in scores.items() if "attention" not in layer
    }
    args["attention_pruning_method"] = "disabled"
    check(tmp_path / "b", arrays, masks, checkpoints.config("bert_questions"), args)


def one_dimensional(sides):
    """Tensors with scores of rows ("0"), columns ("1") or both of each layer, and their product."""
    arrays = checkpoints.weights("bert_questions")
    random = np.random.RandomState(0)
    products = {}
    for layer in LAYERS:
        shape = arrays[f"{layer}.weight"].shape
        vectors = [np.ones(size, np.float32) for size in shape]
        for side in sides(layer):
            vectors[side] = random.uniform(0.5, 2, shape[side]).astype("float32")
            vectors[side] *= random.choice([-1, 1], shape[side])
            arrays[f"{layer}.mask_module.context_modules.{side}.mask_scores"] = vectors[side]
        products[layer] = np.outer(*vectors)
    return arrays, products


def alternate(layer):
    return [1] if layer.endswith("output.dense") else [0]


@pytest.mark.parametrize("sides", [alternate, lambda layer: [0, 1]], ids=["1d_alt", "1d"])
@pytest.mark.parametrize("method", ["topK", "sigmoied_threshold"])
def test_nn_pruning_scores_of_rows_and_columns(tmp_path, sides, method):
    arrays, products = one_dimensional(sides)
    rule = topk if method == "topK" else above
    masks = {layer: rule(value, 0.4) for layer, value in products.items()}
    kind = "1d_alt" if sides is alternate else "1d"
    keys = ("attention_pruning_method", "dense_pruning_method")
    args = {"final_threshold": 0.4, **dict.fromkeys(keys, f"{method}:{kind}")}
    check(tmp_path, arrays, masks, checkpoints.config("bert_questions"), args)


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({"pruning_method": "topK"}, {}, r"final threshold: that is in its training_args\.bin"),
        ({"pruning_method": "topK"}, {"threshold": 1.5}, r"threshold must be at most 1"),
        ({"pruning_method": "topK"}, {"threshold": -0.1}, r"threshold must be greater than 0"),
        ({"pruning_method": "l0"}, {"threshold": 0.1}, r"L0 has no threshold"),
        ({"pruning_method": "magic"}, {"threshold": 0.1}, r"must be one of .*got 'magic'"),
        ({}, {"threshold": 0.1}, r"has no pruning_method\. Pass the method: "),
        ({"pruning_method": "threshold"}, {"threshold": 0.1}, r"scope='global'"),
    ],
)
def test_scores_that_do_not_say_what_they_mean_are_refused(tmp_path, config, arguments, message):
    folder = checkpoints.write(tmp_path / "a", with_scores()[0], masked_config(**config))
    with pytest.raises(ValueError, match=message):
        tf_movprune.load_pytorch(folder, **arguments)


def test_methods_that_are_none_are_refused(tmp_path):
    folder = checkpoints.write(tmp_path / "a", with_scores()[0], masked_config())
    with pytest.raises(TypeError, match=r"method must be .*got 'topK'"):
        tf_movprune.load_pytorch(folder, method="topK", threshold=0.1)
    with pytest.raises(ValueError, match=r"without target=True"):
        tf_movprune.load_pytorch(
            folder, method=tf_movprune.SoftMovement(target=True), threshold=0.1
        )


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{LAYERS[0]}.mask_scores", (5, 16), r"must divide it into blocks"),
        (f"{LAYERS[0]}.mask_scores", (16, 0), r"must divide it into blocks"),
        (f"{LAYERS[0]}.mask_scores", (4, 4, 4), r"must divide it into blocks"),
        (f"{LAYERS[0]}.mask_module.context_modules.0.mask_scores", (5,), r"must divide it"),
        ("bert.other.mask_scores", (4, 4), r"scores for 'bert\.other', and no matrix"),
    ],
)
def test_scores_of_other_shapes_are_refused(tmp_path, name, shape, message):
    arrays, _ = with_scores()
    arrays.pop(f"{LAYERS[0]}.mask_scores")
    arrays[name] = np.zeros(shape, np.float32)
    folder = checkpoints.write(tmp_path / "a", arrays, masked_config(pruning_method="topK"))
    with pytest.raises(ValueError, match=message):
        tf_movprune.load_pytorch(folder, threshold=0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path, value):
    arrays, _ = with_scores()
    arrays[f"{LAYERS[2]}.mask_scores"][0, 0] = value
    folder = checkpoints.write(tmp_path / "a", arrays, masked_config(pruning_method="topK"))
    with pytest.raises(ValueError, match=r"scores of '.*value\.weight' are not all finite"):
        tf_movprune.load_pytorch(folder, threshold=0.5)


@pytest.mark.parametrize("dtype", ["int8", "int32", "float64"])
def test_scores_of_any_type_count(tmp_path, dtype):
    arrays, scores = with_scores(scale=30.0)
    for layer, value in scores.items():
        scores[layer] = arrays[f"{layer}.mask_scores"] = value.astype(dtype)
    masks = {layer: above(np.float64(value), 0.4) for layer, value in scores.items()}
    config = masked_config(pruning_method="sigmoied_threshold")
    check(tmp_path, arrays, masks, config, threshold=0.4)


@pytest.mark.parametrize("zero", [False, True])
def test_magnitudes_that_may_be_unmasked_are_refused(tmp_path, zero):
    arrays = checkpoints.weights("bert_questions")
    arrays[f"{LAYERS[0]}.weight"][0, 0] *= not zero  # one by chance
    folder = checkpoints.write(tmp_path / "a", arrays, masked_config(pruning_method="magnitude"))
    with pytest.raises(ValueError, match=r"For magnitude pruning, pass the final fraction"):
        tf_movprune.load_pytorch(folder)
