"""The search for the largest number, against trying all numbers."""

import pytest

from lmms_eval_stgridpool.health.largest import NEAR, largest


@pytest.mark.parametrize("limit", [0, 1, 63, 64, 65, 999, 1000, 5000])
@pytest.mark.parametrize("refused", [lambda n: False, lambda n: n % 10 > 0, lambda n: n < 3, lambda n: n % 64 > 0])
def test_numbers_may_be_refused(limit, refused):
    def holds(number):
        return None if refused(number) else number <= limit

    assert largest(holds, 1000) == max((n for n in range(1, 1001) if holds(n)), default=None)


def test_counts_may_go_up_and_down():
    def holds(number):
        return number + 20 * (number % 3) <= 300

    assert NEAR > 40
    assert largest(holds, 10_000) == 300  # 300 % 3 is 0, and 301 and 302 are above


def test_nothing_may_hold():
    assert largest(lambda number: False, 100) is None
    assert largest(lambda number: None, 100) is None
