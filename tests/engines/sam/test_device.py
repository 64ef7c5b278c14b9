"""Which device and precision are taken."""

from collections.abc import Callable

import pytest
import torch

from backend.engines.base import read_process_memory
from backend.engines.sam import device
from backend.engines.sam.device import Batcher
from backend.errors import SettingsError, Unsupported
from backend.settings import CacheSettings


@pytest.fixture
def machine(monkeypatch):
    """Pretends that a machine has so many CUDA devices, and Apple's or not."""

    def pretend(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(("there", "chosen"), [({"cuda": 2, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")])
def test_auto_takes_the_best_there_is(machine, there, chosen):
    machine(**there)
    assert device.select_device("auto") == torch.device(chosen)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "cpu"])
def test_what_is_named_is_taken(machine, name):
    machine(cuda=2)
    assert device.select_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "cuda"), [("cuda", 0), ("cuda:2", 2), ("mps", 2)])
def test_a_device_that_is_not_there_is_refused(machine, name, cuda):
    machine(cuda=cuda)
    with pytest.raises(SettingsError, match=f"device: {name} is not available: set device: auto or cpu"):
        device.select_device(name)


@pytest.mark.parametrize(
    ("kind", "dtype", "narrow"),
    [
        ("cpu", "auto", False),
        ("cpu", "float32", False),
        ("cpu", "bfloat16", True),
        ("cuda", "auto", True),
        ("cuda", "float32", False),
    ],
)
def test_bfloat16_is_for_cuda_and_for_who_asks(monkeypatch, kind, dtype, narrow):
    asked = []

    class Autocast:
        def __init__(self, kind, dtype, enabled):
            asked.append((kind, dtype, enabled))

        def __enter__(self): ...

        def __exit__(self, *_): ...

    monkeypatch.setattr(torch, "autocast", Autocast)
    with device.inference(torch.device(kind), dtype):
        assert torch.is_inference_mode_enabled()
    assert asked == [(kind, torch.bfloat16, narrow)]
    assert not torch.is_inference_mode_enabled()


def test_without_room_it_says_what_to_lower():
    with (
        pytest.raises(Unsupported, match="lower image_size, or set device: cpu"),
        device.inference(torch.device("cpu"), "auto"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def halves(most: int) -> tuple[list[int], Callable[[slice], list[torch.Tensor]]]:
    """Work on numbers for which there is room for so many at a time, and how many it was asked for."""
    asked: list[int] = []

    def work(part: slice) -> list[torch.Tensor]:
        numbers = torch.arange(7)[part]
        asked.append(len(numbers))
        if len(numbers) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [numbers, -numbers]

    return asked, work


def test_work_goes_on_in_smaller_parts_where_there_is_no_room(caplog):
    batches, (asked, work) = Batcher(16, "objects"), halves(2)
    for _ in range(2):
        first, second = batches.run(7, work)
        assert first.tolist() == (-second).tolist() == [*range(7)]
    assert asked == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    assert "continuing with 2 objects at a time" in caplog.text
    batches.reset()
    assert batches.size == 16


def test_what_can_be_done_without_goes_before_batches_get_smaller(caplog):
    batches, (asked, work), left = Batcher(16, "objects"), halves(4), [1, 1]
    batches.give_way = lambda: bool(left and left.pop())
    batches.run(7, work)
    assert (asked, batches.size, caplog.text.count("out of memory")) == ([7, 7, 7, 4, 3], 4, 1)


@pytest.mark.parametrize(
    ("cache", "sizes"),
    [
        (CacheSettings(), (500, 400)),
        (CacheSettings(device=70), (70, 400)),
        (CacheSettings(host=0), (500, 0)),
    ],
)
def test_the_cache_takes_a_share_of_what_is_free(monkeypatch, cache, sizes):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(device, "_free_host_memory", lambda: 1600)
    assert device.cache_sizes(cache, torch.device("cuda")) == sizes


def test_on_a_cpu_the_device_is_the_host(monkeypatch):
    monkeypatch.setattr(device, "_free_host_memory", lambda: 1600)
    assert device.cache_sizes(CacheSettings(host=700), torch.device("cpu")) == (400, 0)
    assert device.cache_sizes(CacheSettings(device=9, host=700), torch.device("cpu")) == (9, 0)


def test_several_engines_share_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(device, "_free_host_memory", lambda: 1600)
    assert device.cache_sizes(CacheSettings(), torch.device("cuda"), 4) == (500, 100), "each GPU is one engine's own"
    assert device.cache_sizes(CacheSettings(device=70, host=80), torch.device("cuda"), 4) == (70, 20)
    assert device.cache_sizes(CacheSettings(), torch.device("cpu"), 4) == (100, 0)
    assert device.cache_sizes(CacheSettings(device=80), torch.device("cpu"), 4) == (20, 0)


def test_free_memory_is_what_the_container_leaves(monkeypatch):
    everything = device._free_host_memory()
    assert 0 < everything < 2**50
    used, _ = read_process_memory() or (0, 0)
    monkeypatch.setattr(device, "memory_limit", lambda: used + (64 << 20))
    assert 0 < device._free_host_memory() < 128 << 20
    monkeypatch.setattr(device, "memory_limit", lambda: 1)
    assert device._free_host_memory() == 0


def test_what_one_thing_had_no_room_for_says_nothing_of_many(caplog):
    batches, (asked, work) = Batcher(16, "objects"), halves(0)
    with pytest.raises(torch.OutOfMemoryError):
        batches.run(1, work)
    assert (asked, batches.size, caplog.text) == ([1], 16, "")


@pytest.mark.parametrize("name", ["cudnn", "flash", "efficient"])
def test_the_attention_that_is_set_comes_first_and_others_do_what_it_cannot(name):
    chosen = device.select_attention(name)
    assert chosen[0].name == f"{name.upper()}_ATTENTION"
    assert {backend.name for backend in chosen} >= {"FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"}
    query = torch.ones(1, 1, 2, 8)
    with device.inference(torch.device("cpu"), "float32", chosen):
        assert torch.nn.attention._cur_sdpa_kernel_backends(with_priority=True) == chosen
        assert torch.nn.functional.scaled_dot_product_attention(query, query, query).shape == query.shape


def test_flash_attention_3_is_refused_where_it_is_not_there():
    with pytest.raises(SettingsError, match=r"attention: flash3 is not available .* or set attention: auto"):
        device.select_attention("flash3")
    assert device.select_attention("auto") == []
