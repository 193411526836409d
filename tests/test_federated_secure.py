"""Secure aggregation: the sum is exact, dropouts are survived, and one client's message looks like noise."""

import numpy as np
import pytest
from workers.federated_ranks import Sines

import pycoll
from pycoll import federated, loopback

pytest.importorskip("cryptography")
from pycoll.federated import secure
from pycoll.federated.secure import mask, shamir

STAGES = ("keys", "shares", "masked", "unmask")


def one_round(vectors, survivors=2 / 3, lost=None, round=5):
    """Total, the collector, and each masked vector. lost: which clients leave before which of STAGES."""
    gone, lost = set(), lost or {}
    people = {c: secure.Participant(c, round, survivors) for c in vectors}

    def there(stage):
        gone.update(lost.get(stage, ()))
        return [c for c in people if c not in gone]

    directory = {c: people[c].advertise() for c in there("keys")}
    boxes = {c: people[c].share(directory) for c in there("shares")}
    collector, seen = secure.Collector(round, survivors, directory), {}
    for c in there("masked"):
        people[c].receive({sender: box[c] for sender, box in boxes.items() if sender != c})
        seen[c] = people[c].masked(vectors[c].copy())
        collector.add(c, seen[c])
    collector.require(len(seen))
    shares = {c: people[c].reveal(list(seen)) for c in there("unmask")}
    return collector.total(sorted(boxes), shares), collector, seen


def random_vectors(clients, count, dtype=np.uint32):
    random = np.random.default_rng(clients)
    return {c: random.integers(0, 2 ** np.iinfo(dtype).bits, count, dtype) for c in range(clients)}


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("stage", [None, *STAGES])
def test_the_sum_is_exact_with_30_percent_dropouts(stage, dtype):
    vectors = random_vectors(20, 70_000 if stage == "masked" else 100, dtype)  # more than one chunk of mask
    lost = {stage: [1, 4, 5, 11, 18, 19]} if stage else {}
    total, collector, _ = one_round(vectors, lost=lost)
    counted = [c for c in vectors if stage in (None, "unmask") or c not in lost[stage]]
    assert collector.survivors == counted
    np.testing.assert_array_equal(total, np.sum([vectors[c] for c in counted], axis=0, dtype=dtype))


def test_dropouts_at_every_stage_at_once():
    vectors = random_vectors(12, 500)
    total, collector, _ = one_round(vectors, survivors=0.5, lost={"shares": [0], "masked": [3, 11], "unmask": [7, 8]})
    assert collector.survivors == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(total, np.sum([vectors[c] for c in collector.survivors], axis=0, dtype=np.uint32))


@pytest.mark.parametrize("stage", ["masked", "unmask"])
def test_one_dropout_too_many_gives_nothing(stage):
    with pytest.raises(secure.TooFewShares, match="wanted at least 14"):
        one_round(random_vectors(20, 10), lost={stage: range(7)})


def chi_square(words):
    """How far the bytes of `words` are from uniform, in standard deviations of the statistic."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = words.nbytes / 256
    return (((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(2 * 255)


def test_what_the_server_sees_of_one_client_is_uniform():
    count = 200_000
    vectors = {c: np.full(count, 1000 * c, np.uint32) for c in range(5)}
    total, _, seen = one_round(vectors)
    again = one_round(vectors)[2]
    assert chi_square(vectors[3]) > 1000 and chi_square(total) > 1000  # the test sees what is not uniform
    # Six deviations: about one false alarm in 1e8 of these.
    for c in vectors:
        assert abs(chi_square(seen[c])) < 6
        assert abs(chi_square(seen[c] - again[c])) < 6  # the same vector twice: nothing in common
        others = seen[(c + 1) % 5].astype(np.float64)
        assert abs(np.corrcoef(seen[c], others)[0, 1]) < 6 / np.sqrt(count)
    # What would be left if the masks of a client were known but for one pair's: uniform still.
    pair = seen[0] + seen[1] + seen[2] + seen[3]
    assert abs(chi_square(pair)) < 6


def test_a_vector_that_came_too_late_stays_masked():
    """The server may learn the key of a client that it took for lost, and take its pairwise masks off: one is left."""
    vectors = {c: np.full(100_000, 7, np.uint32) for c in range(4)}
    people = {c: secure.Participant(c, 0, 0.5) for c in vectors}
    directory = {c: p.advertise() for c, p in people.items()}
    boxes = {c: p.share(directory) for c, p in people.items()}
    for c, p in people.items():
        p.receive({s: box[c] for s, box in boxes.items() if s != c})
    late = people[3].masked(vectors[3].copy())
    shares = {c: people[c].reveal([0, 1, 2]) for c in (0, 1, 2)}
    key = mask.X25519PrivateKey.from_private_bytes(shamir.join({c: given[3] for c, given in shares.items()}, 2))
    for c in (0, 1, 2):
        purpose = secure.participant.pair_purpose(0, c, 3)
        seed = mask.key_for(mask.agree(key, directory[c][mask.KEY_BYTES :]), purpose)
        mask.add_masks(late, [(seed, 1)])
    assert abs(chi_square(late)) < 6
    mask.add_masks(late, [(people[3]._self_seed, -1)])  # which nobody else has
    np.testing.assert_array_equal(late, vectors[3])


def test_shamir():
    secret = bytes(range(224, 256))
    shares = shamir.split(secret, 3, [0, 2, 5, 9])
    for some in ([0, 2, 5], [9, 5, 0], [2, 5, 9, 0]):
        assert shamir.join({h: shares[h] for h in some}, 3) == secret
    with pytest.raises(secure.TooFewShares, match="2 clients gave their shares, wanted at least 3"):
        shamir.join({h: shares[h] for h in (0, 9)}, 3)
    # Two shares fit any secret: with the third chosen freely, all are as likely.
    others = {shamir.split(secret, 3, [0, 2, 5, 9])[0] for _ in range(50)}
    assert len(others) == 50
    assert shamir.join(shamir.split(b"\xff" * 32, 1, [4]), 1) == b"\xff" * 32


def test_a_client_reveals_once_and_not_to_few():
    people = {c: secure.Participant(c, 0, 2 / 3) for c in range(4)}
    directory = {c: p.advertise() for c, p in people.items()}
    boxes = {c: p.share(directory) for c, p in people.items()}
    for c, p in people.items():
        p.receive({s: box[c] for s, box in boxes.items() if s != c})
    with pytest.raises(secure.TooFewShares, match="2 clients are left, wanted at least 3"):
        people[0].reveal([0, 1])
    shares = people[0].reveal([0, 1, 2])
    seeds = {c: p._self_seed for c, p in people.items()}
    assert len(shares) == 4 and len(set(shares.values())) == 4 and not set(shares.values()) & set(seeds.values())
    with pytest.raises(pycoll.Error, match="asked twice"):
        people[0].reveal([0, 1, 3])
    people[0].masked(np.zeros(3, np.uint32))
    with pytest.raises(pycoll.Error, match="asked twice to mask in round 0"):
        people[0].masked(np.ones(3, np.uint32))


def test_shares_cannot_be_changed_on_the_way():
    from cryptography.exceptions import InvalidTag

    people = {c: secure.Participant(c, 0, 2 / 3) for c in range(3)}
    directory = {c: p.advertise() for c, p in people.items()}
    boxes = {c: p.share(directory) for c, p in people.items()}
    changed = bytearray(boxes[1][0])
    changed[5] ^= 1
    for box in (bytes(changed), boxes[1][2], boxes[2][0]):  # flipped, for somebody else, from somebody else
        with pytest.raises(InvalidTag):
            people[0].receive({1: box, 2: boxes[2][0]})
    with pytest.raises(pycoll.InvalidArgument, match="another key for client 0"):
        people[0].share({**directory, 0: directory[1]})


def test_masks_are_aes_256_in_counter_mode():
    # McGrew and Viega, "The Galois/Counter Mode of operation", test case 13: H, a block of zeros under a key of zeros.
    words = np.zeros(4, np.uint32)
    mask.add_masks(words, [(bytes(32), 1)])
    assert words.astype("<u4").tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    mask.add_masks(words, [(bytes(32), -1)])
    assert not words.any()


@pytest.mark.parametrize("bits", [32, 64])
def test_fixed_point(bits):
    fixed = secure.FixedPoint(bits, range=8.0, terms=20)
    random = np.random.default_rng(0)
    numbers = random.uniform(-8, 8, (20, 1000))
    numbers[:, 0], numbers[:, 1] = 8.0, -8.0  # the largest sums that there can be
    total = np.sum([fixed.encode(row) for row in numbers], axis=0, dtype=fixed.dtype)
    error = np.abs(fixed.decode(total) - numbers.sum(axis=0)).max()
    assert error <= 20 * 2.0 ** -(fixed.fraction + 1) + 1e-12
    for row in numbers.astype(np.float32):  # a weight is a factor in the type of the numbers
        exact = np.rint((row * np.float32(0.75)).astype(np.float64) * 2.0**fixed.fraction).astype(np.int64)
        np.testing.assert_array_equal(fixed.encode(row, 0.75), exact.astype(fixed.dtype))
    for wrong in (8.01, -8.01, np.nan):
        with pytest.raises(pycoll.InvalidArgument, match="wanted at most range 8"):
            fixed.encode(np.array([1.0, wrong]))


def test_numbers_that_bits_cannot_hold_are_refused():
    class Huge(Sines):
        def samples(self, client):
            return 2**31

        def target(self, client):
            return np.zeros(self.count)

    def train(clients, **options):
        method = federated.Method(secure=federated.Secure(**options))
        return loopback.run(2, lambda comm: federated.Federation(comm, clients, method).run(1), timeout=30)

    # Before anything was sent; 64 bits would do.
    with pytest.raises(pycoll.InvalidArgument, match=r"steps of 16, .* a range of at most 4.194e\+05, or bits=64$"):
        train(Sines(), range=1e9)
    with pytest.raises(pycoll.InvalidArgument, match=r"of at most 4.194e\+05$"):
        train(Sines(), range=1e30)
    with pytest.raises(pycoll.InvalidArgument, match=r"client \d has 2147483648 samples in round 0, wanted at most"):
        train(Huge())
    with pytest.raises(pycoll.InvalidArgument, match=r"client \d in round 0: .* wanted at most range 0.01"):
        train(Sines(), range=0.01)


def test_a_federation_with_30_percent_dropouts():
    def dropout(round, client):
        return client in (2, 5, 9)

    def train(comm, method):
        federation = federated.Federation(comm, Sines(), method)
        return federation.run(3), federation.parameters

    plain = federated.Method(dropout=dropout)
    want = loopback.run(3, lambda comm: train(comm, plain)[1], timeout=30)[0]
    for bits, error in ((32, 1e-5), (64, 1e-12)):
        method = federated.Method(dropout=dropout, secure=federated.Secure(bits=bits, range=16.0))
        reports, parameters = loopback.run(3, lambda comm, m=method: train(comm, m), timeout=30)[0]
        assert [r.reported for r in reports] == [[0, 1, 3, 4, 6, 7, 8]] * 3
        np.testing.assert_allclose(parameters, want, rtol=0, atol=error)


def test_a_round_below_the_threshold_is_void():
    def train(comm):
        method = federated.Method(dropout=lambda round, client: round == 0 and client < 4, secure=federated.Secure())
        federation = federated.Federation(comm, Sines(), method)
        return federation.run(2), federation.parameters

    reports, parameters = loopback.run(2, train, timeout=30)[0]
    assert reports[0].void == "secure aggregation: 6 clients, wanted at least 7"
    assert reports[1].void is None and len(reports[1].reported) == 10
    assert np.abs(parameters).max() > 0.01
