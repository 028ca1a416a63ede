"""What steps use to drive the real programs."""

from tests.support.hub import Hub
from tests.support.program import Hive, Home, Program, Result
from tests.support.waiting import eventually

__all__ = ["Hive", "Home", "Hub", "Program", "Result", "eventually"]
