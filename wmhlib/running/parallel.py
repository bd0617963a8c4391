"""The same work for many scans, on all cores.

Threads suffice where decompressing and resampling, which release Python's lock, take most of the time. Segmentation uses
processes with one thread each, since two threads make one network only one and a half times as fast.
"""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm


def in_threads(function: Callable, items: Sequence, label: str, unit: str) -> list:
    """The results of a function for every item, in their order, with a progress bar. The first error ends the work."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return list(tqdm(pool.map(function, items), label, len(items), unit=unit))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def in_processes(function: Callable, items: Sequence, processes: int) -> Generator:
    """Yield the results of a function for every item as they come, from processes with one thread each.

    The first error ends the work, and so does closing the iterator.

    Raises
    ------
    ChildProcessError
        A process was ended.
    """
    try:
        with joblib.parallel_config("loky", inner_max_num_threads=1, n_jobs=processes):
            yield from joblib.Parallel(return_as="generator_unordered")(
                joblib.delayed(function)(item) for item in items
            )
    except TerminatedWorkerError:
        raise ChildProcessError(
            "A process that segmented a scan was ended, probably for lack of memory: end other programs, or use one process."
        ) from None
