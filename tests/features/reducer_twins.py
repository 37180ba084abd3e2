"""What each reducer is, said slowly: from the list of the events that a state has taken. The oracle of tests/features/test_reducers.py."""

import math

INF = float("inf")


class Twin:
    """A state as its events (x, y, token, ts), with the time to live of the definition."""

    def __init__(self, name, ttl_ms=INF, window_ms=0.0, tiles=16, half_life_ms=0.0, **given):
        self.name, self.ttl_ms, self.half_life_ms, self.given = name, ttl_ms, half_life_ms or INF, given
        self.window_ms, self.tiles = window_ms, tiles
        self.events, self.newest = [], None

    def fold(self, x, y, token, ts):
        if self.newest is not None and ts > self.newest + self.ttl_ms:
            self.events = []
        elif self.newest is not None and ts < self.newest - self.ttl_ms:
            return
        self.events.append((x, y, token, ts))
        self.newest = ts if self.newest is None else max(ts, self.newest)

    def read(self, ts, default):
        if self.newest is None or ts > self.newest + self.ttl_ms:
            return default
        return getattr(self, self.name)(max(ts, self.newest))

    def weight(self, since, ts):
        return 1.0 if self.half_life_ms == INF else 2.0 ** (-(ts - since) / self.half_life_ms)

    def total(self, amounts, ts):
        """amounts: (amount, ts). Of the window's tiles, or all, each halved."""
        if self.window_ms:
            size = self.window_ms / self.tiles
            return sum(amount for amount, at in amounts if math.floor(ts / size) - self.tiles < math.floor(at / size))
        return sum(amount * self.weight(at, ts) for amount, at in amounts)

    def count(self, ts):
        return self.total([(1.0, at) for *_, at in self.events], ts)

    def sum(self, ts):
        return self.total([(x, at) for x, _, _, at in self.events], ts)

    def ratio(self, ts):
        prior, weight = self.given.get("prior", 0.0), self.given.get("weight", 1.0)
        return (self.sum(ts) + prior * weight) / (self.total([(y, at) for _, y, _, at in self.events], ts) + weight)

    def mean(self, ts):
        return sum(x * self.weight(at, ts) for x, _, _, at in self.events) / sum(self.weight(at, ts) for *_, at in self.events)

    def variance(self, ts):
        mean = self.mean(ts)
        return (sum((x - mean) ** 2 * self.weight(at, ts) for x, _, _, at in self.events)
                / sum(self.weight(at, ts) for *_, at in self.events))

    def last_n(self, ts):
        newest = {}
        for _, _, token, at in self.events:
            newest[token] = max(at, newest.get(token, at))
        return [token for _, token in sorted(((at, token) for token, at in newest.items()), reverse=True)][: int(self.given["n"])]

    def first_time(self, ts):
        return (ts - min(at for *_, at in self.events)) / 1000

    def last_time(self, ts):
        return (ts - self.newest) / 1000

    def distinct(self, ts):
        return len({token for _, _, token, _ in self.events})

    def weights(self, ts):
        weights = {}
        for x, _, token, at in self.events:
            weights[token] = weights.get(token, 0.0) + x * self.weight(at, ts)
        return weights

    def top_n(self, ts):
        ordered = sorted(((weight, token) for token, weight in self.weights(ts).items()), reverse=True)
        return [token for _, token in ordered][: int(self.given["n"])]

    def lookup(self, ts):
        return max((at, x) for x, _, _, at in self.events)[1]

    def lookup_id(self, ts):
        return [max((at, token) for _, _, token, at in self.events)[1]]
