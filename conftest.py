"""Settings of the whole test run, before any test module or notebook kernel starts."""

import os

# Under `pytest -n 2` each worker's notebook kernel gets one thread: two kernels with two threads
# each would wait for each other on a two-core machine.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The package sets what notebook kernels inherit, and what must be there before torch is imported.
import t2i_course  # noqa: E402, F401
