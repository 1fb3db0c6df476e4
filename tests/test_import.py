"""Effects of importing the package on a process, each in a process of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

import tf_movprune


def run(code):
    """The values that `code` leaves in `result`, in a process that imported nothing before."""
    lines = ["import json", "result = {}", textwrap.dedent(code), "print(json.dumps(result))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing_and_starts_nothing():
    result = run(
        """
        import os, sys, time
        environment = dict(os.environ)
        start = time.perf_counter()
        import tf_movprune
        result["seconds"] = time.perf_counter() - start
        heavy = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "transformers")
        result["loaded"] = [name for name in heavy if name in sys.modules]
        result["changed"] = sorted(set(os.environ.items()) ^ set(environment.items()))
        """
    )
    print(f"import tf_movprune: {1000 * result['seconds']:.1f} ms")
    assert result["loaded"] == [] and result["changed"] == []


def test_the_runtime_can_still_be_set_up_after_all_names_are_loaded():
    result = run(
        """
        import os, sys
        environment = dict(os.environ)
        import tf_movprune
        import tensorflow as tf
        before = set(sys.modules)
        for name in ("CubicSparsity", "HardMovement", "distillation_loss", "HEADS"):
            getattr(tf_movprune, name)
        new = set(sys.modules) - before
        kerases = ("keras", "tf_keras", "tensorflow_model_optimization")
        result["loaded by the core"] = sorted(name for name in new if name.startswith(kerases))
        for name in tf_movprune.__all__:
            getattr(tf_movprune, name)
        from tensorflow.python.eager import context
        result["started"] = context.context()._initialized
        result["changed"] = sorted(set(os.environ.items()) ^ set(environment.items()))
        tf.config.threading.set_inter_op_parallelism_threads(2)  # raises once it is started
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        tf.distribute.MultiWorkerMirroredStrategy()
        result["replicas"] = len(tf.config.list_logical_devices("CPU"))
        import tf_keras
        result["names"] = [tf_keras.Sequential().name, tf_keras.Model().name]
        """
    )
    assert result == {
        "loaded by the core": [],
        "started": False,
        "changed": [],
        "replicas": 2,
        "names": ["sequential", "model"],
    }


def test_public_names_are_those_of_the_stub():
    assert set(tf_movprune.__all__) <= set(dir(tf_movprune))
    for name in tf_movprune.__all__:
        assert getattr(tf_movprune, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tf_movprune.no_such_name


def test_the_name_in_tfmot_leads_to_ours():
    with pytest.raises(AttributeError, match=r"prune_low_movement\(.*tf_movprune\.Magnitude\(\)"):
        _ = tf_movprune.prune_low_magnitude
    assert not hasattr(tf_movprune, "prune_low_magnitude")


@pytest.mark.parametrize(
    "name, answer",
    [
        ("prune_low_movements", r"mean tf_movprune\.prune_low_movement\?"),
        ("UpdatePruningSteps", r"mean tf_movprune\.UpdatePruningStep\?"),
        ("load_model", r"keras\.saving\.load_model\(path\) within tf_movprune\.prune_scope\(\)"),
    ],
)
def test_names_that_there_are_not_lead_to_those_that_there_are(name, answer):
    with pytest.raises(AttributeError, match=rf"^tf_movprune has no {name}\. .*{answer}"):
        getattr(tf_movprune, name)


def test_a_keras_3_process_imports_no_other_keras():
    result = run(
        """
        import os, sys
        os.environ.pop("TF_USE_LEGACY_KERAS", None)  # with it, TensorFlow imports tf_keras
        import keras, numpy as np, tensorflow as tf, tf_movprune
        environment = dict(os.environ)
        layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
        recipe = tf_movprune.ShortRun(num_train_steps=10, final_sparsity=0.5)
        model = recipe.prune(keras.Sequential([keras.Input([8]), *layers]))
        model.compile(recipe.create_optimizer(1e-3, model=model), "mse")
        x = np.ones([40, 8], "float32")
        update = tf_movprune.UpdatePruningStep()
        model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[update])
        result["sparsity"] = tf_movprune.summarize_sparsity(model).sparsity
        teacher = keras.Sequential([keras.Input([8]), keras.layers.Dense(2)])
        distiller = tf_movprune.Distiller(model, teacher)
        result["is a Distiller"] = isinstance(distiller, tf_movprune.Distiller)
        tf_movprune.cache_teacher_logits(tf.data.Dataset.from_tensors(x), teacher)
        tf_movprune.strip_pruning(distiller)
        others = ("tf_keras", "tensorflow_model_optimization", "transformers")
        result["loaded"] = [name for name in others if name in sys.modules]
        result["changed"] = sorted(set(os.environ.items()) ^ set(environment.items()))
        """
    )
    assert result == {"sparsity": 0.5, "is a Distiller": True, "loaded": [], "changed": []}


def test_another_backend_of_keras_3_is_refused_by_name():
    result = run(
        """
        import os
        os.environ["KERAS_BACKEND"] = "jax"
        import keras, tf_movprune
        try:
            tf_movprune.prune_low_movement(keras.Sequential([keras.layers.Dense(2)]))
        except RuntimeError as error:
            result["message"] = str(error)
        """
    )
    assert "KERAS_BACKEND=tensorflow" in result["message"] and "'jax'" in result["message"]
