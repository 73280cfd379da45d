from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pymc_streaming.errors import SchemaError
from pymc_streaming.sources.packed import is_packed, packed_schema, refuse_other_packing


def test_the_schema_says_what_it_holds():
    schema = packed_schema(["a", 'b "c"', "é"], np.dtype(np.float32))
    assert is_packed(schema)
    assert schema.field("batch").type.list_size == 3
    assert not is_packed(pa.schema({"batch": pa.list_(pa.float32(), 3)}))
    assert not is_packed(pa.schema({"x": pa.float32()}))
    assert not is_packed(pa.schema([schema.field(0), pa.field("x", pa.int8())]))


def test_the_schema_survives_a_file():
    schema = packed_schema(["a", "b"], np.dtype(np.float64))
    sink = pa.BufferOutputStream()
    pa.ipc.new_file(sink, schema).close()
    assert pa.ipc.open_file(sink.getvalue()).schema.equals(schema, check_metadata=True)
    assert is_packed(pa.ipc.open_file(sink.getvalue()).schema)


def test_other_packing():
    first, same, other = (
        packed_schema(list(names), np.dtype(np.float32)) for names in ("ab", "ab", "ba")
    )
    refuse_other_packing(same, first, "b.arrow", "a.arrow")
    plain = pa.schema({"batch": first.field(0).type})
    refuse_other_packing(plain, plain, "b.arrow", "a.arrow")
    for found, known in ((other, first), (plain, first), (first, plain)):
        with pytest.raises(SchemaError, match=r"b\.arrow: the rows hold.* in a\.arrow"):
            refuse_other_packing(found, known, "b.arrow", "a.arrow")
