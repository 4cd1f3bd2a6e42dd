"""What the first bytes and the outermost boxes of a file tell, before any decoder looks at it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moments_core.errors import MediaError

_HEAD_BYTES = 4096
_PLAYLISTS = (b"#extm3u", b"ffconcat", b"#ext-x-", b"[playlist]", b"<mpd", b"<smil", b"<asx")
_PICTURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF"}

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BOXES_WITH_MEDIA = {b"moov", b"moof", b"mdat"}


def refuse_disguise(path: Path) -> None:
    """Refuse what is no video whatever its name says: nothing, text, a playlist, a web page, a picture.

    Raises:
        MediaError: names what the file is.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found = _disguise(head)
    if found is not None:
        what, action = found
        raise MediaError(f"{path.name} {what}, not a video: {action}.", file=path.name, bytes=path.stat().st_size)


def missing_bytes(path: Path) -> int:
    """Bytes that the file's own structure promises beyond its end; 0 where it is whole or promises nothing.

    Reads box headers alone: an ISO file (MP4, MOV) states the size of each box, Matroska that of its segment,
    AVI that of its RIFF chunk. MPEG-TS, FLV, ASF and Ogg promise nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head.startswith(_EBML):
            end = _segment_end(file)
        elif head.startswith(b"RIFF"):
            end = 8 + struct.unpack("<I", head[4:8])[0]
            end = 0 if end > 0xFFFFFFFF else end
        else:
            end = max((stop for kind, stop in _boxes(file, size) if kind in _BOXES_WITH_MEDIA), default=0)
    return max(0, end - size)


def lacks_index(path: Path) -> bool:
    """True for an ISO file (MP4, MOV) that holds media and no `moov` box: its end, where that stood, is missing."""
    with path.open("rb") as file:
        kinds = {kind for kind, _ in _boxes(file, path.stat().st_size)}
    return b"moov" not in kinds and bool(kinds & {b"ftyp", b"mdat"})


def _disguise(head: bytes) -> tuple[str, str] | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, name in _PICTURES.items():
        if head.startswith(magic):
            return f"is a picture ({name})", "submit the video itself"
    if not head:
        return "is empty", "fetch it again"
    if not head.strip(b"\0"):
        return "begins with zeros", "the download did not finish, fetch it again"
    if text.startswith(_PLAYLISTS) or (text.startswith(b"<?xml") and b"<mpd" in text):
        return "is a playlist", "submit the address that it stands at, or the video itself"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page", "submit the address of the video itself"
    return ("is text", "submit the video itself") if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The read may have cut the last character in two.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of each outermost ISO box; stops where something else begins."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        elif length == 0:
            length = size - position
        if length < 8 or not kind.isalnum():
            return
        position += length
        yield kind, position


def _segment_end(file: BinaryIO) -> int:
    """Where Matroska's segment says that it ends; 0 where it leaves that open."""
    file.seek(4)
    header = _vint(file)
    file.seek(header or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _vint(file)
    return 0 if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """EBML's variable-length size; None for "unknown" (all ones) or the end of the file."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra))
    return None if value == (1 << 7 * (extra + 1)) - 1 else value
