"""Guards of layers and of train functions, with functions that stand for those of Keras."""

import types

import pytest
import tensorflow as tf

from tf_movprune.core.training_guard import GuardedTrainFunction, TrainingGuard

NOTHING = r"^The pruned layer 'b' is being trained, but nothing refreshes its masks\."


@pytest.fixture
def guards():
    return [TrainingGuard("b"), TrainingGuard("c")]


def allow(guards, value=True, **kwargs):
    for guard in guards:
        guard.allow(value, **kwargs)


def guarded(guards, function=lambda iterator: iterator, may_refresh=False):
    model = types.SimpleNamespace()
    model.train_function = GuardedTrainFunction(model, function, guards, may_refresh)
    return model


# ---- one guard


def test_a_guard_is_open_while_it_is_allowed():
    guard = TrainingGuard("b")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=NOTHING):
            guard.check()
        assert guard.has_refused and not guard.is_open
        guard.allow(True)
        guard.check()
        assert guard.is_open and not guard.has_refused
        guard.allow(False)


@pytest.mark.parametrize("once", [True, False])
def test_a_guard_is_closed_after_a_step(once):
    guard = TrainingGuard("b")
    guard.allow(True, once=once)
    guard.check()
    guard.end_step()
    with pytest.raises(RuntimeError, match=NOTHING):
        guard.check()


def test_a_guard_is_closed_for_good_once_masks_are_in_the_weights():
    guard = TrainingGuard("b")
    guard.allow(True)
    guard.fold()
    assert guard.is_folded and not guard.is_open
    for use in (guard.check, lambda: guard.allow(True), lambda: guard.allow(False)):
        with pytest.raises(RuntimeError, match=r"'b' cannot be trained further.*strip_pruning"):
            use()


def test_a_refusal_names_what_to_do_with_a_teacher():
    with pytest.raises(RuntimeError, match="such as a teacher, call it with training=False"):
        TrainingGuard("b").check()


# ---- train functions


def test_a_step_is_taken_while_the_guards_are_open(guards):
    steps = []
    model = guarded(guards, steps.append)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.train_function(1)
    for batch in (2, 3):
        allow(guards)
        model.train_function(batch)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.train_function(4)
    assert steps == [2, 3]


def test_one_step_is_taken_after_an_update(guards):
    model = guarded(guards)
    for batch in range(2):
        allow(guards, once=True)
        assert model.train_function(batch) == batch
        with pytest.raises(RuntimeError, match=NOTHING):
            model.train_function(batch)


def test_a_step_that_fails_closes_the_guards(guards):
    def interrupted(iterator):
        raise KeyboardInterrupt

    model = guarded(guards, interrupted)
    allow(guards)
    with pytest.raises(KeyboardInterrupt):
        model.train_function(0)
    assert not any(guard.is_open for guard in guards)
    assert model.train_function is not None


def test_a_refusal_in_traced_code_is_raised_without_its_frames(guards):
    def traced(iterator):
        guards[0].allow(False)
        try:
            guards[0].check()
        except RuntimeError as error:
            raise TypeError("in user code: many frames") from error

    model = guarded(guards, traced)
    allow(guards)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.train_function(0)


def test_a_train_step_that_refreshes_masks_needs_no_callback(guards):
    """It does so while it is traced, which is seen once, and not in later steps."""
    traced = []

    def function(iterator):
        if not traced:
            with tf.Graph().as_default():
                allow(guards, once=True)
        traced.append(iterator)

    model = guarded(guards, function, may_refresh=True)
    for batch in range(3):
        model.train_function(batch)
    assert traced == [0, 1, 2]


def test_a_train_step_that_might_refresh_masks_and_does_not_is_made_anew(guards):
    model = guarded(guards, may_refresh=True)
    function = model.train_function
    with pytest.raises(RuntimeError, match=NOTHING):
        function(0)
    assert model.train_function is None


@pytest.mark.parametrize("error", [TypeError, KeyboardInterrupt])
def test_a_train_step_that_fails_before_it_refreshes_masks_is_made_anew(guards, error):
    def failing(iterator):
        raise error("in user code")

    model = guarded(guards, failing, may_refresh=True)
    with pytest.raises(error, match="in user code"):
        model.train_function(0)
    assert model.train_function is None


class Around:
    """A model that was not guarded itself, and trains layers inside it."""

    def __init__(self, *guards):
        self.guards = guards
        self.train_function = self.train_step

    def train_step(self, iterator):
        for guard in self.guards:
            guard.check()


def test_a_model_around_takes_the_one_step_that_its_layers_were_allowed(guards):
    model = Around(*guards, guards[0])  # a layer may be called twice
    for _ in range(2):
        allow(guards, once=True)
        model.train_function(0)
        with pytest.raises(RuntimeError, match=NOTHING):
            model.train_function(0)
        model.train_function = model.train_function or model.train_step  # as Keras makes it anew
    for _ in range(2):
        allow(guards)
        model.train_function(0)


def test_a_step_of_a_model_around_may_allow_itself_again(guards):
    class Refreshing(Around):
        def train_step(self, iterator):
            allow(self.guards, once=True)
            super().train_step(iterator)

    model = Refreshing(*guards)
    for _ in range(2):
        model.train_function(0)
