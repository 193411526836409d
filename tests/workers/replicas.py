"""The check at the end of examples/mirrored.py: of replicas that are alike, and of some that differ in one bit."""

import mirrored
import torch

import pycoll

with pycoll.init() as comm:
    x = torch.zeros(5)
    same = mirrored.alike(comm, [x])
    x[3] = -0.0 if comm.rank == 1 else 0.0
    print(f"rank {comm.rank}: {same}, then {mirrored.alike(comm, [x])}")
