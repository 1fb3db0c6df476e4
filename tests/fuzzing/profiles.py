"""How many examples are tried, and which: the same each time, or others each time."""

import os
import random

import hypothesis


def each_of(strategy, count, *, is_quick):
    """Calls a function with examples of a strategy, as a decorator that calls it at once.

    Quick runs try the same examples each time. Others start from a seed that they print, and from
    that of the environment variable `TF_MOVPRUNE_FUZZ_SEED` if there is one.

    Args:
      strategy: hypothesis's strategy of examples.
      count: number of examples.
      is_quick: whether the run is a quick one.
    """
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=is_quick,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def call(function):
        test = settings(hypothesis.given(strategy)(function))
        if not is_quick:
            drawn = random.SystemRandom().randrange(2**32)
            seed = int(os.environ.get("TF_MOVPRUNE_FUZZ_SEED", drawn))
            print(f"TF_MOVPRUNE_FUZZ_SEED={seed} tries these {count} examples again.")
            test = hypothesis.seed(seed)(test)
        test()

    return call
