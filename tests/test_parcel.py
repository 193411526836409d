"""pycoll.parcel: objects as one array of bytes."""

import numpy as np
import pytest

from pycoll.parcel import from_body, to_body


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_arrays_lie_in_the_body(count):
    arrays = [np.arange(17 * i, dtype=np.float32) for i in range(count)]  # the first is empty
    mixed = {"name": "x" * count, "arrays": arrays, "columns": np.arange(12).reshape(3, 4)[:, 1]}
    body = to_body(mixed)
    for array in arrays:
        array += 1  # what was copied stays as it was
    got = from_body(body)
    assert got["name"] == mixed["name"] and np.array_equal(got["columns"], [1, 5, 9])
    for i, array in enumerate(got["arrays"]):
        assert array.dtype == np.float32 and np.array_equal(array, np.arange(17 * i))
        assert not i or (np.shares_memory(array, body) and array.ctypes.data % 4 == 0 and array.flags.writeable)
    assert body.nbytes < sum(array.nbytes for array in arrays) + 100 * count + 600
