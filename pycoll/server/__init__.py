"""A parameter server: see docs/parameter-server.md."""

from .gate import Gate, Mode, bounded
from .optimizer import PSOptimizer
from .parameter_server import ParameterServer
from .worker import Pending

__all__ = ["Gate", "Mode", "PSOptimizer", "ParameterServer", "Pending", "bounded"]
