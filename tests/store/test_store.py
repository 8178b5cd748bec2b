from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.errors import StoreError
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey, canonical_json


def key(number: int, stage: str = "encode") -> UnitKey:
    return UnitKey(stage, {"number": number, "card": {"b": 1, "a": [1, 2]}}, f"unit {number}")


def payload(number: int) -> Payload:
    rng = np.random.default_rng(number)
    return Payload(
        {"codes": rng.integers(0, 500, 40), "0/stream/q[0]": rng.normal(size=(3, 4)).astype(np.float32)}, {"n": number}
    )


def test_a_unit_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get(key(1)) is None
    store.put(key(1), payload(1))
    found = store.get(key(1))
    assert found is not None
    assert found.record == {"n": 1}
    for name, array in payload(1).arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    assert store.get(key(2)) is None


def test_the_key_depends_on_content_and_not_on_order() -> None:
    a = UnitKey("encode", {"x": 1, "y": {"b": 2, "a": 3}}, "one label")
    b = UnitKey("encode", {"y": {"a": 3, "b": 2}, "x": 1}, "another label")
    assert a.digest == b.digest
    assert a.digest != UnitKey("decode", a.parts).digest
    assert a.digest != UnitKey("encode", {**a.parts, "x": 2}).digest


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_canonical_json_is_a_function_of_the_value(value: object) -> None:
    import json

    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@pytest.mark.parametrize("position", [0, 3, 20, 70, 90, -1])
def test_one_flipped_byte_is_found_named_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, position: int
) -> None:
    store = Store(tmp_path)
    path = store.put(key(1), payload(1))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert store.get(key(1)) is None
    assert path.name in caplog.text
    assert "made again" in caplog.text
    assert (tmp_path / "damaged" / path.name).exists()
    store.put(key(1), payload(1))
    assert store.get(key(1)) is not None


def test_every_byte_is_covered(tmp_path: Path) -> None:
    """Flip each byte of a small file in turn: none may pass."""
    store = Store(tmp_path)
    path = store.put(key(1), Payload({"a": np.arange(3)}, {}))
    original = path.read_bytes()
    for position in range(0, len(original), 7):
        data = bytearray(original)
        data[position] ^= 0x40
        with pytest.raises(StoreError):
            Payload.from_bytes(bytes(data))


def test_verify_names_damaged_units(tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = [store.put(key(n), payload(n)) for n in range(5)]
    paths[3].write_bytes(paths[3].read_bytes()[:-4])
    count, damaged = store.verify()
    assert (count, damaged) == (5, [paths[3]])
    assert store.verify() == (4, [])


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.put(key(1), payload(1))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full") as caught:
        store.put(key(2), payload(2))
    assert "run the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.get(key(1)) is not None
    assert store.get(key(2)) is None


WRITER = """
import sys
from pathlib import Path
import numpy as np
from tokbench.store.store import Store
from tokbench.store.units import Payload, UnitKey
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for n in range(100000):
    store.put(UnitKey("encode", {"n": n % 50}), Payload({"a": np.full(20000, n % 50)}, {"n": n % 50}))
"""


def test_killed_writers_leave_whole_units_or_none(tmp_path: Path) -> None:
    for round_ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.07 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = Store(tmp_path)
    count, damaged = store.verify()
    assert count > 0
    assert damaged == []
    for n in range(50):
        found = store.get(UnitKey("encode", {"n": n}))
        assert found is None or (found.arrays["a"] == n).all()


def test_gc_frees_by_age_size_and_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = [store.put(key(n), payload(n)) for n in range(4)]
    other = store.put(key(9, "judge"), payload(9))
    old = time.time() - 10 * 86400
    os.utime(paths[0], (old, old))
    assert store.gc() == 0
    size = paths[0].stat().st_size
    assert store.gc(older_than_s=86400.0) == size
    assert not paths[0].exists()
    os.utime(paths[1], (time.time() - 50, time.time() - 50))
    total = sum(p.stat().st_size for p in store.files())
    store.gc(max_bytes=total - 1)
    assert not paths[1].exists()
    assert paths[2].exists()
    store.gc(stage="judge")
    assert not other.exists()
    assert paths[3].exists()


def test_entries_tell_stage_label_and_size(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.put(key(7), payload(7))
    (entry,) = store.entries()
    assert (entry.stage, entry.label, entry.size) == ("encode", "unit 7", path.stat().st_size)
