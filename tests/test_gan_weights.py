"""Weights of the progressive GAN: published files of both formats, files of ours, downloads, and files of malice."""
import copy
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lipfw.gan.weights as gan
from lipfw.errors import InputError
from lipfw.gan import download, published, torchfile
from lipfw.gan.network import PUBLISHED, Critic, Generator
from lipfw.gan.weights import Weights, check_resolution, load, save
from lipfw.ticket import checksum

CHANNELS, LATENT, OUTPUTS = (6, 5, 3), 7, 2
SETTINGS = {"depthScale0": 6, "depthOtherScales": [5, 3], "latentVectorDim": 7, "noiseVectorDim": 7,
            "categoryVectorDim": 0, "dimOutput": 2, "leakyReluLeak": 0.2, "perChannelNormalization": True,
            "miniBatchStdDev": True, "equalizedlR": True, "initBiasToZero": True, "alpha": 0.0,
            "lossCriterion": "WGANGP", "lambdaGP": 10.0, "epsilonD": 0.001, "learningRate": 0.001,
            "attribKeysOrder": None}


def networks():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = [Generator(CHANNELS, LATENT, OUTPUTS), Critic(CHANNELS, OUTPUTS), Generator(CHANNELS, LATENT, OUTPUTS)]
        for p in [p for n in made for p in n.parameters() if p.ndim == 1]:
            nn.init.normal_(p)      # biases of zero would hide a mistake
    return made


@contextmanager
def published_class():
    """The class that published files pickle, under its name, for as long as a file is written."""
    names = ("models", "models.utils", "models.utils.config")
    sys.modules.update({n: types.ModuleType(n) for n in names})
    config = type("BaseConfig", (), {"__module__": names[-1]})
    sys.modules[names[-1]].BaseConfig = config
    try:
        yield config
    finally:
        for n in names:
            del sys.modules[n]


def write_published(path, module=True, zipped=False, config=(), drop=(), extra=None, nets=None):
    generator, critic, average = nets or networks()
    with published_class() as make:
        settings = make()
        vars(settings).update({**SETTINGS, **dict(config)})
        for name in drop:
            vars(settings).pop(name, None)
        found = {"config": settings} | {
            name: OrderedDict(published.to_published(n.state_dict(), module))
            for name, n in (("netG", generator), ("netD", critic), ("avgG", average)) if n is not None}
        if extra:
            extra(found, make)
        found = {k: v for k, v in found.items() if k not in drop}
        torch.save(found, path, _use_new_zipfile_serialization=zipped)
    return path


def one_line(error, *words):
    text = str(error.value)
    assert text.isprintable() and len(text) < 500, text
    for word in words:
        assert word in text, text
    return text


# --- published files -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("zipped", [False, True], ids=["stream", "zip"])
@pytest.mark.parametrize("module", [True, False], ids=["module", "bare"])
def test_a_published_file_computes_what_its_networks_do(tmp_path, module, zipped):
    generator, critic, average = networks()
    path = write_published(tmp_path / "a.pth", module, zipped)
    before = torch.get_rng_state()
    plain, averaged = load(path), load(str(path), average=True)
    assert torch.equal(torch.get_rng_state(), before), "no random number was drawn"
    z = torch.randn(4, LATENT)
    assert torch.equal(plain.generator(z), generator(z)) and torch.equal(averaged.generator(z), average(z))
    assert not torch.equal(plain.generator(z), averaged.generator(z))
    assert torch.equal(plain.critic(generator(z)), critic(generator(z)))
    assert plain.about == {"source": "pytorch_GAN_zoo", "file": "a.pth", "generator": "netG"}
    assert averaged.about["generator"] == "avgG"
    assert all(p.requires_grad and p.dtype == torch.float32 for p in plain.generator.parameters())


@pytest.mark.parametrize("zipped", [False, True])
def test_the_reader_agrees_with_torch(tmp_path, zipped):
    """Shared storages, views, transposes, types and empty tensors, against torch's own reader."""
    base = torch.arange(24.0)
    tensors = {"a": base.view(4, 6).T, "b": base[5:11], "c": base[::3], "d": torch.tensor(3.0), "e": torch.zeros(0, 3),
               "f": torch.randn(3).half(), "g": torch.randn(2, 2).double(), "h": torch.arange(3)}
    torch.save({"x": tensors, "n": 3}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    ours = torchfile.read(tmp_path / "a.pth", published.CONFIG)
    theirs = torch.load(tmp_path / "a.pth", weights_only=True)
    assert ours["n"] == 3 and list(ours["x"]) == list(theirs["x"])
    for name, tensor in theirs["x"].items():
        assert torch.equal(ours["x"][name], tensor) and ours["x"][name].dtype == tensor.dtype


@pytest.mark.parametrize("scales", [7, 8], ids=["256", "512"])
def test_the_published_names_and_shapes_are_those_of_our_networks(scales):
    """Written from the layout alone: names, and shapes of weights; the published order of channels in the critic."""
    d = PUBLISHED[:scales]
    g = {"formatLayer": (8192, 512), "groupScale0.0": (512, 512, 3, 3)}
    c = {"groupScaleZero.0": (512, 513, 3, 3), "groupScaleZero.1": (512, 8192), "decisionLayer": (1, 512)}
    for j in range(scales):
        g[f"toRGBLayers.{j}"], c[f"fromRGBLayers.{j}"] = (3, d[j], 1, 1), (d[j], 3, 1, 1)
        if j:
            g[f"scaleLayers.{j - 1}.0"], g[f"scaleLayers.{j - 1}.1"] = (d[j], d[j - 1], 3, 3), (d[j], d[j], 3, 3)
            c[f"scaleLayers.{j - 1}.0"], c[f"scaleLayers.{j - 1}.1"] = (d[j], d[j], 3, 3), (d[j - 1], d[j], 3, 3)
    for layers, make in ((g, Generator), (c, Critic)):
        state = {f"{n}.module.weight": s for n, s in layers.items()}
        state |= {f"{n}.module.bias": (s[0],) for n, s in layers.items()}
        with torch.device("meta"):
            network = make(d)
        assert published.from_published(state) == {n: tuple(p.shape) for n, p in network.state_dict().items()}
        assert set(published.to_published(network.state_dict())) == set(state)


def test_names_go_both_ways():
    for network in networks():
        state = network.state_dict()
        for module in (True, False):
            theirs = published.to_published(state, module)
            assert all((".module." in n) == module and "_" not in n for n in theirs)
            assert published.from_published(theirs) == state


def test_older_settings_may_be_silent_and_newer_ones_say_more(tmp_path):
    def nested(found, make):
        found["config"].inner = make()
        found["config"].inner.numbers = (1, 2.5, "x", None, {"a": [True]})
        found["tmp"] = make()

    path = write_published(tmp_path / "a.pth", drop=tuple(SETTINGS), config={"initBiasToZero": False}, extra=nested)
    assert load(path).generator.channels == CHANNELS
    assert load(write_published(tmp_path / "b.pt", nets=(networks()[0], None, None))).critic is None


@pytest.mark.parametrize(("name", "value"), [
    ("alpha", 0.5), ("leakyReluLeak", 0.1), ("perChannelNormalization", False), ("equalizedlR", False),
    ("miniBatchStdDev", False), ("categoryVectorDim", 3), ("lossCriterion", "DCGAN"), ("alpha", "x\ny"),
    ("depthScale0", 8), ("depthOtherScales", [5, 3, 3]), ("latentVectorDim", 512), ("dimOutput", 3)])
def test_another_network_is_refused_by_its_setting(tmp_path, name, value):
    path = write_published(tmp_path / "a.pth", config={name: value})
    with pytest.raises(InputError) as error:
        load(path)
    one_line(error, f"{name}={value!r}", str(path))


@pytest.mark.parametrize(("net", "change", "words"), [
    ("netG", lambda s: s.pop("scaleLayers.1.0.module.bias"), ("netG lacks scale_layers.1.0.bias of shape (3,)",)),
    ("netD", lambda s: s.pop("decisionLayer.module.weight"), ("netD lacks decision_layer.weight",)),
    ("netG", lambda s: s.pop("toRGBLayers.0.module.weight"), ("lacks toRGBLayers.0",)),
    ("netG", lambda s: s.pop("formatLayer.module.weight"), ("lacks formatLayer",)),
    ("netG", lambda s: s.update({"fc.weight": torch.ones(1)}), ("'fc.weight'", "scaleLayers.0.1.module.weight")),
    ("netD", lambda s: s.update({"scaleLayers.7.0.module.bias": torch.ones(1)}), ("'scale_layers.7.0.bias'",)),
    ("netG", lambda s: s.update({"formatLayer.weight": torch.ones(1)}), ("format_layer.weight twice",)),
    ("netD", lambda s: s.update({"decisionLayer.module.weight": torch.ones(2, 6)}), ("(2, 6)", "(1, 6)")),
    ("netD", lambda s: s.update({"decisionLayer.module.weight": torch.ones(1, 6).int()}), ("decision_layer.weight",)),
    ("netD", lambda s: s.update({"decisionLayer.module.weight": 3}), ("decision_layer.weight", "int")),
    ("netD", lambda s: s.update({"decisionLayer.module.weight": torch.full((1, 6), torch.nan)}), ("not finite",)),
])
def test_a_wrong_weight_is_named(tmp_path, net, change, words):
    path = write_published(tmp_path / "a.pth", extra=lambda found, _: change(found[net]))
    with pytest.raises(InputError) as error:
        load(path)
    one_line(error, str(path), *words)


def test_the_average_must_be_there(tmp_path):
    path = write_published(tmp_path / "a.pth", drop=("avgG",))
    load(path)
    with pytest.raises(InputError) as error:
        load(path, average=True)
    one_line(error, "no averaged generator", str(path))


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_and_foreign_files(tmp_path, zipped):
    path = write_published(tmp_path / "a.pth", zipped=zipped)
    whole = path.read_bytes()
    for part in (0, 1, 10, 100, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(InputError) as error:
            load(path)
        one_line(error, str(path), "damaged")
    for content, word in ((b"\n <!DOCTYPE html><html>404</html>", "web page"), (b"PK\x03\x04junk", "damaged"),
                          (os.urandom(500), "damaged")):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load(path)
        one_line(error, str(path), word)
    for other, word in ((nn.Linear(2, 2).state_dict(), "'weight', 'bias'"), ([1], "list"), (torch.ones(3), "_Stored"),
                        ({}, "nothing"), ({"netG": {}, "config": {}}, "config")):
        torch.save(other, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError) as error:
            load(path)
        one_line(error, str(path), word)


# --- malice ----------------------------------------------------------------------------------------------------------

class Reduces:
    def __init__(self, *how):
        self.how = how

    def __reduce__(self):
        return self.how


def touching(path):
    """Every way we know to have a pickle call something: each would create `path`."""
    code = f"open({str(path)!r}, 'w').close()"
    text = json.dumps(code)[1:-1]
    plain = {
        "os.system": Reduces(os.system, (f"touch {path}",)), "eval": Reduces(eval, (code,)),
        "exec": Reduces(exec, (code,)), "open": Reduces(open, (str(path), "w")),
        "type_v2": Reduces(torch._tensor._rebuild_from_type_v2, (os.system, torch.Tensor, (f"touch {path}",), {})),
        "partial": Reduces(__import__("functools").partial(os.system, f"touch {path}"), ()),
        "tensor of a call": Reduces(torch._utils._rebuild_tensor_v2, (Reduces(eval, (code,)), 0, (1,), (1,), False)),
        "dictionary of a call": Reduces(OrderedDict, ([("a", Reduces(eval, (code,)))],)),
        "items by a call": Reduces(OrderedDict, (), None, None, iter([("a", Reduces(eval, (code,)))])),
        "state": Reduces(OrderedDict, (), {"__class__": Reduces(eval, (code,))}),
    }
    raw = {
        "inst": f"(S{text!r}\ni__builtin__\neval\n.".encode(),
        "obj": b"(c__builtin__\neval\n" + f"S{text!r}\n".encode() + b"o.",
        "stack global": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + b"X" + struct.pack("<I", len(code))
        + code.encode() + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93" + f"(S'touch {path}'\ntR.".encode(),
        "newlines": b"\x80\x04\x8c\x05a\nb\x1bc\x8c\x04eval\x93.",
        "build on the class": b"\x80\x02cmodels.utils.config\nBaseConfig\n}X\x01\x00\x00\x00a"
                              b"cbuiltins\neval\nsb.",
    }
    return plain, raw


def malicious():
    """Each payload in each format and place: raw ones at the top alone; a zip file does not say on which machine."""
    for how in touching("x")[0]:
        for where in ("top", "config", "state", "object", "machine"):
            yield from ((how, where, zipped) for zipped in (False, True) if not (zipped and where == "machine"))
    for how in touching("x")[1]:
        yield from ((how, "top", False), (how, "top", True), (how, "machine", False))


@pytest.mark.parametrize(("how", "where", "zipped"), malicious())
def test_a_file_that_calls_anything_is_refused_and_does_nothing(tmp_path, how, zipped, where):
    mark = tmp_path / "called"
    plain, raw = touching(mark)
    path = tmp_path / "a.pth"
    if how in raw:
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/data.pkl", raw[how])
        else:
            head = pickle.dumps(torchfile.MAGIC, 2) + pickle.dumps(1001, 2)
            path.write_bytes(head + (raw[how] if where == "machine" else pickle.dumps({}, 2) + raw[how]))
    else:
        payload = plain[how]
        if where == "machine":
            path.write_bytes(pickle.dumps(torchfile.MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps(payload, 2))
        else:
            def put(found, make):
                if where == "config":
                    found["config"].alpha = [{"deep": payload}]
                elif where == "state":
                    found["netG"]["formatLayer.module.weight"] = payload
                elif where == "object":
                    found["config"] = Reduces(make, (), {"x": payload})
                else:
                    found["other"] = payload

            write_published(path, zipped=zipped, extra=put)
    mark.unlink(missing_ok=True)    # writing may have called it
    with pytest.raises(InputError) as error:
        load(path)
    one_line(error, str(path))
    assert not mark.exists()


@pytest.mark.parametrize("state", [b"}U\x01aK\x01s", b"N}U\x01aK\x01s\x86"], ids=["attributes", "slots"])
@pytest.mark.parametrize("name", [b"models.utils.config\nBaseConfig", b"collections\nOrderedDict",
                                  b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage"])
def test_a_file_cannot_change_what_it_may_use(tmp_path, name, state):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02c" + name + b"\n" + state + b"b.")
    with pytest.raises(InputError) as error:
        load(tmp_path / "a.pth")
    one_line(error, "damaged")
    assert not hasattr(torchfile.Settings, "a") and not hasattr(torchfile._Stored, "a")


def test_the_payloads_are_real(tmp_path):
    """So that the test above can fail: with the unrestricted reader they do create the file."""
    mark = tmp_path / "called"
    plain, raw = touching(mark)
    fired = set()
    for name, data in {**{n: pickle.dumps(p, 2) for n, p in plain.items()}, **raw}.items():
        mark.unlink(missing_ok=True)
        try:
            pickle.loads(data)
        except Exception:       # the call came first, or there is nothing to call
            pass
        if mark.exists():
            fired.add(name)
    assert {"os.system", "eval", "exec", "open", "type_v2", "partial", "inst", "obj", "stack global", "dotted",
            "tensor of a call", "dictionary of a call", "items by a call", "state"} <= fired


@pytest.mark.parametrize("args", [
    (0, (9,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (4, 1)), (0, (10**6,), (0,)), (0, (2,), ()),
    (0, (2.0,), (1,)), (0, (True,), (1,)), ("0", (2,), (1,)), (2**70, (1,), (1,)), (0, 3, 3),
    (0, (10**15, 2), ("a", 1))])
def test_a_tensor_outside_its_storage_is_refused(tmp_path, args):
    """Such as torch's own reader could once be made to read memory by."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", _tensor_pickle(*args))
        archive.writestr("a/data/0", struct.pack("<4f", 1, 2, 3, 4))
    with pytest.raises(InputError) as error:
        torchfile.read(tmp_path / "a.pth", published.CONFIG)
    one_line(error, "damaged")


def test_a_file_that_holds_more_than_itself_is_refused(tmp_path):
    """Entries that are the same bytes, each read into memory."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", _tensor_pickle(1, (3,), (1,)))
        archive.writestr("a/data/0", bytes(100_000))
        again = archive.getinfo("a/data/0")
        for i in range(1, 50):
            other = copy.copy(again)
            other.filename = f"a/data/{i}"
            archive.filelist.append(other)
    with pytest.raises(InputError) as error:
        torchfile.read(tmp_path / "a.pth", published.CONFIG)
    one_line(error, "damaged", "more than itself")


def test_lists_in_lists_are_not_written_out(tmp_path):
    laughs = ["x"]
    for _ in range(40):
        laughs = [laughs] * 9
    with pytest.raises(InputError) as error:
        load(write_published(tmp_path / "a.pth", config={"lossCriterion": laughs}))
    one_line(error, "lossCriterion=[[")


def test_that_tensor_inside_its_storage_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", _tensor_pickle(1, (3,), (1,)))
        archive.writestr("a/data/0", struct.pack("<4f", 1, 2, 3, 4))
    assert torchfile.read(tmp_path / "a.pth", published.CONFIG)["x"]["t"].tolist() == [2, 3, 4]


def _tensor_pickle(offset, size, stride):
    """A pickle of {"x": {"t": tensor}} of a storage of four numbers."""
    class Stored:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, Stored) else None

    file = io.BytesIO()
    Writer(file, 2).dump({"x": {"t": Reduces(torch._utils._rebuild_tensor_v2,
                                             (Stored(), offset, size, stride, False, OrderedDict()))}})
    return file.getvalue()


# --- files of ours ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("half", [False, True])
def test_our_file_comes_back(tmp_path, half):
    generator, critic, average = networks()
    path = tmp_path / "a.safetensors"
    save(path, generator, critic, average, about={"trained on": "faces", "a": "b"}, half=half)
    first = path.read_bytes()
    save(path, generator, critic, average, about={"a": "b", "trained on": "faces"}, half=half)
    assert path.read_bytes() == first and sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors"]
    found, averaged = load(path), load(path, average=True)
    assert found.about == {"trained on": "faces", "a": "b"} and isinstance(found, Weights)
    pairs = ((found.generator, generator), (found.critic, critic), (averaged.generator, average))
    for ours, given in pairs:
        for name, tensor in given.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor.half().float() if half else tensor)
    if not half:
        z = torch.randn(3, LATENT)
        assert torch.equal(found.generator(z), generator(z))
        assert torch.equal(found.critic(generator(z)), critic(generator(z)))
    assert {t.dtype for t in load_file(path).values()} == {torch.float16 if half else torch.float32}
    save(path, generator)
    assert load(path).critic is None
    with pytest.raises(InputError) as error:
        load(path, average=True)
    one_line(error, "no averaged generator")


@pytest.mark.parametrize(("value", "half", "word"), [(7e4, True, "float16"), (float("nan"), False, "not finite")])
def test_numbers_that_cannot_be_stored_are_refused(tmp_path, value, half, word):
    generator = networks()[0]
    nn.init.constant_(generator.format_layer.bias, value)
    with pytest.raises(InputError) as error:
        save(tmp_path / "a.safetensors", generator, half=half)
    one_line(error, "generator.format_layer.bias", word)
    assert not list(tmp_path.iterdir())


def test_networks_of_one_architecture_only(tmp_path):
    with pytest.raises(ValueError, match="critic"):
        save(tmp_path / "a.safetensors", networks()[0], Critic((6, 5), OUTPUTS))
    with pytest.raises(ValueError, match="average"):
        save(tmp_path / "a.safetensors", networks()[0], average=Generator(CHANNELS, 8, OUTPUTS))


def rewrite(path, header=(), change=lambda stored: None, entry="lipfw-gan"):
    stored = {f"generator.{n}": t for n, t in networks()[0].state_dict().items()}
    change(stored)
    metadata = {"version": 1, "channels": list(CHANNELS), "latent": LATENT, "outputs": OUTPUTS,
                "sha256": checksum(stored), "about": {}} | dict(header)
    save_file(stored, path, metadata={entry: json.dumps(metadata)})
    return path


@pytest.mark.parametrize(("how", "words"), [
    ({}, ()), ({"entry": "format"}, ("no progressive GAN of lipfw",)),
    ({"header": {"version": 2}}, ("weights format 2, this lipfw reads 1",)),
    ({"header": {"sha256": "0"}}, ("damaged",)), ({"header": {"channels": "abc"}}, ("damaged",)),
    ({"header": {"channels": []}}, ("damaged",)), ({"header": {"channels": None}}, ("damaged",)),
    ({"header": {"latent": -1}}, ("damaged",)), ({"header": {"latent": 10**9}}, ("damaged",)),
    ({"header": {"about": 3}}, ("damaged",)),
    ({"header": {"latent": 8}}, ("format_layer.weight as (96, 7)", "(96, 8)")),
    ({"change": lambda s: s.pop("generator.format_layer.bias")}, ("generator lacks format_layer.bias",)),
    ({"change": lambda s: s.update({"generator.x": torch.ones(1)})}, ("generator has 'x'",)),
    ({"change": lambda s: s.update({"optimizer.x": torch.ones(1)})}, ("'optimizer.x'",)),
    ({"change": lambda s: s.update({"critic.x": torch.ones(1)})}, ("critic lacks from_rgb_layers.0.weight",)),
    ({"change": lambda s: s.update({"generator.format_layer.bias": torch.ones(3)})}, ("(3,)", "(96,)")),
])
def test_a_file_of_ours_that_is_not_sound(tmp_path, how, words):
    path = rewrite(tmp_path / "a.safetensors", **how)
    if not words:
        load(path)
        return
    with pytest.raises(InputError) as error:
        load(path)
    one_line(error, str(path), *words)


def test_a_damaged_file_of_ours(tmp_path):
    path = rewrite(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[:200], whole[:-1], whole[:-3] + b"abc", b"<html>" + whole):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load(path)
        one_line(error, str(path))


# --- names -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("source", "words"), [
    ("celebahq265", ("did you mean celebahq256?", "celebahq512", ".safetensors")), ("x.bin", ("'x.bin'",)),
    ("nowhere/a.pth", ("no weights at nowhere/a.pth",)), ("nowhere/a.safetensors", ("no weights at",)),
    (None, ("'None'",)), (3, ("'3'",)), ("", ("''",)), (["a"], ("prior.weights",))])
def test_unknown_names_and_paths(source, words):
    with pytest.raises(InputError) as error:
        load(source)
    one_line(error, *words)


def test_shipped_weights_are_known_by_name(tmp_path, monkeypatch):
    (tmp_path / "shipped").mkdir()
    rewrite(tmp_path / "shipped" / "tiny12.safetensors")
    monkeypatch.setattr(gan, "files", lambda package: tmp_path)
    assert list(gan.shipped()) == ["tiny12"]
    assert load("tiny12").generator.channels == CHANNELS
    with pytest.raises(InputError) as error:
        load("tiny21")
    one_line(error, "did you mean tiny12?")


def test_every_shipped_file_loads():
    for name in gan.shipped():
        assert load(name).about, name


def test_the_resolution_is_the_pictures():
    weights = Weights(networks()[0])
    check_resolution(weights, 16, 16)
    with pytest.raises(InputError) as error:
        check_resolution(weights, 64, 32)
    assert str(error.value) == "these weights make pictures of 16x16, the picture is 32x64; use image.size=16"


# --- downloads -------------------------------------------------------------------------------------------------------

@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A published file that can be "downloaded" as celebahq256, and the cache it goes to."""
    pooch = pytest.importorskip("pooch")
    path = write_published(tmp_path / "a.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(download.FILES, "celebahq256", f"some-name-{digest[:8]}.pth")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return path, tmp_path / "cache" / "lipfw" / "gan" / f"some-name-{digest[:8]}.pth"


def test_a_download_happens_once_and_is_verified(offered, monkeypatch):
    path, cached = offered
    asked = []

    def bring(url, output_file, pooch):
        asked.append(url)
        output_file.write(path.read_bytes())

    monkeypatch.setattr("pooch.HTTPDownloader", lambda timeout: bring)
    assert load("celebahq256").about["file"] == cached.name == load("celebahq256", average=True).about["file"]
    assert asked == [f"https://dl.fbaipublicfiles.com/gan_zoo/PGAN/{cached.name}"]
    cached.write_bytes(cached.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError) as error:
        load("celebahq256")
    one_line(error, str(cached), "damaged", "delete it")


def test_a_download_of_something_else_is_not_kept(offered):
    def bring(url, output_file, pooch):
        with open(output_file, "w") as f:
            f.write("<html>")

    with pytest.raises(InputError) as error:
        download.fetch("celebahq256", bring)
    one_line(error, "another file", "prior.weights=PATH", download.URL)
    assert not [p for p in offered[1].parent.rglob("*") if p.is_file()]


def test_a_download_stops_at_a_size(offered, monkeypatch):
    def bring(url, output_file, pooch):
        for _ in range(100):
            output_file.write(bytes(1 << 19))

    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr("pooch.HTTPDownloader", lambda timeout: bring)
    with pytest.raises(InputError) as error:
        download.fetch("celebahq256")
    one_line(error, "more than 1 MiB came", "prior.weights=PATH")
    assert not [p for p in offered[1].parent.rglob("*") if p.is_file()]


def test_without_a_network_the_remedy_is_one_line(offered):
    def bring(url, output_file, pooch):
        raise ConnectionError("no route\nto host")

    with pytest.raises(InputError) as error:
        download.fetch("celebahq256", bring)
    url = f"{download.URL}{offered[1].name}"
    one_line(error, "no route to host", f"download {url} yourself and give prior.weights=PATH")


def test_without_pooch_the_remedy_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError) as error:
        load("celebahq512")
    one_line(error, "lipfw[data]", "celebaHQ16_december_s7_i96000-9c72988c.pth", "prior.weights=PATH")
