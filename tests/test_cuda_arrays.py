"""Arrays on a CUDA device, without one: which stream kernels are called on, and who allocates.

Libraries, arrays and kernels are pretended here; that kernels do what they are told is tests/test_cuda.py's to show.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pycoll import DeviceError, Int8, InvalidArgument, TopK, cuda_codec
from pycoll.codec import decode, encode, most_bytes

COUNT = 1000
LIBRARIES = ["torch", "cupy"]


class Array:
    """Of a library, on its device 1."""

    is_cuda, is_sparse, requires_grad = True, False, False

    def __init__(self, count, dtype="float32", device="cuda:1", **facts):
        self.shape, self.dtype, self.device = (count,), dtype, device
        self.__cuda_array_interface__ = {"shape": (count,), "version": 3} | facts

    def __getitem__(self, part):
        return Array(part.stop, self.dtype, self.device)

    def detach(self):
        return self

    def is_conj(self):
        return False

    is_neg = is_conj


class CupyDevice:
    """The library's current device while it is entered."""

    current = 0

    def __enter__(self):
        CupyDevice.current = 1

    def __exit__(self, *_):
        CupyDevice.current = 0


@pytest.fixture
def new(monkeypatch, request):
    """The arrays of the library that the test names, whose current streams are 70 on device 0 and 71 on device 1."""
    if request.param == "torch":

        class Tensor(Array):
            pass

        library = SimpleNamespace(
            Tensor=Tensor,
            uint8="uint8",
            float32="float32",
            empty=lambda count, dtype, device: Tensor(count, dtype, device),
            is_grad_enabled=lambda: True,
            cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=70 + int(device[-1]))),
        )
        monkeypatch.setitem(sys.modules, "torch", library)
        return Tensor

    class ndarray(Array):
        def __init__(self, count, dtype="float32", device=None):
            super().__init__(count, dtype, device or CupyDevice())

    def stream():
        return SimpleNamespace(ptr=70 + CupyDevice.current)

    library = SimpleNamespace(ndarray=ndarray, empty=ndarray, cuda=SimpleNamespace(get_current_stream=stream))
    monkeypatch.setitem(sys.modules, "cupy", library)
    return ndarray


@pytest.fixture
def called(monkeypatch):
    """The calls that kernels get, by name. The encoder says 40 bytes, or nothing; then a header does: 32 + 5."""
    calls = SimpleNamespace(says=40)

    def note(name, result=lambda *_: None):
        def call(*arguments):
            setattr(calls, name, arguments)
            return result()

        return call

    kernels = SimpleNamespace(
        encode=note("encode", lambda: calls.says),
        header=note("header", lambda: bytes(16) + (5).to_bytes(8, "little") + bytes(8)),
        check=note("check", lambda: COUNT),
        decode_into=note("decode_into"),
        decode_add=note("decode_add"),
    )
    monkeypatch.setattr(cuda_codec, "_kernels", lambda operation, x: kernels)
    return calls


@pytest.mark.parametrize("new", LIBRARIES, indirect=True)
def test_encode_is_of_the_librarys_stream_and_memory(new, called):
    x, kept = new(COUNT), new(COUNT)
    wire = encode(x, Int8(), residual=kept, step=3, stream=4, index=5)
    core, source, to, residual, *moment, stream = called.encode
    assert core.describe() == Int8().core.describe()
    assert source is x and residual is kept and moment == [3, 4, 5]
    assert stream == 71
    assert type(to) is new and to.dtype == "uint8" and to.shape == (most_bytes(Int8(), COUNT),)
    assert wire.shape == (40,)


@pytest.mark.parametrize("new", LIBRARIES, indirect=True)
def test_where_only_the_device_knows_the_header_says_how_many_bytes(new, called):
    called.says = None
    given = new(most_bytes(TopK(0.01), COUNT) + 9, "uint8")
    assert encode(new(COUNT), TopK(0.01), wire=given).shape == (37,)
    assert called.encode[2] is given and called.header == (given, 71)


@pytest.mark.parametrize("new", LIBRARIES, indirect=True)
def test_decode_allocates_when_the_wire_has_been_checked(new, called):
    wire = new(500, "uint8")
    out = decode(wire)
    assert called.check == (wire, 71) and called.decode_into == (out, wire, 71)
    assert type(out) is new and out.dtype == "float32" and out.shape == (COUNT,)
    assert decode(wire, out, add=True) is out
    assert called.decode_add == (out, wire, 71)


@pytest.mark.parametrize(
    ("names", "used"), [({}, 0), ({"stream": None}, 0), ({"stream": 1}, 0), ({"stream": 2}, 2), ({"stream": 99}, 99)]
)
def test_other_arrays_name_their_stream(called, names, used):
    wire, out = Array(500, "uint8", **names), Array(COUNT)
    decode(wire, out)
    assert called.decode_into == (out, wire, used)
    encode(Array(COUNT), Int8(), wire=wire)
    assert called.encode[-1] == used


def test_arrays_of_two_streams_are_refused(called):
    with pytest.raises(InvalidArgument, match="different streams: x's is 7, residual's is 8"):
        encode(Array(COUNT, stream=7), Int8(), residual=Array(COUNT, stream=8), wire=Array(2000, "uint8", stream=7))


def test_other_libraries_give_the_memory(called):
    with pytest.raises(InvalidArgument, match=r"give wire, uint8\[1048\]"):
        encode(Array(COUNT), Int8())
    with pytest.raises(InvalidArgument, match=r"give out, float32\[1000\]"):
        decode(Array(500, "uint8"))


@pytest.mark.parametrize("new", LIBRARIES, indirect=True)
def test_memory_of_the_host_is_refused(new, called):
    host = np.zeros(COUNT, np.float32)
    for call, name in (
        (lambda: encode(new(COUNT), Int8(), residual=host), "residual"),
        (lambda: encode(new(COUNT), Int8(), wire=host), "wire"),
        (lambda: decode(host, new(COUNT)), "wire"),
        (lambda: decode(new(500), host), "out"),
    ):
        with pytest.raises(InvalidArgument, match=f"{name} is a ndarray in host memory, wanted a CUDA device's"):
            call()


@pytest.mark.parametrize("new", ["torch"], indirect=True)
def test_what_autograd_would_not_see_is_refused(new, called):
    kept = new(COUNT)
    kept.requires_grad = True
    with pytest.raises(InvalidArgument, match="residual is a tensor that requires grad"):
        encode(new(COUNT), Int8(), residual=kept)
    encode(kept, Int8())  # is only read


def test_without_the_kernels_their_lack_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycoll._cuda", None)
    monkeypatch.delattr("pycoll._cuda", raising=False)
    for call in (lambda: encode(Array(COUNT), Int8()), lambda: decode(Array(500, "uint8"))):
        with pytest.raises(DeviceError, match="got a Array on a CUDA device, but pycoll has no CUDA kernels here"):
            call()
