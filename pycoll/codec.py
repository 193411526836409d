"""Codecs: how an allreduce shrinks its numbers on the way. Each is a few parameters, alike on all ranks.

    comm.allreduce(x, codec=pycoll.Int8())
    pycoll.DistributedOptimizer(optimizer, model.named_parameters(), codec=pycoll.TopK(ratio=0.01))

docs/codecs.md says what each does to NaN, infinities and zeros, and which pays where; docs/wire.md has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _core, cuda_codec
from .errors import InvalidArgument
from .schedule import Schedule


class Codec:
    """What all codecs have in common. Use one of its subclasses."""

    core: _core.Encoder

    def at(self, step: int) -> Codec:
        """The codec of a step: another one where a parameter follows a schedule, else itself."""
        return self

    def scheduled(self) -> bool:
        """True if the codec changes from step to step."""
        return False


@dataclass(frozen=True)
class Identity(Codec):
    """float32 as it is, summed in rank order: what the others are compared with."""

    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set_core(self, _core.Encoder.blocks("f32", 256, False, 0))


@dataclass(frozen=True)
class Cast(Codec):
    """Half precision: 2 bytes an element, rounded to nearest even. to: "bf16" or "fp16"."""

    to: str = "bf16"
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set_core(self, _core.Encoder.blocks(_choice("Cast", "to", self.to, _HALVES), 256, False, 0))


@dataclass(frozen=True)
class Int8(Codec):
    """8-bit integers with one float32 scale (largest magnitude / 127) for each `block` elements: 1.02 bytes an element.

    block: a power of two, 32 to 4096. rounding: "nearest" (even) or "stochastic", by Philox of seed, step and index.
    """

    block: int = 256
    rounding: str = "nearest"
    seed: int = 0
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set_core(self, _grid("Int8", "int8", self.block, self.rounding, self.seed))


@dataclass(frozen=True)
class Int4(Codec):
    """4-bit integers, -7 to 7, with one float32 scale (largest magnitude / 7) a block: 0.53 bytes an element.

    Parameters as in Int8.
    """

    block: int = 128
    rounding: str = "nearest"
    seed: int = 0
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set_core(self, _grid("Int4", "int4", self.block, self.rounding, self.seed))


@dataclass(frozen=True)
class Fp8(Codec):
    """8-bit floats of the Open Compute Project with one float32 scale a block. format: "e4m3" or "e5m2"."""

    format: str = "e4m3"
    block: int = 128
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        format = _choice("Fp8", "format", self.format, {"e4m3": "e4m3", "e5m2": "e5m2"})
        _set_core(self, _core.Encoder.blocks(format, _block("Fp8", self.block), False, 0))


@dataclass(frozen=True)
class Sign(Codec):
    """One bit an element, its sign, times the block's mean magnitude (1-bit SGD, Seide et al. 2014)."""

    block: int = 256
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set_core(self, _core.Encoder.blocks("bit", _block("Sign", self.block), False, 0))


@dataclass(frozen=True)
class TopK(Codec):
    """The elements of largest magnitude, and 2 bytes for the index of each; all others wait in the feedback.

    ratio: part of the elements, above 0 and at most 1, or a schedule (pycoll.Warmup); or k: their number.
    exact: exactly that many, lower index first among equals; else nearly as many, which is faster.
    values: "fp32", "bf16", "fp16", "int8" or "int4" (with one scale for 256 or 128 of them).
    """

    ratio: float | Schedule = 0.0
    k: int = 0
    exact: bool = False
    values: str = "fp32"

    def __post_init__(self) -> None:
        if self.scheduled() and self.k:
            raise InvalidArgument(f"TopK: wanted either a ratio or k, got a schedule and k {self.k}")
        _ = self.at(0).core  # raises here

    @property
    def core(self) -> _core.Encoder:  # type: ignore[override]
        if isinstance(self.ratio, Schedule):
            raise InvalidArgument(
                "TopK: its ratio follows a schedule; give it to DistributedOptimizer, or call at(step)"
            )
        values = _choice("TopK", "values", self.values, {"fp32": "f32", "int8": "int8", "int4": "int4", **_HALVES})
        return _core.Encoder.topk(_ratio("TopK", self.ratio), _whole("TopK", "k", self.k, 0), bool(self.exact), values)

    def at(self, step: int) -> TopK:
        """The codec of a step, where the ratio follows a schedule."""
        return TopK(self.ratio.at(step), 0, self.exact, self.values) if isinstance(self.ratio, Schedule) else self

    def scheduled(self) -> bool:
        """True if the ratio follows a schedule."""
        return isinstance(self.ratio, Schedule)


@dataclass(frozen=True)
class RandomK(Codec):
    """Elements chosen by random numbers of seed and step, the same on all ranks: no index travels, sums are dense.

    ratio, or k: as in TopK.
    """

    ratio: float = 0.0
    k: int = 0
    seed: int = 0
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ratio, k = _ratio("RandomK", self.ratio), _whole("RandomK", "k", self.k, 0)
        _set_core(self, _core.Encoder.randomk(ratio, k, _whole("RandomK", "seed", self.seed, 0)))


@dataclass(frozen=True)
class SharedScale(Codec):
    """Integers of 8 or 16 bits whose scales all ranks share, so that their sum is exact: the same bits in any order.

    bits: room for the sum; P ranks leave (2^(bits-1) - 1) // P steps for each one's largest magnitude.
    block: elements that share a scale.
    """

    bits: int = 16
    block: int = 256
    core: _core.Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        block = _block("SharedScale", self.block)
        _set_core(self, _core.Encoder.shared_scale(_whole("SharedScale", "bits", self.bits, 1, 64), block))


def Chain(sparse: TopK, values: Codec) -> TopK:
    """A sparse codec whose values are encoded by another: Chain(TopK(0.01), Int8()). values: Int8, Int4 or Cast.

    Values have one scale for 256 (Int8) or 128 (Int4) of them, and are rounded to nearest.
    """
    if not isinstance(sparse, TopK):
        raise InvalidArgument(f"Chain: the first codec is {sparse!r}, wanted a TopK")
    names = {Int8(): "int8", Int4(): "int4", Cast("bf16"): "bf16", Cast("fp16"): "fp16"}
    if not isinstance(values, Codec) or values not in names:
        raise InvalidArgument(f"Chain: the second codec is {values!r}, wanted Int8(), Int4() or Cast()")
    return TopK(sparse.ratio, sparse.k, sparse.exact, names[values])


def encode(
    x: Any,
    codec: Codec,
    *,
    residual: Any = None,
    step: int = 0,
    stream: int = 0,
    index: int = 0,
    wire: Any = None,
) -> Any:
    """Header and payload of `x` as uint8[bytes]: what a rank would send. docs/wire.md has the layout.

    x: float32, any shape, C-contiguous; NumPy, torch, CuPy, or anything with the buffer protocol, DLPack or a
    __cuda_array_interface__. codec: any but SharedScale and PowerSGD, which need the other ranks. residual: float32 as
    long as x: x + residual is encoded, and residual becomes what the payload lacks of it. step, stream, index: what
    random numbers depend on besides the codec's seed: number of the operation, of the rank, and of x's first element
    in a longer array. wire: uint8[most_bytes(codec, count)] or longer, whose begin is returned; none: a new array.

    Of an array on a CUDA device all others must be on that device, the wire is, and the bytes are those that the CPU
    writes. The kernels are enqueued on the current stream of torch or CuPy, or on the one that the array's interface
    names; only TopK(exact=False) waits for it, to know how many bytes there are. Without a `wire`, arrays of other
    libraries than torch and CuPy are refused.

    Raises InvalidArgument, and DeviceError where there are no CUDA kernels or no device.
    """
    core = _core_of(codec)
    for what, number, most in (("step", step, _U64), ("stream", stream, _U32), ("index", index, _U64)):
        _whole("encode", what, number, 0, most)
    if cuda_codec.is_on_device(x):
        return cuda_codec.encode(core, x, wire, residual, (step, stream, index))
    to = np.empty(core.most_bytes(_count(x)), np.uint8) if wire is None else wire
    bytes = core.encode(x, to, residual, step, stream, index)
    return to[:bytes].copy() if wire is None and bytes < to.size // 2 else to[:bytes]


def most_bytes(codec: Codec, count: int) -> int:
    """Bytes that header and payload of `count` elements take at most."""
    return _core_of(codec).most_bytes(_whole("most_bytes", "count", count, 0))


def decode(wire: Any, out: Any = None, *, add: bool = False) -> Any:
    """The numbers of a `wire` that encode() made, float32[count]; any codec's, for the header says which.

    wire: uint8. out: float32 with as many elements as were encoded; none: a new array, of torch or CuPy where the wire
    is one on a CUDA device, else of NumPy. add: adds to `out`.

    On a CUDA device, where both must be, it runs on the stream that encode() would use, and waits for it before
    anything is written: a wire is believed when it has been checked.

    Raises TransportError if the wire is cut off, corrupted, or holds another number of elements; InvalidArgument;
    DeviceError.
    """
    if out is None and add:
        raise InvalidArgument("decode: add=True wants an out array to add to")
    if cuda_codec.is_on_device(wire) or cuda_codec.is_on_device(out):
        return cuda_codec.decode(wire, out, add)
    if out is None:
        out = np.empty(_announced(wire), np.float32)
    (_core.decode_add if add else _core.decode_into)(out, wire)
    return out


def parse(text: str) -> Codec | None:
    """A codec from the name that command lines take; None for "none".

    "bf16", "fp16", "int8", "int4", "fp8", "e5m2", "sign", "shared", "topk:0.01", "topk:0.01+int8", "randomk:0.01",
    "powersgd:4".
    """
    from .powersgd import PowerSGD

    name, _, amount = text.partition(":")
    if name == "none":
        return None
    plain: dict[str, Codec] = {"f32": Identity(), "bf16": Cast("bf16"), "fp16": Cast("fp16"), "int8": Int8()}
    plain |= {"int4": Int4(), "fp8": Fp8(), "e5m2": Fp8("e5m2"), "sign": Sign(), "shared": SharedScale()}
    if name in plain and not amount:
        return plain[name]
    number, _, values = amount.partition("+")
    try:
        if name == "topk":
            return TopK(float(number), values=values or "fp32")
        if name == "randomk" and not values:
            return RandomK(float(number))
        if name == "powersgd" and not values:
            return PowerSGD(int(number))
    except InvalidArgument:
        raise
    except ValueError:
        pass
    known = ", ".join(["none", *plain, "topk:RATIO", "topk:RATIO+int8", "randomk:RATIO", "powersgd:RANK"])
    raise InvalidArgument(f'codec is "{text}", wanted one of {known}')


_HALVES = {"bf16": "bf16", "fp16": "f16"}
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


def _set_core(codec: Codec, core: _core.Encoder) -> None:
    object.__setattr__(codec, "core", core)


def _core_of(codec: Any) -> _core.Encoder:
    core = getattr(codec, "core", None)
    if not isinstance(core, _core.Encoder):
        raise InvalidArgument(f"got codec {codec!r}, wanted one of pycoll.codec, pycoll.Int8() for example")
    return core


def _choice(who: str, what: str, got: Any, names: dict[str, str]) -> str:
    if not isinstance(got, str) or got not in names:
        raise InvalidArgument(f"{who}: {what} is {got!r}, wanted {', '.join(names)}")
    return names[got]


def _whole(who: str, what: str, got: Any, least: int = 1, most: int = _U64) -> int:
    if isinstance(got, bool) or not isinstance(got, int) or not least <= got <= most:
        raise InvalidArgument(f"{who}: {what} is {got!r}, wanted a whole number from {least} to {most}")
    return got


def _block(who: str, got: Any) -> int:
    return _whole(who, "block", got, 1, _U32)


def _ratio(who: str, got: Any) -> float:
    if isinstance(got, bool) or not isinstance(got, (int, float)) or not 0 <= got <= 1:
        raise InvalidArgument(f"{who}: ratio is {got!r}, wanted a number above 0 and at most 1")
    return float(got)


def _grid(who: str, format: str, block: Any, rounding: Any, seed: Any) -> _core.Encoder:
    stochastic = _choice(who, "rounding", rounding, {"nearest": "", "stochastic": "1"})
    return _core.Encoder.blocks(format, _block(who, block), bool(stochastic), _whole(who, "seed", seed, 0))


def _count(x: Any) -> int:
    shape = getattr(x, "shape", None)
    return int(np.prod(shape, dtype=np.int64)) if shape is not None else _bytes_of(x).size // 4


def _announced(wire: Any) -> int:
    """The number of elements that a header claims, if it could be true; the decoder looks closer."""
    head = _bytes_of(wire)[8:16]
    count = int(head.view(np.uint64)[0]) if head.size == 8 else 0
    return min(count, 1 << 32)


def _bytes_of(x: Any) -> np.ndarray:
    """The memory of an array; nothing of what is none: the core finds the words for it."""
    try:
        if hasattr(x, "__array__"):
            seen = np.asarray(x)
        else:
            seen = np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(memoryview(x))
        return seen.reshape(-1).view(np.uint8)
    except TypeError:
        return np.empty(0, np.uint8)


__all__ = [
    "Cast",
    "Chain",
    "Codec",
    "Fp8",
    "Identity",
    "Int4",
    "Int8",
    "RandomK",
    "SharedScale",
    "Sign",
    "TopK",
    "decode",
    "encode",
    "most_bytes",
    "parse",
]
