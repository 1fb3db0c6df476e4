import json
from fractions import Fraction

import numpy as np
import pytest
import reference
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from modes import MODES, every_mode

from tf_movprune import CubicSparsity, CubicThreshold
from tf_movprune.core import schedules
from tf_movprune.keras2 import serialization

ConstantSparsity = tfmot.sparsity.keras.ConstantSparsity
PolynomialDecay = tfmot.sparsity.keras.PolynomialDecay
PruningSchedule = tfmot.sparsity.keras.PruningSchedule

# Runs of the paper: fractions kept, or thresholds, at steps.
HARD_RUNS = {
    "SQuAD": (
        {"final": 0.15, "steps": 55_330, "warmup": 5_400, "iw": 1, "fw": 2},
        {
            5_400: 1.0,
            5_401: 0.9999348342746442,
            10_000: 0.734089120641191,
            24_965: 0.25625,
            40_000: 0.1513188153338912,
            44_530: 0.15,
        },
    ),
    "MNLI": (
        {"final": 0.1, "steps": 73_632, "warmup": 12_000, "iw": 1, "fw": 1},
        {12_001: 0.9999456007092201, 36_816: 0.2125, 61_632: 0.1},
    ),
    "QQP": (
        {"final": 0.1, "steps": 113_710, "warmup": 11_000, "iw": 2, "fw": 3},
        {22_001: 0.9999540120250126, 51_355: 0.2125, 80_710: 0.1},
    ),
}
SOFT_RUN = {
    5_400: (0.0, 0.0),
    5_401: (7.666555924e-06, 0.0306662237),
    10_000: (0.03128363287, 125.1345315),
    24_965: (0.0875, 350),
    44_530: (0.1, 400),
}


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (
            CubicSparsity(0.9, 2, 8),
            "CubicSparsity(final_sparsity=0.9, begin_step=2, end_step=8)",
        ),
        (
            CubicSparsity(0.9, 0, 8, 0.5, frequency=2, freeze_step=10),
            "CubicSparsity(final_sparsity=0.9, begin_step=0, end_step=8, initial_sparsity=0.5, "
            "frequency=2, freeze_step=10)",
        ),
        (CubicThreshold(0.1, 2, 8), "CubicThreshold(begin_step=2, end_step=8)"),
    ],
)
def test_schedules_are_shown_as_they_are_made(schedule, expected):
    assert repr(schedule) == expected
    again = eval(expected, {"CubicSparsity": CubicSparsity, "CubicThreshold": CubicThreshold})
    assert again.get_config() == schedule.get_config()


def test_a_schedule_of_ones_own_is_shown_with_its_own_arguments():
    class Gentle(CubicSparsity):
        def __init__(self, length, speed=1):
            super().__init__(0.5, 0, length)
            self.length, self.kept_apart = length, speed

    assert repr(Gentle(8, 2)).endswith("Gentle(length=8)")  # what it does not keep is not known


# ---- the curve


@every_mode
@pytest.mark.parametrize("run, values", HARD_RUNS.values(), ids=HARD_RUNS)
def test_cubic_sparsity_of_the_published_runs(mode, run, values):
    schedule = CubicSparsity(
        final_sparsity=1 - run["final"],
        begin_step=run["iw"] * run["warmup"],
        end_step=run["steps"] - run["fw"] * run["warmup"],
    )
    sparsity = MODES[mode](lambda step: schedule(step)[1])
    for step, kept in values.items():
        assert 1 - float(sparsity(tf.constant(step, tf.int64))) == pytest.approx(kept, abs=1e-9)


@every_mode
def test_cubic_threshold_and_regularizer_of_the_published_soft_run(mode):
    curve = MODES[mode](
        lambda steps: (
            schedules.cubic(steps, 0.0, 0.1, 5_400, 44_530),
            schedules.cubic(steps, 0.0, 400.0, 5_400, 44_530),
        )
    )
    thresholds, strengths = curve(tf.constant(list(SOFT_RUN), tf.int64))
    expected_thresholds, expected_strengths = zip(*SOFT_RUN.values())
    np.testing.assert_allclose(thresholds, expected_thresholds, rtol=1e-9, atol=0)
    np.testing.assert_allclose(strengths, expected_strengths, rtol=2e-9, atol=0)


@every_mode
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize(
    "initial, final, begin, end",
    [(0.0, 0.9, 0, 1), (0.0, 0.97, 7, 40), (0.25, 0.85, 5, 60), (0.5, 0.5, 3, 9)],
)
def test_cubic_sparsity_is_the_closed_form(mode, dtype, initial, final, begin, end):
    schedule = CubicSparsity(final, begin, end, initial_sparsity=initial)
    steps = range(end + 20)
    sparsity = MODES[mode](lambda steps: schedule(steps)[1])(tf.constant(list(steps), dtype))
    assert sparsity.dtype == tf.float64 and sparsity.shape == [len(steps)]
    expected = [float(reference.cubic(step, initial, final, begin, end)) for step in steps]
    np.testing.assert_allclose(sparsity, expected, rtol=0, atol=1e-15)
    assert set(sparsity.numpy()[: begin + 1]) == {initial}
    assert set(sparsity.numpy()[end:]) == {final}
    assert np.all(np.diff(sparsity) >= 0)


def test_the_reference_by_hand():
    assert reference.cubic(3, 0, 0.8, 2, 6) == Fraction(8, 10) * (1 - Fraction(27, 64))
    assert reference.cubic(4, 1, 0.2, 2, 6) == Fraction(3, 10)


def test_cubic_of_steps_beyond_float32_and_int32():
    step = tf.constant(2**33 + 1, tf.int64)
    expected = reference.cubic(2**33 + 1, 0, 0.9, 2**33, 2**33 + 3)
    assert float(schedules.cubic(step, 0.0, 0.9, 2**33, 2**33 + 3)) == pytest.approx(
        float(expected), abs=1e-15
    )
    schedule = CubicSparsity(0.9, 2**33, 2**33 + 3, frequency=2)
    due = [bool(schedule(step + i)[0]) for i in range(4)]
    assert due == [False, True, False, True]


# ---- when masks are due


@every_mode
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("begin, end, frequency", [(0, 6, 1), (4, 20, 1), (5, 20, 7), (3, 4, 1)])
def test_masks_are_due_from_begin_step_on_and_never_end(mode, dtype, begin, end, frequency):
    schedule = CubicSparsity(0.5, begin, end, frequency=frequency)
    steps = range(3 * end + 5)
    due = MODES[mode](lambda steps: schedule(steps)[0])(tf.constant(list(steps), dtype))
    assert due.dtype == tf.bool
    multiples = range(begin, len(steps), frequency)
    assert [step for step in steps if due[step]] == list(multiples)
    assert multiples[-1] > end


@every_mode
@pytest.mark.parametrize("step, due", [(0, False), (4, False), (5, True), (6, False), (26, True)])
def test_a_single_step_is_due_or_not(mode, step, due):
    schedule = CubicSparsity(0.5, begin_step=5, end_step=20, frequency=7)
    is_due, sparsity = MODES[mode](schedule.__call__)(tf.constant(step, tf.int64))
    assert is_due.shape == () and sparsity.shape == ()
    assert bool(is_due) is due


def test_a_variable_may_be_the_step():
    step = tf.Variable(20, dtype=tf.int64)
    is_due, sparsity = CubicSparsity(0.5, 5, 20)(step)
    assert bool(is_due) and float(sparsity) == 0.5


# ---- round trips

ARGUMENTS = {
    "final_sparsity": 0.85,
    "begin_step": 5,
    "end_step": 60,
    "initial_sparsity": 0.25,
    "frequency": 3,
    "freeze_step": None,
}


@keras.saving.register_keras_serializable(package="test_schedules")
class StepSparsity(PruningSchedule):
    """A schedule of a user, with plain arguments as its configuration."""

    def __init__(self, sparsity, begin_step):
        self.sparsity = sparsity
        self.begin_step = begin_step

    def __call__(self, step):
        return step >= self.begin_step, tf.constant(self.sparsity)

    def get_config(self):
        return {"sparsity": self.sparsity, "begin_step": self.begin_step}


@keras.saving.register_keras_serializable(package="test_schedules")
class StepSparsityInTfmotForm(StepSparsity):
    def get_config(self):
        return {"class_name": type(self).__name__, "config": super().get_config()}


class UnregisteredSparsity(StepSparsity):
    pass


@keras.saving.register_keras_serializable(package="test_schedules")
class CubicSparsityOfAUser(CubicSparsity):
    pass


def assert_same_schedule(restored, schedule):
    assert type(restored) is type(schedule)
    assert restored is not schedule
    assert vars(restored) == vars(schedule)
    for step in (0, 5, 8, 20, 60, 61):
        for new, old in zip(restored(tf.constant(step)), schedule(tf.constant(step))):
            np.testing.assert_array_equal(new, old)


def test_cubic_sparsity_keeps_its_arguments():
    assert vars(CubicSparsity(**ARGUMENTS)) == ARGUMENTS
    defaults = CubicSparsity(0.85, 5, 60)
    assert (defaults.initial_sparsity, defaults.frequency) == (0.0, 1)


def test_cubic_sparsity_from_either_form_of_config():
    schedule = CubicSparsity(**ARGUMENTS)
    assert_same_schedule(CubicSparsity.from_config(schedule.get_config()), schedule)
    assert_same_schedule(CubicSparsity.from_config(ARGUMENTS), schedule)


def test_cubic_sparsity_of_numpy_numbers_is_json():
    schedule = CubicSparsity(np.float64(0.85), np.int64(5), np.int32(60), np.float32(0.25))
    config = json.loads(json.dumps(schedule.get_config()))
    assert_same_schedule(CubicSparsity.from_config(config), schedule)
    assert config["config"] == {**ARGUMENTS, "frequency": 1}


def test_cubic_sparsity_through_keras():
    schedule = CubicSparsity(**ARGUMENTS)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert config["registered_name"] == "tf_movprune>CubicSparsity"
    assert_same_schedule(keras.saving.deserialize_keras_object(config), schedule)


@pytest.mark.parametrize(
    "schedule, class_name",
    [
        (CubicSparsity(**ARGUMENTS), "tf_movprune>CubicSparsity"),
        (PolynomialDecay(0.25, 0.85, 5, 60, power=2, frequency=3), "PolynomialDecay"),
        (ConstantSparsity(0.85, 5, 60, frequency=3), "ConstantSparsity"),
        (ConstantSparsity(0.85, 5), "ConstantSparsity"),
        (StepSparsity(0.85, 5), "test_schedules>StepSparsity"),
        (StepSparsityInTfmotForm(0.85, 5), "test_schedules>StepSparsityInTfmotForm"),
        (CubicSparsityOfAUser(**ARGUMENTS), "test_schedules>CubicSparsityOfAUser"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schedules_round_trip(schedule, class_name):
    config = json.loads(json.dumps(serialization.serialize_schedule(schedule)))
    assert config["class_name"] == class_name
    assert_same_schedule(serialization.deserialize_schedule(config), schedule)


def test_deserialize_schedule_takes_a_schedule_that_is_made_already():
    schedule = CubicSparsity(**ARGUMENTS)
    assert serialization.deserialize_schedule(schedule) is schedule


def test_an_unregistered_schedule_is_named():
    config = serialization.serialize_schedule(UnregisteredSparsity(0.85, 5))
    message = (
        r"The model was pruned with a schedule of class 'UnregisteredSparsity', which is not "
        r"registered\. Decorate the class with tf_keras\.saving\.register_keras_serializable\(\)"
    )
    with pytest.raises(ValueError, match=message):
        serialization.deserialize_schedule(config)


def test_an_unregistered_schedule_loads_in_a_scope():
    schedule = UnregisteredSparsity(0.85, 5)
    config = serialization.serialize_schedule(schedule)
    with keras.saving.custom_object_scope({"UnregisteredSparsity": UnregisteredSparsity}):
        assert_same_schedule(serialization.deserialize_schedule(config), schedule)


@pytest.mark.parametrize("cls", [CubicSparsity, CubicSparsityOfAUser])
def test_tfmot_wrapper_restores_a_cubic_sparsity(cls):
    schedule = cls(**ARGUMENTS)
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(3), schedule)
    restored = type(wrapper).from_config(wrapper.get_config())
    assert type(wrapper).__name__ == "PruneLowMagnitude"
    assert_same_schedule(restored.pruning_schedule, schedule)


# ---- errors


@pytest.mark.parametrize(
    "change, message",
    [
        ({"final_sparsity": 1.2}, r"final_sparsity must be in \[0, 1\), got 1\.2: it is the frac"),
        ({"final_sparsity": 1}, r"final_sparsity must be in \[0, 1\), got 1:"),
        ({"final_sparsity": -0.1}, r"final_sparsity must be in \[0, 1\), got -0\.1:"),
        ({"final_sparsity": float("nan")}, r"final_sparsity must be in \[0, 1\), got nan:"),
        ({"initial_sparsity": 1.0}, r"initial_sparsity must be in \[0, 1\), got 1\.0:"),
        ({"initial_sparsity": -1e-9}, r"initial_sparsity must be in \[0, 1\), got -1e-09:"),
        ({"begin_step": -1}, r"begin_step must be at least 0, got -1\."),
        ({"end_step": -1}, r"end_step must be at least 0, got -1\."),
        ({"frequency": 0}, r"frequency must be at least 1, got 0\."),
        (
            {"initial_sparsity": 0.9},
            r"initial_sparsity must be at most final_sparsity, got 0\.9 and 0\.85: sparsity only",
        ),
        (
            {"end_step": 5},
            r"end_step must be greater than begin_step, got begin_step=5 and end_step=5\. Raise",
        ),
        (
            {"begin_step": 70},
            r"end_step must be greater than begin_step, got begin_step=70 and end_step=60\. Raise",
        ),
        (
            {"frequency": 56},
            r"frequency must be at most end_step - begin_step = 55, got 56: the masks would never",
        ),
    ],
)
def test_cubic_sparsity_names_what_is_wrong(change, message):
    CubicSparsity(**ARGUMENTS)
    with pytest.raises(ValueError, match=message):
        CubicSparsity(**{**ARGUMENTS, **change})


@pytest.mark.parametrize("value", [True, "0.9", None, [0.5]])
@pytest.mark.parametrize("name", ["final_sparsity", "initial_sparsity"])
def test_fractions_of_another_type(name, value):
    with pytest.raises(TypeError, match=rf"{name} must be a number such as 0\.5, got"):
        CubicSparsity(**{**ARGUMENTS, name: value})


@pytest.mark.parametrize("value", [5.0, True, "60", None])
@pytest.mark.parametrize("name", ["begin_step", "end_step", "frequency"])
def test_steps_of_another_type(name, value):
    with pytest.raises(TypeError, match=rf"{name} must be an integer such as \d+, got"):
        CubicSparsity(**{**ARGUMENTS, name: value})


@pytest.mark.parametrize(
    "change",
    [
        {"initial_sparsity": 0.85},
        {"initial_sparsity": 0, "final_sparsity": 0},
        {"frequency": 55},
        {"begin_step": 0, "end_step": 1, "frequency": 1},
        {"freeze_step": 60},
    ],
)
def test_cubic_sparsity_accepts_the_ends_of_its_ranges(change):
    arguments = {**ARGUMENTS, **change}
    assert vars(CubicSparsity(**arguments)) == arguments


@pytest.mark.parametrize("value", ["70", 70.5])
def test_freeze_step_of_another_type(value):
    with pytest.raises(TypeError, match=rf"freeze_step must be an integer .* got {value!r}"):
        CubicSparsity(0.9, 5, 60, freeze_step=value)


def test_freeze_step_before_the_end():
    with pytest.raises(ValueError, match=r"freeze_step must be at least end_step, 60, got 59"):
        CubicSparsity(0.9, 5, 60, freeze_step=59)
    with pytest.raises(ValueError, match=r"never reach the final threshold"):
        CubicThreshold(0.1, 5, 60, freeze_step=59)
