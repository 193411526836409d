"""Federated learning: a server and its clients over the ranks of a communicator, many virtual clients to a rank.

    clients = federated.TorchClients(model, cross_entropy, data)
    federation = federated.Federation(comm, clients, federated.Method(optimizer=federated.FedAvgM(lr=0.5)))
    federation.run(rounds=50)

docs/federated.md has the methods, the threat model of secure aggregation, and what the accounts of privacy count.
"""

from . import partition
from .aggregate import Aggregate, Krum, Mean, Median, TooFewUpdates, TrimmedMean
from .clients import Clients, TorchClients
from .federation import Federation, Report
from .method import Method, Secure
from .optimizer import FedAdam, FedAvg, FedAvgM
from .privacy import Central, Local, Privacy
from .sampling import Everyone, Poisson, RandomDropout, Sample, Uniform

__all__ = [
    "Aggregate",
    "Central",
    "Clients",
    "Everyone",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "Federation",
    "Krum",
    "Local",
    "Mean",
    "Median",
    "Method",
    "Poisson",
    "Privacy",
    "RandomDropout",
    "Report",
    "Sample",
    "Secure",
    "TooFewUpdates",
    "TorchClients",
    "TrimmedMean",
    "Uniform",
    "partition",
]
