"""Codecs without ranks: what encode() and decode() keep of numbers, byte by byte, and what they refuse."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pycoll
from pycoll import InvalidArgument, TransportError
from pycoll.codec import (
    Cast,
    Chain,
    Fp8,
    Identity,
    Int4,
    Int8,
    RandomK,
    SharedScale,
    Sign,
    TopK,
    decode,
    encode,
    most_bytes,
    parse,
)

F = np.float32
NAN = float("nan")
COUNTS = [0, 1, 31, 255, 257, 1000, 70001]
HEADER = struct.Struct("<IBBBBQQII")  # magic, version, codec, format, reserved, count, bytes, parameter, check
MAGIC = 0x57594350

# name: codec, number of the codec and of the format in the header, its last parameter
DENSE = {
    "identity": (Identity(), 0, 0, 0),
    "bf16": (Cast("bf16"), 1, 2, 0),
    "fp16": (Cast("fp16"), 1, 1, 0),
    "int8": (Int8(), 2, 3, 256),
    "int8-stochastic": (Int8(block=64, rounding="stochastic", seed=3), 2, 3, 64),
    "int4": (Int4(), 3, 4, 128),
    "int4-stochastic": (Int4(block=32, rounding="stochastic"), 3, 4, 32),
    "e4m3": (Fp8(), 4, 5, 128),
    "e5m2": (Fp8("e5m2", block=4096), 4, 6, 4096),
    "sign": (Sign(), 5, 7, 256),
}
SPARSE = {
    "topk-exact": (TopK(0.05, exact=True), 0),
    "topk-near": (TopK(0.05), 0),
    "topk-k": (TopK(k=7, exact=True), 0),
    "topk-bf16": (TopK(0.05, values="bf16"), 2),
    "topk-fp16": (Chain(TopK(0.05), Cast("fp16")), 1),
    "topk-int8": (Chain(TopK(0.05), Int8()), 3),
    "topk-int4": (TopK(0.05, values="int4"), 4),
}
RANDOM = {"randomk": RandomK(0.05, seed=9), "randomk-k": RandomK(k=7)}
CODECS = {name: row[0] for name, row in DENSE.items()} | {name: row[0] for name, row in SPARSE.items()} | RANDOM
# Nothing is rounded away that the residual does not hold to the bit.
EXACT = ["identity", "bf16", "fp16", "topk-exact", "topk-near", "topk-k", "topk-bf16", "topk-fp16", *RANDOM]


def normal(count, seed=0):
    return np.random.default_rng([seed, count]).standard_normal(count).astype(F)


def bits(x):
    return np.ascontiguousarray(x).view(np.uint32)


def same_bits(x, y):
    return np.array_equal(bits(x), bits(y))


def scales(x, block, top):
    """Of each element: what one step of its block's grid is worth."""
    largest = [np.abs(x[begin : begin + block]).max() for begin in range(0, x.size, block)]
    return np.repeat(np.array(largest, np.float64) / top, block)[: x.size]


def bound(name, x):
    """How far a decoded element may be from x: half a step, or one if it is chosen at random. The grid's position is
    computed with two roundings of at most 2^-24 each of at most `top` steps, and the product is rounded once more."""
    magnitude = np.abs(x).astype(np.float64)
    match name:
        case "identity":
            return 0 * magnitude
        case "bf16":
            return magnitude * 2**-8
        case "fp16":
            return np.maximum(magnitude * 2**-11, 2**-25)
        case "int8":
            return scales(x, 256, 127) * (0.5 + 3 * 127 * 2**-24)
        case "int8-stochastic":
            return scales(x, 64, 127) * (1 + 3 * 127 * 2**-24)
        case "int4":
            return scales(x, 128, 7) * (0.5 + 3 * 7 * 2**-24)
        case "int4-stochastic":
            return scales(x, 32, 7) * (1 + 3 * 7 * 2**-24)
        case "e4m3":  # 4 significant bits; below 2^-6 steps of 2^-9
            return np.maximum(magnitude * 2**-4, scales(x, 128, 448) * 2**-10) * (1 + 2**-20)
        case "e5m2":
            return np.maximum(magnitude * 2**-3, scales(x, 4096, 57344) * 2**-17) * (1 + 2**-20)
    raise AssertionError(name)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", CODECS)
def test_round_trip(name, count):
    codec, x = CODECS[name], normal(count)
    before = x.copy()
    wire = encode(x, codec)
    assert wire.dtype == np.uint8 and wire.ndim == 1
    assert same_bits(x, before), "encode changed its input"
    got = decode(wire)
    assert got.dtype == F and got.shape == (count,)
    acc = np.ones(count, F)
    assert decode(wire, acc, add=True) is acc
    assert same_bits(acc, (got + F(1)).astype(F))
    assert np.array_equal(encode(x.copy(), codec), wire), "the same input gave other bytes"
    residual = np.zeros(count, F)
    assert np.array_equal(encode(x, codec, residual=residual), wire), "a residual of zero changed what is sent"


@pytest.mark.parametrize("count", [1, 257, 1000, 70001])
@pytest.mark.parametrize("name", [name for name in DENSE if name != "sign"])
def test_error_is_within_half_a_step(name, count):
    for spread in (1, 1e-6, 1e20 if name != "fp16" else 100):
        x = normal(count) * F(spread)
        error = np.abs(decode(encode(x, CODECS[name])).astype(np.float64) - x)
        assert (error <= bound(name, x)).all(), f"{name}: worst {(error - bound(name, x)).max()} above its bound"


def test_sign_is_the_mean_magnitude():
    x = normal(1000)
    got = decode(encode(x, Sign(block=64)))
    assert np.array_equal(np.signbit(got), np.signbit(x))
    for begin in range(0, 1000, 64):
        part, wanted = got[begin : begin + 64], np.abs(x[begin : begin + 64].astype(np.float64)).mean()
        assert len(set(np.abs(part).tolist())) == 1
        assert abs(abs(part[0]) - wanted) <= wanted * 64 * 2**-24  # at most 63 additions and a division round


@pytest.mark.parametrize("name", SPARSE)
def test_topk_keeps_the_largest(name):
    codec, format = SPARSE[name]
    x = normal(70001)
    got = decode(encode(x, codec))
    wanted = codec.k or round(codec.ratio * x.size)
    sent = np.flatnonzero(got)
    assert sent.size == wanted if codec.exact else 3 * wanted // 4 <= sent.size + (format in (3, 4)) * sent.size
    assert sent.size <= wanted
    if format in (0, 1, 2):  # integers may round the smallest to zero
        least = np.abs(x[sent]).min()
        rest = np.delete(x, sent)
        assert np.abs(rest).max() <= least
    if format == 0:
        assert same_bits(got[sent], x[sent])


def test_topk_takes_the_lower_index_of_equals():
    x = np.full(1000, -2, F)
    assert np.array_equal(np.flatnonzero(decode(encode(x, TopK(k=10, exact=True)))), np.arange(10))


@pytest.mark.parametrize("count", [0, 1, 257, 70001])
@pytest.mark.parametrize("name", EXACT)
def test_what_is_not_sent_is_kept_to_the_bit(name, count):
    x, residual = normal(count), normal(count, 1)
    meant = x + residual
    sent = decode(encode(x, CODECS[name], residual=residual))
    assert same_bits(sent + residual, meant)


@pytest.mark.parametrize("count", [1, 257, 70001])
@pytest.mark.parametrize("name", [name for name in CODECS if name not in EXACT])
def test_what_is_not_sent_is_kept_but_for_one_rounding(name, count):
    x, residual = normal(count), normal(count, 1)
    meant = x + residual
    sent = decode(encode(x, CODECS[name], residual=residual))
    lost = np.abs(sent.astype(np.float64) + residual - meant)
    assert (lost <= np.abs(residual) * 2**-24).all()


def test_feedback_sends_all_in_the_end():
    """With a constant input, what was sent after n steps is n times the input but for one residual."""
    x, residual, total = normal(1000), np.zeros(1000, F), np.zeros(1000)
    for _ in range(50):
        total += decode(encode(x, TopK(0.1, exact=True), residual=residual))
    assert np.allclose(total + residual, 50 * x.astype(np.float64), rtol=0, atol=50 * 50 * 4 * 2**-24)
    assert np.abs(residual).max() < 20 * np.abs(x).max()


def test_random_numbers_follow_from_seed_step_stream_and_index():
    x = normal(4096)

    def wire(seed=1, **moment):
        return encode(x, Int4(rounding="stochastic", seed=seed), **moment).tobytes()

    first = wire()
    assert wire() == first == wire(step=0, stream=0, index=0)
    others = [wire(seed=2), wire(step=1), wire(stream=1), wire(index=4096)]
    assert len({first, *others}) == 5
    # A part is rounded as it is inside the whole: the index of its first element says where it was.
    codec = Int4(rounding="stochastic", seed=1)
    whole, half = decode(encode(x, codec)), decode(encode(x[2048:], codec, index=2048))
    assert same_bits(whole[2048:], half)


def test_stochastic_rounding_is_right_on_average():
    x = np.linspace(-1, 1, 256, dtype=F)
    codec = Int4(block=256, rounding="stochastic")
    steps = 400
    mean = sum(decode(encode(x, codec, step=step)).astype(np.float64) for step in range(steps)) / steps
    # A step of 1/7 with a probability p: standard deviation at most 1/14; six of the mean's.
    assert np.abs(mean - x).max() < 6 / 14 / np.sqrt(steps)


def test_randomk_chooses_by_seed_and_step_one_of_each_stratum():
    x = normal(1000) + F(10)
    chosen = [np.flatnonzero(decode(encode(x, RandomK(k=10, seed=4), step=step))) for step in (0, 1)]
    assert all(np.array_equal(index // 100, np.arange(10)) for index in chosen)
    assert not np.array_equal(*chosen)
    assert np.array_equal(chosen[0], np.flatnonzero(decode(encode(-x, RandomK(k=10, seed=4), step=0, stream=5))))


@pytest.mark.parametrize("name", CODECS)
def test_header(name):
    count = 70001
    wire = encode(normal(count), CODECS[name]).tobytes()
    magic, version, codec, format, reserved, elements, payload, parameter, _ = HEADER.unpack_from(wire)
    assert (magic, version, reserved, elements) == (MAGIC, 1, 0, count)
    assert wire[:4] == b"PCYW"
    assert payload == len(wire) - HEADER.size
    if name in DENSE:
        assert (codec, format, parameter) == DENSE[name][1:]
        block = parameter or 1
        code_bits = {0: 32, 1: 16, 2: 16, 3: 8, 4: 4, 5: 8, 6: 8, 7: 1}[format]
        scale_bytes = -(-4 * -(-count // block) // 16) * 16 if parameter else 0
        assert payload == scale_bytes + -(-count * code_bits // 8)
    elif name in SPARSE:
        assert (codec, format) == (6, SPARSE[name][1])
        first, second = struct.unpack_from("<II", wire, HEADER.size)
        assert first + second == parameter  # entries of each block of 65536
        offsets = np.frombuffer(wire[-2 * parameter :], "<u2").astype(int)
        got = decode(np.frombuffer(wire, np.uint8))
        index = np.concatenate([offsets[:first], 65536 + offsets[first:]])
        assert set(np.flatnonzero(got)) <= set(index.tolist())
        if format == 0:
            begin = HEADER.size + 16
            assert same_bits(np.frombuffer(wire[begin : begin + 4 * parameter], F), got[index])
    else:
        assert (codec, format) == (7, 0)
        assert struct.unpack_from("<QQ", wire, HEADER.size) == (CODECS[name].seed, 0)
        assert payload == 16 + 4 * parameter


def test_a_sparse_wire_is_never_longer_than_a_dense_one():
    x = normal(100)
    wire = encode(x, TopK(0.9))
    assert len(wire) == HEADER.size + 400
    assert HEADER.unpack_from(wire.tobytes())[2] == 0, "an identity, then"


@pytest.mark.parametrize("name", CODECS)
def test_what_is_no_number_is_seen(name):
    codec = CODECS[name]
    for bad in (NAN, np.inf, -np.inf):
        x, residual = normal(1000), np.zeros(1000, F)
        x[617] = bad
        got = decode(encode(x, codec, residual=residual))
        if name not in RANDOM:  # which element is sent does not depend on its value; the allreduce sees to it
            assert not np.isfinite(got[617])
            assert np.isfinite(residual).all(), "it would be sent again and again"
    zero, residual = np.zeros(1000, F), np.zeros(1000, F)
    assert not decode(encode(zero, codec, residual=residual)).any() and not residual.any()
    tiny = np.full(1000, 1e-42, F)
    assert np.isfinite(decode(encode(tiny, codec))).all()


@pytest.mark.parametrize("name", CODECS)
def test_torch_tensors_give_the_same_bytes(name):
    torch = pytest.importorskip("torch")
    x, residual = normal(1000), normal(1000, 1)
    tensor, kept = torch.from_numpy(x.copy()).reshape(10, 100), torch.from_numpy(residual.copy())
    wire = encode(x, CODECS[name], residual=residual)
    assert np.array_equal(encode(tensor, CODECS[name], residual=kept), wire)
    assert same_bits(kept.numpy(), residual)
    out = torch.zeros(20, 50)
    assert decode(torch.from_numpy(wire.copy()), out) is out
    assert same_bits(out.numpy().reshape(-1), decode(wire))


# ---- What is refused: words of the sentence, the call

X = np.zeros(6, F)
LOCAL = [
    ("got an array of f64", lambda: encode(np.zeros(6), Int8())),
    ("got an array of f16", lambda: encode(np.zeros(6, np.float16), Int8())),
    ("non-contiguous", lambda: encode(np.zeros(12, F)[::2], Int8())),
    ("non-contiguous", lambda: encode(np.zeros((2, 3), F).T, Int8())),
    ("residual of 5 elements for an array of 6", lambda: encode(X, Int8(), residual=np.zeros(5, F))),
    ("got an array of f64", lambda: encode(X, Int8(), residual=np.zeros(6))),
    ("got a list", lambda: encode([1.0, 2.0], Int8())),
    ("got a NoneType", lambda: encode(None, Int8())),
    ("got codec 'int8', wanted one of pycoll.codec", lambda: encode(X, "int8")),
    ("got codec None", lambda: encode(X, None)),
    ("SharedScale", lambda: encode(X, SharedScale())),
    ("its factors are made by all ranks", lambda: encode(X, pycoll.PowerSGD(2))),
    ("its ratio follows a schedule", lambda: encode(X, TopK(pycoll.Warmup(0.01, 5)))),
    ("add=True wants an out array", lambda: decode(encode(X, Int8()), add=True)),
    ("got an array of f64", lambda: decode(encode(X, Int8()), np.zeros(6))),
    ("got a NoneType", lambda: decode(None)),
    ("got a list", lambda: decode([1, 2, 3])),
    ("step is -1", lambda: encode(X, Int8(), step=-1)),
    ("to is 'f32', wanted bf16, fp16", lambda: Cast("f32")),
    ("to is ['bf16']", lambda: Cast(["bf16"])),
    ("block is 100, wanted a power of two", lambda: Int8(block=100)),
    ("block is 16, wanted a power of two from 32 to 4096", lambda: Int4(block=16)),
    ("block is 8192", lambda: Sign(block=8192)),
    ("block is 0", lambda: Fp8(block=0)),
    ("block is 256.0, wanted a whole number", lambda: Int8(block=256.0)),
    ("block is True", lambda: Int8(block=True)),
    ("block is 18446744073709551616", lambda: Int8(block=1 << 64)),
    ("block is 4294967296", lambda: Int8(block=1 << 32)),
    ("rounding is 'up', wanted nearest, stochastic", lambda: Int8(rounding="up")),
    ("seed is -1", lambda: Int8(seed=-1)),
    ("format is 'e3m4', wanted e4m3, e5m2", lambda: Fp8("e3m4")),
    ("TopK: wanted either a ratio", lambda: TopK()),
    ("TopK: wanted either a ratio", lambda: TopK(0)),
    ("TopK: wanted either a ratio", lambda: TopK(0.1, k=3)),
    ("ratio is 1.5", lambda: TopK(1.5)),
    ("ratio is -0.1", lambda: TopK(-0.1)),
    ("ratio is nan", lambda: TopK(NAN)),
    ("ratio is '1%'", lambda: TopK("1%")),
    ("ratio is True", lambda: TopK(True)),
    ("k is -1", lambda: TopK(k=-1)),
    ("k is 2.5", lambda: TopK(k=2.5)),
    ("values is 'fp8', wanted fp32", lambda: TopK(0.1, values="fp8")),
    ("values is 'fp8', wanted fp32", lambda: TopK(pycoll.Warmup(0.01, 5), values="fp8")),
    ("a schedule and k", lambda: TopK(pycoll.Warmup(0.01, 5), k=5)),
    ("RandomK: wanted either a ratio", lambda: RandomK()),
    ("ratio is inf", lambda: RandomK(float("inf"))),
    ("RandomK: ratio is Warmup", lambda: RandomK(pycoll.Warmup(0.01, 5))),
    ("bits", lambda: SharedScale(bits=12)),
    ("SharedScale", lambda: SharedScale(block=-2)),
    ("rank is 0", lambda: pycoll.PowerSGD(0)),
    ("the first codec is Int8", lambda: Chain(Int8(), Int8())),
    ("the second codec is TopK", lambda: Chain(TopK(0.1), TopK(0.1))),
    ("the second codec is Int8(block=64", lambda: Chain(TopK(0.1), Int8(64))),
    ("the second codec is 'int8'", lambda: Chain(TopK(0.1), "int8")),
    ("the second codec is []", lambda: Chain(TopK(0.1), [])),
    ("dtype is 'f16', wanted fp32 or bf16", lambda: pycoll.Feedback(X, dtype="f16")),
    ("got a residual of f64", lambda: pycoll.Feedback(residual=np.zeros(6))),
    ("Feedback: like is -1", lambda: pycoll.Feedback(-1)),
    ("Feedback: like is []", lambda: pycoll.Feedback([])),
    ("ratios are 0", lambda: pycoll.Warmup(0, 5)),
    ("steps is 0", lambda: pycoll.Warmup(0.01, 0)),
    ("ratios are 0.01 and [2.0]", lambda: pycoll.Warmup(0.01, 5, [2.0])),
    ('codec is "topk"', lambda: parse("topk")),
    ('codec is "int8:3"', lambda: parse("int8:3")),
    ('codec is "zip"', lambda: parse("zip")),
    ("ratio is 2.0", lambda: parse("topk:2")),
    ("values is 'int3'", lambda: parse("topk:0.1+int3")),
    ('codec is "randomk:0.1+int8"', lambda: parse("randomk:0.1+int8")),
    ('codec is "powersgd:1.5"', lambda: parse("powersgd:1.5")),
]


@pytest.mark.parametrize(("words", "call"), LOCAL, ids=[f"{i}-{words[:30]}" for i, (words, _) in enumerate(LOCAL)])
def test_bad_input_is_named(words, call):
    with pytest.raises(InvalidArgument) as raised:
        call()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_of_the_command_line():
    wanted = {
        "f32": Identity(),
        "bf16": Cast(),
        "fp16": Cast("fp16"),
        "int8": Int8(),
        "int4": Int4(),
        "fp8": Fp8(),
        "e5m2": Fp8("e5m2"),
        "sign": Sign(),
        "shared": SharedScale(),
        "topk:0.01": TopK(0.01),
        "topk:0.01+int8": Chain(TopK(0.01), Int8()),
        "randomk:0.5": RandomK(0.5),
        "powersgd:2": pycoll.PowerSGD(2),
        "none": None,
    }
    assert {text: parse(text) for text in wanted} == wanted


def test_warmup():
    ratios = [pycoll.Warmup(0.01, 2).at(step) for step in range(8)]
    assert ratios == [0.25, 0.25, 0.0625, 0.0625, 0.015625, 0.015625, 0.01, 0.01]
    assert TopK(pycoll.Warmup(0.1, 1), exact=True, values="bf16").at(0) == TopK(0.25, exact=True, values="bf16")
    assert TopK(0.1).at(5) == TopK(0.1)


def test_memory_for_the_wire_can_be_given():
    x, codec = normal(300), TopK(0.05)
    memory = np.full(most_bytes(codec, 300) + 7, 99, np.uint8)
    wire = encode(x, codec, wire=memory)
    assert np.shares_memory(wire, memory) and np.array_equal(wire, encode(x, codec))
    assert (memory[most_bytes(codec, 300) :] == 99).all()
    with pytest.raises(InvalidArgument, match="bytes for the wire, wanted"):
        encode(x, codec, wire=memory[: most_bytes(codec, 300) - 1])


# ---- Wires that are not as they were


def sealed(name="int8", count=300):
    return encode(normal(count), CODECS[name])


def patched(offset, layout, value):
    wire = bytearray(sealed().tobytes())
    struct.pack_into(layout, wire, offset, value)
    return np.frombuffer(bytes(wire), np.uint8)


@pytest.mark.parametrize(
    ("words", "wire"),
    [
        ("cut off in the header, 0 of 32 bytes", sealed()[:0]),
        ("cut off in the header, 31 of 32 bytes", sealed()[:31]),
        ("cut off, 0 of ", sealed()[:32]),
        ("cut off, ", sealed()[:-1]),
        ("magic is 1, wanted 1465467728", patched(0, "<I", 1)),
        ("version 2, this build reads 1", patched(4, "B", 2)),
        ("unknown codec 99", patched(5, "B", 99)),
        ("codec 3 does not write format int8", patched(5, "B", 3)),
        ("unknown format 200", patched(6, "B", 200)),
        ("reserved byte is 1", patched(7, "B", 1)),
        ("holds 299 elements, wanted 300", patched(8, "<Q", 299)),
        ("elements, wanted 300", patched(8, "<Q", 2**64 - 1)),
        ("bytes, wanted", patched(16, "<Q", 2**63)),
        ("in blocks of 100, wanted a power of two", patched(24, "<I", 100)),
        ("corrupted, checksum is", patched(28, "<I", 0)),
        ("corrupted, checksum is", patched(60, "B", 255)),
    ],
)
def test_corrupted_wires_are_named(words, wire):
    before = np.full(300, 7, F)
    for add in (False, True):
        out = before.copy()
        with pytest.raises(TransportError) as raised:
            decode(wire, out, add=add)
        assert words in str(raised.value)
        assert "payload given to decode: " in str(raised.value)
        assert same_bits(out, before), "something was written"
    with pytest.raises(TransportError):
        decode(wire)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_wires_never_pass(data):
    """Any change of any byte, or of the length, is found: the checksum covers header and payload."""
    name = data.draw(st.sampled_from(sorted(CODECS)))
    wire = bytearray(sealed(name, data.draw(st.sampled_from([0, 1, 40, 300]))).tobytes())
    original = bytes(wire)
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del wire[data.draw(st.integers(0, len(wire))) :]
    got = np.frombuffer(bytes(wire), np.uint8)
    if bytes(wire) == original:
        decode(got)
        return
    with pytest.raises(TransportError):
        decode(got)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(wire=st.binary(max_size=100), count=st.integers(0, 100))
def test_noise_never_passes(wire, count):
    with pytest.raises(TransportError):
        decode(np.frombuffer(wire, np.uint8), np.empty(count, F))
