"""Which files of a data set on the Hugging Face hub are a split of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsspec.utils import glob_translate

from pymc_streaming.errors import ArgumentError, MissingFileError, SchemaError
from pymc_streaming.sources.files import DataFile, named_files
from pymc_streaming.sources.patience import patiently
from pymc_streaming.sources.reading import reading
from pymc_streaming.sources.remote import pinned

if TYPE_CHECKING:
    from huggingface_hub import HfFileSystem

__all__ = ["split_files"]

# Where the hub itself keeps a data set of another format as Parquet.
_CONVERTED = "refs/convert/parquet"

# What splits are called in the names of files and folders, by those who upload them.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_files(
    repository: str, split: str, name: str | None, revision: str | None
) -> list[DataFile]:
    """The Parquet files of a split, of the commit that the revision is now.

    They are those that the data set's card names; without a card, those whose path has the name
    of the split in it as a word of its own, or all files for ``"train"`` if no path has any; and
    if the data set is not in Parquet, those that the hub made of it.

    Parameters
    ----------
    repository : str
        ``"owner/dataset"``.
    split : str
        Name of the split.
    name : str or None
        Name of the configuration, for a data set of several.
    revision : str or None
        Branch, tag or commit. Default: the main branch.

    Raises
    ------
    ArgumentError
        If there is no such split or configuration, or the data set has several of the latter.
    MissingFileError
        If there is no such data set, or no Parquet in it.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ArgumentError(
            f'A data set on the hub is named "owner/dataset", found {repository!r}. For a URL or a '
            "folder there is parquet_source."
        )
    from huggingface_hub import HfFileSystem

    filesystem = HfFileSystem()

    def find() -> list[DataFile]:
        root = f"datasets/{repository}" + (f"@{revision}" if revision else "")
        with reading(f"hf://{root}"):
            filesystem.invalidate_cache()
            place = pinned(filesystem, root)
            there = _Repository(repository, *_listed(filesystem, place))
            chosen = there.files(split, name)
            if chosen is None and revision is None:
                try:
                    place = pinned(filesystem, f"datasets/{repository}@{_quoted(_CONVERTED)}")
                except FileNotFoundError:
                    pass
                else:
                    there = _Repository(repository, *_listed(filesystem, place))
                    chosen = there.converted(split, name)
            if not chosen:
                raise MissingFileError(
                    f"{repository}: there are no Parquet files in this data set, and the hub has "
                    "made none of it. Load it with the package datasets, with streaming=True, and "
                    "give hf_source what that returns."
                )
            return named_files(filesystem, [f"{place}/{path}" for path in chosen])

    return patiently(find)


def _quoted(revision: str) -> str:
    return revision.replace("/", "%2F")


def _listed(filesystem: HfFileSystem, place: str) -> tuple[list[str], str]:
    """The paths in a revision, and its card."""
    paths = [path.removeprefix(f"{place}/") for path in filesystem.find(place)]
    card = filesystem.read_text(f"{place}/README.md") if "README.md" in paths else ""
    return sorted(paths), card


@dataclass(frozen=True)
class _Repository:
    """What is in a revision of a data set."""

    name: str
    paths: list[str]
    card: str

    def files(self, split: str, config: str | None) -> list[str] | None:
        """Paths of a split; None if there is no Parquet."""
        configs = self._configs()
        if configs:
            patterns = _patterns(self._chosen(configs, config))
            if split not in patterns:
                raise self._no_split(split, patterns)
            found = [
                path
                for path in self.paths
                if any(_matches(path, pattern) for pattern in patterns[split])
            ]
            return self._only_parquet(found)
        if config is not None and not any(path.startswith(f"{config}/") for path in self.paths):
            return None
        tables = [path for path in self.paths if path.endswith(".parquet")]
        if config is not None:
            tables = [path for path in tables if path.startswith(f"{config}/")]
        return self._by_words(tables, split) if tables else None

    def converted(self, split: str, config: str | None) -> list[str]:
        """Paths of a split where the hub made the files: configuration/split/number.parquet."""
        configs: dict[str, dict[str, list[str]]] = {}
        for path in self.paths:
            parts = path.split("/")
            if len(parts) == 3 and path.endswith(".parquet"):
                # What would be too large the hub converts in part.
                if parts[1].startswith("partial-"):
                    parts[1] = parts[1].removeprefix("partial-") + " (a part of it)"
                configs.setdefault(parts[0], {}).setdefault(parts[1], []).append(path)
        if not configs:
            return []
        named = [{"config_name": each} for each in configs]
        splits = configs[self._chosen(named, config)["config_name"]]
        if split not in splits:
            raise self._no_split(split, splits)
        return splits[split]

    def _configs(self) -> list[dict[str, Any]]:
        """The configurations that the card describes with the files they are made of."""
        if not self.card.startswith("---"):
            return []
        from huggingface_hub import RepoCard

        try:
            found = getattr(RepoCard(self.card, ignore_metadata_errors=True).data, "configs", None)
        except Exception as error:
            raise SchemaError(
                f"{self.name}: the card of this data set cannot be read: {error}. Name the files "
                f'with parquet_source("hf://datasets/{self.name}/...").'
            ) from error
        configs = found if isinstance(found, list) else []
        return [each for each in configs if isinstance(each, dict) and each.get("data_files")]

    def _chosen(self, configs: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
        names = [str(each.get("config_name", "default")) for each in configs]
        if wanted is not None:
            if wanted not in names:
                raise ArgumentError(
                    f"{self.name}: there is no configuration {wanted!r}; there are {names}."
                )
            return configs[names.index(wanted)]
        default = [each for each in configs if each.get("default")] or [
            each for each, name in zip(configs, names, strict=True) if name == "default"
        ]
        if len(configs) > 1 and not default:
            raise ArgumentError(
                f"{self.name}: this data set has several configurations. Give name=, one of "
                f"{names}."
            )
        return default[0] if default else configs[0]

    def _by_words(self, tables: list[str], split: str) -> list[str]:
        splits: dict[str, list[str]] = {}
        for path in tables:
            words = re.split(r"[^a-z]+", path.removesuffix(".parquet").lower())
            for known, names in _WORDS.items():
                if any(word in names for word in words):
                    splits.setdefault(known, []).append(path)
            # Those that the package datasets writes: data/name-00000-of-00003.parquet.
            if written := re.search(r"(?:^|/)(\w+)-\d{5}-of-\d{5}\S*\.parquet$", path):
                splits.setdefault(written[1], [])
                if path not in splits[written[1]]:
                    splits[written[1]].append(path)
        if not splits:
            splits = {"train": tables}
        if split not in splits:
            raise self._no_split(split, splits)
        for path in splits[split]:
            named = [each for each, paths in splits.items() if path in paths]
            if len(named) > 1:
                raise ArgumentError(
                    f"{self.name}: by its name {path} may be of any of the splits {named}. Name "
                    f'the files with parquet_source("hf://datasets/{self.name}/...").'
                )
        return splits[split]

    def _only_parquet(self, paths: Sequence[str]) -> list[str] | None:
        tables = [path for path in paths if path.endswith(".parquet")]
        if tables and len(tables) < len(paths):
            other = next(path for path in paths if not path.endswith(".parquet"))
            raise SchemaError(
                f"{self.name}: not all files of the split are Parquet; {other} is not. Load it "
                "with the package datasets, and give hf_source what that returns."
            )
        return tables or None

    def _no_split(self, split: str, splits: Any) -> ArgumentError:
        return ArgumentError(f"{self.name}: there is no split {split!r}; there are {list(splits)}.")


def _patterns(config: dict[str, Any]) -> dict[str, list[str]]:
    """Patterns of the paths of every split of a configuration."""
    files = config["data_files"]
    folder = str(config.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder else ""
    found: dict[str, list[str]] = {}
    for each in files if isinstance(files, list) else [files]:
        split, paths = "train", each
        if isinstance(each, dict):
            split, paths = str(each.get("split", "train")), each.get("path", [])
        for path in paths if isinstance(paths, list) else [paths]:
            found.setdefault(split, []).append(prefix + str(path).removeprefix("./"))
    return found


def _matches(path: str, pattern: str) -> bool:
    """Whether a glob, or the name of a folder, matches a path."""
    if pattern.endswith("/"):
        pattern += "**"
    return re.fullmatch(glob_translate(pattern), path) is not None
