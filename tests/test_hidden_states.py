"""Students that learn the hidden states of their teachers, in either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from keras_hub_families import BLOCKS, quick
from shells import gradients

import tf_movprune
from tf_movprune import (
    Distiller,
    UpdatePruningStep,
    cache_teacher_logits,
    hidden_state_loss,
)
from tf_movprune.shells import module_for

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([24, 8]).astype("float32")
Y = RANDOM.randint(0, 3, 24).astype("int32")
IDS = RANDOM.randint(1, 20, [12, 6]).astype("int32")
MASK = (np.arange(6) < RANDOM.randint(2, 7, [12, 1])).astype("int32")
LABELS = RANDOM.randint(0, 2, 12).astype("int32")


def classifier(keras, depth=2, width=16, **kwargs):
    hidden = [keras.layers.Dense(width, "relu", name=f"block_{i}", **kwargs) for i in range(depth)]
    return keras.Sequential([keras.Input([8]), *hidden, keras.layers.Dense(3, name="head")])


def states_of(keras, model, *names, inputs=X):
    """The outputs of layers of a model, each by a model of its own."""
    return [
        np.array(keras.Model(model.inputs[0], model.get_layer(name).output)(inputs))
        for name in names
    ]


def distance(teacher, student):
    return np.sum((student - teacher) ** 2) / np.sum(teacher**2)


def compiled(student, teacher, hidden_states, optimizer="sgd", jit_compile=False, **kwargs):
    distiller = Distiller(student, teacher, hidden_states=hidden_states, **kwargs)
    distiller.compile(optimizer, metrics=["accuracy"], jit_compile=jit_compile)
    return distiller


def evaluate(distiller, *data):
    return distiller.evaluate(
        *data, batch_size=None if len(data) == 1 else 24, verbose=0, return_dict=True
    )


@pytest.mark.parametrize("hidden_states", ["block_*", None])
def test_the_distiller_of_a_recipe(keras, hidden_states):
    recipe = tf_movprune.ShortRun(12, 0.75)
    student, teacher = recipe.prune(classifier(keras)), classifier(keras)
    distiller = recipe.distiller(student, teacher, hidden_states=hidden_states)
    distiller.compile(recipe.create_optimizer(1e-3, model=distiller))
    distiller.fit(X, Y, batch_size=6, epochs=3, verbose=0, callbacks=[UpdatePruningStep()])
    assert tf_movprune.summarize_sparsity(student).sparsity == pytest.approx(0.75)
    logs = evaluate(distiller, X, Y)
    hidden = logs.get("hidden_state_loss", 0.0)
    assert (hidden > 0) == (hidden_states is not None)
    total = 0.9 * logs["distillation_loss"] + 0.1 * logs["ce_loss"] + hidden
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("hidden_states", ["block_*", ["block_0", "block_1"]])
def test_losses_are_those_of_numpy(keras, hidden_states):
    student, teacher = classifier(keras), classifier(keras)
    distiller = compiled(student, teacher, hidden_states, alpha_hidden=0.3)
    logs = evaluate(distiller, X, Y)
    pairs = zip(*(states_of(keras, m, "block_0", "block_1") for m in (teacher, student)))
    expected = np.mean([distance(t, s) for t, s in pairs])
    assert logs["hidden_state_loss"] == pytest.approx(expected, rel=1e-5)
    total = 0.5 * logs["distillation_loss"] + 0.5 * logs["ce_loss"] + 0.3 * expected
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    assert not any("call" in vars(layer) for m in (student, teacher) for layer in m.layers)


def test_a_step_follows_the_gradient_of_the_total(keras):
    student, teacher, copy = (classifier(keras) for _ in range(3))
    copy.set_weights(student.get_weights())
    expected_states = states_of(keras, teacher, "block_0")[0]

    def total(model):
        states = model.get_layer("block_0")(X)
        logits = model(X)
        ce = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, tf.convert_to_tensor(logits))
        return tf.reduce_mean(ce) + 2.0 * hidden_state_loss(expected_states, states)

    slopes = gradients(copy, total).values()
    expected = [w - 0.1 * slope for w, slope in zip(student.get_weights(), slopes)]
    optimizer = keras.optimizers.SGD(0.1)
    numbers = {"alpha_distil": 0.0, "alpha_ce": 1.0, "alpha_hidden": 2.0}
    distiller = compiled(student, teacher, "block_0", optimizer, **numbers)
    distiller.fit(X, Y, batch_size=24, verbose=0)
    for received, value in zip(student.get_weights(), expected, strict=True):
        np.testing.assert_allclose(received, value, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_pruned_student_comes_closer(keras, jit_compile):
    teacher, student = classifier(keras), classifier(keras)
    ramp = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=6)
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    student = tf_movprune.prune_low_movement(student, ramp, method)
    distiller = compiled(student, teacher, "block_*", keras.optimizers.Adam(1e-2), jit_compile)
    update = tf_movprune.UpdatePruningStep()
    history = distiller.fit(X, Y, 8, 8, verbose=0, callbacks=[update]).history
    assert history["sparsity"][-1] == 0.5
    assert history["hidden_state_loss"][-1] < 0.7 * history["hidden_state_loss"][0]
    plain = tf_movprune.strip_pruning(distiller)
    zeros = [np.mean(plain.get_layer(f"block_{i}").get_weights()[0] == 0) for i in range(2)]
    assert zeros == [0.5, 0.5]


def test_a_deeper_teacher(keras):
    student, teacher = classifier(keras, 2), classifier(keras, 4)
    with pytest.raises(
        ValueError,
        match=r"student has 2 layers \('block_0', 'block_1'\), and the "
        r"teacher 4 layers .* Pass a dict",
    ):
        Distiller(student, teacher, hidden_states="block_*")
    pairs = {"block_0": "block_1", "block_1": "block_3"}
    logs = evaluate(compiled(student, teacher, pairs), X, Y)
    expected = [
        distance(states_of(keras, teacher, t)[0], states_of(keras, student, s)[0])
        for s, t in pairs.items()
    ]
    assert logs["hidden_state_loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_cached_states_are_those_of_the_teacher(keras):
    student, teacher = classifier(keras), classifier(keras)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    cached = cache_teacher_logits(data, teacher, hidden_states="block_*")
    spec = cached.element_spec[0].hidden_states
    assert [s.dtype for states in spec.values() for s in states] == [tf.float16] * 2
    expected = evaluate(compiled(student, teacher, "block_*"), data)
    found = evaluate(compiled(student, None, "block_*"), cached)
    assert found == pytest.approx(expected, rel=1e-3)
    # Examples stay with what belongs to them.
    moved = cached.unbatch().shuffle(24, seed=0, reshuffle_each_iteration=False).batch(8)
    expected = evaluate(compiled(student, teacher, "block_*"), moved.map(lambda x, y: (x[0], y)))
    shuffled = evaluate(compiled(student, None, "block_*"), moved)
    assert shuffled == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match=r"carry the teacher's logits alone\. Pass hidden_states"):
        evaluate(compiled(student, None, "block_*"), cache_teacher_logits(data, teacher))
    # Whoever does not want them is not given them.
    assert "hidden_state_loss" not in evaluate(compiled(student, None, None), cached)


def test_cached_states_of_other_layers_are_refused(keras):
    student, teacher = classifier(keras, 3), classifier(keras, 3)
    cached = cache_teacher_logits(
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), teacher, ["block_0", "block_2"]
    )
    for given in (teacher, None):
        with pytest.raises(ValueError, match=r"block_1"):
            evaluate(compiled(student, given, "block_1"), cached)
    crossed = {"block_0": "block_2", "block_2": "block_0"}
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    expected = evaluate(compiled(student, teacher, crossed), data)
    for given in (teacher, None):
        assert evaluate(compiled(student, given, crossed), cached) == pytest.approx(expected, 1e-3)


def test_a_dict_pairs_what_it_says(keras):
    student, teacher = classifier(keras, 3), classifier(keras, 3)
    both = {"block_0": "block_2", "block_1": "block_2"}
    logs = evaluate(compiled(student, teacher, both), X, Y)
    [theirs] = states_of(keras, teacher, "block_2")
    mine = states_of(keras, student, "block_0", "block_1")
    expected = np.mean([distance(theirs, states) for states in mine])
    assert logs["hidden_state_loss"] == pytest.approx(expected, rel=1e-5)
    uneven = {"block_[01]": "block_0", "block_2": "block_[12]"}
    with pytest.raises(ValueError, match=r"2 layers .* 1 layer \('block_0'\)"):
        Distiller(student, teacher, hidden_states=uneven)


def test_a_pattern_takes_the_outermost_layers(keras):
    def nested():
        block = [keras.layers.Dense(8, name="first"), keras.layers.Dense(8, name="second")]
        inner = keras.Sequential([keras.Input([8]), *block], name="layer_0")
        return keras.Sequential([keras.Input([8]), inner, keras.layers.Dense(3, name="head")])

    student, teacher = nested(), nested()
    logs = evaluate(compiled(student, teacher, "layer_*"), X, Y)
    theirs, mine = (np.array(model.get_layer("layer_0")(X)) for model in (teacher, student))
    assert logs["hidden_state_loss"] == pytest.approx(distance(theirs, mine), rel=1e-5)


def test_states_beyond_float16_are_not_cached(keras):
    teacher = classifier(keras, 1, kernel_initializer="ones")
    data = tf.data.Dataset.from_tensor_slices(np.full([8, 8], 1e5, "float32")).batch(8)
    with pytest.raises(ValueError, match=r"'block_0' are not finite in float16"):
        cache_teacher_logits(data, teacher, hidden_states="block_0")


def test_padding_counts_for_nothing(keras):
    def tagger(mask_zero):
        inputs = keras.Input([6], dtype="int32")
        wide = keras.initializers.RandomNormal(stddev=1.0)
        tokens = keras.layers.Embedding(20, 8, wide, mask_zero=mask_zero, name="embedding")(inputs)
        states = keras.layers.Dense(8, name="block")(tokens)
        return keras.Model(inputs, keras.layers.Dense(3)(states))

    teacher = tagger(False)
    ids, labels = IDS * MASK, IDS % 3
    student = tagger(True)
    states = [
        np.array(keras.Model(m.inputs, m.get_layer("block").output)(ids))
        for m in (teacher, student)
    ]
    real = [s[MASK.astype(bool)] for s in states]
    assert distance(*real) != pytest.approx(distance(*states), rel=1e-3)
    logs = compiled(student, teacher, "block").evaluate(ids, labels, verbose=0, return_dict=True)
    assert logs["hidden_state_loss"] == pytest.approx(distance(*real), rel=1e-5)


@pytest.mark.parametrize("times", [1, 3])
def test_a_layer_that_is_called_several_times(keras, times):
    def model(times):
        x = inputs = keras.Input([8])
        shared = keras.layers.Dense(8, name="shared")
        for _ in range(times):
            x = shared(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    student, teacher = model(3), model(times)
    distiller = compiled(student, teacher, "shared")
    if times == 3:
        kernels = [m.get_layer("shared").get_weights()[0] for m in (teacher, student)]
        powers = [[X @ np.linalg.matrix_power(k, i) for i in (1, 2, 3)] for k in kernels]
        expected = np.mean([distance(t, s) for t, s in zip(*powers)])
        assert evaluate(distiller, X, Y)["hidden_state_loss"] == pytest.approx(expected, rel=1e-4)
    else:
        with pytest.raises(ValueError, match=r"calls 'shared' 3 times, and the teacher .* 1 time:"):
            evaluate(distiller, X, Y)


def test_what_does_not_choose_layers(keras):
    student, teacher = classifier(keras), classifier(keras)
    for value in (3, [1], {"block_0": 1}, b"block_0", (name for name in ["block_0"])):
        with pytest.raises(TypeError, match=r"hidden_states must be True.*got "):
            Distiller(student, teacher, hidden_states=value)
    for value in ([], {}):
        with pytest.raises(ValueError, match="hidden_states is empty"):
            Distiller(student, teacher, hidden_states=value)
    with pytest.raises(ValueError, match=r"alpha_hidden is the weight of hidden states, got 3"):
        Distiller(student, teacher, alpha_hidden=3)
    nothing = {"alpha_distil": 0, "alpha_ce": 0}
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        Distiller(student, teacher, hidden_states="block_*", alpha_hidden=0, **nothing)
    Distiller(student, teacher, hidden_states="block_*", **nothing)
    with pytest.raises(ValueError, match=r"blocks of the student .* are not known.*'block_0'"):
        Distiller(student, teacher, hidden_states=True)
    for value, role in (("x*", "student"), ({"block_0": "x"}, "teacher")):
        with pytest.raises(ValueError, match=rf"matches no layer of the {role} .*'block_0'"):
            Distiller(student, teacher, hidden_states=value)
    for value, message in ((-1, "must be at least 0"), ("1", "number")):
        with pytest.raises((TypeError, ValueError), match=f"alpha_hidden.*{message}"):
            Distiller(student, teacher, hidden_states="block_*", alpha_hidden=value)
    assert not any("call" in vars(layer) for m in (student, teacher) for layer in m.layers)


def test_states_that_do_not_match(keras):
    student, teacher = classifier(keras), classifier(keras, width=12)
    with pytest.raises(
        ValueError,
        match=r"one shape, got \(24, 16\) of the student's 'block_0' "
        r"and \(24, 12\) of the teacher's 'block_0'",
    ):
        evaluate(compiled(student, teacher, "block_*"), X, Y)
    assert not any("call" in vars(layer) for layer in student.layers)


def test_layers_out_of_reach(keras):
    class Inner(keras.Model):
        def __init__(self, how):
            super().__init__()
            self.block = keras.layers.Dense(8, name="block")
            self.unused = keras.layers.Dense(8, name="unused")
            self.head = keras.layers.Dense(3, name="head")
            self.how = how

        def build(self, shape):
            for layer in (self.block, self.unused, self.head):
                layer.build([None, 8])
            self.built = True

        def call(self, x):
            inside = self.how(lambda x: tf.convert_to_tensor(self.block(x)))
            return self.head(inside(x))

    def model(how):
        made = Inner(how)
        made(X)
        return made

    plain = model(lambda block: block)
    for name in ("plain", "function", "recomputed"):
        how = {"plain": lambda f: f, "function": tf.function, "recomputed": tf.recompute_grad}
        student = model(how[name])
        distiller = compiled(student, plain, "block")
        if name == "plain":
            distiller.fit(X, Y, verbose=0)
            continue
        with pytest.raises(ValueError, match=r"hidden states of 'block' are out of reach"):
            distiller.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"'unused' was not called"):
        compiled(plain, model(lambda f: f), "unused").fit(X, Y, verbose=0)


def test_layers_without_floats(keras):
    def model():
        inputs = keras.Input([8])
        rounded = keras.layers.Lambda(lambda x: tf.cast(x, tf.int32), name="rounded")(inputs)
        return keras.Model(inputs, keras.layers.Embedding(9, 3)(abs(rounded)))

    with pytest.raises(TypeError, match=r"tensor of floats as the first output of 'rounded'"):
        compiled(model(), model(), "rounded").evaluate(X, np.zeros([24, 8]), verbose=0)


# ---- models whose blocks are known


def hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    if kind == "bert":
        from berts import bert

        return bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = {
        "distilbert": (transformers.DistilBertConfig, {"n_layers": 2, "n_heads": 2, "dim": 8}),
        "albert": (
            transformers.AlbertConfig,
            {
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "hidden_size": 8,
                "intermediate_size": 16,
                "embedding_size": 8,
            },
        ),
    }[kind]
    cls = {
        "distilbert": "TFDistilBertForSequenceClassification",
        "albert": "TFAlbertForSequenceClassification",
    }[kind]
    sizes = {"hidden_dim": 16} if kind == "distilbert" else {}
    model = getattr(transformers, cls)(config[0](vocab_size=20, **config[1], **sizes))
    model(model.dummy_inputs)
    return model


@pytest.mark.parametrize(
    "kind", ["bert", *(pytest.param(k, marks=pytest.mark.slow) for k in ("distilbert", "albert"))]
)
def test_blocks_of_hugging_face(kind):
    student, teacher = hugging_face(kind), hugging_face(kind)
    student.set_weights([w + 0.1 * np.sign(w) for w in student.get_weights()])
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    states = [m(inputs, output_hidden_states=True).hidden_states[1:] for m in (teacher, student)]
    real = MASK.astype(bool)
    expected = np.mean([distance(t.numpy()[real], s.numpy()[real]) for t, s in zip(*states)])
    distiller = compiled(student, teacher, True)
    data = tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(12)
    assert evaluate(distiller, data)["hidden_state_loss"] == pytest.approx(expected, rel=1e-4)
    history = distiller.fit(data, epochs=2, verbose=0).history
    assert np.isfinite(history["hidden_state_loss"]).all()


def keras_hub_classifier(family, seed):
    import keras
    from keras_hub_families import backbone, draw

    inner = backbone(family)
    draw(inner, seed)
    outputs = inner(inner.input)
    states = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    pooled = keras.layers.GlobalAveragePooling1D()(states)
    return inner, keras.Model(inner.input, keras.layers.Dense(2)(pooled))


@pytest.mark.parametrize(
    "family", ["Bert", *(pytest.param(f, marks=pytest.mark.slow) for f in ("Albert", "GPT2"))]
)
def test_blocks_of_keras_hub(family):
    import keras
    from keras_hub_families import inputs_of

    made = [keras_hub_classifier(family, seed) for seed in (0, 1)]
    inputs = inputs_of(made[0][0], batch=12, length=6)
    real = inputs["padding_mask"].astype(bool)
    states = []
    for inner, _ in made:
        nodes = [
            node.outputs
            for layer in inner.layers
            if layer.name in BLOCKS[family]
            for node in layer._inbound_nodes
        ]
        found = keras.Model(inner.input, [keras.tree.flatten(n)[0] for n in nodes])(inputs)
        states.append([np.array(s)[real] for s in keras.tree.flatten(found)])
    expected = np.mean([distance(t, s) for t, s in zip(*states)])
    distiller = compiled(made[1][1], made[0][1], True)
    data = tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(12)
    assert evaluate(distiller, data)["hidden_state_loss"] == pytest.approx(expected, rel=1e-4)
    history = distiller.fit(data, epochs=2, verbose=0).history
    assert np.isfinite(history["hidden_state_loss"]).all()


@pytest.mark.parametrize("family", quick("Bert", "ViT", "T5", of=BLOCKS))
def test_names_of_the_blocks_of_keras_hub(family):
    import keras
    from keras_hub_families import backbone

    inner = backbone(family)
    found = module_for(inner, "hidden_layers").layers_with_states(inner).blocks
    assert sorted(found) == sorted(BLOCKS[family])
    outputs = keras.tree.flatten(inner(inner.input))
    outer = keras.Model(inner.input, keras.layers.Dense(2)(outputs[0]))
    blocks = module_for(outer, "hidden_layers").layers_with_states(outer).blocks
    assert blocks == [f"{inner.name}.{path}" for path in found]
