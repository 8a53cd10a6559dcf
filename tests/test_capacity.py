"""Memory: counted while tensors live, and errors that say it ran out are told from others."""

import pytest
import torch

import realfill.capacity
from realfill.benchmark.speed.measuring import count_flops
from realfill.capacity import free_bytes, is_out_of_memory, peak_bytes

CPU = torch.device("cpu")
MB = 4 * 250_000


def test_the_peak_is_of_what_lives_at_a_time():
    def work():
        first = torch.zeros(250_000)
        second = first + 1
        del first
        third = second + 1
        third += 1
        return third.view(500, 500).T

    assert peak_bytes(work, CPU)[1] == 2 * MB
    assert peak_bytes(work, CPU)[1] == 2 * MB


def test_what_was_there_before_and_what_shares_its_memory_do_not_count():
    kept = torch.zeros(250_000)
    assert peak_bytes(lambda: kept.view(500, 500).add_(1), CPU)[1] == 0


def test_what_the_backward_pass_needs_counts():
    weight = torch.zeros(250_000, requires_grad=True)

    def work():
        value = weight
        for _ in range(5):
            value = value.sin()  # keeps its input
        return value.sum()

    with torch.no_grad():
        assert peak_bytes(work, CPU)[1] == 2 * MB
    assert 4 * MB <= peak_bytes(work, CPU)[1] <= 6 * MB


def test_there_is_free_memory():
    assert free_bytes(CPU) > 1e6


def test_what_a_container_allows_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(realfill.capacity, "_CGROUP", tmp_path)
    whole = free_bytes(CPU)
    for name, text in (("memory.max", "3000000"), ("memory.current", "2500000"), ("memory.stat", "inactive_file 4000")):
        (tmp_path / name).write_text(f"{text}\n")
    assert free_bytes(CPU) == 504_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 0.5 * whole


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_allocator_tells():
    device = torch.device("cuda")
    assert peak_bytes(lambda: torch.zeros(250_000, device=device) + 1, device)[1] >= 2 * MB
    assert free_bytes(device) > 1e6


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_is_told_from_other_errors(error, wanted):
    assert is_out_of_memory(error) == wanted


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("measured", [lambda work: peak_bytes(work, torch.device("cpu")), count_flops])
def test_what_is_measured_before_it_is_compiled_is_compiled_after(measured):
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
