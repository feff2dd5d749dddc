"""Tables of captions: which column holds the file name, which the caption, and what each row says.

Read are the forms in which data sets come, and those that people make of their own:

    image,caption                     a header that names the columns, in any order, with others
    image;caption_1;caption_2         several captions in a row
    dog.jpg,A dog, running            no header: a picture of the folder, and the rest
    sep=;                             Excel's first line, which is passed over
    1000268201.jpg#0<tab>A child      Flickr8k's and Flickr30k's *.token files
    image_name| comment_number| comment      Flickr30k's results.csv

What may mean one thing or another is refused. Python's csv reads the rows, since it knows the line
of each, which pandas does not tell, and takes no quote that is closed in the midst of a cell.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from t2i_course.photos.coco_folder import leads_out, list_images

SEPARATORS = ("\t", ";", "|", ",")
FILE = re.compile(r"(image|img|photo|picture|file)[ _-]?(name|path|file|id)?|path|name")
CAPTION = re.compile(r"((?:image )?(?:caption|comment|text|sentence|description|raw))s?[ _-]?\d*")
EXCEL = re.compile(r"\Asep=[\t;|,]([\r\n])")  # the line stays, empty: errors count lines
NUMBERED = re.compile(r"#\d+$")  # a caption's number, after a file name
SUFFIX = re.compile(r"\.(jpe?g|png|bmp|gif|webp|tiff?)$", re.IGNORECASE)
HEADER_HINT = "begin it with a row that names the columns, such as image,caption"


@dataclass(frozen=True)
class Columns:
    """What stands where in a table.

    Attributes:
        separator: between the cells of a row.
        file: the column of the file name, from 0.
        captions: the columns of captions.
        width: how many columns there are; without a header, at least so many.
        named: the header's cells, () without a header.
    """

    separator: str
    file: int = 0
    captions: tuple[int, ...] = (1,)
    width: int = 2
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say how the table was understood."""
        if not self.named:
            return "file name and caption"
        names = {c: name for c, name in enumerate(self.named) if c != self.file}
        captions = ", ".join(names.pop(c) for c in self.captions)
        rest = f"; passed over: {', '.join(names.values())}" * bool(names)
        return f"file name: {self.named[self.file]}; caption: {captions}{rest}"


class CaptionTable:
    """A table and the folder that its file names are relative to.

    Attributes:
        columns: what stands where.
    """

    def __init__(self, table: Path, pictures: Path) -> None:
        """Read the table and find out what stands where.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no text in UTF-8 or UTF-16, is empty, a quote is not closed, or what
                its columns mean cannot be told.
        """
        if not table.is_file():
            raise FileNotFoundError(f"no table {table}: give a CSV file of file names and captions")
        self.table, self.pictures = table, pictures
        self._listing = list_images(pictures)
        self._stems: dict[str, list[str]] = {}
        for name in self._listing:
            self._stems.setdefault(os.path.splitext(name)[0], []).append(name)
        self._text = EXCEL.sub(r"\1", _decode(table), count=1)
        self.columns = self._understand()
        self._lines = list(self._rows(self.columns.separator))
        if not self.columns.named and min(len(row) for _, row in self._lines) > 2:
            raise ValueError(
                f"{table} has {len(self._lines[0][1])} columns and no header, so nobody can say "
                f"which is the caption: {HEADER_HINT}"
            )

    def captions(self) -> Iterator[tuple[int, str, str | None, list[str]]]:
        """Yield (line, name as written, name of the picture or None, captions) of each row.

        Raises:
            ValueError: a row has another number of columns, no file name or no caption.
        """
        columns, found = self.columns, 0
        for line, row in self._lines[bool(columns.named) :]:
            cells = self._cells(row)
            name = cells[columns.file] if len(cells) == columns.width else ""
            texts = [cells[c] for c in columns.captions if c < len(cells) and cells[c]]
            if not name or not texts:
                raise ValueError(
                    f"{self.table}, line {line}: needed are a file name and a caption in "
                    f"{columns.width} columns with {columns.separator!r} between them, found {row}"
                )
            found += 1
            yield line, name, self.find(name), [t for text in texts for t in _texts(text)]
        if not found:
            raise ValueError(f"{self.table} holds no caption")

    def find(self, name: str) -> str | None:
        """Return a picture's name in the folder: without ./, #0 behind it, or with its suffix.

        A path from the root is one, too, if it leads into the folder.
        """
        for root in (os.path.abspath(self.pictures), os.path.realpath(self.pictures)):
            name = name.removeprefix(root + os.sep)
        for form in (name, NUMBERED.sub("", name), NUMBERED.sub("", name).replace("\\", "/")):
            if form and not leads_out(form):
                plain = PurePosixPath(form).as_posix()
                if plain in self._listing or os.path.isfile(self.pictures / plain):
                    return plain
                if len(found := self._stems.get(plain, [])) == 1:
                    return found[0]
        return None

    def _rows(self, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row that is not empty."""
        numbered = re.match(r"[^\t\n]+#\d+\t", self._text)  # such tables know no quotes
        literal = separator == "|" or (separator == "\t" and numbered)
        csv.field_size_limit(1 << 30)
        rows = csv.reader(
            io.StringIO(self._text, newline=""),  # lines end at \n, \r\n and \r alone
            delimiter=separator,
            quoting=csv.QUOTE_NONE if literal else csv.QUOTE_MINIMAL,
            strict=True,
        )
        line = 1
        try:
            for row in rows:
                inner = [text for cell in row for text in re.split(r"[\r\n]+", cell)[1:]]
                swallowed = [text.split(separator) for text in inner if separator in text]
                if any(self.find(cell.strip()) for cells in swallowed for cell in cells):
                    raise csv.Error("a cell holds the row of another picture")
                if any(cell.strip() for cell in row):
                    yield line, row
                line = rows.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{self.table}, line {line}: a quote is not closed, or text follows a closed one. "
                'Close it, or write a quote inside a quoted cell as ""'
            ) from error

    def _cells(self, row: list[str]) -> list[str]:
        """Strip the cells; mend a caption whose commas nobody quoted, and Flickr30k's slip."""
        last, columns = self.columns.width - 1, self.columns
        if len(row) > columns.width and columns.separator == "," and columns.captions == (last,):
            row = [*row[:last], ",".join(row[last:])]
        cells = [_bare(cell) if columns.separator != "|" else cell.strip() for cell in row]
        slip = re.fullmatch(r"(\d+)\s+(\S.*)", cells[-1])  # one row of results.csv lacks its bar
        if len(cells) == last == 2 and columns.separator == "|" and slip:
            cells = [cells[0], *slip.groups()]
        return cells

    def _understand(self) -> Columns:
        """Find the separator and the columns by the first two rows."""
        for separator in SEPARATORS:
            if separator not in re.split(r"[\r\n]", self._text.strip("\r\n"), maxsplit=1)[0]:
                continue
            rows = self._rows(separator)
            head, second = ([c.strip() for c in next(rows, (0, []))[1]] for _ in range(2))
            if columns := self._by_names(separator, head, second):
                return columns
            if head and (SUFFIX.search(NUMBERED.sub("", head[0])) or self.find(head[0])):
                return Columns(separator)
        raise ValueError(f"{self.table}: what its columns hold cannot be told: {HEADER_HINT}")

    def _by_names(self, separator: str, head: list[str], second: list[str]) -> Columns | None:
        """Find the columns by a header."""
        names = [cell.lower().replace("_", " ") for cell in head]
        files = [c for c, name in enumerate(names) if FILE.fullmatch(name)]
        texts = {c: match[1] for c, name in enumerate(names) if (match := CAPTION.fullmatch(name))}
        if len(head) < 2 or not (files or texts) or any(map(self.find, head)):
            return None
        if len(files) != 1:  # the one whose cell is a picture
            among = files or [c for c in range(len(head)) if c not in texts]
            found = [c for c in among if c < len(second) and self.find(second[c])]
            found = [c for c in found if second[c] in self._listing] or found
            files = found or (among if len(among) == 1 else [])
        if not texts and len(head) == 2 and len(files) == 1:
            texts = {1 - files[0]: ""}
        for found, what in ((files, "the file name"), (set(texts.values()), "the caption")):
            if len(found) != 1:
                raise ValueError(
                    f"{self.table}: which column holds {what}, of {', '.join(head)}? Name it "
                    f"{'image' if what == 'the file name' else 'caption'}, and no other so"
                )
        return Columns(separator, files[0], tuple(texts), len(head), tuple(head))


def _decode(table: Path) -> str:
    """Read a text of UTF-8, or UTF-16 if a mark at its beginning says so."""
    content = table.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 ({error}): save it as UTF-8") from error


def _bare(cell: str) -> str:
    """Strip a cell, and take off the quotes that csv leaves where a space stands before them."""
    bare = cell.strip()
    if cell[:1] == " " and len(bare) > 1 and bare[0] == bare[-1] == '"':
        return bare[1:-1].replace('""', '"')
    return bare


def _texts(cell: str) -> list[str]:
    """Return the captions of a cell: itself, or those of a list in Python's or JSON's form."""
    try:
        listed = ast.literal_eval(cell) if cell.startswith("[") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [cell]
    good = isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed)
    return listed if good else [cell]
