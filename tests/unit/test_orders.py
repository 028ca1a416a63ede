"""What a hive is told while it is still being built."""

import asyncio
from collections.abc import Callable

import pytest

from rbee_core.hive.processes.orders import Orders, Unwanted


def build(orders: Orders, begun: Callable[[], None], given_up: Callable[[], None] = lambda: None) -> None:
    """Build something that never gets done."""

    async def building() -> None:
        async with orders.heeded():
            begun()
            try:
                await asyncio.Event().wait()
            finally:
                given_up()

    asyncio.run(building())


def test_a_second_signal_while_the_building_is_given_up_is_taken() -> None:
    told: list[bool] = []
    orders = Orders(lambda: told.append(True))
    with pytest.raises(Unwanted):
        build(orders, orders.stop, orders.stop_now)
    orders.stop_now()
    assert (told, orders.stop_wanted.is_set(), orders.force.is_set()) == ([True], True, True)


def test_a_hive_that_was_told_to_stop_before_is_not_built() -> None:
    orders = Orders()
    orders.stop()
    with pytest.raises(Unwanted):
        build(orders, lambda: None)


def test_a_wait_that_took_too_long_is_no_order() -> None:
    def late() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        build(Orders(), late)
