"""JSON lists of objects, read and written one entry at a time: a file of dense landmarks need not fit into memory.

The errors of reading name the path, the line, the entry and the field.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from mmdf2.evaluation.records import EvaluationError
from mmdf2.files import AnyPath, open_for_replacement, write_json_list

# Characters that are read from a file at once.
_CHUNK = 1 << 22
_SPACE = re.compile(r'[ \t\n\r]*')
_DECODER = json.JSONDecoder()
# Ids are kept in 64 bits with a sign.
LARGEST_ID = 2**62
# What a box of corners should be, for messages about one that is not.
CORNERS = 'x1, y1, x2, y2 with x1 <= x2 and y1 <= y2: corners, not x, y, width and height'
# When a fault is so near the end of what was read, in characters, the entry may only be cut in two.
_MARGIN = 64


@dataclass(frozen=True, slots=True)
class JsonEntry:
    """One entry of a JSON list.

    Attributes:
        source: Path of the file; for a list in memory, what the list is.
        number: Place in the list, from 0.
        line: Line of the file on which the entry begins, from 1; None for a list in memory.
        value: The content.
    """

    source: Path | str
    number: int
    line: int | None
    value: dict[str, Any]

    def error(self, problem: str) -> EvaluationError:
        """An error that names the file, the line and the entry."""
        if self.line is None:
            return EvaluationError(f'entry {self.number} of the {self.source}: {problem}')
        return EvaluationError(f'{self.source}, line {self.line}, entry {self.number}: {problem}')

    def wrong(self, name: str, expected: str) -> EvaluationError:
        """An error that names the file, the line, the entry and the field, what was expected and what is there."""
        if name not in self.value:
            return self.error(f'{name} is missing; it should be {expected}')
        text = repr(self.value[name])
        text = text if len(text) <= 80 else text[:77] + '...'
        return self.error(f'{name} should be {expected}, got {text}')

    def integer(self, name: str, low: int, high: int, expected: str | None = None) -> int:
        """The integer of a field, within a range, written with or without a decimal point."""
        value: Any = self.value.get(name)
        if not _is_finite(value) or not float(value).is_integer() or not low <= value <= high:
            raise self.wrong(name, expected or f'an integer from {low} to {high}')
        return int(value)

    def finite(self, name: str) -> float:
        """The finite number of a field."""
        value: Any = self.value.get(name)
        if not _is_finite(value):
            raise self.wrong(name, 'a finite number')
        return float(value)

    def numbers(self, name: str, count: int, expected: str) -> Sequence[float]:
        """The list of a field, of exactly ``count`` finite numbers; errors say what was ``expected``."""
        values = self.value.get(name)
        if not isinstance(values, list | tuple) or len(values) != count or not all_finite(values):
            raise self.wrong(name, expected)
        return values

    def corners(self, name: str) -> Sequence[float]:
        """The box x1, y1, x2, y2 of a field."""
        box = self.numbers(name, 4, 'x1, y1, x2, y2, finite')
        if box[2] < box[0] or box[3] < box[1]:
            raise self.wrong(name, CORNERS)
        return box


def list_entries(what: str, values: list) -> Iterator[JsonEntry]:
    """The entries of a list in memory; EvaluationError when one is not an object. ``what`` names the list in errors."""
    for number, value in enumerate(values):
        entry = JsonEntry(source=what, number=number, line=None, value=value)
        if not isinstance(value, dict):
            raise entry.error(f'an object is needed, got {repr(value)[:80]}')
        yield entry


def read_entries(path: AnyPath) -> Iterator[JsonEntry]:
    """Reads the objects of a JSON list one after another; shows a progress bar on a terminal.

    Raises:
        EvaluationError: The file does not exist, is not UTF-8, is not JSON, is not a list of objects, or is cut off.
    """
    with _opened(path) as window:
        window.expect('[', 'a list of objects, which begins with [')
        yield from window.entries('')
        window.expect('', 'nothing after the list')


def read_lists(path: AnyPath, names: Iterable[str], optional: Iterable[str] = ()) -> Iterator[tuple[str, JsonEntry]]:
    """Reads the objects of some lists of a JSON object, each with the list's name, in the order of the file.

    Args:
        path: A JSON file that holds an object, such as COCO's ground truth.
        names: Keys of the lists; the values of other keys are skipped.
        optional: Keys of further lists, which may be missing.

    Raises:
        EvaluationError: The file cannot be read, as in ``read_entries``, or a list is missing or there twice.
    """
    names, optional = list(names), list(optional)
    missing = [*names, *optional]
    with _opened(path) as window:
        window.expect('{', f'an object with {", ".join(names)}, which begins with {{')
        while not window.skip('}'):
            name = window.key()
            if name in names or name in optional:
                if name not in missing:
                    raise EvaluationError(f'{window.path}: {name} is there twice')
                missing.remove(name)
                window.expect('[', f'the list of {name}')
                yield from ((name, entry) for entry in window.entries(f'of {name} '))
            else:
                window.value()
        window.expect('', 'nothing after the object')
    missing = [name for name in missing if name in names]
    if missing:
        raise EvaluationError(f'{path}: {", ".join(missing)} is missing; an object with {", ".join(names)} is needed')


@contextlib.contextmanager
def _opened(path: AnyPath) -> Iterator['_Window']:
    path = Path(path)
    try:
        file = open(path, encoding='utf-8-sig', newline='')  # noqa: SIM115, closed below
    except OSError as error:
        raise EvaluationError(f'{path} cannot be read: {error.strerror}') from error
    bar = tqdm(total=os.path.getsize(path), unit='B', unit_scale=True, desc=f'reading {path.name}', disable=None)
    with file, bar as progress:
        yield _Window(path, file, progress)


class _Window:
    """The part of a file that is in memory, and the place up to which it has been parsed."""

    def __init__(self, path: Path, file: TextIO, progress: tqdm) -> None:
        self.path, self.file, self.progress = path, file, progress
        self.text, self.place, self.ended = '', 0, False
        self.line, self.counted = 1, 0

    def skip(self, character: str) -> bool:
        """Skips white space, and then the character if it is there; returns whether it was."""
        while True:
            space = _SPACE.match(self.text, self.place)
            assert space is not None  # The pattern matches the empty string.
            self.place = space.end()
            if self.place < len(self.text) or not self._more():
                break
        if not self.text.startswith(character, self.place):
            return False
        self.place += len(character)
        return True

    def expect(self, character: str, expected: str) -> None:
        """Skips the character, '' being the file's end; EvaluationError when it is not there."""
        if not self.skip(character) or not (character or self.place == len(self.text)):
            text = self.text[self.place : self.place + 20]
            found = repr(text) if text else 'the end of the file'
            raise EvaluationError(f'{self.path}, line {self._line()}: expected {expected}, got {found}')

    def entries(self, which: str) -> Iterator[JsonEntry]:
        """The objects of a list whose opening bracket has been skipped; ``which`` names the list in messages."""
        number = 0
        while not self.skip(']'):
            if number:
                self.expect(',', f'a comma or ] after {number} entries {which}'.rstrip())
                self.skip('')
            line = self._line()
            value = self.value(f', entry {number}')
            entry = JsonEntry(source=self.path, number=number, line=line, value=value)
            if not isinstance(value, dict):
                raise entry.error(f'an object is needed, got {repr(value)[:80]}')
            yield entry
            number += 1

    def key(self) -> str:
        """A key of an object; skips the comma before it, unless it is the first key, and the colon after it."""
        self.skip(',')
        name = self.value()
        if not isinstance(name, str):
            raise EvaluationError(f'{self.path}, line {self._line()}: expected a key, got {repr(name)[:80]}')
        self.expect(':', f'a colon after {name!r}')
        return name

    def value(self, where: str = '') -> Any:
        """A value of any type; ``where`` names its place in messages."""
        self.skip('')
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.place)
            except (ValueError, RecursionError) as error:
                if self._is_cut(error) and self._more():
                    continue
                raise self._not_json(error, where) from error
            # A number at the end of the window could continue.
            if end < len(self.text) or not self._more():
                self.place = end
                return value

    def _is_cut(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith('Unterminated string') or error.pos > len(self.text) - _MARGIN

    def _not_json(self, error: Exception, where: str) -> EvaluationError:
        line, message = self._line(), f'{error}'
        if isinstance(error, json.JSONDecodeError):
            line += self.text.count('\n', self.place, error.pos)
            message = 'the file ends within it' if self._is_cut(error) else error.msg
        return EvaluationError(f'{self.path}, line {line}{where}: not JSON: {message}')

    def _line(self) -> int:
        self.line += self.text.count('\n', self.counted, self.place)
        self.counted = self.place
        return self.line

    def _more(self) -> bool:
        """Reads more of the file and drops what has been parsed; returns whether there was more.

        At least as much is read as is kept, so that a long entry is not parsed again many times.
        """
        if self.ended:
            return False
        self._line()
        kept = self.text[self.place :]
        try:
            chunk = self.file.read(max(_CHUNK, len(kept)))
        except UnicodeDecodeError as error:
            raise EvaluationError(f'{self.path}, after line {self.line}: not UTF-8 text ({error.reason})') from error
        self.text, self.place, self.counted, self.ended = kept + chunk, 0, 0, not chunk
        self.progress.update(len(chunk))
        return not self.ended


def write_results(path: AnyPath, results: Iterable[dict]) -> Path:
    """Writes a JSON list, one entry per line; the file appears complete or not at all.

    Entries are written as they come, so that dense landmark vectors are never all in memory.

    Raises:
        ValueError: A value is not finite; JSON cannot express NaN and infinity.
    """
    with open_for_replacement(path) as file:
        write_json_list(file, results)
        file.write('\n')
    return Path(path)


def all_finite(values: Sequence) -> bool:
    """Whether all values of a list are finite numbers; booleans are not numbers."""
    if not set(map(type, values)) <= {int, float}:
        return False
    try:
        return math.isfinite(math.fsum(values)) or all(map(math.isfinite, values))
    except (OverflowError, ValueError):
        # Large numbers can overflow the sum, infinities of both signs have no sum, an integer can be beyond all floats.
        return all(map(_is_finite, values))


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False
