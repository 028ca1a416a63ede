"""What steps use to drive the real programs."""

from rbee_kit.program import Hive, Home, Program, Result
from rbee_kit.waiting import eventually
from tests.support.hub import Hub

__all__ = ["Hive", "Home", "Hub", "Program", "Result", "eventually"]
