from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytest

from pymc_streaming.errors import PlaceholderError
from pymc_streaming.vi.binding import Binding


def model_with(**arrays: np.ndarray) -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("mu")
        for name, array in arrays.items():
            data = pm.Data(name, array)
            pm.Normal(f"like_{name}", mu, 1.0, observed=data.astype(pytensor.config.floatX))
    return model


X = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize("data_name", [None, "batch", {"batch": "batch"}])
def test_names(data_name):
    binding = Binding(model_with(batch=np.zeros((4, 2))), data_name, {"batch": X})
    assert binding.names == {"batch": "batch"}
    assert binding.n_rows == 4


def test_other_names_by_mapping():
    model = model_with(features=np.zeros((4, 2)), clicks=np.zeros(4))
    batch = {"X": X, "y": np.ones(4)}
    binding = Binding(model, {"X": "features", "y": "clicks"}, batch)
    assert binding.names == {"X": "features", "y": "clicks"}


@pytest.mark.parametrize(
    ("data_name", "batch", "message"),
    [
        ("other", {"batch": X}, r"no pm.Data 'other'.*\['batch'\]"),
        ("mu", {"batch": X}, "no pm.Data 'mu'"),
        ("batch", {"X": X, "y": X}, r"names one pm.Data, but a batch has the arrays \['X', 'y'\]"),
        ({"X": "batch"}, {"X": X, "y": X}, r"expected the keys \['X', 'y'\], found \['X'\]"),
        ({"X": "batch", "y": "batch"}, {"X": X, "y": X}, "two arrays to one"),
        ("batch", {"batch": X[:, :1]}, r"shape \(4, 2\).*shape \(4, 1\)"),
        ("batch", {"batch": X[:, 0]}, r"shape \(4, 2\).*shape \(4,\)"),
    ],
)
def test_what_does_not_fit(data_name, batch, message):
    with pytest.raises(PlaceholderError, match=message):
        Binding(model_with(batch=np.zeros((4, 2))), data_name, batch)


def test_floats_do_not_go_into_an_integer_placeholder():
    with pytest.raises(PlaceholderError, match="cut to whole numbers"):
        Binding(model_with(batch=np.zeros(4, int)), "batch", {"batch": X[:, 0]})


def test_codes_that_overflow_the_placeholder_are_refused():
    with pytensor.config.change_flags(floatX="float32"):
        model = model_with(group=np.zeros(4, int))  # PyMC makes it int16
        binding = Binding(model, None, {"group": np.array([0, 1, 2, 32_767])})
        with pytest.raises(PlaceholderError, match=r"int16.*32,768.*uint32"):
            binding.arrays({"group": np.array([0, 1, 2, 32_768])})
        wide = model_with(group=np.zeros(4, "uint32"))
        Binding(wide, None, {"group": np.array([0, 1, 2, 32_768])})


def test_the_model_is_left_as_it_was():
    model = model_with(batch=np.full((3, 2), 7.0))
    binding = Binding(model, "batch", {"batch": X})

    def failing():
        with binding.in_placeholders({"batch": X}):
            np.testing.assert_array_equal(model["batch"].get_value(), X)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    np.testing.assert_array_equal(model["batch"].get_value(), np.full((3, 2), 7.0))


def test_rows_with_coordinates_cannot_change_their_number():
    with pm.Model(coords={"row": range(3)}) as model:
        mu = pm.Normal("mu")
        data = pm.Data("batch", np.zeros(3), dims="row")
        pm.Normal("y", mu, 1.0, observed=data)
    binding = Binding(model, "batch", {"batch": np.ones(4)})
    with (
        pytest.raises(PlaceholderError, match="'batch' does not take"),
        binding.in_placeholders({"batch": np.ones(4)}),
    ):
        pass


def test_arrays_reach_the_graph_without_a_copy():
    model = model_with(batch=np.zeros((4, 2)))
    binding = Binding(model, "batch", {"batch": X})
    total = pytensor.function(binding.inputs, binding.static(model["batch"]).sum())
    (array,) = binding.arrays({"batch": X})
    assert array is X
    assert total(array) == X.sum()


def test_several_arrays_keep_their_order():
    model = model_with(group=np.zeros(4, int), x=np.zeros(4))
    binding = Binding(model, None, {"x": np.ones(4), "group": np.arange(4)})
    assert [variable.name for variable in binding.inputs] == ["x", "group"]
    x, group = binding.arrays({"group": np.arange(8), "x": np.ones(8)})
    assert (x.dtype, group.dtype) == (np.float64, np.int32)  # as PyMC narrows them
    np.testing.assert_array_equal(group, np.arange(8))
