"""Settings of runs: their checks, presets, and what they mean for pruning."""

import dataclasses
import json

import pytest
import tiny_pretrained
from shells import kernels

import tf_movprune
from tf_movprune.runs import pruning_setup
from tf_movprune.runs.presets import PRESETS, settings_of
from tf_movprune.runs.settings import DEFAULTS, TrainSettings, step_of
from tf_movprune.runs.unused_options import unused_options


def settings(**changes):
    return TrainSettings(task="sst2", **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "movement"}, r"method must be one of hard, .*got 'movement'"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"final_sparsity": 1.0}, r"final_sparsity must be in \[0, 1\), got 1.0"),
        ({"learning_rate": 0}, r"learning_rate must be greater than 0"),
        ({"begin": 1.5}, r"begin must be a whole number of steps, or a fraction"),
        ({"method": "soft", "recipe": "paper"}, r"needs final_threshold"),
        ({"method": "soft", "final_threshold": 0.1}, r"needs penalty"),
        ({"final_threshold": 0.1, "penalty": 1}, r"final_threshold is for method soft, got .*hard"),
        ({"method": "l0"}, r"l0 has no target sparsity. Pass recipe paper"),
        ({"head_sparsity": 0.5}, r"head_sparsity is for structure heads\+neurons"),
        ({"recovery_steps": 10}, r"nothing is removed"),
        (
            {"compact_at": 0.8},
            r"compact_at is for structure heads, neurons or heads\+neurons, got structure weights",
        ),
        ({"compact_at": 1.5, "structure": "heads"}, r"compact_at must be a whole number of steps"),
        ({"method": "l0", "recipe": "paper", "structure": "heads"}, r"needs method hard or magnit"),
        ({"final_threshold": 0.1, "method": "soft", "penalty": 1}, r"is for recipe paper"),
        ({"teacher": "x", "alpha_distil": 0}, r"alpha_distil and alpha_hidden are 0.*Leave it out"),
        ({"teacher": "x", "alpha_ce": 0, "alpha_distil": 0}, r"alpha_hidden are 0.*nothing to lea"),
        ({"alpha_hidden": 1.0}, r"alpha_hidden is for distillation, and there is no teacher"),
        ({"train_file": "a.csv"}, r"belong together"),
        ({"num_train_steps": 9}, r"at least 10 to prune, got 9"),
        ({"lengths": (1,)}, r"lengths must be whole numbers of at least 2"),
    ],
)
def test_values_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 1.5}, r"batch_size must be an integer, got 1.5"),
        ({"seed": True}, r"seed must be an integer, got True"),
        ({"learning_rate": "1e-3"}, r"learning_rate must be a number"),
        ({"xla": 1}, r"xla must be True or False"),
        ({"model": 3}, r"model must be a text"),
    ],
)
def test_types_that_are_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    "name, value, others",
    [
        ("label_column", "stars", {}),
        ("stride", 64, {}),
        ("block_size", (2, 2), {}),
        ("head_sparsity", 0.5, {"structure": "heads"}),
        ("scope", "global", {"method": "soft"}),
        ("final_threshold", 0.1, {}),
        ("penalty", 100.0, {"method": "magnitude"}),
        ("score_learning_rate", 0.1, {}),
        ("score_learning_rate", 0.1, {"method": "magnitude", "recipe": "paper"}),
        ("final_sparsity", 0.5, {"method": "l0", "recipe": "paper"}),
        ("end", 0.9, {"method": "l0", "recipe": "paper"}),
        ("recovery_steps", 10, {"method": "dense", "structure": "heads"}),
        ("num_train_epochs", 1.0, {"num_train_steps": 20}),
        ("alpha_distil", 0.5, {}),
        ("alpha_ce", 0.5, {}),
        ("temperature", 1.0, {}),
        ("teacher_learning_rate", 1e-4, {"teacher": "runs/dense"}),
    ],
)
def test_options_without_effect_are_refused(name, value, others):
    settings(**others)
    with pytest.raises(ValueError, match=rf"^{name} (is|are) .*\. [A-Z]"):
        settings(**others, **{name: value})


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", ["dense", "magnitude", "hard"])
def test_presets_serve_the_methods_that_are_compared(name, method):
    task, other = PRESETS[name].task or "sst2", {"method": method}
    found = TrainSettings(task=task, **settings_of(name, task, other) | other)
    assert found.penalty is None and (found.compact_at is not None) == found.is_structured
    is_distilled = bool(PRESETS[name].distilled) and method != "dense"
    assert (found.teacher is not None) == is_distilled and (found.dropout == 0.0) == is_distilled
    alone = settings_of(name, task, {**other, "teacher": None})
    assert "dropout" not in alone and "teacher" not in alone


@pytest.mark.parametrize(
    "task, others, rate",
    [
        ("stsb", {}, 8e-5),
        ("own", {"kind": "regression"}, 8e-5),
        ("own", {}, 3.2e-4),
        ("sst2", {"teacher": "runs/dense"}, 3.2e-4),
        ("sst2", {"alpha_hidden": 0.5}, 3.2e-4),
        ("sst2", {"alpha_hidden": 0.0}, 8e-5),
        ("sst2", {"teacher": None}, 8e-5),
        ("sst2", {"method": "dense"}, 8e-5),
    ],
)
def test_a_preset_is_distilled_where_there_is_a_teacher(task, others, rate):
    found = TrainSettings(task=task, **settings_of("short", task, others) | others)
    assert found.learning_rate == rate
    assert found.alpha_hidden == (others.get("alpha_hidden", 1.0) if found.teacher else 0.0)
    assert (found.teacher is not None) == (rate == 3.2e-4 or "alpha_hidden" in others)
    assert (found.teacher_learning_rate is not None) == (found.teacher == "fine-tune")


def test_baselines_take_the_options_of_what_they_are_compared_with():
    common = {"final_sparsity": 0.8, "begin": 0.2, "structure": "blocks", "block_size": (2, 2)}
    for method in ("dense", "magnitude", "hard", "soft"):
        found = settings(method=method, **common)
        assert found.note == (
            "Method dense has no use for final_sparsity, structure, block_size, begin: other "
            "methods have."
            if method == "dense"
            else ""
        )
    assert "recipe" in settings(method="magnitude", recipe="paper").note


def test_settings_survive_json():
    found = settings(lengths=(16, 32), begin=0.25, end=-10, model="x")
    assert TrainSettings.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_a_student_may_learn_hidden_states_alone():
    hidden = settings(teacher="x", alpha_ce=0.0, alpha_distil=0.0, alpha_hidden=1.0)
    assert hidden.alpha_hidden == 1.0


def test_options_without_effect_are_told_in_order():
    values = {**DEFAULTS, "task": "sst2", "method": "dense"}
    of_teachers = ["alpha_distil", "alpha_ce", "alpha_hidden", "temperature"]
    assert list(unused_options(values)) == [
        *("text_column", "pair_column", "label_column", "kind", "stride", "final_threshold"),
        *("penalty", "score_learning_rate", "compact_at", "recovery_steps", *of_teachers),
        "teacher_learning_rate",
    ]


@pytest.mark.parametrize(
    "value, step", [(0, 0), (7, 7), (-10, 90), (0.1, 10), (1.0, 100), (0.29, 29), (-0.1, 90)]
)
def test_steps_and_fractions(value, step):
    assert step_of(value, 100) == step


def test_presets_of_the_paper_have_its_schedules():
    """Golden values: the fraction that stays at a step, of the paper's own runs."""
    squad = settings_of("paper-squad-hard", "squad/v1.1")
    run = TrainSettings(task="squad", **{**squad, "final_sparsity": 0.85})
    schedule = pruning_setup.schedule_of(run, 55330)
    for step, kept in ((5400, 1.0), (10000, 0.734089120641191), (44530, 0.15), (55000, 0.15)):
        assert 1 - float(schedule(step)[1]) == pytest.approx(kept, abs=1e-6)
    qqp = TrainSettings(task="qqp", **settings_of("paper-qqp-hard", "qqp"))
    assert 1 - float(pruning_setup.schedule_of(qqp, 113710)(51355)[1]) == pytest.approx(0.2125)
    soft = TrainSettings(task="squad", **settings_of("paper-squad-soft", "squad"))
    threshold = float(pruning_setup.schedule_of(soft, 55330)(24965)[1])
    assert threshold == pytest.approx(0.0875, abs=1e-6)
    assert pruning_setup.method_of(soft) == tf_movprune.SoftMovement(400.0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_settings(name):
    task = PRESETS[name].task or "sst2"
    found = TrainSettings(task=task, **settings_of(name, task))
    assert PRESETS[name].reported and found.method in ("hard", "soft")
    pruning_setup.schedule_of(found, 150_000)


def test_presets_are_for_their_tasks():
    with pytest.raises(ValueError, match=r"preset paper-mnli-hard is for mnli, got sst2"):
        settings_of("paper-mnli-hard", "sst2")
    with pytest.raises(ValueError, match=r"no preset 'fast'. Presets are: short"):
        settings_of("fast", "sst2")


@pytest.mark.parametrize(
    "changes, method",
    [
        ({}, tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))),
        ({"method": "magnitude", "scope": "global"}, tf_movprune.Magnitude(scope="global")),
        ({"recipe": "paper"}, tf_movprune.HardMovement()),
        ({"method": "l0", "recipe": "paper"}, tf_movprune.L0(125.0)),
        (
            {"method": "soft"},
            tf_movprune.SoftMovement(
                100.0, target=True, score_initializer=tf_movprune.MagnitudeScores(1.0)
            ),
        ),
    ],
)
def test_methods_and_optimizers_that_settings_mean(keras, changes, method):
    model = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(8), keras.layers.Dense(2)])
    model.build([None, 4])
    chosen = settings(num_train_steps=100, **changes)
    model = pruning_setup.prune(model, chosen, 100)
    kernel = kernels(model)[0]
    assert kernel.method == method
    optimizer = pruning_setup.optimizer_of(model, chosen, 100, is_pruned=True)
    has_own = changes.get("recipe", "short") == "short" and method.has_scores
    assert (optimizer.score_optimizer is not None) == has_own
    if not has_own and method.has_scores:
        rate = 0.1 if changes.get("method") == "l0" else 0.01
        multiplier = kernel.settings.score_scale.multiplier
        assert multiplier * chosen.learning_rate == pytest.approx(rate)


def test_options_of_the_command_line_are_the_settings():
    from tf_movprune.cli.main import _parser

    text = next(
        action for action in _parser()._actions if action.dest == "command" or action.choices
    )
    options = text.choices["train"].format_help()
    for field in dataclasses.fields(TrainSettings):
        assert field.name == "task" or f"--{field.name}" in options


def test_folders_and_models_have_defaults():
    assert settings().folder == "runs/sst2-hard" and settings().model_or_default
    assert tiny_pretrained.settings("sst2", "x").folder == "x"


def test_a_model_is_compacted_between_the_ramp_and_the_end():
    chosen = settings(structure="neurons", end=0.5, compact_at=0.6)
    assert pruning_setup.compaction_step(chosen, 100) == 60
    assert pruning_setup.compaction_step(dataclasses.replace(chosen, compact_at=None), 100) == 100
    for step in (49, 100, 1.0):
        with pytest.raises(ValueError, match=r"from end, here 50, on, and before the last one"):
            pruning_setup.compaction_step(dataclasses.replace(chosen, compact_at=step), 100)


def test_files_are_for_tasks_that_read_them():
    files = {"train_file": "a.csv", "validation_file": "b.csv"}
    with pytest.raises(
        ValueError, match=r"train_file is for the tasks own and questions, got ownn"
    ):
        TrainSettings(task="ownn", text_column="text", **files)
    for task in ("own", "questions"):
        assert TrainSettings(task=task, **files).train_file == "a.csv"
