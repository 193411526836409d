"""encode() and decode() of arrays on a CUDA device: on which stream, and in whose memory.

torch tensors and CuPy arrays are used on their library's current stream of their device, other arrays on the stream
that their __cuda_array_interface__ names (version 3), or on the default stream. What is new is of the array's library.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from .errors import DeviceError, InvalidArgument


def is_on_device(x: Any) -> bool:
    """True of a torch CUDA tensor, a CuPy array, or anything else with a __cuda_array_interface__."""
    torch = _torch_of(x)  # whose interface raises where a gradient is wanted
    return bool(x.is_cuda) if torch else hasattr(x, "__cuda_array_interface__")


def encode(core: Any, x: Any, wire: Any, residual: Any, moment: tuple[int, int, int]) -> Any:
    """What pycoll.codec.encode does; core: of the codec, moment: step, stream (of random numbers) and index."""
    kernels = _kernels("encode", x)
    source, stream = _read("encode", "x", x), _stream("encode", x=x, wire=wire, residual=residual)
    if wire is None:
        count = math.prod(source.__cuda_array_interface__["shape"])
        wire = _empty("encode", "wire", x, core.most_bytes(count), "uint8")
    kept = None if residual is None else _written("encode", "residual", residual)
    to = _written("encode", "wire", wire)
    bytes = kernels.encode(core, source, to, kept, *moment, stream)
    if bytes is None:  # nearly k entries: only the device knows how many
        header = kernels.header(to, stream)
        bytes = len(header) + int.from_bytes(header[16:24], "little")
    return wire[:bytes]


def decode(wire: Any, out: Any, add: bool) -> Any:
    """What pycoll.codec.decode does."""
    kernels = _kernels("decode", wire)
    source, stream = _read("decode", "wire", wire), _stream("decode", wire=wire, out=out)
    if out is None:
        out = _empty("decode", "out", wire, kernels.check(source, stream), "float32")
    (kernels.decode_add if add else kernels.decode_into)(_written("decode", "out", out), source, stream)
    return out


def _kernels(operation: str, x: Any) -> Any:
    try:
        from . import _cuda
    except ImportError as error:
        raise DeviceError(
            f"{operation}: got a {type(x).__name__} on a CUDA device, but pycoll has no CUDA kernels here ({error}); "
            "`pycoll doctor` says how to build them"
        ) from None
    return _cuda


def _torch_of(x: Any) -> Any:
    """torch if x is a tensor of it. Not imported for this: who has a tensor has torch."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else None


def _cupy_of(x: Any) -> Any:
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else None


def _read(operation: str, name: str, x: Any) -> Any:
    """x as the kernels borrow it."""
    if not is_on_device(x):
        raise InvalidArgument(f"{operation}: {name} is a {type(x).__name__} in host memory, wanted a CUDA device's")
    torch = _torch_of(x)
    if not torch:
        return x
    if x.is_sparse or x.is_conj() or x.is_neg():
        raise InvalidArgument(f"{operation}: {name} is a sparse, conjugated or negated tensor, wanted a plain one")
    return x.detach()


def _written(operation: str, name: str, x: Any) -> Any:
    """As _read, of what is written to."""
    torch = _torch_of(x)
    if torch and x.requires_grad and torch.is_grad_enabled():
        raise InvalidArgument(
            f"{operation}: {name} is a tensor that requires grad, wanted .detach() of it, or to be called under "
            "torch.no_grad()"
        )
    return _read(operation, name, x)


def _stream(operation: str, **arrays: Any) -> int:
    """The one that all arrays are used on."""
    streams: dict[int, str] = {}
    for name, x in arrays.items():
        if x is not None and (stream := _stream_of(x)) is not None:
            streams.setdefault(stream, name)
    if len(streams) > 1:
        said = ", ".join(f"{name}'s is {stream}" for stream, name in streams.items())
        raise InvalidArgument(f"{operation}: the arrays are used on different streams: {said}")
    return next(iter(streams), 0)


def _stream_of(x: Any) -> int | None:
    """None where x is ready: it names no stream."""
    if torch := _torch_of(x):
        stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None
    elif cupy := _cupy_of(x):
        with x.device:
            stream = cupy.cuda.get_current_stream().ptr
    else:
        stream = getattr(x, "__cuda_array_interface__", {}).get("stream")
    return 0 if stream == 1 else stream  # both are the default stream


def _empty(operation: str, name: str, like: Any, count: int, dtype: str) -> Any:
    """A new array on the device of `like`, of its library."""
    if torch := _torch_of(like):
        return torch.empty(count, dtype=getattr(torch, dtype), device=like.device)
    if cupy := _cupy_of(like):
        with like.device:
            return cupy.empty(count, dtype)
    raise InvalidArgument(
        f"{operation}: got a {type(like).__name__}, whose library pycoll does not know: give {name}, {dtype}[{count}], "
        "or a view of it by torch.as_tensor or cupy.asarray"
    )
