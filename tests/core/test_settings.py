"""Settings of kernels, and those of a model's layers by patterns over their paths."""

import pytest
import tf_keras as keras
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune.core.granularity import HEADS, WEIGHTS, Blocks
from tf_movprune.core.schedules import EveryStep, FixedMasks, Ramp
from tf_movprune.core.settings import Settings, by_path, resolve

CUBIC = tf_movprune.CubicSparsity(0.9, 2, 10)
PATHS = ["a.query", "a.key", "b.dense"]


def test_defaults():
    settings = Settings(CUBIC)
    assert settings.method == tf_movprune.HardMovement()
    assert settings.block_size == WEIGHTS == Blocks(1, 1)
    assert settings.score_learning_rate_multiplier == 1.0
    assert Settings(method=tf_movprune.L0()).score_learning_rate_multiplier == 1e-1 / 3e-5
    assert isinstance(Settings(method=tf_movprune.L0()).schedule, EveryStep)
    assert isinstance(Settings(method=tf_movprune.KeepZeros()).schedule, FixedMasks)


def test_block_sizes_of_two_integers_are_blocks():
    assert type(Settings(CUBIC, block_size=[4, 1]).block_size) is Blocks
    assert Settings(CUBIC, block_size=HEADS).block_size is HEADS
    with pytest.raises(ValueError, match="L0 cannot prune heads"):
        Settings(method=tf_movprune.L0(), block_size=HEADS)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        Blocks(0, 1)
    with pytest.raises(TypeError, match="columns must be an integer"):
        Blocks(1, 1.0)


def test_equal_settings_have_equal_keys():
    def key(schedule=CUBIC, method=None, **kwargs):
        return Settings(schedule, method, **kwargs).key

    start = keras.initializers.RandomUniform(seed=1)
    other = keras.initializers.RandomUniform(seed=2)
    keys = [
        key(),
        key(tf_movprune.CubicSparsity(0.9, 2, 11)),
        key(tfmot.PolynomialDecay(0.0, 0.9, 2, 10)),
        key(method=tf_movprune.Magnitude()),
        key(method=tf_movprune.HardMovement(scope="global")),
        key(method=tf_movprune.HardMovement(start)),
        key(method=tf_movprune.HardMovement(other)),
        key(block_size=(4, 1)),
        key(block_size=HEADS),
    ]
    assert len(set(keys)) == len(keys)
    assert key(tf_movprune.CubicSparsity(0.9, 2, 10)) == key()
    again = keras.initializers.RandomUniform(seed=1)
    assert key(method=tf_movprune.HardMovement(again)) == keys[5]


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (CUBIC, ("sparsity", 2, 10, 10, 1, 0.9)),
        (tf_movprune.CubicThreshold(0.1, 3, 9, frequency=2), ("threshold", 3, 9, 9, 2, 0.1)),
        (tfmot.PolynomialDecay(0.1, 0.8, 4, 12, frequency=4), ("sparsity", 4, 12, 12, 4, 0.8)),
        (tfmot.ConstantSparsity(0.5, 7), ("sparsity", 7, None, 7, 100, 0.5)),
        (tfmot.ConstantSparsity(0.5, 7, 20), ("sparsity", 7, 20, 20, 100, 0.5)),
        (EveryStep(), (None, 0, None, 0, 1, 1.0)),
        (FixedMasks(), (None, 0, None, 0, 1, 1.0)),
    ],
)
def test_ramp_of_any_schedule(schedule, expected):
    ramp = Ramp.of(schedule)
    name, begin, end, final_step, frequency, final = expected
    assert (ramp.value_name, ramp.begin_step, ramp.end_step) == (name, begin, end)
    assert (ramp.final_step, ramp.frequency) == (final_step, frequency)
    assert ramp.final_value == pytest.approx(final)


def test_ramp_of_a_schedule_that_tells_nothing():
    class Half(tfmot.PruningSchedule):
        def __call__(self, step):
            return True, 0.5

        def get_config(self):
            return {}

    ramp = Ramp.of(Half())
    assert (ramp.begin_step, ramp.end_step, ramp.final_step, ramp.final_value) == (0, *[None] * 3)
    assert ramp.value_at(3) == 0.5


def test_first_pattern_that_matches_decides():
    assert by_path(PATHS, 7, "x") == dict.fromkeys(PATHS, 7)
    assert by_path(PATHS, {"a.q*": 1, "a.*": 2}, "x") == {"a.query": 1, "a.key": 2}
    with pytest.raises(ValueError, match=r"pattern 'c' in x matches no .* are: a\.query, a\.key"):
        by_path(PATHS, {"a.*": 1, "c": 2}, "x")
    with pytest.raises(ValueError, match="x is an empty mapping"):
        by_path(PATHS, {}, "x")


def test_resolve_gives_settings_to_layers_that_have_a_schedule():
    chosen = resolve(PATHS, {"a.*": CUBIC}, None, {"a.key": (4, 1)})
    assert list(chosen) == ["a.query", "a.key"]
    assert [settings.block_size for settings in chosen.values()] == [(1, 1), (4, 1)]


def test_resolve_gives_one_schedule_to_the_methods_that_take_one():
    methods = {"a.*": tf_movprune.L0(), "*": tf_movprune.Magnitude()}
    chosen = resolve(PATHS, CUBIC, methods, (1, 1))
    names = [type(settings.schedule).__name__ for settings in chosen.values()]
    assert names == ["EveryStep", "EveryStep", "CubicSparsity"]


def test_resolve_refuses_methods_that_nothing_uses():
    methods = {"a.*": tf_movprune.HardMovement(), "*": tf_movprune.Magnitude()}
    with pytest.raises(ValueError, match=r"Magnitude is the method of b\.dense, but no pattern"):
        resolve(PATHS, {"a.*": CUBIC}, methods, (1, 1))
    with pytest.raises(TypeError, match="method must be an object"):
        resolve(PATHS, CUBIC, {"*": "hard"}, (1, 1))


LEFT_OUT = ["table", "c.out"]


@pytest.mark.parametrize(
    "patterns, chosen",
    [
        ({"table": 1, "*": 2}, {"a.query": 2, "a.key": 2, "b.dense": 2, "table": 1}),
        ({"*": 2}, {"a.query": 2, "a.key": 2, "b.dense": 2}),
        ({"t*": 1}, {"table": 1}),
        ({"c.*": 1, "a.*": 2}, {"a.query": 2, "a.key": 2, "c.out": 1}),
        ({"[ct]*": 1}, {"table": 1, "c.out": 1}),
    ],
)
def test_patterns_take_what_is_left_out_if_they_match_nothing_else(patterns, chosen):
    schedules = {p: tf_movprune.CubicSparsity(0.9, value, 10) for p, value in patterns.items()}
    settings = resolve(PATHS, schedules, None, (1, 1), left_out=LEFT_OUT)
    assert {path: one.schedule.begin_step for path, one in settings.items()} == chosen


def test_patterns_of_methods_and_block_sizes_take_what_is_left_out():
    methods = {"table": tf_movprune.Magnitude(), "*": tf_movprune.HardMovement()}
    settings = resolve(PATHS, CUBIC, methods, {"c.out": (4, 1)}, left_out=LEFT_OUT)
    assert [type(one.method).__name__ for one in settings.values()] == [
        *["HardMovement"] * 3,
        "Magnitude",
        "HardMovement",
    ]
    assert settings["c.out"].block_size == (4, 1)


def test_what_is_named_needs_a_schedule_and_a_method():
    with pytest.raises(ValueError, match=r"names table, but no pattern of pruning_schedule"):
        resolve(PATHS, {"a.*": CUBIC}, None, {"table": (4, 1)}, left_out=LEFT_OUT)
    methods = {"a.*": tf_movprune.Magnitude()}
    with pytest.raises(ValueError, match=r"names c\.out, but no pattern"):
        resolve(PATHS, {"c.out": CUBIC, "*": CUBIC}, methods, (1, 1), left_out=LEFT_OUT)


def test_one_of_two_patterns_for_the_same_layers_decides_nothing():
    with pytest.raises(ValueError, match=r"'a\.\*' in x decides .* same layers\. Leave one"):
        by_path(["a.key", "a.query", "b"], {"a.[kq]*": 1, "a.*": 2, "b": 3}, "x")


def test_patterns_that_decide_nothing_are_refused():
    for patterns in ({"*": 1, "a.key": 2}, {"a.*": 1, "b.*": 3, "a.q*": 2}):
        with pytest.raises(ValueError, match=r"'a\.\w+\*?' in x decides nothing: .* Put it first"):
            by_path(PATHS, patterns, "x")
    assert by_path(PATHS, {"a.*": 1, "b.*": 2, "*": 3}, "x") == dict(zip(PATHS, (1, 1, 2)))
    with pytest.raises(TypeError, match=r"patterns of x must be strings, got 3"):
        by_path(PATHS, {3: 1}, "x")


def test_a_pattern_that_matches_nothing_is_answered_with_what_is_near():
    with pytest.raises(
        ValueError,
        match=r"'tabel' in .*mean 'table'\? .*are: a\.query, .*leaves out table, c\.out\.",
    ):
        resolve(PATHS, {"tabel": CUBIC}, None, (1, 1), left_out=LEFT_OUT)
    many = [f"block.{i}.{name}" for i in range(9) for name in ("query", "dense")]
    with pytest.raises(
        ValueError, match=r"1\.query'\? .*are: block\.\*\.query, block\.\*\.dense\."
    ):
        by_path(many, {"block.1.qery": 1}, "x")


def test_a_block_size_that_matches_no_pruned_layer_is_refused():
    ramp = tf_movprune.CubicSparsity(0.5, 0, 2)
    with pytest.raises(ValueError, match=r"block_size has the pattern 'b', but no layer that it"):
        resolve(["a", "b"], {"a": ramp}, None, {"b": (2, 2)})
