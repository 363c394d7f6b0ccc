"""Rows of one data file, parquet, arrow, JSON or JSON lines, also in gz and zip; what is wrong is named by its place.

Every row comes with its address: `file: row 3` of a table (from 0), `file:4` of a file of lines (from 1).
"""

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import IO, Any, cast

from sahub.errors import DataError
from sahub.files.pointers import ADVICE, is_pointer

Columns = Sequence[str]
Check = Callable[[Columns, str], None]  # raises where the column names found at an address are not enough
Values = dict[str, Any]

BATCH_ROWS = 64
TEXT_KINDS = (".jsonl", ".json")
KINDS = ("parquet", "arrow", "jsonl", "json", "zip")  # of the first kind found in a folder, all files are read
COMPANIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # which datasets writes
SPLITS = ("train", "validation", "valid", "val", "dev", "test")


def rows_of(file: Path, columns: Columns, check: Check, wanted: Sequence[str]) -> Iterator[tuple[Values, str]]:
    """The rows of a file, with their addresses: of `columns` those that are there.

    `wanted` names the files of a zip that are read, the first of them that is there. Raises DataError with the place.
    """
    try:
        if is_pointer(file):
            raise DataError(f"{file}: {ADVICE}")
        if kind_of(file) in ("parquet", "arrow"):
            yield from _table_rows(file, columns, check)
        elif kind_of(file) == "zip":
            yield from _zip_rows(file, columns, check, wanted)
        else:
            with _opened(file) as stream:
                yield from _kept(_json_rows(stream, str(file)), columns, check)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not a gz file that can be read: {error}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def kind_of(file: Path) -> str:
    """The kind of a file by its name, `jsonl` also of x.jsonl.gz; empty for a hidden file and for a companion of data.

    Companions lie beside data and are none: what a Mac leaves (`._x`, `__MACOSX`), what datasets writes of a data set.
    """
    if file.name in COMPANIONS or any(part.startswith("._") or part == "__MACOSX" for part in file.parts[-2:]):
        return ""
    if file.name.startswith("."):
        return ""
    inner = Path(file.stem)
    packed = file.suffix == ".gz" and inner.suffix in TEXT_KINDS
    return (inner if packed else file).suffix.removeprefix(".")


def stem_of(file: Path) -> str:
    """The name of a file without its kind."""
    return Path(file.stem).stem if file.suffix == ".gz" else file.stem


def _opened(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def of_split(names: Sequence[Path], split: str) -> list[Path]:
    """The files that belong to a split: those named after it, else those not named after another one."""

    def starts(name: Path, word: str) -> bool:
        return re.match(rf"{re.escape(word)}([-_.]|$)", stem_of(name)) is not None

    own = [name for name in names if starts(name, split)]
    return own or [name for name in names if not any(starts(name, other) for other in SPLITS)]


def _kept(rows: Iterator[tuple[Values, str]], columns: Columns, check: Check) -> Iterator[tuple[Values, str]]:
    for row, address in rows:
        check(list(row), address)
        yield {name: row[name] for name in columns if name in row}, address


def _table_rows(file: Path, columns: Columns, check: Check) -> Iterator[tuple[Values, str]]:
    import pyarrow  # only files that need it pay for it

    number = 0
    try:
        for batch in _batches(file, columns, check):
            for row in _plain(batch, file, number):
                yield row, f"{file}: row {number}"
                number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a {file.suffix[1:]} file: {' '.join(str(error).split())[:200]}") from None


def _batches(file: Path, columns: Columns, check: Check) -> Iterator[Any]:
    """Record batches of few rows: long contexts repeat on every row, and only so many copies are in memory at once."""
    import pyarrow.parquet  # only files that need it pay for it

    is_parquet = file.suffix == ".parquet"
    source = pyarrow.parquet.ParquetFile(file) if is_parquet else _arrow(file)
    with source:
        held = (source.schema_arrow if is_parquet else source.schema).names
        check(held, str(file))
        names = [name for name in columns if name in held]
        batches = source.iter_batches(batch_size=BATCH_ROWS, columns=names) if is_parquet else _batches_of(source)
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS).select(names)


def _arrow(file: Path) -> Any:
    """A reader of an arrow file: a stream, as datasets writes it, or the kind that ends with an index."""
    import pyarrow  # only files that need it pay for it

    mapped = pyarrow.memory_map(str(file))
    is_indexed = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    return pyarrow.ipc.open_file(mapped) if is_indexed else pyarrow.ipc.open_stream(mapped)


def _batches_of(source: Any) -> Iterator[Any]:
    count = getattr(source, "num_record_batches", None)
    return iter(source) if count is None else (source.get_batch(number) for number in range(count))


def _plain(batch: Any, file: Path, first: int) -> list[Values]:
    """The batch as Python values; text that is not UTF-8 is looked for cell by cell."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        for number, name in product(range(batch.num_rows), batch.schema.names):
            try:
                batch.column(name)[number].as_py()
            except UnicodeDecodeError as error:
                address = f"{file}: row {first + number}: column {name}"
                raise DataError(f"{address}: not UTF-8 (byte {error.start})") from None
        raise


def _zip_rows(file: Path, columns: Columns, check: Check, wanted: Sequence[str]) -> Iterator[tuple[Values, str]]:
    try:
        with zipfile.ZipFile(file) as archive:
            held = [file for file in map(Path, archive.namelist()) if kind_of(file) and file.suffix in TEXT_KINDS]
            member = _member(held, wanted)
            if member is None:
                names = ", ".join(sorted(name.as_posix() for name in held)[:20]) or "nothing"
                raise DataError(f"{file}: holds no {' or '.join(f'{name}.jsonl' for name in wanted)}, only {names}")
            with archive.open(member.as_posix()) as stream:
                yield from _kept(_json_rows(stream, f"{file}/{member.as_posix()}"), columns, check)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{file}: not a zip file that can be read: {error}") from None


def _member(held: Sequence[Path], wanted: Sequence[str]) -> Path | None:
    for name in wanted:
        for member in held:
            if member.stem == name or member.with_suffix("").as_posix().endswith(f"/{name}"):
                return member
    return None


def _json_rows(stream: IO[bytes], name: str) -> Iterator[tuple[Values, str]]:
    """Rows of a JSON list, or of one JSON object per line."""
    is_list: bool | None = None
    held: list[bytes] = []
    for number, line in enumerate(stream, start=1):
        stripped = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if is_list is None and stripped:
            is_list = stripped.startswith(b"[")
        if is_list:
            held.append(stripped)
        elif stripped:
            yield _object(_json(stripped, f"{name}:{number}"), f"{name}:{number}")
    if is_list:
        for index, row in enumerate(_json(b"\n".join(held), name)):
            yield _object(row, f"{name}: row {index}")


def _json(data: bytes, address: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{address}: not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{address}: not JSON: {str(error)[:200]}") from None


def _object(row: Any, address: str) -> tuple[Values, str]:
    if not isinstance(row, dict):
        raise DataError(f"{address}: a {type(row).__name__}: must be an object with the columns of a row")
    return row, address
