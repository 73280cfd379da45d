"""Data sets by their name on a hub, and those that the package ``datasets`` has loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem, close_session

from pymc_streaming import DataLoader, hf_source
from pymc_streaming.errors import (
    ArgumentError,
    MissingFileError,
    MissingValueError,
    RowCountError,
    SchemaError,
    SkippedFilesWarning,
)
from pymc_streaming.sources import patience
from tests.hub import Hub, hub_serving

REPO = "owner/clicks"


def put(folder: Path, path: str, first: int, n_rows: int = 100) -> None:
    """A file of rows with numbers of their own."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    rows = np.arange(first, first + n_rows, dtype=np.float64)
    table = pa.table({"row": rows, "city": ["Rome", "Oslo"] * (n_rows // 2)})
    pq.write_table(table, folder / path, row_group_size=40)


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    (tmp_path / REPO).mkdir(parents=True)
    with hub_serving(tmp_path) as hub:
        HfFileSystem.clear_instance_cache()
        yield hub
        HfFileSystem.clear_instance_cache()
        close_session()


def rows_of(source, **options) -> list[int]:
    loader = DataLoader(source, 64, **options)
    return [int(row) for batch in loader for row in batch["batch"][:, 0]]


def firsts(**options) -> list[int]:
    """The first rows of the files that are read."""
    return [row for row in rows_of(hf_source(REPO, columns=["row"], **options)) if row % 100 == 0]


class TestSplits:
    def test_by_the_names_that_datasets_writes(self, hub) -> None:
        for first, path in enumerate(
            ["data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet",
             "data/train-00001-of-00002.parquet", "data/unseen-00000-of-00001.parquet"]
        ):  # fmt: skip
            put(hub.folder / REPO, path, 100 * first)
        assert firsts() == [100, 200]
        assert firsts(split="test") == [0]
        assert firsts(split="unseen") == [300]
        with pytest.raises(ArgumentError, match=r"no split 'validation'; there are \[.*'train'"):
            hf_source(REPO, split="validation")

    def test_by_words_in_folders_and_names(self, hub) -> None:
        for first, path in enumerate(["dev/a.parquet", "training.parquet", "x/eval_b.parquet"]):
            put(hub.folder / REPO, path, 100 * first)
        assert firsts() == [100]
        assert firsts(split="validation") == [0]
        assert firsts(split="test") == [200]

    def test_words_that_are_parts_of_others_say_nothing(self, hub) -> None:
        for first, path in enumerate(["latest.parquet", "trains.parquet"]):
            put(hub.folder / REPO, path, 100 * first)
        assert firsts() == [0, 100]

    def test_a_name_that_is_of_two_splits_is_refused(self, hub) -> None:
        put(hub.folder / REPO, "train/test.parquet", 0)
        with pytest.raises(ArgumentError, match=r"test\.parquet may be of any of the splits"):
            hf_source(REPO)

    def test_by_the_card(self, hub) -> None:
        card = """---
configs:
- config_name: small
  data_files: "small/*.parquet"
- config_name: large
  default: true
  data_files:
  - split: train
    path: ["large/a*.parquet", "large/deep/**"]
  - split: later
    path: large/z.parquet
---
# Clicks
"""
        for first, path in enumerate(
            ["large/a1.parquet", "large/a2.parquet", "large/deep/er/b.parquet",
             "large/test-00000-of-00001.parquet", "large/z.parquet", "small/c.parquet"]
        ):  # fmt: skip
            put(hub.folder / REPO, path, 100 * first)
        (hub.folder / REPO / "README.md").write_text(card)
        assert firsts() == [0, 100, 200]
        assert firsts(split="later") == [400]
        assert firsts(name="small") == [500]
        with pytest.raises(ArgumentError, match=r"no configuration 'middle'.*small.*large"):
            hf_source(REPO, name="middle")
        without_default = card.replace("  default: true\n", "")
        (hub.folder / REPO / "README.md").write_text(without_default)
        with pytest.raises(ArgumentError, match=r"several configurations.*small.*large"):
            hf_source(REPO)
        (hub.folder / REPO / "README.md").write_text("---\nconfigs: [\n---\n")
        with pytest.raises(SchemaError, match="card of this data set cannot be read"):
            hf_source(REPO)

    def test_what_the_hub_made_of_another_format(self, hub) -> None:
        (hub.folder / REPO / "train.csv").write_text("row\n1\n")
        with pytest.raises(MissingFileError, match="no Parquet files"):
            hf_source(REPO)
        branch = hub.folder / f"{REPO}@refs-convert-parquet"
        put(branch, "default/train/0000.parquet", 0)
        put(branch, "default/train/0001.parquet", 100)
        put(branch, "default/partial-test/0000.parquet", 200)
        assert firsts() == [0, 100]
        # The hub converts the beginning only of what is large.
        with pytest.raises(ArgumentError, match=r"'test \(a part of it\)'"):
            hf_source(REPO, split="test")
        assert firsts(split="test (a part of it)") == [200]
        put(branch, "other/train/0000.parquet", 300)
        assert firsts() == [0, 100]
        assert firsts(name="other") == [300]

    def test_revisions_are_pinned(self, hub) -> None:
        put(hub.folder / REPO, "train.parquet", 0)
        source = hf_source(REPO, columns=["row"])
        put(hub.folder / REPO, "train.parquet", 1_000)
        put(hub.folder / f"{REPO}@old", "train.parquet", 2_000)
        assert rows_of(source)[0] == 0
        commit = source.files[0].path.partition("@")[2][:40]
        assert rows_of(hf_source(REPO, columns=["row"], revision=commit))[0] == 0
        assert rows_of(hf_source(REPO, columns=["row"]))[0] == 1_000
        assert rows_of(hf_source(REPO, columns=["row"], revision="old"))[0] == 2_000

    def test_what_is_not_there(self, hub) -> None:
        with pytest.raises(MissingFileError, match="none"):
            hf_source("owner/none")

    @pytest.mark.parametrize(
        "data", ["hf://datasets/owner/clicks", "/data/clicks", "", "clicks", "a/b/c"]
    )
    def test_what_is_no_name(self, data) -> None:
        with pytest.raises(ArgumentError, match="owner/dataset"):
            hf_source(data)

    def test_options_of_parquet(self, hub) -> None:
        put(hub.folder / REPO, "a.parquet", 0)
        (hub.folder / REPO / "b.parquet").write_bytes(b"PAR1 is not enough")
        with pytest.warns(SkippedFilesWarning, match=r"b\.parquet"):
            source = hf_source(
                REPO,
                columns={"row": "row", "city": "city"},
                filters=pc.field("row") < 10,
                categories="auto",
                on_bad_file="skip",
            )
        assert source.n_rows == 10
        assert source.categories == {"city": ("Oslo", "Rome")}
        with pytest.raises(ArgumentError, match="n_rows is for streams"):
            hf_source(REPO, n_rows=10)


@pytest.fixture(scope="module")
def table() -> datasets.Dataset:
    random = np.random.default_rng(0)
    return datasets.Dataset.from_dict(
        {
            "row": np.arange(10_000),
            "x": random.normal(size=10_000),
            "city": random.choice(["Oslo", "Rome"], 10_000),
        }
    )


class TestDataset:
    def test_every_row_in_its_order(self, table) -> None:
        assert rows_of(hf_source(table, columns=["row", "x"])) == list(range(10_000))
        chosen = table.shuffle(seed=0).select(range(5_000))
        assert rows_of(hf_source(chosen, columns=["row", "x"])) == list(chosen["row"])

    def test_shuffled_and_read_by_several_threads(self, table) -> None:
        first, second = (
            rows_of(
                hf_source(table, columns=["row"]),
                shuffle=True,
                seed=1,
                buffer_size=500,
                num_workers=n,
            )
            for n in (0, 4)
        )
        assert first == second
        assert sorted(first) == list(range(10_000))

    def test_categories_and_named_arrays(self, table) -> None:
        loader = DataLoader(
            hf_source(table, columns={"x": "x", "city": "city"}, categories="auto"), 10_000
        )
        (batch,) = loader
        np.testing.assert_array_equal(batch["x"], table["x"])
        assert [("Oslo", "Rome")[code] for code in batch["city"]] == list(table["city"])

    def test_a_loader_takes_it_as_it_is(self, table) -> None:
        assert len(DataLoader(table.select_columns(["x", "row"]), 100)) == 10_000

    def test_nulls(self) -> None:
        table = datasets.Dataset.from_dict({"x": [1.0, None, 3.0]})
        with pytest.raises(MissingValueError, match="'x'"):
            rows_of(hf_source(table))
        filled = hf_source(table, transform=lambda block: np.nan_to_num(block["x"], nan=-1.0))
        (batch,) = DataLoader(filled, 3)
        np.testing.assert_array_equal(batch["batch"], [1.0, -1.0, 3.0])

    def test_fingerprints_differ(self, table) -> None:
        one, other = (
            hf_source(each) for each in (table.select_columns("x"), table.select_columns("row"))
        )
        assert one.fingerprint != other.fingerprint
        assert one.fingerprint == hf_source(table.select_columns("x")).fingerprint

    def test_what_is_not_read_as_it_is(self, table) -> None:
        with pytest.raises(ArgumentError, match="transform of its own"):
            hf_source(table.with_transform(lambda batch: batch))
        with pytest.raises(ArgumentError, match=r"of several splits.*'train'"):
            hf_source(datasets.DatasetDict({"train": table}))
        with pytest.raises(ArgumentError, match="split is for a data set on the hub"):
            hf_source(table, split="train")
        with pytest.raises(ArgumentError, match="on_bad_file is for"):
            hf_source(table, on_bad_file="skip")
        with pytest.raises(ArgumentError, match="n_rows is for streams"):
            hf_source(table, n_rows=10)
        with pytest.raises(ArgumentError, match="found int"):
            hf_source(3)


class TestStream:
    def test_n_rows_is_asked_for_and_checked(self, table) -> None:
        stream = table.to_iterable_dataset(num_shards=4)
        with pytest.raises(ArgumentError, match="n_rows="):
            hf_source(stream, columns=["row"])
        with pytest.raises(ArgumentError, match="n_rows"):
            DataLoader(stream, 10)
        for wrong in (9_999, 10_001):
            with pytest.raises(RowCountError, match="10,000 rows"):
                rows_of(hf_source(stream, columns=["row"], n_rows=wrong))
        for nonsense in (0, 1.5, "all"):
            with pytest.raises(ArgumentError, match="n_rows"):
                hf_source(stream, n_rows=nonsense)

    @pytest.mark.parametrize("shards", [1, 4])
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_every_row_once(self, table, shards, workers) -> None:
        source = hf_source(
            table.to_iterable_dataset(num_shards=shards), columns=["row"], n_rows=10_000
        )
        assert rows_of(source, num_workers=workers) == list(range(10_000))
        options = {"shuffle": True, "seed": 0, "buffer_size": 1_000}
        loader = DataLoader(source, 64, num_workers=workers, **options)
        passes = [[int(r) for b in loader for r in b["batch"][:, 0]] for _ in range(2)]
        assert all(sorted(rows) == list(range(10_000)) for rows in passes)
        assert passes[0] != passes[1]

    def test_one_that_was_shuffled_has_an_order_for_every_pass(self, table) -> None:
        stream = table.to_iterable_dataset(num_shards=4).shuffle(seed=3, buffer_size=100)
        source = hf_source(stream, columns=["row"], n_rows=10_000)

        def passes(loader) -> list[list[int]]:
            return [[int(r) for b in loader for r in b["batch"][:, 0]] for _ in range(3)]

        first = passes(DataLoader(source, 64))
        assert all(sorted(rows) == list(range(10_000)) for rows in first)
        assert first[0] != first[1] != first[2]
        assert passes(DataLoader(source, 64)) == first
        # And a pass that was begun elsewhere is gone on with.
        loader = DataLoader(source, 64)
        next(iter(loader))
        batches = iter(loader)
        begun = [int(row) for _ in range(5) for row in next(batches)["batch"][:, 0]]
        later = DataLoader(source, 64)
        later.load_state_dict(loader.state_dict())
        assert begun + [int(r) for b in later for r in b["batch"][:, 0]] == first[1]

    @pytest.mark.parametrize(
        "change",
        [
            lambda stream: stream.take(1_000),
            lambda stream: stream.skip(1_000),
            lambda stream: stream.shuffle(seed=1, buffer_size=100).take(500),
            lambda stream: stream.filter(lambda _, number: number % 3 == 0, with_indices=True),
            lambda stream: stream.map(lambda _, number: {"row": number}, with_indices=True),
            lambda stream: stream.map(
                lambda rows: {"row": [max(rows["row"])] * len(rows["row"])},
                batched=True,
                batch_size=700,
            ),
            lambda stream: datasets.interleave_datasets([stream, stream.skip(5_000)]),
            lambda stream: datasets.concatenate_datasets([stream, stream.take(10)]),
            lambda stream: stream.select_columns(["row"]),
        ],
    )
    def test_the_rows_are_those_of_the_stream(self, table, change) -> None:
        stream = change(table.to_iterable_dataset(num_shards=4))
        expected = [row["row"] for row in stream]
        source = hf_source(stream, columns=["row"], n_rows=len(expected))
        if "shuffle" in repr(change) or len(source.fragments) == 1:
            assert rows_of(source) == expected
        assert sorted(rows_of(source, num_workers=2)) == sorted(expected)
        assert sorted(rows_of(source, shuffle=True, seed=0)) == sorted(expected)

    def test_mapped_and_filtered(self, table) -> None:
        stream = table.to_iterable_dataset().filter(lambda row: row["row"] % 2 == 0)
        stream = stream.map(lambda row: {"double": 2.0 * row["row"]})
        source = hf_source(stream, columns=["double"], n_rows=5_000)
        assert rows_of(source) == list(range(0, 20_000, 4))

    def test_made_by_a_generator(self) -> None:
        def rows() -> Iterator[dict[str, float]]:
            for number in range(5_000):
                yield {"row": number, "x": 0.5 * number}

        source = hf_source(datasets.IterableDataset.from_generator(rows), n_rows=5_000)
        assert rows_of(source) == rows_of(source) == list(range(5_000))

    def test_types_that_change_on_the_way(self) -> None:
        def rows(late: object) -> Iterator[dict[str, object]]:
            for number in range(5_000):
                yield {"row": 1.0 if number < 4_500 else late}

        def stream_of(late: object):
            made = datasets.IterableDataset.from_generator(rows, gen_kwargs={"late": late})
            return hf_source(made, n_rows=5_000)

        assert rows_of(stream_of(3.0))[-1] == 3
        for late in (3, "three"):
            with pytest.raises(SchemaError, match="beginning of the stream"):
                rows_of(stream_of(late))

    def test_levels_must_be_given(self, table) -> None:
        stream = table.to_iterable_dataset()
        with pytest.raises(ArgumentError, match=r"levels of 'city'.*Give them"):
            hf_source(stream, columns={"city": "city"}, categories="auto", n_rows=10_000)
        source = hf_source(
            stream, columns={"city": "city"}, categories={"city": ["Oslo", "Rome"]}, n_rows=10_000
        )
        assert source.categories == {"city": ("Oslo", "Rome")}

    def test_no_rows(self, table) -> None:
        stream = table.to_iterable_dataset().filter(lambda _: False)
        with pytest.raises(RowCountError, match="no rows"):
            hf_source(stream, columns=["row"], n_rows=10)

    def test_streamed_from_the_hub_with_faults(self, hub, monkeypatch) -> None:
        monkeypatch.setattr(patience.time, "sleep", lambda _: None)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        for number in range(3):
            put(hub.folder / REPO, f"data/train-0000{number}-of-00003.parquet", 100 * number)
        stream = datasets.load_dataset(REPO, split="train", streaming=True)
        source = hf_source(stream, columns=["row"], n_rows=300)
        assert len(source.fragments) == 3
        failed = iter([None, "500", None, "drop", "truncate", "429"])
        hub.fault = lambda path: next(failed, None) if path.startswith("/cdn/") else None
        assert rows_of(source) == list(range(300))
        assert sum(hub.faults.values()) == 4
