"""The console script `tf-movprune`."""

from tf_movprune.cli.main import main as main
