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

from ... import checks, mdp
from ...mdp import numbers, sigmoid

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GROUPS = ("Core", "Gift", "Potential_old", "Potential_new", "Long_old", "Long_new")
G, L, S = len(GROUPS), 3, 5
N = G * L * S
SIGNALS = ("paper", "live", "app", "requests", "insertions")
REWARDS = SIGNALS[:3]  # sigma(.1 (T - v)), T - v = -13 without an insertion; live, app minutes
NOT_INSERTED = 13.0  # seconds that the paper's reward subtracts for a page without a stream
VIDEOS = 8  # a request
SIGMA, CUT, CAP = 1.2, 3.5, 1200.0  # watches: min(CAP, exp(mu + SIGMA xi)), xi normal within +-CUT
BORED = 3.0  # seconds of a watch that did not engage are uniform up to this
DRIFT = 0.1  # probability of l + 1, and of l - 1
NOISE = np.float32(0.1)  # sd of what an environment shows of l and s, each scaled to [0, 1]
_COLUMNS = dict.fromkeys(("state", "group", "action", "next_state"), np.uint8)
_COLUMNS |= dict.fromkeys(("mu", "paper"), np.float32)
_COLUMNS |= dict.fromkeys(("live_seconds", "video_seconds", "app_seconds"), np.float32)
_COLUMNS |= dict.fromkeys(("obs", "next_obs"), np.float32)
_COLUMNS |= dict.fromkeys(("done", "truncated"), bool)
_COLUMNS |= dict.fromkeys(("session", "step"), np.int32)


class Session(NamedTuple):
    """What a session yields under a policy, a number a group (start: l = 1, s = 0)."""

    value: Float[np.ndarray, " G"]  # discounted paper reward
    app: Float[np.ndarray, " G"]  # minutes of the whole session
    live: Float[np.ndarray, " G"]  # minutes of the whole session
    requests: Float[np.ndarray, " G"]
    insertion: Float[np.ndarray, " G"]  # share of requests with a stream


class LiveModel:
    """LiveAlloc: its parameters, its exact solution, and logs of it.

    engage, watch, video_seconds: by group: the logit of engaging at l = 1, s = 0; the mean log
        seconds of an engaged watch; mean seconds of a video, > 0.
    satiate: probability of s + 1 after an insertion that engaged, and one that did not; recover: of
        s - 1 without one.
    discount: a request, [0, 1).
    Raises ValueError for values out of range.
    """

    n_actions = 2
    observed, limits = G + 2 + 8, (-10, 10)  # size and range of what an environment shows

    def __init__(
        self,
        *,
        engage=(1.2, 0.8, -0.4, -0.9, -2.0, -2.6),
        watch=(4.6, 4.8, 3.8, 3.4, 3.0, 2.7),
        video_seconds=(9.0, 10.0, 14.0, 15.0, 20.0, 22.0),
        satiate=(0.2, 0.7),
        recover: float = 0.5,
        discount: float = 0.9,
    ):
        self.engage = numbers("engage", engage, "(-inf, inf)", G)
        self.watch = numbers("watch", watch, "(-inf, inf)", G)
        self.video_seconds = numbers("video_seconds", video_seconds, "(0, inf)", G)
        self.satiate = numbers("satiate", satiate, "[0, 1]", 2)
        checks.inside("[0, 1]", recover=recover)
        checks.inside("[0, 1)", discount=discount)
        self.recover, self.discount = recover, discount

        grid = np.unravel_index(np.arange(N), (G, L, S))
        self.group, self.interest, self.satiation = g, _, s = grid
        slopes = 0.8 * (self.interest - 1) - 0.7 * s
        self.p_engage = sigmoid(self.engage[g] + slopes)  # (90,)
        self.v = self.video_seconds[g] * (1 - 0.06 * s)  # mean seconds of a video: the tired skip
        self.p_leave = sigmoid(0.6 * s - 3.0)  # after the request, by the s before it
        known = np.column_stack([np.eye(G)[g], self.interest - 1, s / 2 - 1])
        self.features = known.astype(np.float32)  # (90, 8): all that there is to know of a state
        self.R = self._rewards()
        self.moves = self._moves()  # before leaving and discount

    def _rewards(self) -> Float[np.ndarray, "5 2 S"]:
        """Expected signals of a request: paper reward, live, app, request, insertion."""
        seconds, weight = watch_grid(self.watch)  # (G, n)
        e, v, b = self.p_engage, self.v, BORED
        gain = sigmoid(0.1 * (seconds[self.group] - v[:, None]))
        engaged = (weight[self.group] * gain).sum(1)
        # mean of sigma(.1 (T - v)) over T uniform in [0, b], in closed form
        bored = (10 / b) * (np.logaddexp(0, 0.1 * (b - v)) - np.logaddexp(0, -0.1 * v))
        watched = e * (weight * seconds).sum(1)[self.group] + (1 - e) * b / 2
        R = np.zeros((len(SIGNALS), 2, len(v)))
        R[0, 0] = sigmoid(-0.1 * NOT_INSERTED)
        R[0, 1] = e * engaged + (1 - e) * bored
        R[1, 1] = watched / 60
        R[2, 0] = VIDEOS * v / 60
        R[2, 1] = ((VIDEOS - 1) * v + watched) / 60
        R[3] = R[4, 1] = 1
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
        interest = ((1 - 2 * DRIFT) * np.eye(L) + DRIFT * wander)[self.interest]
        group = np.eye(G)[self.group]
        whole = np.einsum("ig,il,ais->aigls", group, interest, np.stack([rested, inserted]))
        return whole.reshape(2, N, N)

    def transitions(self, discount: float) -> Float[np.ndarray, "2 S S"]:
        """Discounted transitions; leaving takes its share of every row. discount: in [0, 1]."""
        checks.inside("[0, 1]", discount=discount)
        return discount * (1 - self.p_leave)[:, None] * self.moves

    def exact_values(self, policy, discount: float | None = None) -> dict[str, np.ndarray]:
        """Values (90,) of a policy for each of SIGNALS, by a linear solve.

        policy: see `mdp.policy_table`. discount: None takes the model's; 1 counts whole
        sessions, which end by themselves.
        """
        P = self.transitions(self.discount if discount is None else discount)
        return dict(zip(SIGNALS, mdp.policy_values(P, self.R, self.policy(policy)), strict=True))

    def optimal(
        self, reward: str = "paper", discount: float | None = None
    ) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, "2 S"]]:
        """The best actions (90,) for one of REWARDS and a discount, and their Q (2, 90)."""
        checks.one_of(REWARDS, reward=reward)
        R = self.R[REWARDS.index(reward)]
        P = self.transitions(self.discount if discount is None else discount)
        actions = mdp.policy_iteration(P, R)
        return actions, mdp.action_values(P, R, mdp.policy_values(P, R, np.eye(2)[actions]))

    def session(self, policy) -> Session:
        """What a session yields; all but its value is undiscounted."""
        start, exact = self.starts(), self.exact_values(policy, discount=1.0)
        value, V = (
            self.exact_values(policy)["paper"][start],
            {k: v[start] for k, v in exact.items()},
        )
        share = V["insertions"] / V["requests"]
        return Session(value, V["app"], V["live"], V["requests"], share)

    def starts(self) -> Int[np.ndarray, " G"]:
        """The state in which a session of each group starts: l = 1, s = 0."""
        return np.arange(G) * L * S + S

    def policy(self, policy) -> Float[np.ndarray, "S 2"]:
        """Probabilities (90, 2) of a policy in any of its forms."""
        return mdp.policy_table(policy, N, 2)

    def begin(self, draw: np.random.Generator, n: int) -> Int[np.ndarray, " n"]:
        """First states of n sessions; groups are equally likely."""
        return self.starts()[draw.integers(0, G, n)]

    def advance(self, draw: np.random.Generator, state, action):
        """One request of a batch: next states, the paper's rewards, left, and the signals.

        A next state is drawn also where the user leaves; nothing may read it there.
        Raises ValueError for actions other than 0 and 1.
        """
        n, inserted = len(state), mdp.valid_actions(action, (len(state),), self.n_actions) == 1
        engaged = inserted & (draw.random(n) < self.p_engage[state])
        xi = draw.standard_normal(n)
        while (outside := np.flatnonzero(np.abs(xi) > CUT)).size:
            xi[outside] = draw.standard_normal(len(outside))
        long = np.minimum(CAP, np.exp(self.watch[self.group[state]] + SIGMA * xi))
        live = np.where(engaged, long, BORED * draw.random(n)) * inserted
        v = self.v[state]
        app = (VIDEOS - inserted) * v + live
        paper = sigmoid(0.1 * np.where(inserted, live - v, -NOT_INSERTED))
        rise = inserted & (draw.random(n) < np.where(engaged, *self.satiate))
        fall = ~inserted & (draw.random(n) < self.recover)
        s = np.clip(self.satiation[state] + rise - fall, 0, S - 1)
        u = draw.random(n)
        step = (u < DRIFT).astype(int) - (u > 1 - DRIFT)
        i = np.clip(self.interest[state] + step, 0, L - 1)
        left = draw.random(n) < self.p_leave[state]
        info = {"live_seconds": live, "video_seconds": v, "app_seconds": app}
        return self.group[state] * L * S + i * S + s, paper, left, info

    def observe(self, draw: np.random.Generator, state) -> Float[np.ndarray, "B 16"]:
        """One-hot of the group, l and s with normal noise, 8 numbers of pure noise."""
        seen = draw.standard_normal((len(state), self.observed), np.float32).clip(-6, 6)
        seen[:, :G] = np.eye(G, dtype=np.float32)[self.group[state]]
        seen[:, G] = self.interest[state] / (L - 1) + NOISE * seen[:, G]
        seen[:, G + 1] = self.satiation[state] / (S - 1) + NOISE * seen[:, G + 1]
        return seen

    def log_dataset(self, policy, n: int, seed: int, horizon: int = 50) -> dict[str, np.ndarray]:
        """n requests under a policy, in whole sessions but for the last of each of the users.

        Each of up to 4096 users goes through one session after the other; a session is cut at
        ``horizon`` requests, >= 1 (``truncated``; its last state has a future, unlike ``done``).
        Rows stand request by request, users side by side; ``session`` and ``step`` say who is who.

        policy: see `mdp.policy_table`; or a function of observations (B, 16), as `observe` draws
            them, to probabilities (B, 2), so that nothing hidden decides.

        Returns arrays of length n: state (15 g + 5 l + s), group, action, mu (the probability with
        which it was taken), paper (the reward), live_seconds, video_seconds (mean of a video),
        app_seconds, next_state, done, truncated, session, step; and under a function also what it
        saw, obs and next_obs (n, 16).
        Raises ValueError for n < 1, horizon < 1, or a policy that is none.
        """
        checks.whole(n=n, horizon=horizon)
        draw, looks = np.random.default_rng(seed), callable(policy)
        table = None if looks else self.policy(policy)
        size = min(4096, -(-n // horizon))
        state, step = self.begin(draw, size), np.zeros(size, np.int32)
        seen = self.observe(draw, state) if looks else None
        session, count = np.arange(size), size
        parts = []
        for _ in range(-(-n // size)):
            chance = mdp.policy_table(policy(seen), size, 2) if looks else table[state]
            action = (draw.random(size) < chance[:, 1]).astype(np.intp)
            mu = np.take_along_axis(chance, action[:, None], 1)[:, 0]
            after, paper, left, info = self.advance(draw, state, action)
            cut = ~left & (step + 1 >= horizon)
            row = {"state": state, "group": self.group[state], "action": action, "paper": paper}
            row |= {"mu": mu, "next_state": after, "done": left, "truncated": cut}
            row |= info | {"session": session, "step": step}
            over = np.flatnonzero(left | cut)
            state, step, session = after.copy(), step + 1, session.copy()
            state[over], step[over] = self.begin(draw, len(over)), 0
            if looks:
                row |= {"obs": seen, "next_obs": self.observe(draw, after)}
                seen = row["next_obs"].copy()
                seen[over] = self.observe(draw, state[over])
            parts.append(row)
            session[over] = count + np.arange(len(over))
            count += len(over)
        return {
            name: np.concatenate([p[name] for p in parts])[:n].astype(_COLUMNS[name], copy=False)
            for name in parts[0]
        }


def watch_grid(mu: Float[np.ndarray, " G"]) -> tuple[Float[np.ndarray, "G n"], np.ndarray]:
    """Seconds and weights for expectations over a watch, min(CAP, exp(mu + SIGMA xi)).

    Gauss-Legendre on either side of the kink at the cap; the weights of a group sum to 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(100)
    kink = np.clip((np.log(CAP) - mu) / SIGMA, -CUT, CUT)[:, None]
    xi = np.concatenate(
        [(kink + CUT) / 2 * (nodes + 1) - CUT, (CUT - kink) / 2 * (nodes + 1) + kink], 1
    )
    weight = np.concatenate([(kink + CUT) * weights, (CUT - kink) * weights], 1)
    weight = weight * np.exp(-(xi**2) / 2)
    return np.minimum(CAP, np.exp(mu[:, None] + SIGMA * xi)), weight / weight.sum(1, keepdims=True)
