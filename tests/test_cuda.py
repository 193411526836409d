"""The CUDA codecs from Python: what they refuse and say without a device; on one, their results beside NumPy's."""

import importlib.util

import numpy as np
import pytest

import pycoll

_cuda = pytest.importorskip("pycoll._cuda", reason="built without nvcc")


class Pretended:
    """Says that it is an array of a device, and is memory of nobody."""

    def __init__(self, count, typestr="<f4", **facts):
        self.__cuda_array_interface__ = {"shape": (count,), "typestr": typestr, "data": (4096, False), "version": 3}
        self.__cuda_array_interface__ |= facts


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
        lambda x, wire: _cuda.Blocks().encode(x, wire),
        lambda x, wire: _cuda.Blocks("sign").decode_into(x, wire),
        lambda x, wire: _cuda.Blocks("e4m3").decode_add(x, wire),
        lambda x, wire: _cuda.Blocks("int4").sum([wire, wire], wire, 100),
        lambda x, wire: _cuda.TopK().select(x, 3, Pretended(3, "<i4"), Pretended(3)),
        lambda x, wire: _cuda.TopK().encode(x, 3, wire, format="bf16"),
        lambda x, wire: _cuda.TopK.decode_add(x, wire, 3),
    ],
)
def test_without_a_device_calls_say_what_is_missing(call):
    with pytest.raises(pycoll.DeviceError, match=r"NVIDIA driver|no device"):
        call(Pretended(100), Pretended(1000, "|u1"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: _cuda.Blocks("int9"), "format 'int9'"),
        (lambda: _cuda.Blocks(block=100), "block is 100"),
        (lambda: _cuda.Blocks("e5m2", stochastic=True), "stochastically"),
        (lambda: _cuda.Blocks().encode(np.zeros(3, np.float32), None), "x is no array of a CUDA device"),
        (lambda: _cuda.Blocks().encode(Pretended(3, "<f8"), None), "x has elements of type <f8"),
        (lambda: _cuda.Blocks().encode(Pretended(3, strides=(8,)), None), "x is not contiguous"),
        (
            lambda: _cuda.Blocks().encode(Pretended(3), Pretended(99, "|u1"), residual=Pretended(4)),
            "residual has 4 elements",
        ),
        (lambda: _cuda.TopK().encode(Pretended(9), 8, Pretended(999, "|u1")), "longer than the elements"),
        (lambda: _cuda.TopK.decode_into(Pretended(99), Pretended(9, "|u1"), 1), "wire has 9 bytes, wanted 54"),
        (lambda: _cuda.TopK.wire_bytes(99, 1, "i8"), "sparse values in i8"),
        (lambda: _cuda.TopK().select(Pretended(9), 5, Pretended(4, "<i4"), Pretended(5)), "room for 4 and 5"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises(pycoll.InvalidArgument, match=says):
        call()


def test_bytes_of_a_wire():
    assert _cuda.Blocks("int8", 256).wire_bytes(1000) == 32 + 16 + 1000
    assert _cuda.Blocks("sign", 32).wire_bytes(33) == 32 + 16 + 5
    assert _cuda.TopK.wire_bytes(70_000, 100, "f16") == 32 + 16 + 100 * 4


def test_int8_on_a_device(torch):
    count, block = 100_003, 256
    x = torch.randn(count, device="cuda")
    blocks = _cuda.Blocks("int8", block)
    wire = torch.empty(blocks.wire_bytes(count), dtype=torch.uint8, device="cuda")
    residual = torch.zeros_like(x)
    assert blocks.encode(x, wire, residual=residual) == len(wire)
    out = torch.empty_like(x)
    blocks.decode_into(out, wire)
    padded = np.zeros((-(-count // block), block), np.float32)
    padded.reshape(-1)[:count] = x.cpu().numpy()
    scale = np.abs(padded).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(padded * (np.float32(1) / scale))
    decoded = (codes * scale).reshape(-1)[:count]
    np.testing.assert_array_equal(out.cpu().numpy(), decoded)
    np.testing.assert_array_equal(residual.cpu().numpy(), x.cpu().numpy() - decoded)


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


def test_topk_wires_on_a_device(torch):
    count, k = 200_000, 2000
    x = torch.randn(count, device="cuda")
    wire = torch.empty(_cuda.TopK.wire_bytes(count, k), dtype=torch.uint8, device="cuda")
    assert _cuda.TopK().encode(x, k, wire) == len(wire)
    out = torch.full_like(x, 7)
    _cuda.TopK.decode_into(out, wire, k)
    wanted = x.cpu().numpy().copy()
    wanted[np.argsort(-np.abs(wanted), kind="stable")[k:]] = 0
    np.testing.assert_array_equal(out.cpu().numpy(), wanted)
    _cuda.TopK.decode_add(out, wire, k)
    np.testing.assert_array_equal(out.cpu().numpy(), wanted + wanted)
