"""LiveAlloc: insert a live stream into this page of videos or not, solved exactly.

A session is a row of requests; each shows 8 videos, or 7 and one live stream. State: the user's
group g (fixed), interest l in 0..2, satiation s in 0..4. A stream that engages keeps the user for a
long time; each insertion satiates, more so when it does not engage, and the satiated leave. So
inserting less can yield more live time. Made for SL-MGAC (`paperlab.rl.sl_mgac`).

A state is numbered 15 g + 5 l + s. Action 1 inserts, 0 does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import tabular
from .tabular import numbers, sigmoid

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GROUPS = ("Core", "Gift", "Potential_old", "Potential_new", "Long_old", "Long_new")
G, L, S = len(GROUPS), 3, 5
SIGNALS = ("paper", "live", "app", "requests", "insertions", "returns")
NOT_INSERTED = 13.0  # seconds that the paper's reward subtracts for a page without a stream
CUT = 3.5  # watch times are exp(mu + sigma xi), xi a standard normal within +-CUT


class Session(NamedTuple):
    """What a whole session yields under a policy, a number a group (start: l = 1, s = 0)."""

    app_minutes: Float[np.ndarray, " G"]
    live_minutes: Float[np.ndarray, " G"]
    requests: Float[np.ndarray, " G"]
    insertion_rate: Float[np.ndarray, " G"]
    return_rate: Float[np.ndarray, " G"]  # users who come back before they count as churned


class LiveModel:
    """LiveAlloc's parameters, its exact solution, and logs of it.

    engage, watch, video_seconds: by group: the logit of engaging at l = 1, s = 0; the mean log
        seconds of an engaged watch; mean seconds of a video, > 0.
    interest_slope, satiation_slope: of the engagement's logit, by (l - 1) and by -s.
    watch_sigma: log-sd of a watch, > 0; watch_cap: its longest, seconds, > 3.
    bored: seconds of a watch that did not engage are uniform in [0, bored], > 0.
    tired: share by which a level of satiation shortens videos, [0, .25). videos: a request, >= 2.
    satiate: probability of s + 1 after an insertion that engaged, and one that did not; recover: of
        s - 1 without one; drift: of l + 1 and of l - 1 each, [0, .5].
    leave, leave_slope: logit of leaving after a request at s = 0, and its slope by s.
    come_back: a user who left returns on a day ~ geometric(come_back[0] - come_back[1] s), in (0, 1]
        for all s; after ``churn_after`` days, >= 1, never.
    discount: a request, [0, 1). reward: ``paper`` sigma(.1 (T - v)) with T - v = -13 without an
        insertion, ``live`` or ``app`` minutes.
    Raises ValueError for values out of range.
    """

    n_actions = 2

    def __init__(
        self,
        *,
        engage=(1.2, 0.8, -0.4, -0.9, -2.0, -2.6),
        watch=(4.6, 4.8, 3.8, 3.4, 3.0, 2.7),
        video_seconds=(9.0, 10.0, 14.0, 15.0, 20.0, 22.0),
        interest_slope: float = 0.8,
        satiation_slope: float = 0.7,
        watch_sigma: float = 1.2,
        watch_cap: float = 1200.0,
        bored: float = 3.0,
        tired: float = 0.06,
        videos: int = 8,
        satiate=(0.2, 0.7),
        recover: float = 0.5,
        drift: float = 0.1,
        leave: float = -3.0,
        leave_slope: float = 0.6,
        come_back=(0.8, 0.12),
        churn_after: int = 7,
        discount: float = 0.9,
        reward: str = "paper",
    ):
        self.engage = numbers("engage", engage, -np.inf, np.inf, G)
        self.watch = numbers("watch", watch, -np.inf, np.inf, G)
        self.video_seconds = numbers("video_seconds", video_seconds, 0, np.inf, G, "()")
        self.satiate = numbers("satiate", satiate, 0, 1, 2)
        self.recover = float(numbers("recover", recover, 0, 1))
        self.drift = float(numbers("drift", drift, 0, 0.5))
        self.discount = float(numbers("discount", discount, 0, 1, ends="[)"))
        self.watch_sigma = float(numbers("watch_sigma", watch_sigma, 0, np.inf, ends="()"))
        self.watch_cap = float(numbers("watch_cap", watch_cap, 3, np.inf))
        self.bored = float(numbers("bored", bored, 0, np.inf, ends="()"))
        self.videos = int(numbers("videos", videos, 2, np.inf))
        self.reward = _reward_name(reward)
        tired = float(numbers("tired", tired, 0, 0.2499))

        self.group, self.interest, self.satiation = np.unravel_index(
            np.arange(G * L * S), (G, L, S)
        )
        g, s = self.group, self.satiation
        slopes = interest_slope * (self.interest - 1) - satiation_slope * s
        self.p_engage = sigmoid(self.engage[g] + slopes)  # (90,)
        self.v = self.video_seconds[g] * (1 - tired * s)  # mean seconds of a video
        self.p_leave = sigmoid(leave + leave_slope * s)  # after the request, by the s before it
        self.p_return = come_back[0] - come_back[1] * s  # a day
        if not (self.p_return.min() > 0 and self.p_return.max() <= 1):
            raise ValueError(f"come_back[0] - come_back[1] s must be in (0, 1], got {come_back}")
        self.churn_after = int(numbers("churn_after", churn_after, 1, np.inf))
        self.R = self._rewards()
        self.moves = self._moves()  # before leaving and discount

    def _rewards(self) -> Float[np.ndarray, "6 2 S"]:
        """Expected signals of a request: paper reward, live, app, request, insertion, return."""
        seconds, weight = watch_grid(self.watch, self.watch_sigma, self.watch_cap)  # (G, n)
        e, v, b = self.p_engage, self.v, self.bored
        gain = sigmoid(0.1 * (seconds[self.group] - v[:, None]))
        engaged = (weight[self.group] * gain).sum(1)
        # mean of sigma(.1 (T - v)) over T uniform in [0, b], in closed form
        bored = (10 / b) * (np.logaddexp(0, 0.1 * (b - v)) - np.logaddexp(0, -0.1 * v))
        watched = e * (weight * seconds).sum(1)[self.group] + (1 - e) * b / 2
        R = np.zeros((len(SIGNALS), 2, len(v)))
        R[0, 0] = sigmoid(-0.1 * NOT_INSERTED)
        R[0, 1] = e * engaged + (1 - e) * bored
        R[1, 1] = watched / 60
        R[2, 0] = self.videos * v / 60
        R[2, 1] = ((self.videos - 1) * v + watched) / 60
        R[3] = 1
        R[4, 1] = 1
        R[5] = self.p_leave * (1 - (1 - self.p_return) ** self.churn_after)
        return R

    def _moves(self) -> Float[np.ndarray, "2 S S"]:
        """P[a, state, state'] within a session, by satiation and interest apart."""
        up, down = np.eye(S, k=1), np.eye(S, k=-1)
        up[-1, -1] = down[0, 0] = 1
        rises = self.p_engage * self.satiate[0] + (1 - self.p_engage) * self.satiate[1]
        stay = np.eye(S)[self.satiation]
        inserted = stay + rises[:, None] * (up[self.satiation] - stay)
        rested = stay + self.recover * (down[self.satiation] - stay)
        wander = np.eye(L, k=1) + np.eye(L, k=-1)
        wander[0, 0] = wander[-1, -1] = 1
        interest = ((1 - 2 * self.drift) * np.eye(L) + self.drift * wander)[self.interest]
        group = np.eye(G)[self.group]
        whole = np.einsum("ig,il,ais->aigls", group, interest, np.stack([rested, inserted]))
        return whole.reshape(2, G * L * S, G * L * S)

    # Exact ---------------------------------------------------------------------------------------

    def transitions(self, discount: float) -> Float[np.ndarray, "2 S S"]:
        """Discounted transitions; leaving takes its share of every row."""
        return discount * (1 - self.p_leave)[:, None] * self.moves

    def exact_values(self, policy, discount: float | None = None) -> dict[str, np.ndarray]:
        """Values (90,) of a policy for each of SIGNALS, by a linear solve, and q (2, 90) of the reward.

        policy: an action, actions (90,), or probabilities (90, 2). discount: None takes the
        model's; 1 counts whole sessions, which end by themselves.
        """
        P = self.transitions(self.discount if discount is None else discount)
        V = tabular.policy_values(P, self.R, self.policy(policy))
        which = SIGNALS.index(self.reward)
        found = dict(zip(SIGNALS, V, strict=True))
        return found | {"q": tabular.action_values(P, self.R[which], V[which])}

    def optimal(
        self, reward: str | None = None, discount: float | None = None
    ) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, "2 S"]]:
        """The best actions (90,) for a reward and a discount, None the model's, and their Q (2, 90)."""
        R = self.R[SIGNALS.index(_reward_name(reward or self.reward))]
        P = self.transitions(self.discount if discount is None else discount)
        actions = tabular.policy_iteration(P, R)
        return actions, tabular.action_values(P, R, tabular.policy_values(P, R, np.eye(2)[actions]))

    def session(self, policy) -> Session:
        """What a session yields, by group, undiscounted, from interest 1 and no satiation."""
        V = self.exact_values(policy, discount=1.0)
        start = self.starts()
        requests = V["requests"][start]
        rate = V["insertions"][start] / requests
        return Session(V["app"][start], V["live"][start], requests, rate, V["returns"][start])

    def starts(self) -> Int[np.ndarray, " G"]:
        """The state in which a session of each group starts: l = 1, s = 0."""
        return np.arange(G) * L * S + S

    def policy(self, policy) -> Float[np.ndarray, "S 2"]:
        """Probabilities (90, 2) of a policy in any of its forms; ``"uniform"`` is one."""
        if isinstance(policy, str):
            if policy != "uniform":
                raise ValueError(f"policy must be 'uniform', actions or probabilities: {policy!r}")
            return np.full((G * L * S, 2), 0.5)
        return tabular.policy_table(policy, G * L * S, 2)

    # Draws ---------------------------------------------------------------------------------------

    def begin(self, draw: np.random.Generator, n: int) -> Int[np.ndarray, " n"]:
        """First states of n sessions; groups are equally likely."""
        return self.starts()[draw.integers(0, G, n)]

    def advance(self, draw: np.random.Generator, state, action):
        """One request of a batch: next states, rewards, left, and the signals.

        The next state of a session that was left is where it would have gone: no one sees it.
        """
        n, inserted = len(state), np.asarray(action) == 1
        engaged = inserted & (draw.random(n) < self.p_engage[state])
        xi = draw.standard_normal(n)
        while (outside := np.flatnonzero(np.abs(xi) > CUT)).size:
            xi[outside] = draw.standard_normal(len(outside))
        long = np.minimum(
            self.watch_cap, np.exp(self.watch[self.group[state]] + self.watch_sigma * xi)
        )
        live = np.where(engaged, long, self.bored * draw.random(n)) * inserted
        v = self.v[state]
        app = (self.videos - inserted) * v + live
        paper = sigmoid(0.1 * np.where(inserted, live - v, -NOT_INSERTED))
        reward = {"paper": paper, "live": live / 60, "app": app / 60}[self.reward]
        rise = inserted & (draw.random(n) < np.where(engaged, *self.satiate))
        fall = ~inserted & (draw.random(n) < self.recover)
        s = np.clip(self.satiation[state] + rise - fall, 0, S - 1)
        u = draw.random(n)
        step = (u < self.drift).astype(int) - (u > 1 - self.drift)
        i = np.clip(self.interest[state] + step, 0, L - 1)
        left = draw.random(n) < self.p_leave[state]
        day = draw.geometric(self.p_return[state]) * left
        day[day > self.churn_after] = 0
        info = {"live_seconds": live, "video_seconds": v, "app_seconds": app, "paper": paper}
        info["return_day"] = day
        return self.group[state] * L * S + i * S + s, reward, left, info

    def log_dataset(self, policy, n: int, seed: int, horizon: int = 50) -> dict[str, np.ndarray]:
        """n requests under a policy, in whole sessions but for the last of each of the users.

        Each of up to 4096 users goes through one session after the other; a session is cut at
        ``horizon`` requests, >= 1 (``truncated``; its last state has a future, unlike ``done``).
        Rows stand request by request, users side by side; ``session`` and ``step`` say who is who.

        Returns arrays of length n: state (15 g + 5 l + s), group, action, mu (the probability with
        which it was taken), reward (of the model's kind), paper, live_seconds, video_seconds (mean
        of a video), app_seconds, next_state, done, truncated, return_day (0 within a session and
        for a user who churned), session, step.
        Raises ValueError for n < 1, horizon < 1, or a policy that is none.
        """
        if n < 1 or horizon < 1:
            raise ValueError(f"n and horizon must be at least 1, got {n} and {horizon}")
        draw, table = np.random.default_rng(seed), self.policy(policy)
        size = min(4096, -(-n // horizon))
        state, step = self.begin(draw, size), np.zeros(size, np.int32)
        session, count = np.arange(size), size
        parts = []
        for _ in range(-(-n // size)):
            action = (draw.random(size) < table[state, 1]).astype(np.intp)
            after, reward, left, info = self.advance(draw, state, action)
            cut = ~left & (step + 1 >= horizon)
            parts.append(
                {"state": state, "group": self.group[state], "action": action}
                | {"mu": table[state, action], "reward": reward, **info, "next_state": after}
                | {"done": left, "truncated": cut, "session": session, "step": step}
            )
            over = np.flatnonzero(left | cut)
            state, step, session = after.copy(), step + 1, session.copy()
            state[over], step[over] = self.begin(draw, len(over)), 0
            session[over] = count + np.arange(len(over))
            count += len(over)
        return {
            name: np.concatenate([p[name] for p in parts])[:n].astype(kind)
            for name, kind in _COLUMNS.items()
        }


def watch_grid(
    mu: Float[np.ndarray, " G"], sigma: float, cap: float
) -> tuple[Float[np.ndarray, "G n"], Float[np.ndarray, "G n"]]:
    """Seconds and weights for expectations over min(cap, exp(mu + sigma xi)), xi normal within +-CUT.

    Gauss-Legendre on either side of the kink at the cap; the weights of a group sum to 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(100)
    kink = np.clip((np.log(cap) - mu) / sigma, -CUT, CUT)[:, None]
    xi = np.concatenate(
        [(kink + CUT) / 2 * (nodes + 1) - CUT, (CUT - kink) / 2 * (nodes + 1) + kink], 1
    )
    weight = np.concatenate([(kink + CUT) * weights, (CUT - kink) * weights], 1)
    weight = weight * np.exp(-(xi**2) / 2)
    return np.minimum(cap, np.exp(mu[:, None] + sigma * xi)), weight / weight.sum(1, keepdims=True)


_COLUMNS = {"state": np.uint8, "group": np.uint8, "action": np.uint8, "mu": np.float32}
_COLUMNS |= dict.fromkeys(("reward", "paper", "live_seconds", "video_seconds"), np.float32)
_COLUMNS |= {"app_seconds": np.float32, "next_state": np.uint8, "done": bool, "truncated": bool}
_COLUMNS |= {"return_day": np.int32, "session": np.int32, "step": np.int32}


def _reward_name(reward: str) -> str:
    if reward not in SIGNALS[:3]:
        raise ValueError(f"reward must be one of {', '.join(SIGNALS[:3])}, not {reward!r}")
    return reward
