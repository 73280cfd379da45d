"""The benchmark suite: ``python -m benchmarks`` lists what there is."""


class BenchmarkError(Exception):
    """What keeps a benchmark from being run here, in a line."""
