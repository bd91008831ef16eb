"""Looks at LiveAlloc: agents whose policy and Q are known, and the logging policy."""

import numpy as np
import pytest
import torch
from paperlab.rl.worlds.live import LiveModel
from paperlab.rl.worlds.looks import Looks, eager, nearest

MODEL = LiveModel()
BEST, Q = MODEL.optimal()


class Known(torch.nn.Module):
    """Acts and values as is right for the nearest state, plus an offset of one action's Q."""

    def __init__(self, offset=0.0, scale=1.0):
        super().__init__()
        self.offset, self.scale = offset, scale

    def q(self, batch):
        at = nearest(batch["obs"].numpy() / self.scale)
        return torch.tensor(Q.T[at] + [0, self.offset])

    def policy(self, batch):
        return torch.softmax(self.q(batch), -1)


def test_the_nearest_state_without_noise_is_the_state():
    obs = np.zeros((90, 16), np.float32)
    obs[np.arange(90), np.arange(90) // 15] = 1
    obs[:, 6], obs[:, 7] = np.arange(90) % 15 // 5 / 2, np.arange(90) % 5 / 4
    assert nearest(obs).tolist() == list(range(90))
    obs[:, 6:8] += np.where(np.arange(90) % 2, 5, -5)[:, None]  # far outside: the outer levels
    assert set(nearest(obs) % 15) == {0, 14}


def test_means_and_worth_by_hand():
    looks = Looks(MODEL, each=3)
    assert looks.obs.shape == (270, 16)
    assert (looks.obs[:, :6].argmax(1) == np.arange(90).repeat(3) // 15).all()
    values = np.arange(540.0).reshape(270, 2)
    np.testing.assert_allclose(looks.mean(values)[1], (values[3] + values[4] + values[5]) / 3)
    half = np.full((270, 2), 0.5)
    assert looks.worth(half) == pytest.approx(looks.worth("uniform"))
    assert looks.worth(BEST)["value"] == pytest.approx(MODEL.session(BEST).value.mean())


def test_what_is_recorded_of_a_known_agent():
    looks = Looks(MODEL, each=8)
    look, right, shifted = looks.watch(), Known(), Known(offset=0.25)
    row, other = look(right), look(shifted)
    action = np.eye(2)[Q.T[nearest(looks.obs)].argmax(1)]
    assert row["value"] == pytest.approx(looks.worth(action)["value"])
    assert row["value"] < looks.worth(BEST)["value"]  # noise hides the state
    chance = np.exp(Q.T[nearest(looks.obs)])
    served = looks.worth(chance / chance.sum(1, keepdims=True))["value"]
    assert row["as served"] == pytest.approx(served)
    assert other["bias, stream"] - row["bias, stream"] == pytest.approx(0.25)
    assert other["bias, no stream"] == pytest.approx(row["bias, no stream"])
    gap = looks.mean(Q.T[nearest(looks.obs)]) - Q.T
    assert row["error"] == pytest.approx(np.abs(gap).mean())
    # the peak is that of all checks so far, and each agent's own
    assert row["max Q"] == pytest.approx(Q[:, nearest(looks.obs)].max())
    right.offset, before = -100.0, look(shifted)["max Q"]
    assert look(right)["max Q"] > 95 and look(shifted)["max Q"] == before
    right.offset = 0.0
    assert look(right)["max Q"] > 95


def test_a_scale_reaches_the_agent_only():
    looks = Looks(MODEL, each=2)
    plain, scaled = looks.watch()(Known()), looks.watch(100.0)(Known(scale=100.0))
    assert plain == pytest.approx(scaled)


def test_an_agent_without_q_has_no_error():
    class Blind:
        def policy(self, batch):
            return torch.full((len(batch["obs"]), 2), 0.5)

    row = Looks(MODEL, each=1).watch()(Blind())
    assert row["error"] is row["max Q"] is row["bias, stream"] is None
    assert row["as served"] == pytest.approx(MODEL.session("uniform").value.mean())


def test_the_eager_policy_follows_engagement_and_not_satiation():
    looks = Looks(MODEL, each=4)
    insert = eager(MODEL)(looks.obs)[:, 1]
    assert 0.1 <= insert.min() < 0.2 and 0.7 < insert.max() <= 0.9
    seen = looks.obs.copy()
    seen[:, 7:] = 3.0
    np.testing.assert_array_equal(eager(MODEL)(seen)[:, 1], insert)
    obs = np.zeros((1, 16))
    obs[0, 2], obs[0, 6] = 1, 0.5  # Potential_old at middle interest: logit -.4
    assert eager(MODEL)(obs)[0, 1] == pytest.approx(0.1 + 0.8 / (1 + np.exp(0.4)))


def test_bad_values_say_what_is_right():
    with pytest.raises(ValueError, match="each must be at least 1, got 0"):
        Looks(MODEL, each=0)
