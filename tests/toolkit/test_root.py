"""No path leaves the root: whatever it is made of, whatever links there are, whoever swaps them meanwhile."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from agentloop import ToolError
from agentloop.toolkit._root import Root, find_root
from tests.toolkit.builders import names_in, open_descriptors

SECRET = b"outside"
INSIDE = b"inside"


@contextmanager
def world(links: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    """A root and what is outside of it. In ``links``, ``ROOT`` and ``OUTSIDE`` are for where these are."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        root, outside = top / "root", top / "outside"
        for base, data in ((root, INSIDE), (outside, SECRET)):
            (base / "a" / "b").mkdir(parents=True)
            for path in ("f", "a/f", "a/b/f", "ü"):
                (base / path).write_bytes(data + b" " + path.encode())
        for path, target in links.items():
            (root / path).symlink_to(target.replace("ROOT", str(root)).replace("OUTSIDE", str(outside)))
        yield root, outside


def snapshot(folder: Path) -> dict[str, bytes]:
    """What is in all files, without those behind links."""
    found = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return {str(path): path.read_bytes() for path in found if not path.is_symlink()}


names = st.sampled_from(["a", "b", "f", "ü", "l", "m", "n", "x"])
parts = st.one_of(names, st.sampled_from(["..", ".", "", "..", "outside", "root"]), st.text(max_size=3))
relative = st.lists(parts, max_size=6).map("/".join)
starts = st.sampled_from(
    ["", "", "/", "//", "ROOT", "ROOT/", "OUTSIDE/", "ROOT/../outside/", "../outside/", "~/", "ROOTX/"]
)
paths = st.builds(lambda start, rest: start + rest, starts, relative)
targets = st.builds(
    lambda start, rest: (start + rest) or ".",
    st.sampled_from(["", "", "ROOT/", "OUTSIDE/", "../", "../outside/", "/"]),
    st.lists(st.one_of(names, st.sampled_from(["..", "."])), max_size=4).map("/".join),
)
links = st.dictionaries(st.sampled_from(["l", "m", "n", "a/l", "a/m", "a/b/n"]), targets, max_size=4)


@settings(max_examples=60)
@given(links=links, path=paths)
@example(links={"l": "OUTSIDE"}, path="l/f")
@example(links={"l": "../outside/f"}, path="l")
@example(links={"l": "a/b", "a/b/n": "../../.."}, path="l/n/outside/f")
@example(links={"l": "ROOT/../outside"}, path="l/f")
@example(links={}, path="a/../../outside/f")
@example(links={}, path="ROOTX/f")
def test_what_is_read_is_inside_and_what_the_system_would_read(links: dict[str, str], path: str) -> None:
    with world(links) as (root, outside):
        path = path.replace("ROOT", str(root)).replace("OUTSIDE", str(outside))
        try:
            data, _ = Root(root).read(path, 1000)
        except ToolError as error:
            told = str(error)
        else:
            told = repr(path)
            real = Path(os.path.realpath(root / path))
            assert data.startswith(INSIDE)
            assert real.is_relative_to(root)
            assert real.read_bytes() == data
        assert told.startswith(repr(path))


@settings(max_examples=40)  # each waits for the disk
@given(links=links, path=paths)
@example(links={"l": "../outside/new"}, path="l")
@example(links={"l": "../outside"}, path="l/new/new")
@example(links={"l": "x/y"}, path="l")
def test_nothing_outside_is_ever_written(links: dict[str, str], path: str) -> None:
    with world(links) as (root, outside):
        path = path.replace("ROOT", str(root)).replace("OUTSIDE", str(outside))
        before, above = snapshot(outside), names_in(root.parent)
        try:
            Root(root).write(path, b"new")
        except ToolError:
            assert all(data.startswith(INSIDE) for data in snapshot(root).values())
        else:
            assert (root / path).read_bytes() == b"new"
        assert snapshot(outside) == before
        assert names_in(root.parent) == above


@settings(max_examples=40)
@given(rest=st.lists(names, min_size=1, max_size=4).map("/".join))
def test_a_file_inside_is_found_however_it_is_spelled(rest: str) -> None:
    links = {"l": "a/b", "a/l": "../a/b/", "m": "ROOT/a", "a/b/n": "../../a", "n": "l"}
    with world(links) as (root, _):
        for path in (rest, f"./{rest}", f"a/../{rest}", f"{root}/{rest}", f"a//..//./{rest}"):
            if (root / rest).is_file():
                assert Root(root).read(path, 1000)[0] == (root / rest).read_bytes()
            else:
                with pytest.raises(ToolError):
                    Root(root).read(path, 1000)


def test_a_root_behind_a_link_can_be_spelled_either_way(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    root = Root(tmp_path / "link")

    assert root.read(str(tmp_path / "link/f"), 10)[0] == root.read(str(tmp_path / "real/f"), 10)[0] == b"x"


def test_the_root_of_all_is_a_root(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")

    assert Root("/").read(str(tmp_path / "f"), 10)[0] == b"x"


def test_a_path_goes_to_the_root_that_it_is_spelled_with(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Root(tmp_path / "one"), Root(tmp_path / "two")

    assert find_root([one, two], "f") is one
    assert find_root([one, two], str(tmp_path / "two/f")) is two
    assert find_root([one, two], str(tmp_path / "twofold")) is one


# --------------------------------------------------------------------------------- swaps


@pytest.mark.parametrize("call", ["stat", "open", "readlink", "rename"])
@pytest.mark.parametrize("use", ["read", "write"])
def test_a_folder_that_becomes_a_link_at_any_step_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: str
) -> None:
    """Before each of its system calls in turn, the folder is swapped for a link to one outside."""
    real = getattr(os, call)
    step = swapped = 0
    done = False
    while not done:
        with world({"m": "a"}) as (root, outside):
            before = snapshot(outside)
            count = 0

            def swapping(*args: Any, root: Path = root, at: int = step, **options: Any) -> Any:
                nonlocal count, swapped
                count += 1
                if count == at + 1:
                    swapped += 1
                    (root / "a").replace(root / "away")
                    (root / "a").symlink_to("../outside/a")
                return real(*args, **options)

            confined = Root(root)
            with monkeypatch.context() as patch:
                patch.setattr(os, call, swapping)
                with suppress(ToolError):
                    if use == "read":
                        data, _ = confined.read("m/b/f", 1000)
                        assert data.startswith(INSIDE)
                    else:
                        confined.write("m/b/f", b"new")
            assert snapshot(outside) == before
            done = count <= step
            step += 1
    assert swapped or (use == "read" and call == "rename")


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_file_that_becomes_something_else_before_it_is_opened_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with world({}) as (root, _):
        real = os.open

        def swapping(path: Any, *args: Any, **options: Any) -> int:
            if path == "f":
                (root / "f").unlink()
                (root / "f").symlink_to("../outside/f") if kind == "link" else os.mkfifo(root / "f")
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", swapping)

        with pytest.raises(ToolError, match=r"changed meanwhile|is a pipe"):
            Root(root).read("f", 100)


def test_a_folder_that_is_swapped_all_the_time_never_lets_a_secret_out() -> None:
    with world({}) as (root, _):
        (root / "l").symlink_to("../outside/a")
        over = threading.Event()

        def swap() -> None:
            while not over.is_set():
                (root / "a").rename(root / "away")
                (root / "l").rename(root / "a")
                (root / "a").rename(root / "l")
                (root / "away").rename(root / "a")

        swapper = threading.Thread(target=swap)
        swapper.start()
        confined = Root(root)
        outcomes = set()
        try:
            for _ in range(400):
                try:
                    outcomes.add(confined.read("a/b/f", 100)[0])
                except ToolError:
                    outcomes.add(b"refused")
        finally:
            over.set()
            swapper.join()

    assert outcomes <= {INSIDE + b" a/b/f", b"refused"}


# ---------------------------------------------------------------------------------- leaks


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.parametrize("path", ["a/b/f", "a/../../f", "l/f", "x/y", "f/x", "a/b/../../l", "a"])
def test_no_descriptor_is_left_open(path: str) -> None:
    with world({"l": "OUTSIDE"}) as (root, _):
        confined = Root(root)
        before = open_descriptors()
        with suppress(ToolError):
            confined.read(path, 100)
        with suppress(ToolError):
            confined.write(path, b"x")
        with suppress(ToolError):
            os.close(confined.open_folder(path))
        assert open_descriptors() == before


def test_the_mode_of_a_new_file_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()

    Root(tmp_path).write("new", b"x")

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
