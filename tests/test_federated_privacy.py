"""Differential privacy: the account is dp-accounting's, and the noise is there, as much as was asked for."""

import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from workers.federated_ranks import Sines

import pycoll
from pycoll import federated, loopback


def run(method, rounds, clients):
    def train(comm):
        federation = federated.Federation(comm, clients, method)
        federation.run(rounds)
        return federation

    return loopback.run(2, train, timeout=30)[0]


class Zeros(Sines):
    """Nobody learns anything, unless the member is one of them: it moves the first parameter by 100."""

    count = 4

    def __init__(self, member=False):
        super().__init__()
        self.member = member

    def train(self, client, parameters, round):
        return parameters + (self.member and client == 7) * np.array([100.0, 0, 0, 0])


def test_epsilon_is_the_accountants():
    accounting = pytest.importorskip("dp_accounting")
    from dp_accounting import rdp

    def account(event, rounds):
        accountant = rdp.RdpAccountant()
        accountant.compose(event, rounds)
        return accountant.get_epsilon(1e-5)

    gaussian = accounting.GaussianDpEvent(1.3)
    everyone = run(federated.Method(privacy=federated.Central(1.0, 1.3)), 7, Zeros())
    assert everyone.epsilon(1e-5) == pytest.approx(account(gaussian, 7), rel=1e-12)
    sampled = federated.Method(privacy=federated.Central(1.0, 1.3), sample=federated.Poisson(0.3))
    want = account(accounting.PoissonSampledDpEvent(0.3, gaussian), 7)
    assert run(sampled, 7, Zeros()).epsilon(1e-5) == pytest.approx(want, rel=1e-12)
    assert want < everyone.epsilon(1e-5)

    local = run(federated.Method(privacy=federated.Local(1.0, 1.3), sample=federated.Uniform(4)), 5, Zeros())
    asked = max(local.state_dict()["asked"].values())
    assert 2 <= asked <= 5
    assert local.epsilon(1e-5) == pytest.approx(account(accounting.GaussianDpEvent(1.3 / 2), asked), rel=1e-12)
    assert federated.Central(1.0, 1.3).epsilon(1e-5, 0.3, 0) == 0


def changes(member, noise, rounds):
    """What each round added to the first parameter, times the number of clients."""
    method = federated.Method(privacy=federated.Central(clip=1.0, noise=noise))
    trail = [0.0]

    def train(comm):
        federation = federated.Federation(comm, Zeros(member), method)
        federation.run(rounds, on_round=lambda report: trail.append(federation.parameters[0]))

    loopback.run(1, train)
    return 10 * np.diff(trail)


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_membership_can_be_told_as_well_as_the_noise_allows(noise):
    trials = 800
    best = math.erf(1 / (2 * math.sqrt(2) * noise)) if noise else 1.0  # of telling N(0, noise) from N(1, noise)
    # An attacker that knows all else (Yeom et al. 2018): its advantage over guessing, from 0 to 1.
    got = np.mean(changes(True, noise, trials) > 0.5) - np.mean(changes(False, noise, trials) > 0.5)
    # Each of the two means is of `trials` coin tosses: six standard deviations of their difference.
    assert abs(got - best) <= (6 * math.sqrt(0.5 / trials) if noise else 0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r"dp-accounting: pip install 'pycoll\[federated\]'"):
        federated.Central(1.0, 1.0).epsilon(1e-5, 1.0, 1)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(ImportError, match=r"cryptography: pip install 'pycoll\[federated\]'"):
        runpy.run_path(str(Path(federated.__file__).parent / "secure" / "mask.py"))


def test_clipping():
    privacy = federated.Central(clip=2.0, noise=0)
    np.testing.assert_allclose(privacy.clipped(np.array([30.0, 40.0])), [1.2, 1.6])
    np.testing.assert_array_equal(privacy.clipped(np.array([0.3, 0.4])), [0.3, 0.4])
    # Ten clients, one of which moves a parameter by 100: the mean moves by clip / 10, whatever their samples.
    moved = run(federated.Method(privacy=privacy), 1, Zeros(member=True)).parameters
    np.testing.assert_allclose(moved, [0.2, 0, 0, 0], atol=1e-12)
    # It does so too when half of them stay away: the divisor must not say how many.
    few = federated.Method(privacy=privacy, dropout=lambda round, client: client < 5)
    np.testing.assert_allclose(run(few, 1, Zeros(member=True)).parameters, [0.2, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("secure", [None, federated.Secure(range=64.0)])
@pytest.mark.parametrize("kind", [federated.Central, federated.Local])
def test_noise_has_the_size_that_was_asked_for(kind, secure):
    if secure:
        pytest.importorskip("cryptography")

    class Many(Zeros):
        count = 20_000

        def train(self, client, parameters, round):
            return parameters

    parameters = run(federated.Method(privacy=kind(clip=0.5, noise=3.0), secure=secure), 1, Many()).parameters
    # Central: one noise over ten clients. Local: the mean of ten.
    want = 1.5 / 10 if kind is federated.Central else 1.5 / math.sqrt(10)
    assert parameters.std() == pytest.approx(want, rel=6 / math.sqrt(2 * 20_000))
    assert abs(parameters.mean()) < 6 * want / math.sqrt(20_000)


def test_noise_is_new_each_time_and_there_without_answers():
    privacy = federated.Central(1.0, 1.0)
    nobody = federated.Method(privacy=privacy, dropout=lambda round, client: True)
    first, second = (run(nobody, 1, Zeros()).parameters for _ in range(2))
    assert (first != second).all() and first.all()  # that nobody answered is not to be seen


def test_the_choice_of_clients_is_secret_unless_a_seed_is_given():
    def asked(**options):
        method = federated.Method(sample=federated.Poisson(0.5), **options)

        def train(comm):
            return federated.Federation(comm, Zeros(), method).run(8)

        return [report.asked for report in loopback.run(2, train, timeout=30)[0]]

    private = {"privacy": federated.Local(1.0, 1.0)}
    assert asked(**private) != asked(**private)  # of 2^80 possible ones
    assert asked(**private, seed=7) == asked(**private, seed=7)
    assert asked() == asked(seed=0)


def test_the_server_alone_keeps_the_account():
    def account(comm):
        federation = federated.Federation(comm, Zeros(), federated.Method(privacy=federated.Central(1.0, 1.0)))
        if not federation.is_server:
            with pytest.raises(pycoll.InvalidArgument, match=r"rank 1 keeps no account, wanted .* the server, rank 0"):
                federation.epsilon(1e-5)

    loopback.run(2, account, timeout=30)


def test_bad_arguments_are_named():
    with pytest.raises(pycoll.InvalidArgument, match="clip 0"):
        federated.Central(0, 1)
    with pytest.raises(pycoll.InvalidArgument, match="no privacy"):
        run(federated.Method(), 1, Zeros()).epsilon(1e-5)
    with pytest.raises(pycoll.InvalidArgument, match="codec after clipping"):
        federated.Method(privacy=federated.Local(1, 1), codec=pycoll.Int8())
