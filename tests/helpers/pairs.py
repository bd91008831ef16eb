"""Drawn prompts and responses, and their padded batches."""

import torch


def rows(sizes, vocabulary=11, seed=0):
    """Rows (prompt, response) of these sizes, all drawn."""
    draw = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(vocabulary, (n,), generator=draw).tolist() for n in size)
        for size in sizes
    ]


def padded(pairs, length=None, side="right", pad=0):
    """ids and completion mask of rows."""
    longest = max(len(p) + len(r) for p, r in pairs)
    length = length or longest
    ids, mask = torch.full((len(pairs), length), pad), torch.zeros(len(pairs), length).bool()
    for k, (p, r) in enumerate(pairs):
        start = 0 if side == "right" else length - len(p) - len(r)
        ids[k, start : start + len(p) + len(r)] = torch.tensor(p + r)
        mask[k, start + len(p) : start + len(p) + len(r)] = True
    return ids, mask
