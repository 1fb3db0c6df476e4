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
