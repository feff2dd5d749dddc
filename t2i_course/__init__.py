"""Text to image from scratch: the helper package of the course in `notebooks/`."""

import os

__version__ = "0.1.0"

# Both must be set before transformers is imported: its loading bars would land in the notebooks'
# outputs, and its tokenizer threads warn when a data loader forks.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
