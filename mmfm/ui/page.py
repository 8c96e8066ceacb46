"""What a gradio page of mmfm needs around its layout: privacy, look, and the way in for files.

Gradio's file cache is readable by every user of an app, so it lies in a fresh folder of our own, uploads are deleted
once read, and pictures are sent inline. Nothing is fetched from other hosts: fonts are those of the system.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mmfm.errors import ConfigError, ReadError
from mmfm.io import Reading, read

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"


@contextmanager
def uploaded(files: Sequence[str | Path]) -> Iterator[Reading]:
    """Reads uploaded files as studies and deletes them in the end, read or not.

    Pixels are read late: draw and draft inside the ``with`` block, and let its ReadErrors out of it, since they name
    files. Names of files, folders and members of archives may hold a patient's name: show ``Reading.refusals`` alone.

    Args:
        files: paths that the page server stored; DICOM, zip, PNG or JPEG. Several pictures make one study.

    Raises:
        ReadError: no file holds an image, or one could not be decoded inside the block; it names no file.
    """
    with tempfile.TemporaryDirectory(prefix="mmfm-upload-") as folder:
        for place, file in enumerate(map(Path, files)):
            shutil.move(file, Path(folder) / f"{place:03d}{file.suffix.lower()}")
            with suppress(OSError):
                file.parent.rmdir()  # gradio's folder for this one file
        moved = sorted(Path(folder).iterdir())
        try:
            reading = read(moved[0] if len(moved) == 1 else Path(folder), isolate=True)
            reading.require_studies("upload")
            yield reading
        except ReadError as error:
            raise ReadError(
                "upload", expected=error.expected, found=error.found, fix="give DICOM, zip, PNG or JPEG of one study"
            ) from None


def private_cache() -> Path:
    """Points gradio's file cache to a fresh folder that only this user can read, and turns its analytics off.

    Call before gradio is imported.
    """
    folder = Path(tempfile.mkdtemp(prefix="mmfm-page-"))  # mkdtemp makes it 0700
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return folder


def serve_page(page: gradio.Blocks, *, port: int, block: bool = True) -> None:
    """Serves a page on this machine only.

    Args:
        page: what a demo's ``build`` gave.
        port: of 127.0.0.1.
        block: wait until it is interrupted.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            theme=theme(),
            css_paths=Path(__file__).with_name("page.css"),
            js=_DARK,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            max_file_size="512mb",
            prevent_thread_lock=True,
        )
    except OSError:
        raise ConfigError(
            "port", expected="a free port", found=f"{port} in use", fix="give another with --port"
        ) from None
    print(f"http://{HOST}:{port}  (Ctrl-C ends)", flush=True)
    if block:
        page.block_thread()


def theme() -> gradio.Theme:
    """Returns the look: the calm dark of a reading room, fonts of the system only."""
    import gradio as gr

    return gr.themes.Base(
        primary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="sm",
    )


_DARK = "() => { document.body.classList.add('dark'); }"
"""A page is dark whatever the browser prefers: film is judged in the dark."""
