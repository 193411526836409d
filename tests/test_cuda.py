"""The CUDA codecs from Python: what they refuse and say without a device; on one, their bytes beside the CPU's."""

import importlib.util

import numpy as np
import pytest

import pycoll
from pycoll import Cast, Chain, Fp8, Identity, Int4, Int8, InvalidArgument, RandomK, SharedScale, Sign, TopK
from pycoll.codec import decode, encode, most_bytes

_cuda = pytest.importorskip("pycoll._cuda", reason="built without nvcc")

CODECS = {
    "identity": Identity(),
    "bf16": Cast(),
    "fp16": Cast("fp16"),
    "int8": Int8(),
    "int8-stochastic": Int8(block=64, rounding="stochastic", seed=3),
    "int4": Int4(),
    "e4m3": Fp8(),
    "e5m2": Fp8("e5m2", block=4096),
    "sign": Sign(),
    "topk-exact": TopK(0.05, exact=True),
    "topk-near": TopK(0.05),
    "topk-nearly-all": TopK(0.9),
    "topk-bf16": TopK(0.05, values="bf16"),
    "topk-int8": Chain(TopK(0.05), Int8()),
    "topk-int4": TopK(0.05, values="int4"),
    "randomk": RandomK(0.05, seed=9),
}


class Pretended:
    """Says that it is an array of a device, and is memory of nobody."""

    def __init__(self, count, typestr="<f4", **facts):
        self.__cuda_array_interface__ = {"shape": (count,), "typestr": typestr, "data": (4096, False), "version": 3}
        self.__cuda_array_interface__ |= facts


def wire_of(count=1000, **facts):
    return Pretended(count, "|u1", **facts)


def there_is_a_device():
    try:
        return _cuda.device_count() > 0
    except pycoll.DeviceError:
        return False


without_device = pytest.mark.skipif(there_is_a_device(), reason="there is a CUDA device")


@pytest.fixture
def torch():
    if not there_is_a_device() or not importlib.util.find_spec("torch"):
        pytest.skip("no CUDA device, or no torch")
    return pytest.importorskip("torch")


@without_device
@pytest.mark.parametrize(
    "call",
    [
        lambda x: _cuda.encode(Int8().core, x, wire_of()),
        lambda x: _cuda.decode_into(x, wire_of()),
        lambda x: _cuda.decode_add(x, wire_of()),
        lambda x: _cuda.header(wire_of()),
        lambda x: _cuda.check(wire_of()),
        lambda x: _cuda.sum(Int4().core, [wire_of(), wire_of()], wire_of(), 100),
        lambda x: _cuda.TopK().select(x, 3, Pretended(3, "<i4"), Pretended(3)),
        lambda x: encode(x, TopK(0.1), wire=wire_of()),
        lambda x: decode(wire_of(), x),
        lambda x: decode(wire_of(), x, add=True),
    ],
)
def test_without_a_device_calls_say_what_is_missing(call):
    with pytest.raises(pycoll.DeviceError, match=r"NVIDIA driver|no device"):
        call(Pretended(100))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: encode(Pretended(3, "<f8"), Int8(), wire=wire_of()), "x has elements of type <f8, wanted <f4"),
        (lambda: encode(Pretended(3, strides=(8,)), Int8(), wire=wire_of()), "x is not contiguous"),
        (lambda: encode(Pretended(3), Int8(), wire=wire_of(data=(4096, True))), "wire is read-only"),
        (lambda: encode(Pretended(3), Int8(), wire=Pretended(99)), "wire has elements of type <f4"),
        (lambda: encode(Pretended(3), Int8(), wire=wire_of(), residual=Pretended(4)), "residual has 4 elements"),
        (lambda: encode(Pretended(3), Int8(), wire=wire_of(50)), "wire has 50 bytes, wanted 51"),
        (lambda: encode(Pretended(3), SharedScale(), wire=wire_of()), "SharedScale"),
        (lambda: decode(wire_of(strides=(2,)), Pretended(3)), "wire is not contiguous"),
        (lambda: _cuda.TopK().select(Pretended(9), 5, Pretended(4, "<i4"), Pretended(5)), "room for 4 and 5"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises(InvalidArgument, match=says):
        call()


# ---- On a device


def normal(count, seed=0):
    return np.random.default_rng([seed, count]).standard_normal(count).astype(np.float32)


def on_device(torch, x):
    return torch.from_numpy(x.copy()).cuda()


def same_bits(tensor, x):
    return np.array_equal(tensor.cpu().numpy().view(np.uint8), x.view(np.uint8))


@pytest.mark.parametrize("name", CODECS)
def test_bytes_are_those_of_the_cpu(torch, name):
    codec = CODECS[name]
    for count in (0, 1, 1003, 300_000):
        x, kept, acc = (normal(count, seed) for seed in range(3))
        own, own_kept, own_acc = (on_device(torch, array) for array in (x, kept, acc))
        assert same_bits(encode(own, codec, step=5, stream=2), encode(x, codec, step=5, stream=2))
        wanted = encode(x, codec, residual=kept)
        wire = encode(own, codec, residual=own_kept)
        assert wire.is_cuda and wire.dtype == torch.uint8 and same_bits(wire, wanted)
        assert same_bits(own_kept, kept)
        assert same_bits(decode(wire), decode(wanted))
        assert decode(wire, own_acc, add=True) is own_acc
        assert same_bits(own_acc, decode(wanted, acc, add=True))


@pytest.mark.parametrize("name", CODECS)
def test_corrupted_wires_are_refused_in_the_same_words(torch, name):
    wire = encode(normal(3000), CODECS[name])
    for at in (0, 5, 8, 16, 24, 28, 33, len(wire) - 1):
        broken = wire.copy()
        broken[at] ^= 0x5A
        with pytest.raises(pycoll.TransportError) as on_cpu:
            decode(broken, np.empty(3000, np.float32))
        out = torch.full((3000,), 7.0, device="cuda")
        with pytest.raises(pycoll.TransportError) as raised:
            decode(on_device(torch, broken), out)
        assert str(raised.value) == str(on_cpu.value)
        assert (out == 7).all(), "something was written"
        with pytest.raises(pycoll.TransportError):
            decode(on_device(torch, broken))
    for length in (0, 31, 32, len(wire) - 1):
        with pytest.raises(pycoll.TransportError, match="cut off"):
            decode(on_device(torch, wire[:length]), torch.empty(3000, device="cuda"))


def test_calls_are_of_the_current_stream(torch):
    stream, x = torch.cuda.Stream(), torch.zeros(1 << 24, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(50):
            x += 1  # what another stream would not wait for
        wire = encode(x, Identity())
    stream.synchronize()
    assert (decode(wire) == 50).all()


def test_arrays_of_the_host_and_of_a_device_do_not_mix(torch):
    x, wire = torch.ones(9, device="cuda"), torch.empty(500, dtype=torch.uint8, device="cuda")
    with pytest.raises(InvalidArgument, match="residual is a ndarray in host memory"):
        encode(x, Int8(), residual=np.zeros(9, np.float32))
    with pytest.raises(InvalidArgument, match="wire is a ndarray in host memory"):
        decode(encode(np.ones(9, np.float32), Int8()), x)
    with pytest.raises(InvalidArgument, match="requires grad"):
        encode(x, Int8(), residual=torch.zeros(9, device="cuda", requires_grad=True))
    assert len(encode(x.requires_grad_(), Int8(), wire=wire)) == most_bytes(Int8(), 9)


def test_the_sum_of_wires(torch):
    xs = [normal(5000, seed) for seed in range(3)]
    wires = [encode(on_device(torch, x), Int8()) for x in xs]
    total = sum(decode(encode(x, Int8())) for x in xs)
    wire = torch.empty_like(wires[0])
    assert _cuda.sum(Int8().core, wires, wire, 5000) == len(wire)
    assert same_bits(wire, encode(total, Int8()))


@pytest.mark.parametrize("count", [1, 4097, 3_000_000])
def test_topk_on_a_device(torch, count):
    topk, k = _cuda.TopK(), max(1, count // 100)
    residual = torch.zeros(count, device="cuda")
    kept = np.zeros(count, np.float32)
    index = torch.empty(k, dtype=torch.int32, device="cuda")
    value = torch.empty(k, device="cuda")
    for _ in range(3):
        x = torch.randn(count, device="cuda")
        assert topk.select(x, k, index, value, residual=residual) == k
        kept += x.cpu().numpy()
        chosen = np.sort(np.argsort(-np.abs(kept), kind="stable")[:k])
        np.testing.assert_array_equal(index.cpu().numpy(), chosen)
        np.testing.assert_array_equal(value.cpu().numpy(), kept[chosen])
        kept[chosen] = 0
        np.testing.assert_array_equal(residual.cpu().numpy(), kept)
