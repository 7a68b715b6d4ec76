"""PyTorch's own files: what torch.save writes of tensors comes back, everything else is refused."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sfumato.errors import ModelFileError
from sfumato.files import archive, pickled
from sfumato.files.tensors import write_tensors
from sfumato.files.torch_file import MAGIC, read_torch, read_weights

FORMATS = {"zip": True, "in a row": False}


def saved(value: object, path: Path, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def _tables() -> dict[str, object]:
    base = torch.arange(24.0)
    return {
        "a state_dict with its metadata and a counter": network().state_dict(),
        "parameters": dict(network().named_parameters()),
        "views of one storage, strides, offsets": {
            "whole": base.view(4, 6),
            "turned": base.view(4, 6).T,
            "part": base.view(4, 6)[1:3, ::2],
            "one": base[5],
            "repeated": base[:1].expand(7),
        },
        "dtypes": {
            str(dtype).removeprefix("torch."): torch.tensor([0, 1, 1]).to(dtype)
            for dtype in (
                *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
                *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128),
            )
        },
        "an empty tensor and one without axes": {"none": torch.zeros(0, 3), "point": torch.tensor(3.5)},
        "tables in tables, lists, plain values": {
            "state_dict": collections.OrderedDict(a=torch.ones(2), b={"c": torch.zeros(1)}),
            "steps": [torch.tensor(1), (torch.tensor(2), "three")],
            "epoch": 7,
            "rate": 2.5e-4,
            "done": True,
            "name": "näme",
            "nothing": None,
            "state": {0: torch.ones(1), 1: torch.zeros(1)},
        },
    }


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, Any] = {}
        for key, one in pairs:
            found |= flat(one, f"{name}.{key}" if name else str(key))
        return found
    return {name: value}


@pytest.mark.parametrize(
    ("zipped", "protocol"),
    [*((True, protocol) for protocol in (2, 3, 4, 5)), (False, 2)],  # the older format is of protocol 2
)
@pytest.mark.parametrize("table", _tables())
def test_what_torch_save_wrote_comes_back_to_the_bit(
    table: str, zipped: bool, protocol: int, tmp_path: Path
) -> None:
    value = _tables()[table]
    tensors, plain = read_torch(saved(value, tmp_path / "x.pt", zipped, protocol))
    wanted = flat(value)
    assert list(tensors) == [name for name, one in wanted.items() if isinstance(one, Tensor)]
    assert dict(plain) == {name: one for name, one in wanted.items() if not isinstance(one, Tensor)}
    for name, tensor in tensors.items():
        assert tensor.dtype == wanted[name].dtype
        assert tensor.shape == wanted[name].shape
        assert tensor.stride() == wanted[name].stride()
        assert torch.equal(tensor, wanted[name])
        assert not tensor.requires_grad


def test_dtypes_that_have_no_storage_of_their_own(tmp_path: Path) -> None:
    value = {
        "eight": torch.tensor([1.0, -2.0, 0.5]).to(torch.float8_e4m3fn),
        "small": torch.tensor([1.0, 2.0]).to(torch.float8_e5m2),
        "sixteen": torch.tensor([1, 65535]).to(torch.uint16),
    }
    tensors, _ = read_torch(saved(value, tmp_path / "x.pt"))
    for name, tensor in tensors.items():
        assert tensor.dtype == value[name].dtype
        assert torch.equal(tensor.view(torch.uint8), value[name].view(torch.uint8))


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_tensors_that_shared_memory_share_it_again(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(6.0)
    tensors, _ = read_torch(saved({"a": base, "b": base[2:]}, tmp_path / "x.pt", zipped))
    tensors["a"][3] = 50.0
    assert tensors["b"][1] == 50.0


def test_the_content_decides_between_the_kinds_of_file(tmp_path: Path) -> None:
    wanted = {"a": torch.arange(3.0)}
    write_tensors(tmp_path / "named.pt", wanted)
    saved(wanted, tmp_path / "named.safetensors")
    saved(wanted, tmp_path / "old.bin", zipped=False)
    for name in ("named.pt", "named.safetensors", "old.bin"):
        assert torch.equal(read_weights(tmp_path / name)["a"], wanted["a"])
    (tmp_path / "page.pt").write_bytes(b"<html>not found</html>")
    for read in (read_torch, read_weights):
        with pytest.raises(ModelFileError, match="web page"):
            read(tmp_path / "page.pt")


# ---- what is refused

CANARY = "CANARY_OF_TORCH_FILES"


class Reduced:
    """Its unpickling calls a function."""

    def __init__(self, call: Callable[..., Any], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def _zip(data: bytes, more: dict[str, bytes] | None = None, packed: bool = False) -> bytes:
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as file:
        for name, content in {"data.pkl": data, **(more or {})}.items():
            file.writestr(f"archive/{name}", content)
    return out.getvalue()


def _storage(key: str = "0", values: object = 4, kind: str = "FloatStorage") -> bytes:
    """Opcodes of one persistent storage."""
    number = b"J" + int(values).to_bytes(4, "little", signed=True) if isinstance(values, int) else b"N"
    text = lambda s: b"X" + len(s).to_bytes(4, "little") + s.encode()
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number + b"tQ"


def _tensor(offset: bytes, shape: bytes, strides: bytes, storage: bytes | None = None) -> bytes:
    """A pickle of {"a": one tensor}, its parts as opcodes."""
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or _storage()) + offset + shape + strides
    return b"\x80\x02}X\x01\x00\x00\x00a" + made + b"\x89}tRs."


ONE, FOUR = b"K\x01", b"K\x04"
DATA = {"data/0": bytes(16)}
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a call of os.system": lambda: _zip(pickle.dumps(Reduced(os.system, f"touch {CANARY}"), 2)),
    "a call of eval in a table": lambda: _zip(pickle.dumps({"a": Reduced(eval, "1")}, 4)),
    "a call of getattr": lambda: _zip(pickle.dumps(Reduced(getattr, "a", "b"), 2)),
    "a name that is only looked up": lambda: _zip(pickle.dumps({"a": os.system}, 2)),
    "a name by STACK_GLOBAL": lambda: _zip(pickle.dumps({"a": os.system}, 4)),
    "a class of the standard library": lambda: _zip(pickle.dumps({"a": collections.Counter("ab")}, 2)),
    "a module of torch": lambda: _zip(b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81."),
    "torch.load as a name": lambda: _zip(b"\x80\x02ctorch\nload\n)R."),
    "INST": lambda: _zip(b"(S'true'\nios\nsystem\n."),
    "OBJ": lambda: _zip(b"(cos\nsystem\nX\x01\x00\x00\x00ao."),
    "EXT1": lambda: _zip(b"\x80\x02\x82\x01."),
    "a call of a value": lambda: _zip(b"\x80\x02]\x85)R."),
    "a state for a list": lambda: _zip(b"\x80\x02]}b."),
    "keys that are nested tuples": lambda: _zip(b"\x80\x02}" + _bomb(60)[:-1] + b"K\x01s."),
    "a memo bomb of tuples": lambda: _zip(b"\x80\x02" + _bomb(60)),
    "a list that holds itself": lambda: _zip(b"\x80\x02]q\x00h\x00a."),
    "an empty stack": lambda: _zip(b"\x80\x02s."),
    "a memo that is empty": lambda: _zip(b"\x80\x02h\x05."),
    "no end": lambda: _zip(b"\x80\x02}"),
    "no opcode": lambda: _zip(b"\x80\x02\xff."),
    "a number of a thousand digits": lambda: _zip(b"\x80\x02\x8b\x00\x10\x00\x00" + b"\x7f" * 4096 + b"."),
    "one value without a name": lambda: _zip(b"\x80\x02K\x01."),
    "offset beyond the end": lambda: _zip(_tensor(FOUR, ONE + b"\x85", ONE + b"\x85"), DATA),
    "shape beyond the end": lambda: _zip(_tensor(b"K\x00", b"K\x05\x85", ONE + b"\x85"), DATA),
    "stride beyond the end": lambda: _zip(_tensor(b"K\x00", b"K\x02\x85", FOUR + b"\x85"), DATA),
    "a negative offset": lambda: _zip(_tensor(b"J\xff\xff\xff\xff", ONE + b"\x85", ONE + b"\x85"), DATA),
    "a negative stride": lambda: _zip(_tensor(b"K\x03", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), DATA),
    "a shape of floats": lambda: _zip(_tensor(b"K\x00", b"G" + bytes(8) + b"\x85", ONE + b"\x85"), DATA),
    "a billion values by stride 0": lambda: _zip(
        _tensor(b"K\x00", b"J\x00\x00\x00\x40\x85", b"K\x00\x85"), DATA
    ),
    "nine axes": lambda: _zip(_tensor(b"K\x00", b"(" + ONE * 9 + b"t", b"(" + ONE * 9 + b"t"), DATA),
    "a storage that is smaller than it says": lambda: _zip(
        _tensor(b"K\x00", FOUR + b"\x85", ONE + b"\x85", _storage(values=400)), DATA
    ),
    "a storage that is not there": lambda: _zip(
        _tensor(b"K\x00", FOUR + b"\x85", ONE + b"\x85", _storage(key="7")), DATA
    ),
    "a storage whose key leads out": lambda: _zip(
        _tensor(b"K\x00", FOUR + b"\x85", ONE + b"\x85", _storage(key="../../../etc/passwd")), DATA
    ),
    "quantised values": lambda: _zip(
        _tensor(b"K\x00", FOUR + b"\x85", ONE + b"\x85", _storage(kind="QInt8Storage")), DATA
    ),
    "truth values of 77": lambda: _zip(
        _tensor(b"K\x00", FOUR + b"\x85", ONE + b"\x85", _storage(kind="BoolStorage")), {"data/0": b"MMMM"}
    ),
    "packed members": lambda: _zip(b"\x80\x02}.", {"data/0": bytes(10_000)}, packed=True),
    "a TorchScript program": lambda: _zip(b"\x80\x02}.", {"constants.pkl": b"\x80\x02).", "code/a.py": b""}),
    "numbers in big-endian order": lambda: _zip(b"\x80\x02}.", {"byteorder": b"big"}),
    "a zip of something else": lambda: _zip(b"").replace(b"data.pkl", b"data.txt"),
    "a zip without a directory": lambda: b"PK\x03\x04" + bytes(200),
    "the older format, cut after its magic": lambda: MAGIC,
    "the older format with a call": lambda: (
        MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}X\r\x00\x00\x00little_endian\x88s." + pickle.dumps(os.system, 2)
    ),
}


def _bomb(times: int) -> bytes:
    """[], then each time a pair of the last one, twice."""
    rows = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times))
    return b"]" + rows + b"."


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_refused_by_one_sentence_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    path.write_bytes(HOSTILE[name]())
    with pytest.raises(ModelFileError) as caught:
        read_torch(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message) < 500
    assert "\n" not in message
    assert not (tmp_path / CANARY).exists()


def test_the_sentence_names_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(HOSTILE["a call of os.system"]())
    with pytest.raises(ModelFileError, match=r"the name '(posix|nt)\.system', which is none of those"):
        read_torch(path)
    saved({"a": torch.zeros(2, dtype=torch.complex64).conj()}, path)
    with pytest.raises(ModelFileError, match="a conjugate or negative view"):
        read_torch(path)


def test_members_of_an_archive_that_lie_in_one_another_are_refused(tmp_path: Path) -> None:
    """A hundred entries of one megabyte each would otherwise come out of one megabyte."""
    content = _zip(b"\x80\x02}.", {"data/0": bytes(100), "data/1": bytes(100)})
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        first, second = (file.getinfo(f"archive/data/{i}").header_offset for i in (0, 1))
    at = content.rfind(b"PK\x01\x02")
    assert int.from_bytes(content[at + 42 : at + 46], "little") == second
    path = tmp_path / "x.pth"
    path.write_bytes(content[: at + 42] + first.to_bytes(4, "little") + content[at + 46 :])
    with pytest.raises(ModelFileError, match="lie in one another"):
        read_torch(path)


def _ended(members: int, length: int, start: int = 0) -> bytes:
    """The end of an archive that says so much of its directory."""
    return b"PK\x03\x04" + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, members, members, length, start, 0)


def test_directories_that_are_too_large_or_say_what_is_not_so_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pth"
    for whole in (_ended(1, 1 << 30), _ended(1, 0xFFFFFFFF), _ended(1, 0, 1 << 31), _ended(1, 46)):
        path.write_bytes(whole)
        with pytest.raises(ModelFileError, match=r"no directory of its members|no single data.pkl"):
            read_torch(path)
    entry = b"PK\x01\x02" + bytes(42)
    path.write_bytes(b"PK\x03\x04" + entry * 400_000 + _ended(1, 46 * 400_000)[4:])
    with pytest.raises(ModelFileError, match="no directory of its members"):  # 17.5 MiB of it: not read
        read_torch(path)
    monkeypatch.setattr(archive, "MOST_MEMBERS", 2)
    saved({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match=r"a directory of \d+ members \(at most 2\)"):
        read_torch(path)


def test_a_member_beyond_the_end_and_one_of_a_name_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    whole = bytearray(_zip(b"\x80\x02}.", {"data/0": bytes(100)}))
    at = whole.rfind(b"PK\x01\x02")
    twice = whole.replace(b"archive/data/0", b"archive/data.p")
    for place in (at + 20, at + 24):  # its size packed and unpacked
        whole[place : place + 4] = (10_000).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(ModelFileError, match="a member beyond its end"):
        read_torch(path)
    path.write_bytes(twice.replace(b"archive/data.pkl", b"archive/data.p\0."))
    with pytest.raises(ModelFileError, match="two members of one name"):
        read_torch(path)


def test_a_pickle_without_end_is_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MOST_OPCODES", 1000)
    path = tmp_path / "x.pth"
    path.write_bytes(_zip(b"\x80\x02]" + b"Na" * 5000 + b"."))
    with pytest.raises(ModelFileError, match="more than 1,000 pickle opcodes"):
        read_torch(path)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_thousands_of_damaged_files_give_tensors_or_one_sentence(zipped: bool, tmp_path: Path) -> None:
    value = {"net": collections.OrderedDict(a=torch.arange(6.0).view(2, 3).T, b=torch.ones(2).half()), "n": 3}
    whole = saved(value, tmp_path / "good.pt", zipped).read_bytes()
    chance, path, refused = random.Random(0), tmp_path / "x.pt", 0
    for i in range(1500):
        data = bytearray(whole)
        match i % 4:
            case 0:
                data = data[: chance.randrange(len(data))]
            case 1:
                for _ in range(chance.randint(1, 4)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            case 2:
                at = chance.randrange(len(data))
                data[at : at + chance.randint(1, 30)] = chance.randbytes(chance.randint(0, 30))
            case _:
                start, end = chance.randrange(len(data)), chance.randrange(len(data))
                data[end:end] = data[start : start + 40]
        path.write_bytes(data)
        try:
            tensors, _ = read_torch(path)
        except ModelFileError:
            refused += 1
        else:
            assert sum(t.numel() for t in tensors.values()) < 1 << 21
    assert refused > 400
