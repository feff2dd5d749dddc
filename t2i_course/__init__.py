"""Text to image from scratch: the helper package of the course in `notebooks/`."""

import os

__version__ = "0.1.0"

# Both must be set before transformers is imported: its loading bars would land in the notebooks'
# outputs, and its tokenizer threads warn when a data loader forks.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Must be set before torch is imported, so it serves the command line, and notebooks in a shell that
# sets it: idle threads sleep. By default they spin, and beside any other busy process a step of two
# threads takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# GNU's threads look for work this often before they sleep: some ten microseconds. Without, they are
# woken for each of the many small parts of a step, which then takes half as long again.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
