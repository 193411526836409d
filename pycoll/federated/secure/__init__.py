"""Secure aggregation: the server learns the sum of the clients' vectors, and of each vector nothing.

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", figure 4, against an
honest-but-curious server. `Participant` is a client's side of a round, `Collector` the server's; neither communicates.
"""

from .collector import Collector
from .fixed_point import FixedPoint
from .participant import Participant
from .shamir import TooFewShares

__all__ = ["Collector", "FixedPoint", "Participant", "TooFewShares"]
