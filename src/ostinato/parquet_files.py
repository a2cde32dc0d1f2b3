"""Reads and writes Parquet files, a batch of rows at a time. Needs pyarrow, an extra."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ostinato.arguments import counted, reason
from ostinato.errors import InputError, MissingExtra
from ostinato.text_files import unreadable

BATCH = 256
"""Rows that are read at a time: few, as a cell may be large."""

BUFFER = 1 << 20
"""Bytes of a column that are read at a time, however large its row group is."""

ROW_GROUP = 4096
"""Rows that are written at a time."""

ColumnType = Literal["boolean", "integer", "number", "text"]

Convert = Callable[[Any], Any]


def load_pyarrow() -> Any:
    """Return the module `pyarrow`. Raises `MissingExtra` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("A Parquet file", "parquet") from None
    return pyarrow


def iter_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a Parquet file with their numbers, from 1, as values that JSON holds.

    Dates and times become ISO 8601 texts, durations seconds, decimals texts, bytes Base64, NaN and
    infinities None. Raises `InputError`, with the row where reading ended.
    """
    pa = load_pyarrow()
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise unreadable(path, error) from None
    read = 0
    with file:
        try:
            for row in _rows(path, file):
                read += 1
                yield read, row
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            where = f"{path.name}, from row {read + 1} on" if read else path.name
            # Only the first line: Arrow's errors end with places in its own code.
            why = (reason(error) if isinstance(error, OSError) else str(error)).strip()
            why = why.partition("\n")[0].rstrip(".")
            raise InputError(
                f"{where}: it must be Parquet that can be read, got: {why}. Write it again."
            ) from None


def _rows(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    # Not all threads: the lanes compute. With a buffer, as a row group may be the whole file.
    table = load_pyarrow().parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    _require_names(path, table.schema_arrow.names)
    for batch in table.iter_batches(BATCH, use_threads=False):
        columns = [_values(column) for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, row, strict=True))


def _require_names(path: Path, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if not name.strip() or times > 1:
            got = f"{name!r} {counted(times, 'times')}" if name.strip() else "an empty name"
            raise InputError(
                f"{path.name}: every column must have a name of its own, got {got}. Rename it."
            )


# Values -----------------------------------------------------------------------------------------


def _values(column: Any) -> list[Any]:
    """Return the values of an Arrow array as values that JSON holds."""
    import pyarrow as pa

    kind, types = column.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if types.is_struct(kind):
        return _structs(column)
    if types.is_map(kind):
        return [_mapping(scalar) for scalar in column]
    if types.is_nested(kind):
        return [_values(scalar.values) if scalar.is_valid else None for scalar in column]
    if types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        column = column.cast(pa.int64())
    convert = _converter(kind)
    values: list[Any] = column.to_pylist()
    if convert is None:
        return values
    return [None if value is None else convert(value) for value in values]


def _structs(column: Any) -> list[dict[str, Any] | None]:
    names = [field.name for field in column.type]
    if len(set(names)) < len(names):
        raise ValueError(f"fields of the same name, {', '.join(names)}")
    fields = [_values(field) for field in column.flatten()]
    rows = zip(*fields, strict=True) if fields else iter([()] * len(column))
    valid = column.is_valid().to_pylist()
    return [
        dict(zip(names, row, strict=True)) if is_valid else None
        for is_valid, row in zip(valid, rows, strict=True)
    ]


def _mapping(scalar: Any) -> dict[str, Any] | list[list[Any]] | None:
    """Return a map: an object where its keys are texts, else a list of pairs."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    keys, values = (_values(part) for part in scalar.values.flatten())
    if not pa.types.is_string(scalar.type.key_type):
        return [[key, value] for key, value in zip(keys, values, strict=True)]
    if len(set(keys)) < len(keys):
        raise ValueError("a map with the same key twice")
    return dict(zip(keys, values, strict=True))


def _converter(kind: Any) -> Convert | None:
    """Return what makes a plain value of a Python value of a type; None where it is plain."""
    import pyarrow as pa

    types = pa.types
    if getattr(kind, "unit", "") == "ns":
        return _of_nanoseconds(kind)
    if types.is_floating(kind):
        return _finite
    if types.is_duration(kind):
        return lambda value: _seconds(value // timedelta(microseconds=1), 10**6)
    if types.is_temporal(kind):
        return lambda value: value.isoformat()
    if types.is_decimal(kind):
        return lambda value: f"{value:f}"
    if isinstance(kind, pa.FixedSizeBinaryType) or kind in (pa.binary(), pa.large_binary()):
        return lambda value: base64.b64encode(value).decode()
    plain = types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return None if plain or text else str


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _seconds(count: int, per_second: int) -> float:
    whole, rest = divmod(count, per_second)
    return count / per_second if rest else whole


def _of_nanoseconds(kind: Any) -> Convert:
    """Return what makes a plain value of a number of nanoseconds; Python's own types have none."""
    import pyarrow as pa

    if pa.types.is_duration(kind):
        return lambda count: _seconds(count, 10**9)
    zone = getattr(kind, "tz", None)
    time_zone = pa.lib.string_to_tzinfo(zone) if zone else None

    def moment(count: int) -> str:
        seconds, rest = divmod(count, 10**9)
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        local = at.replace(tzinfo=None) if time_zone is None else at.astimezone(time_zone)
        text = local.isoformat()
        digits = f".{rest:09d}".removesuffix("000") if rest else ""
        shown = text[:19] + digits + text[19:]
        return shown[11:] if pa.types.is_time(kind) else shown

    return moment


# Writing ----------------------------------------------------------------------------------------


def write_parquet(
    file: BinaryIO, columns: Mapping[str, ColumnType], rows: Iterable[Sequence[Any]]
) -> None:
    """Write rows with one value for each column; None is null. Memory holds one row group."""
    pa = load_pyarrow()
    types = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "text": pa.string(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    rest = iter(rows)
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rest, ROW_GROUP)):
            values = zip(*group, strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip(values, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
