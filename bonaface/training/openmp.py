"""Import this before torch: threads of a CPU step that wait for others sleep, so that loading workers get the core.

They spin by default. Two threads that share two busy cores with the workers then wait for each other at every barrier
of a step: 15 times slower was seen. GNU's OpenMP reads the variable when torch loads it; one that is set already stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
