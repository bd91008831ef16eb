"""Drawn tensors, moved weights, and how close float32 comes to a slow version."""

import torch


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stirred(module, seed=3):
    """Parameters away from their initial values, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return module


def close(found, want):
    torch.testing.assert_close(found, want, rtol=1e-5, atol=2e-6)
