"""Federated learning on scikit-learn's handwritten digits: 100 clients, most of them with a few of the ten digits only.

    pycoll run -n 3 examples/federated_digits.py --plot

Trains the same network with several methods, from the same start and with the same clients asked in each round: plain
FedAvg and what helps it against uneven data, secure aggregation while 30 % of the clients drop out, and differential
privacy, whose price with so few clients is high. Rank 0 is the server, the others host the clients; one rank is both.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import look
import numpy as np
import torch
from digits import build, load
from torch.nn import functional
from tqdm import tqdm

import pycoll
from pycoll import federated

CLIENTS, ALPHA = 100, 0.1


@dataclass
class Run:
    """A method, and how it went."""

    name: str
    method: federated.Method
    proximal: float = 0.0
    accuracies: list[float] = field(default_factory=list)  # on the test set, after each round
    reports: list[federated.Report] = field(default_factory=list)
    epsilon: float | None = None


def runs():
    few, secure = federated.Uniform(20), federated.Secure(range=256.0)
    adam, momentum = federated.FedAdam(lr=0.01), federated.FedAvgM(lr=0.5)
    private = federated.Central(clip=1.0, noise=0.8)
    return [
        Run("FedAvg", federated.Method(sample=few)),
        Run("FedProx", federated.Method(sample=few), proximal=0.1),
        Run("FedAvgM", federated.Method(sample=few, optimizer=momentum)),
        Run("FedAdam", federated.Method(sample=few, optimizer=adam)),
        Run("FedAdam, int8", federated.Method(sample=few, optimizer=adam, codec=pycoll.Int8())),
        Run(
            "FedAdam, secure, 30 % drop out",
            federated.Method(sample=few, optimizer=adam, secure=secure, dropout=DropOut(few, 0.3)),
        ),
        Run("FedAdam, private", federated.Method(sample=federated.Poisson(0.2), optimizer=adam, privacy=private)),
    ]
