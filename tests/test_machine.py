"""Threads: what torch divides work among is what OpenMP grants."""

import os
import subprocess
import sys

import pytest
import torch
from paperlab import machine, records


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("limit", "asked", "granted"),
    [("1", 2, 1), ("2", 2, 2), ("3", 2, 2), (None, 2, 2), ("", 2, 2), ("0", 2, 2), ("many", 2, 2)],
)
def test_no_more_threads_than_openmp_grants(monkeypatch, limit, asked, granted):
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    if limit is not None:
        monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
    assert machine.use_threads(asked) == torch.get_num_threads() == granted


PRODUCT = """
import torch
from paperlab import machine

assert machine.use_threads(2) == 1
draw = torch.Generator().manual_seed(0)
x, weight = (torch.randn(n, 16, generator=draw) for n in (144, 48))
for _ in range(5):
    old = torch.full((144, 48), torch.nan, dtype=torch.bfloat16)  # memory for the result to take
    del old
    product = torch.nn.functional.linear(x.bfloat16(), weight.bfloat16())
    torch.testing.assert_close(product.float(), x @ weight.T, rtol=0, atol=0.2)
"""


def test_a_bfloat16_product_is_whole_under_openmps_limit():
    """With more threads than OpenMP's limit, oneDNN leaves half of the rows unwritten."""
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_record_starts_with_the_threads_that_are_granted(monkeypatch):
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    assert records.start("101_ssr", threads=2).threads == torch.get_num_threads() == 1
