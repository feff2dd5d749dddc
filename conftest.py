"""Settings of the whole test run, before any test module or notebook kernel starts."""

import os

# Under `pytest -n 2` each worker's notebook kernel gets one thread: two kernels with two threads
# each would wait for each other on a two-core machine.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A thread that has nothing to do sleeps; by default it spins, and beside any other busy process a
# step of two threads takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
