import pytest
import torch
from paperlab.data.store import Split
from paperlab.feedback.baselines.item_counts import ItemCounts


def period(items, labels) -> Split:
    ids = torch.tensor([[1, i] for i in items], dtype=torch.int32)
    return Split(ids, torch.tensor(labels)[:, None], 0)


def test_counts_fade_by_period_and_negatives_do_not_count():
    method = ItemCounts(4, decay=0.5).update([period([1, 1, 2], [1.0, 1.0, 0.0])])
    assert method.counts.tolist() == [0, 2, 0, 0]
    both = [period([1, 1, 2], [1.0, 1.0, 0.0]), period([2, 3], [1.0, 0.0])]
    assert method.update(both).counts.tolist() == [0, 1, 1, 0]
    torch.testing.assert_close(
        method.predict(period([1, 3], [0.0, 0.0])), torch.tensor([2.0, 1.0]).log()
    )


def test_without_decay_all_periods_count_alike():
    periods = [period([1, 2], [1.0, 1.0]), period([2, 2], [1.0, 1.0])]
    once = [period([1, 2, 2, 2], [1.0] * 4)]
    a, b = (ItemCounts(3).update(p).counts for p in (periods, once))
    assert torch.equal(a, b)
    assert ItemCounts(3, decay=0.0).update(periods).counts.tolist() == [0, 0, 2]


@pytest.mark.parametrize("options", [{"size": 0}, {"decay": 1.1}, {"column": -1}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ItemCounts(**{"size": 3} | options)
