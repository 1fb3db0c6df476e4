"""`python -m tf_movprune.cli`, for environments without the script."""

import sys

from tf_movprune.cli.main import main

sys.exit(main())
