"""Every error and warning of the package, in one tree.

.. code-block:: text

    StreamingError
    ├── ArgumentError                  an argument that cannot be meant
    ├── SourceError                    the data cannot be read as asked
    │   ├── MissingFileError
    │   ├── CorruptFileError
    │   ├── ChangedFileError           another file than when the source was made
    │   ├── TransferError              the connection failed, again and again
    │   ├── SchemaError                column, type or shape other than expected
    │   ├── CategoryError              a level that is not in the categories
    │   ├── MissingValueError          null or NaN
    │   ├── PrecisionError             integers too large for the floating type
    │   ├── TransformError             the user's transform failed or broke its contract
    │   ├── RowCountError              the rows streamed are not N
    │   ├── ManifestError              a shuffled folder is not what its manifest says
    │   └── ConsumedIteratorError      an iterator can be read only once
    ├── OutputError                    the result cannot be written as asked
    │   ├── OutputExistsError          there is something already, or being written
    │   └── DiskSpaceError             the disk is full, or would be
    ├── CheckpointError                a saved state cannot be used
    │   ├── MissingCheckpointError
    │   ├── CorruptCheckpointError
    │   └── CheckpointMismatchError    it is of another model, table or call
    ├── PlaceholderError               batches and pm.Data do not fit together
    ├── ModelError                     streaming this model would bias the posterior
    │   ├── NothingStreamedError
    │   ├── TotalSizeMissingError
    │   ├── TotalSizeTooSmallError
    │   ├── TotalSizeIsBatchCountError
    │   ├── TotalSizeMismatchError
    │   ├── UnstreamedTotalSizeError
    │   ├── ObservedRowsError
    │   ├── FixedObservedError
    │   ├── StreamedPotentialError
    │   ├── StreamedPriorError
    │   ├── RowSizedLatentError
    │   ├── DependentRowsError
    │   ├── RowAxisError
    │   ├── FixedRowsError
    │   ├── NoGradientError
    │   └── DiscreteLatentError
    ├── OrderedDataError               batches are no fair sample of the table
    └── FitError
        ├── NonFiniteError             NaN or infinity while fitting
        └── IndexRangeError            a code in the data without a parameter

    StreamingWarning
    ├── RowCountWarning                a pass was spent on counting rows
    ├── SkippedFilesWarning            damaged files were left out
    ├── BatchSizedShapeWarning         a fixed shape in the model equals the batch size
    ├── OrderedDataWarning             batches are no fair sample of the table
    ├── MemoryLimitWarning             a fit may take more memory than there is
    ├── NotConvergedWarning            parameters were still on their way at the end of a fit
    └── SeveralModesWarning            a fit describes one of several modes

``except StreamingError`` catches whatever this package raises on purpose.
"""

__all__ = [
    "ArgumentError",
    "BatchSizedShapeWarning",
    "CategoryError",
    "ChangedFileError",
    "CheckpointError",
    "CheckpointMismatchError",
    "ConsumedIteratorError",
    "CorruptCheckpointError",
    "CorruptFileError",
    "DependentRowsError",
    "DiscreteLatentError",
    "DiskSpaceError",
    "FitError",
    "FixedObservedError",
    "FixedRowsError",
    "IndexRangeError",
    "ManifestError",
    "MemoryLimitWarning",
    "MissingCheckpointError",
    "MissingFileError",
    "MissingValueError",
    "ModelError",
    "NoGradientError",
    "NonFiniteError",
    "NotConvergedWarning",
    "NothingStreamedError",
    "ObservedRowsError",
    "OrderedDataError",
    "OrderedDataWarning",
    "OutputError",
    "OutputExistsError",
    "PlaceholderError",
    "PrecisionError",
    "RowAxisError",
    "RowCountError",
    "RowCountWarning",
    "RowSizedLatentError",
    "SchemaError",
    "SeveralModesWarning",
    "SkippedFilesWarning",
    "SourceError",
    "StreamedPotentialError",
    "StreamedPriorError",
    "StreamingError",
    "StreamingWarning",
    "TotalSizeIsBatchCountError",
    "TotalSizeMismatchError",
    "TotalSizeMissingError",
    "TotalSizeTooSmallError",
    "TransferError",
    "TransformError",
    "UnstreamedTotalSizeError",
]


class StreamingError(Exception):
    """Root of every error this package raises on purpose."""


class ArgumentError(StreamingError, ValueError):
    """An argument that cannot be meant."""


class SourceError(StreamingError):
    """The data cannot be read as asked."""


class MissingFileError(SourceError, FileNotFoundError):
    """No file where one was expected."""


class CorruptFileError(SourceError):
    """A file that is truncated, damaged, or not of the format it should be."""


class ChangedFileError(SourceError):
    """A file that was written to, or replaced, since the source was made."""


class TransferError(SourceError):
    """A connection that failed, or a server that was busy, whenever it was tried.

    Parameters
    ----------
    message : str
        What happened.
    seconds : float, optional
        How long the server asked to be left alone.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class SchemaError(SourceError):
    """A column, type or shape other than the one expected."""


class CategoryError(SourceError):
    """A value that is not among the levels of its categorical column."""


class MissingValueError(SourceError):
    """A null or NaN where a number is needed."""


class PrecisionError(SourceError):
    """Whole numbers too large to be told apart in the floating type asked for."""


class TransformError(SourceError):
    """The user's ``transform`` failed, or returned something it must not."""


class RowCountError(SourceError):
    """The rows a source delivered are not the rows it announced."""


class ManifestError(SourceError):
    """A folder that was shuffled is not what its manifest says."""


class ConsumedIteratorError(SourceError):
    """A bare iterator was given where data must be readable more than once."""


class OutputError(StreamingError):
    """The result cannot be written as asked."""


class OutputExistsError(OutputError, FileExistsError):
    """Where the result should go there is something, or it is being written."""


class DiskSpaceError(OutputError):
    """The disk is full, or has less room than the work needs."""


class CheckpointError(StreamingError):
    """A saved state cannot be used."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """No checkpoint where one was expected."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint that is truncated or damaged."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint of another model, another table, other settings or another call of ``fit``."""


class PlaceholderError(StreamingError):
    """The arrays of a batch and the ``pm.Data`` they are meant for do not fit."""


class ModelError(StreamingError):
    """Streaming this model as it stands would give a wrong posterior."""


class NothingStreamedError(ModelError):
    """No likelihood depends on the streamed data."""


class TotalSizeMissingError(ModelError):
    """A streamed likelihood has no ``total_size``."""


class TotalSizeTooSmallError(ModelError):
    """``total_size`` is smaller than one batch."""


class TotalSizeIsBatchCountError(ModelError):
    """``total_size`` is the number of batches instead of the number of rows."""


class TotalSizeMismatchError(ModelError):
    """``total_size`` is not the number of rows the loader streams."""


class UnstreamedTotalSizeError(ModelError):
    """A likelihood on data held in memory is scaled as though it were streamed."""


class ObservedRowsError(ModelError):
    """A streamed likelihood does not have one observation per row of the batch."""


class FixedObservedError(ModelError):
    """Observed values stay the same while the parameters change with every batch."""


class StreamedPotentialError(ModelError):
    """A ``pm.Potential`` depends on the batch; PyMC never rescales one."""


class StreamedPriorError(ModelError):
    """The prior of a free variable depends on the values in the batch."""


class RowSizedLatentError(ModelError):
    """A free variable has one element per row of the batch."""


class DependentRowsError(ModelError):
    """A streamed likelihood does not factor over rows."""


class RowAxisError(ModelError):
    """A streamed log-likelihood does not have an element for each row along its first axis."""


class FixedRowsError(ModelError):
    """The model takes one number of rows only, and an exact pass has other numbers."""


class NoGradientError(ModelError):
    """The likelihood depends on a parameter, but has no gradient in it."""


class DiscreteLatentError(ModelError):
    """A free variable is discrete; variational inference needs continuous ones."""


class OrderedDataError(StreamingError):
    """The order of the data makes batches that are no fair sample of the table."""


class FitError(StreamingError):
    """The fit cannot go on."""


class NonFiniteError(FitError, FloatingPointError):
    """NaN or infinity in the objective or its gradient."""


class IndexRangeError(FitError, IndexError):
    """A code in the data picks an element that a parameter does not have."""


class StreamingWarning(UserWarning):
    """Root of every warning this package emits."""


class RowCountWarning(StreamingWarning):
    """A whole pass over the data was spent on counting its rows."""


class SkippedFilesWarning(StreamingWarning):
    """Damaged files were left out, so the posterior is one of the other rows."""


class BatchSizedShapeWarning(StreamingWarning):
    """A fixed shape in the model equals the batch size."""


class OrderedDataWarning(StreamingWarning):
    """The order of the data makes batches that are no fair sample of the table."""


class MemoryLimitWarning(StreamingWarning):
    """A fit may take more memory than it may, however it goes over the table."""


class NotConvergedWarning(StreamingWarning):
    """At the end of a fit some parameters were still moving steadily one way."""


class SeveralModesWarning(StreamingWarning):
    """The posterior has several modes, and a fit describes one."""
