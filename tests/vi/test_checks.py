"""Every trap has a model that is refused and a neighbour that passes."""

from __future__ import annotations

import warnings

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_streaming import errors
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.checks import check_model

B, N, BATCHES = 8, 100, 13
rng = np.random.default_rng(0)
BATCH = {"batch": np.column_stack([rng.normal(size=(B, 2)), rng.integers(0, 2, B)])}


def check(model: pm.Model, batch=BATCH, data_name=None):
    binding = Binding(model, data_name, batch)
    before = {key: data.get_value().copy() for key, data in binding.placeholders.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return check_model(binding, batch, n_rows=N, num_batches=BATCHES)
    finally:
        for key, data in binding.placeholders.items():
            np.testing.assert_array_equal(data.get_value(), before[key])


def regression(total_size=N, *, rows=B, extra=None) -> pm.Model:
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1, shape=2)
        sigma = pm.HalfNormal("sigma", 1)
        batch = pm.Data("batch", np.zeros((rows, 3)))
        pm.Normal("y", batch[:, :2] @ b, sigma, observed=batch[:, 2], total_size=total_size)
        if extra is not None:
            extra(b, batch)
    return model


def test_a_regression_passes():
    assert [variable.name for variable in check(regression())] == ["y"]


def test_total_size_may_be_a_tuple_or_symbolic():
    check(regression(total_size=(N,)))

    def two_columns(b, batch):
        pm.Normal("z", b, 1.0, observed=batch[:, :2], total_size=(N, None))

    check(regression(extra=two_columns))


@pytest.mark.parametrize("total_size", [None, 0])
def test_missing_total_size(total_size):
    with pytest.raises(errors.TotalSizeMissingError, match=r"'y'.*total_size=len\(loader\)"):
        check(regression(total_size))


def test_total_size_smaller_than_a_batch():
    with pytest.raises(errors.TotalSizeTooSmallError, match="less than the 8 rows"):
        check(regression(B - 1))


def test_batch_count_as_total_size():
    with pytest.raises(errors.TotalSizeIsBatchCountError, match="the number of batches"):
        check(regression(BATCHES))


def test_total_size_of_another_table():
    with pytest.raises(errors.TotalSizeMismatchError, match=r"total_size=101.*100"):
        check(regression(N + 1))


def test_each_streamed_likelihood_needs_its_own():
    def second(total_size):
        def extra(b, batch):
            pm.Normal("z", b[0], 1.0, observed=batch[:, 0], total_size=total_size)

        return extra

    check(regression(extra=second(N)))
    with pytest.raises(errors.TotalSizeMissingError, match="'z'"):
        check(regression(extra=second(None)))


def test_a_likelihood_in_memory_must_not_be_scaled():
    data = np.linspace(-1, 1, 5)

    def prior_study(total_size):
        return lambda b, batch: pm.Normal("old", b[0], 1.0, observed=data, total_size=total_size)

    assert [v.name for v in check(regression(extra=prior_study(None)))] == ["y"]
    assert [v.name for v in check(regression(extra=prior_study(5)))] == ["y"]
    with pytest.raises(errors.UnstreamedTotalSizeError, match="'old'"):
        check(regression(extra=prior_study(N)))


def test_potential_of_the_batch():
    check(regression(extra=lambda b, batch: pm.Potential("soft", -(b**2).sum())))
    with pytest.raises(errors.StreamedPotentialError, match=r"'soft'.*CustomDist"):
        check(regression(extra=lambda b, batch: pm.Potential("soft", -(batch[:, 0] @ b[:1] ** 2))))


def test_a_custom_likelihood_is_the_way_out_of_a_potential():
    def row_logp(value, slope):
        return -0.5 * (value - slope) ** 2

    check(
        regression(
            extra=lambda b, batch: pm.CustomDist(
                "z", b[0], logp=row_logp, observed=batch[:, 0], total_size=N
            )
        )
    )


def test_prior_of_the_batch():
    check(regression(extra=lambda b, batch: pm.Normal("child", b[0], 1.0)))
    with pytest.raises(errors.StreamedPriorError, match="'empirical'"):
        check(regression(extra=lambda b, batch: pm.Normal("empirical", batch[:, 0].mean(), 1.0)))


def test_row_sized_latent_by_shape():
    with pytest.raises(errors.RowSizedLatentError, match="'noise'"):
        check(regression(extra=lambda b, batch: pm.Normal("noise", 0, 1, shape=batch.shape[0])))


def test_row_sized_latent_by_dims():
    def build(dims):
        with pm.Model(coords={"group": range(3)}) as model:
            noise = pm.Normal("noise", 0, 1, dims=dims)
            batch = pm.Data("batch", np.zeros((B, 3)), dims=("row", "column"))
            mu = noise if dims == "row" else noise[0]
            pm.Normal("y", mu, 1.0, observed=batch[:, 2], total_size=N)
        return model

    check(build("group"))
    with pm.Model() as model:
        batch = pm.Data("batch", np.zeros((B, 3)), dims=("row", "column"))
        noise = pm.Normal("noise", 0, 1, dims="row")
        pm.Normal("y", noise, 1.0, observed=batch[:, 2], total_size=N)
    with pytest.raises(errors.RowSizedLatentError, match="'noise'"):
        check(model)


def test_a_latent_of_the_batch_size_is_a_warning():
    check(regression(extra=lambda b, batch: pm.Normal("effect", 0, 1, shape=B + 1)))
    with pytest.raises(errors.BatchSizedShapeWarning, match="'effect'"):
        check(regression(extra=lambda b, batch: pm.Normal("effect", 0, 1, shape=B)))


def test_a_fixed_array_of_the_batch_size_is_a_warning():
    def with_offset(offset):
        def extra(b, batch):
            pm.Normal("z", b[0] + pt.as_tensor(offset), 1.0, observed=batch[:, 0], total_size=N)

        return extra

    check(regression(extra=with_offset(np.array([0.5]))))
    with pytest.raises(errors.BatchSizedShapeWarning, match="fixed array"):
        check(regression(extra=with_offset(np.arange(float(B)))))


def test_observed_values_that_are_not_streamed():
    def observed(values):
        def extra(b, batch):
            pm.Normal("z", batch[:, 0] * b[0], 1.0, observed=values, total_size=N)

        return extra

    with pytest.raises(errors.FixedObservedError, match="'z'"):
        check(regression(extra=observed(np.arange(float(B)))))


@pytest.mark.parametrize(
    ("observed", "shape"), [(lambda batch: batch[:4, 0], 4), (lambda batch: batch.T, 3)]
)
def test_observed_must_have_the_rows_of_the_batch(observed, shape):
    with pytest.raises(errors.ObservedRowsError, match="'z'"):
        check(
            regression(
                extra=lambda b, batch: pm.Normal(
                    "z", b[0], 1.0, observed=observed(batch), total_size=N
                )
            )
        )


@pytest.mark.parametrize(
    "likelihood",
    [
        lambda b, y: pm.AR(
            "z", rho=b[:1], sigma=1.0, init_dist=pm.Normal.dist(), observed=y, total_size=N
        ),
        lambda b, y: pm.GaussianRandomWalk(
            "z", mu=b[0], sigma=1.0, init_dist=pm.Normal.dist(), observed=y, total_size=N
        ),
        lambda b, y: pm.MvNormal("z", mu=b[0], cov=np.eye(B) + 0.5, observed=y, total_size=N),
    ],
)
def test_joint_distributions_over_rows(likelihood):
    model = regression(extra=lambda b, batch: likelihood(b, batch[:, 0]))
    with pytest.raises(errors.DependentRowsError, match="'z'"):
        check(model)


def test_multivariate_rows_are_fine():
    check(
        regression(
            extra=lambda b, batch: pm.MvNormal(
                "z", mu=b, cov=np.eye(2), observed=batch[:, :2], total_size=N
            )
        )
    )


@pytest.mark.parametrize(
    "mixing",
    [
        lambda b, x: (x - x.mean()) / x.std() * b[0],
        lambda b, x: b[0] * pt.concatenate([x[:1], x[:-1]]),
    ],
)
def test_something_in_the_graph_mixes_rows(mixing):
    with pytest.raises(errors.DependentRowsError, match="not a sum over rows"):
        check(
            regression(
                extra=lambda b, batch: pm.Normal(
                    "z", mixing(b, batch[:, 0]), 1.0, observed=batch[:, 1], total_size=N
                )
            )
        )


def test_a_density_that_averages_rows():
    def mean_logp(value, slope):
        return -0.5 * (value - slope) ** 2 / value.shape[0]

    with pytest.raises(errors.DependentRowsError, match="not a sum over rows"):
        check(
            regression(
                extra=lambda b, batch: pm.CustomDist(
                    "z", b[0], logp=mean_logp, observed=batch[:, 0], total_size=N
                )
            )
        )


def test_mixing_rows_is_seen_at_a_fixed_number_of_rows():
    weights = np.linspace(0.5, 1.5, B)

    def extra(mix):
        def build(b, batch):
            x = batch[:, 0] - (batch[:, 0].mean() if mix else 0.0)
            mu = pt.specify_shape(x * b[0], (B,))
            pm.Normal("z", mu, 1.0, observed=batch[:, 1], total_size=N)

        return build

    assert weights.size == B
    check(regression(extra=extra(False)))
    with pytest.raises(errors.DependentRowsError):
        check(regression(extra=extra(True)))


def positional(build, rows=B, coords=None, **data_options):
    rows_of = {"batch": rng.normal(size=(rows, 3))}
    with pm.Model(coords=coords) as model:
        b = pm.Normal("b", 0, 1)
        batch = pm.Data("batch", np.zeros((rows, 3)), **data_options)
        pm.Normal("z", build(b, batch), 1.0, observed=batch[:, 1], total_size=N)
    return model, rows_of


@pytest.mark.parametrize(
    "effect",
    [
        lambda b, batch: pm.Normal("n", 0, 1, dims="row"),
        lambda b, batch: pm.Normal("n", 0, 1, shape=B + 1)[1:],
        lambda b, batch: b * pt.arange(B) / B,
        lambda b, batch: b * pm.Data("w", np.linspace(0, 1, 2 * B).reshape(2, B))[0],
    ],
)
def test_what_goes_by_the_position_in_the_batch(effect):
    model, batch = positional(effect, coords={"row": range(B)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.BatchSizedShapeWarning)
        binding = Binding(model, None, batch)
        with pytest.raises(errors.DependentRowsError, match="position of a row"):
            check_model(binding, batch, n_rows=N, num_batches=BATCHES)


@pytest.mark.parametrize("rows", [2, 3, 24, 25])
@pytest.mark.parametrize("fixed", [False, True])
def test_statistics_of_a_batch_of_any_length(rows, fixed):
    def scaled(b, batch):
        return b * (batch[:, 0] - batch[:, 0].mean()) / batch[:, 0].std()

    options = {"coords": {"row": range(rows), "c": range(3)}, "dims": ("row", "c")} if fixed else {}
    model, batch = positional(scaled, rows, **options)
    with pytest.raises(errors.DependentRowsError, match="mixes rows"):
        check(model, batch)
    check(*positional(lambda b, batch: b * batch[:, 0], rows, **options))


def test_a_potential_that_reads_an_observed_variable():
    with pm.Model() as model:
        s = pm.Normal("s", 0, 1)
        batch = pm.Data("batch", np.zeros(B))
        y = pm.Normal("y", s, 1.0, observed=batch, total_size=N)
        pm.Potential("p", -0.5 * ((y - s) ** 2).sum())
    with pytest.raises(errors.StreamedPotentialError, match="'p'"):
        check(model, {"batch": BATCH["batch"][:, 0]})


def test_rows_dropped_inside_the_model():
    def masked(b, batch):
        kept = (batch[:, 0] > -900).nonzero()[0]
        pm.Normal("z", b[0] * batch[kept, 0], 1.0, observed=batch[kept, 1], total_size=N)

    with pytest.raises(errors.ObservedRowsError, match="depends on the values"):
        check(regression(extra=masked))


def test_discrete_latent():
    with pytest.raises(errors.DiscreteLatentError, match="'k'"):
        check(regression(extra=lambda b, batch: pm.Bernoulli("k", 0.5)))


def test_nothing_to_fit():
    with pm.Model() as model:
        batch = pm.Data("batch", np.zeros((B, 3)))
        pm.Normal("y", 0, 1, observed=batch[:, 2], total_size=N)
    with pytest.raises(errors.ModelError, match="no free variables"):
        check(model)


def test_a_placeholder_nobody_reads():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1)
        pm.Data("batch", np.zeros((B, 3)))
        pm.Normal("y", b, 1, observed=np.ones(3))
    with pytest.raises(errors.NothingStreamedError, match="'batch'"):
        check(model)


def test_labels_outside_the_support():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1)
        batch = pm.Data("batch", np.zeros((B, 3)))
        pm.Bernoulli("y", logit_p=b + batch[:, 0], observed=batch[:, 2], total_size=N)
    check(model)
    wrong = {"batch": BATCH["batch"].copy()}
    wrong["batch"][3, 2] = -1
    with pytest.raises(errors.NonFiniteError, match="'y'"):
        check(model, wrong)


def test_a_code_beyond_the_groups():
    with pm.Model() as model:
        effect = pm.Normal("effect", 0, 1, shape=3)
        group = pm.Data("group", np.zeros(B, dtype=int))
        y = pm.Data("y", np.zeros(B))
        pm.Normal("likelihood", effect[group], 1, observed=y, total_size=N)
    batch = {"group": np.arange(B) % 3, "y": np.zeros(B) + 0.5}
    check(model, batch)
    with pytest.raises(errors.IndexRangeError, match=r"'effect' run from 0 to 3, .* 0 to 2"):
        check(model, {"group": np.arange(B) % 4, "y": batch["y"]})


@pytest.mark.parametrize(
    ("sum_up", "found"),
    [
        (lambda density: density.sum(), "found a single number"),
        (lambda density: density.sum(keepdims=True), "found 1 along"),
        (lambda density: density[None, :], "found 1 along"),
    ],
)
def test_a_density_without_an_element_for_each_row(sum_up, found):
    def density(value, mu):
        return sum_up(pm.logp(pm.Normal.dist(mu, 1.0), value))

    def extra(b, batch):
        mu = b[0] * batch[:, 0]
        pm.CustomDist("z", mu, logp=density, observed=batch[:, 1], total_size=N)

    with pytest.raises(errors.RowAxisError, match=f"'z' must have .* 8 for the first.*{found}"):
        check(regression(extra=extra))


def test_rows_along_the_second_axis():
    def extra(b, batch):
        mu, z = (b[0] * batch[:, 0])[None, :], batch[:, 1][None, :]
        pm.Normal("z", mu, 1.0, observed=z, total_size=(None, N))

    with pytest.raises(errors.ModelError, match="'z'"):
        check(regression(extra=extra))


def test_a_potential_in_the_place_of_a_likelihood():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1)
        batch = pm.Data("batch", np.zeros((B, 3)))
        pm.Potential("p", pm.logp(pm.Normal.dist(b, 1.0), batch[:, 0]).sum())
    with pytest.raises(errors.StreamedPotentialError, match=r"'p'.*CustomDist"):
        check(model)
