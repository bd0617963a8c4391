"""The same work for many scans, on all cores.

Threads suffice: decompressing and resampling take most of the time and release Python's lock.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm


def in_threads(function: Callable, items: Sequence, label: str, unit: str) -> list:
    """The results of a function for every item, in their order, with a progress bar. The first error ends the work."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return list(tqdm(pool.map(function, items), label, len(items), unit=unit))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
