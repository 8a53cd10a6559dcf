"""Memory: peaks are measured, and work that does not fit becomes smaller."""

import pytest
import torch
from measuring import count_flops

import realfill.compute.memory
from realfill.compute.memory import (
    FREE_SHARE,
    MAX_BATCH_ON_CPU,
    count_that_fits,
    fits,
    free_bytes,
    is_out_of_memory,
    peak_bytes,
    until_it_fits,
)
from realfill.errors import RealFillWarning

CPU = torch.device("cpu")
MB = 4 * 250_000


def test_the_peak_counts_tensors_alive_at_the_same_time():
    def work():
        first = torch.zeros(250_000)
        second = first + 1
        del first
        third = second + 1
        third += 1
        return third.view(500, 500).T

    assert peak_bytes(work, CPU)[1] == 2 * MB
    assert peak_bytes(work, CPU)[1] == 2 * MB


def test_older_tensors_and_views_do_not_count():
    kept = torch.zeros(250_000)
    assert peak_bytes(lambda: kept.view(500, 500).add_(1), CPU)[1] == 0


def test_tensors_kept_for_the_backward_pass_count():
    weight = torch.zeros(250_000, requires_grad=True)

    def work():
        value = weight
        for _ in range(5):
            value = value.sin()  # keeps its input
        return value.sum()

    with torch.no_grad():
        assert peak_bytes(work, CPU)[1] == 2 * MB
    assert 4 * MB <= peak_bytes(work, CPU)[1] <= 6 * MB


def test_this_machine_has_free_memory():
    assert free_bytes(CPU) > 1e6


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(realfill.compute.memory, "_CGROUP", tmp_path)
    whole = free_bytes(CPU)
    for name, text in (("memory.max", "3000000"), ("memory.current", "2500000"), ("memory.stat", "inactive_file 4000")):
        (tmp_path / name).write_text(f"{text}\n")
    assert free_bytes(CPU) == 504_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 0.5 * whole


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for a GPU with 8 MB free and 5 MB reserved, of which 3 MB are in use; its calls are noted."""
    calls: list[str] = []
    memory = {"memory_reserved": 5 * MB, "memory_allocated": 3 * MB, "max_memory_allocated": 7 * MB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * MB, 80 * MB))
    for name, value in memory.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name, value=value: calls.append(name) or value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    return calls


def test_on_a_gpu_memory_that_torch_keeps_for_reuse_is_free(cuda):
    device = torch.device("cuda")
    assert free_bytes(device) == 10 * MB
    assert fits(device, int(FREE_SHARE * 10 * MB)) and not fits(device, int(FREE_SHARE * 10 * MB) + 1)
    assert count_that_fits(device, MB // 100) == 600, "the limit of a CPU does not hold"


def test_on_a_gpu_the_peak_is_the_allocators_above_what_was_allocated_before(cuda):
    assert peak_bytes(lambda: cuda.append("work") or "result", torch.device("cuda")) == ("result", 4 * MB)
    assert cuda == ["reset", "memory_allocated", "work", "max_memory_allocated"]


def test_on_a_gpu_the_cache_is_emptied_before_smaller_work(cuda):
    def work():
        cuda.append("work")
        if cuda.count("work") == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    with pytest.warns(RealFillWarning, match="continuing with half of it"):
        assert until_it_fits(work, lambda: "half of it", torch.device("cuda")) == "done"
    assert cuda == ["work", "empty", "work"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_allocator_measures():
    device = torch.device("cuda")
    assert peak_bytes(lambda: torch.zeros(250_000, device=device) + 1, device)[1] >= 2 * MB
    assert free_bytes(device) > 1e6


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognized(error, expected):
    assert is_out_of_memory(error) == expected


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("measured", [lambda work: peak_bytes(work, torch.device("cpu")), count_flops])
def test_measuring_does_not_prevent_a_later_compilation(measured):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def double(x):
        return x @ x

    compiled = torch.compile(double, backend=backend)
    measured(lambda: compiled(torch.ones(8, 8)))
    assert not graphs
    compiled(torch.ones(8, 8))
    assert len(graphs) == 1


@pytest.mark.parametrize(("free", "expected"), [(0, 1), (99, 1), (300, 3), (10**9, MAX_BATCH_ON_CPU)])
def test_as_many_items_are_planned_as_fit_with_a_reserve(monkeypatch, free, expected):
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: free / FREE_SHARE + 1)
    assert count_that_fits(CPU, 100) == expected
    assert fits(CPU, free) and not fits(CPU, free + 2)


def test_work_becomes_smaller_until_it_fits():
    sizes = [8]

    def work():
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError
        return sizes[-1]

    def shrink():
        sizes.append(sizes[-1] // 2)
        return f"{sizes[-1]} at a time"

    with pytest.warns(RealFillWarning, match=r"^out of memory; continuing with [42] at a time$") as warned:
        assert until_it_fits(work, shrink, CPU) == 2
    assert sizes == [8, 4, 2] and len(warned) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("shapes cannot be multiplied")])
def test_other_errors_and_work_that_cannot_be_smaller_are_raised(error):
    calls = []

    def work():
        raise error

    with pytest.raises(type(error)):
        until_it_fits(work, lambda: calls.append(1), CPU)
    assert len(calls) == isinstance(error, torch.OutOfMemoryError)
