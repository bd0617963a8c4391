"""Work in threads: results in order, and an error that ends the rest."""

import time

import pytest

from wmhlib.running.parallel import in_threads


def test_results_come_in_the_order_of_their_items():
    assert in_threads(lambda n: time.sleep(0.02 * (4 - n)) or n * n, range(5), "squares", "number") == [0, 1, 4, 9, 16]


def test_an_error_ends_the_work():
    seen = []

    def fails_at_two(number):
        seen.append(number)
        if number == 2:
            raise ValueError("two")
        time.sleep(0.02)

    with pytest.raises(ValueError, match="two"):
        in_threads(fails_at_two, range(200), "numbers", "number")
    assert len(seen) < 100
