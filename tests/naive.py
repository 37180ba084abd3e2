"""Slow, obvious twins of the kernels and structures: what the tests compare with."""

from __future__ import annotations

import math
import struct

import numpy as np

# ann/


class NearestByScan:
    """Vectors by inner product in a dictionary."""

    def __init__(self):
        self.vectors, self.sequences = {}, {}

    def upsert(self, name, vector, sequence):
        if sequence < self.sequences.get(name, -1):
            return False
        self.sequences[name] = sequence
        self.vectors[name] = vector
        return True

    def delete(self, name, sequence):
        if sequence < self.sequences.get(name, -1):
            return False
        self.sequences[name] = sequence
        self.vectors.pop(name, None)
        return True

    def search(self, query, k, exclude=()):
        """[(score, id)], best first."""
        scores = [(float(np.dot(vector, query)), name) for name, vector in self.vectors.items() if name not in exclude]
        return sorted(scores, key=lambda pair: -pair[0])[:k]


# headrace/watch/


def psi_of(before, now, edges):
    """Population stability index of two lists of numbers by bins (.., e0], (e0, e1], .. (last, ..), half a sample added to each bin."""

    def shares(values):
        counts = [0.5] * (len(edges) + 1)
        for value in values:
            place = 0
            while place < len(edges) and value > edges[place]:
                place += 1
            counts[place] += 1
        return [count / sum(counts) for count in counts]

    return sum((q - p) * math.log(q / p) for p, q in zip(shares(before), shares(now), strict=True))


# ps/


def ps_sgd(w, g, learning_rate, l2=0.0):
    """One coordinate, one step, in float64."""
    return w - learning_rate * (g + l2 * w)


def ps_adagrad(w, n, g, learning_rate, epsilon=1e-8, l2=0.0, squares=None):
    """(w, n) of one coordinate after one step: Duchi et al., diagonal. `squares`: of the samples whose gradients g is the sum of."""
    n = n + (g + l2 * w) ** 2 if squares is None else n + squares + (l2 * w) ** 2
    g = g + l2 * w
    return w - learning_rate * g / (n**0.5 + epsilon), n


def ps_momentum(w, v, g, rate, momentum, l2):
    v = momentum * v + g + l2 * w
    return w - rate * v, v


def ps_adam(w, m, v, g, steps, rate, beta1, beta2, epsilon, l2):
    """Kingma and Ba's algorithm 1 at the `steps`-th step of this row."""
    g = g + l2 * w
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return w - rate * (m / (1 - beta1**steps)) / (math.sqrt(v / (1 - beta2**steps)) + epsilon), m, v


def ps_ftrl(z, n, g, alpha, beta, l1, l2, squares=None):
    """(z, n) of one coordinate after one step: McMahan et al. 2013, algorithm 1; `squares` as above."""
    square = g * g if squares is None else squares
    sigma = ((n + square) ** 0.5 - n**0.5) / alpha
    return z + g - sigma * ps_ftrl_weight(z, n, alpha, beta, l1, l2), n + square


def ps_ftrl_weight(z, n, alpha, beta, l1, l2):
    """The weight that (z, n) stand for."""
    if abs(z) <= l1:
        return 0.0
    return -(z - (1 if z > 0 else -1) * l1) / ((beta + n**0.5) / alpha + l2)


def ps_mix(key):
    """MurmurHash3's finalizer, in Python's integers."""
    mask = (1 << 64) - 1
    key = (key ^ (key >> 33)) * 0xFF51AFD7ED558CCD & mask
    key = (key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53 & mask
    return key ^ (key >> 33)


class PsLedger:
    """What exactly once means: a cause counts once, and an integer table is the sum over its causes."""

    def __init__(self):
        self.applied = set()
        self.counts = {}

    def push(self, effect, causes, keys_by_cause):
        """causes: tuples; keys_by_cause: {cause: list of keys}. The status, and nothing changed unless it is "applied"."""
        known = [(effect, cause) in self.applied for cause in causes]
        if all(known):
            return "duplicate"
        if any(known):
            return "recut"
        for cause in causes:
            self.applied.add((effect, cause))
            for key in keys_by_cause[cause]:
                self.counts[key] = self.counts.get(key, 0) + 1
        return "applied"


# features/


class Features:
    """freeze_and_fold on dicts, an event at a time: what a user and an item are, then the event put into them."""

    def __init__(self, half_life_s, idle_s=math.inf):
        self.half_life_ms, self.idle_ms = half_life_s * 1000, idle_s * 1000
        self.users, self.items, self.answers, self.sequence, self.retries = {}, {}, {}, 0, 0
        self.shown = self.clicked = self.newest_ms = 0  # of everybody

    def event(self, cause, ts_ms, action, user, item, event, user_fields, item_fields, context, served):
        """(keys, values, numbers, sequence, status) of one event."""
        if cause in self.answers:
            *answer, status = self.answers[cause]
            return (*answer, 2 if status == 2 else 1)
        new_user = {"log": [], "recent": [], "clicked": [], "events": [], "fields": (0,) * 4, "as_of": 0}
        new_item = {"log": [], "fields": (0,) * 6, "as_of": 0}
        u, i = self.users.get(user, new_user), self.items.get(item, new_item)
        before = self.sequence
        if event and event in u["events"][-64:]:
            self.retries += 1
            self.answers[cause] = (None, None, None, before, 2)
            return self.answers[cause]
        u, i = self.alive(u, ts_ms) or new_user, self.alive(i, ts_ms) or new_item
        self.users[user], self.items[item] = u, i
        u["fields"] = tuple(user_fields) if any(user_fields) else u["fields"]
        i["fields"] = tuple(item_fields) if any(item_fields) else i["fields"]
        frozen = (None, None, None)
        if action == 1 and not served:
            frozen = self.sample(user, item, context, ts_ms)
        rate = self.rate(i)
        for row in (u, i):
            row["log"].append((ts_ms, action, rate))
        self.shown += action == 1
        self.clicked += 2 <= action <= 6
        if action == 1 and u["recent"][-1:] != [item]:
            u["recent"].append(item)
        if 2 <= action <= 6 and u["clicked"][-1:] != [item]:
            u["clicked"].append(item)
        if event:
            u["events"].append(event)
        self.sequence += 1
        self.newest_ms = max(self.newest_ms, ts_ms)
        self.answers[cause] = (*frozen, before, 0)
        return self.answers[cause]

    def sample(self, user, item, context, ts_ms):
        """Keys, values and numbers by slot, from the whole log of each row."""
        from headrace.features.layout import NUMBERS, SLOTS
        from headrace.schemas.hashing import feature_key

        u, i = self.alive(self.users.get(user, {}), ts_ms), self.alive(self.items.get(item, {}), ts_ms)
        found = {"bias": feature_key("bias", "")}
        found |= {f"context.{n}": key for n, key in enumerate(context)}
        numbers, lifts = dict.fromkeys(NUMBERS, 0.0), {}
        for name, key, row in (("user", user, u), ("item", item, i)):
            if not key:
                continue
            found[f"{name}_id"] = key
            found |= {f"{name}.{n}": key for n, key in enumerate(row.get("fields", ()))}
            log = row.get("log", [])
            shown, clicked = self.decayed(log, {1}, ts_ms), self.decayed(log, {2, 3, 4, 5, 6}, ts_ms)
            ratio = min(1.0, (clicked + 5.0 * self.prior()) / (shown + 5.0))
            numbers |= {f"{name}_impressions": shown, f"{name}_clicks": clicked, f"{name}_ctr": ratio}
            if name == "user":
                lift = self.offset(log, lambda before, t: 8.0 / (5.0 + self.decayed(before, {1}, t)))
                lifts |= {"user_lift": 2 * lift, "user_streak": self.offset(log, lambda before, t: 1.0)}
            elif log:
                lifts["item_lift"] = max(-4.0, min(4.0, log_odds(self.rate(row)) - log_odds(self.prior())))
            found[f"{name}_count"] = bucket(f"{name}_count", int(math.log2(1 + sum(action == 1 for _, action, _ in log))))
            slot, number = ("user_recency", "user_recency_s") if name == "user" else ("item_age", "item_age_s")
            numbers[number] = -1.0
            if log:
                since = max(t for t, *_ in log) if name == "user" else min(t for t, *_ in log)
                numbers[number] = max(0.0, (ts_ms - since) / 1000)
                if name == "user":
                    lifts["user_recency"] = (math.log2(1 + numbers[number]) - 8) / 4
                else:
                    found[slot] = bucket(slot, int(math.log2(1 + numbers[number])))
        for n, clicked in enumerate(reversed(u.get("clicked", [])[-3:])):
            found[f"last_click.{n}"] = bucket("last_click", clicked)
        keys = [found.get(slot) or feature_key(slot, "") for slot in SLOTS]
        values = [lifts.get(slot, (0.125 if "last" in slot else 1.0) if found.get(slot) else 0.0) for slot in SLOTS]
        return keys, values, list(numbers.values())

    def alive(self, row, ts_ms):
        """The row, unless it was without an event for too long."""
        return {} if row.get("log") and ts_ms - max(t for t, *_ in row["log"]) > self.idle_ms else row

    def decayed(self, log, actions, ts_ms):
        """Each event halves from its own time to the newest event or the reading, whichever is later."""
        if not log:
            return 0.0
        at = max([ts_ms, *(t for t, *_ in log)])
        return sum(2.0 ** (-(at - t) / self.half_life_ms) for t, action, _ in log if action in actions)

    def prior(self):
        """Clicks per impression of everybody."""
        return min(1.0, (self.clicked + 0.5) / (self.shown + 5.0))

    def rate(self, item):
        """An item's clicks per impression, all its events alike."""
        actions = [action for _, action, _ in item.get("log", [])]
        clicked, shown = sum(2 <= action <= 6 for action in actions), actions.count(1)
        return min(1.0, (clicked + 5.0 * self.prior()) / (shown + 5.0))

    def offset(self, log, step):
        """Log-odds of the user above those of the items shown: an impression takes off step times what was expected, a click adds step."""
        offset = 0.0
        for n, (t, action, rate) in enumerate(log):
            if action == 1:
                offset -= step([*log[:n], (t, 1, 0.0)], t) / (1 + math.exp(-log_odds(rate) - offset))
            elif 2 <= action <= 6:
                offset += step(log[:n], t)
            offset = max(-4.0, min(4.0, offset))
        return offset


def log_odds(ratio):
    """Of a ratio held away from 0 and 1."""
    ratio = max(1e-6, min(1 - 1e-6, ratio))
    return float(np.log(ratio / (1 - ratio)))


def bucket(slot, number):
    from headrace.schemas.hashing import feature_key

    return bucket_of(feature_key(slot, ""), number)


def bucket_of(seed, number):
    """splitmix64 in Python's integers."""
    mask = (1 << 64) - 1
    x = seed ^ ((number + 1) * 0x9E3779B97F4A7C15 & mask)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


class AvroReader:
    """Avro's binary encoding, read by the specification and as strictly as it can be: `read` gives the value or raises ValueError.

    `framed` tells afterwards whether an array or a map came in sized or several blocks: the one freedom that an encoder has.
    """

    def __init__(self, schema, data):
        self.schema, self.data, self.at, self.framed, self.named = schema, data, 0, False, {}

    def read(self):
        value = self.value(self.schema)
        if self.at != len(self.data):
            raise ValueError("bytes are left")
        return value

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("bytes are missing")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, bits=64):
        digits = []
        while not digits or digits[-1] >= 128:
            digits.append(self.take(1)[0])
            if len(digits) > 10:
                raise ValueError("a long varint")
        if len(digits) > 1 and digits[-1] == 0:
            raise ValueError("a padded varint")
        unsigned = sum((digit % 128) * 128**place for place, digit in enumerate(digits))
        signed = unsigned // 2 if unsigned % 2 == 0 else -(unsigned // 2) - 1
        if not -(2 ** (bits - 1)) <= signed < 2 ** (bits - 1):
            raise ValueError("out of range")
        return signed

    def value(self, schema):
        if isinstance(schema, list):
            branch = self.number()
            if not 0 <= branch < len(schema):
                raise ValueError("no such branch")
            return self.value(schema[branch])
        if isinstance(schema, str):
            return self.value(self.named[schema]) if schema in self.named else self.primitive(schema)
        kind = schema["type"]
        if kind == "record":
            self.named[schema["name"]] = schema
            return {field["name"]: self.value(field["type"]) for field in schema["fields"]}
        if kind == "array":
            return self.items(lambda: self.value(schema["items"]))
        if kind == "map":
            pairs = self.items(lambda: (self.primitive("string"), self.value(schema["values"])))
            if len(dict(pairs)) != len(pairs):
                raise ValueError("a key twice")
            return dict(pairs)
        return self.value(kind)

    def items(self, one):
        found, blocks = [], 0
        while count := self.number():
            ends = None
            if count < 0:
                self.framed, count = True, -count
                size = self.number()
                if size < 0:
                    raise ValueError("a block of no size")
                ends = self.at + size
            found += [one() for _ in range(count)]  # every item takes a byte, so a lie about the count ends with the data
            blocks += 1
            if ends not in (None, self.at):
                raise ValueError("a block of another size")
        self.framed |= blocks > 1
        return found

    def primitive(self, kind):
        if kind == "null":
            return None
        if kind == "boolean":
            return {0: False, 1: True}[self.take(1)[0]] if self.data[self.at : self.at + 1] in (b"\x00", b"\x01") else self.wrong()
        if kind in ("int", "long"):
            return self.number(32 if kind == "int" else 64)
        if kind in ("float", "double"):
            number = struct.unpack("<f" if kind == "float" else "<d", self.take(4 if kind == "float" else 8))[0]
            return number if math.isfinite(number) else self.wrong()
        data = self.take(self.number())
        return data.decode() if kind == "string" else data

    def wrong(self):
        raise ValueError("no value of its type")


def quantized(row):
    """(8-bit numbers, scale) of a row of finite float32, by the definition, in float32 arithmetic."""
    scale = np.float32(max((abs(value) for value in row), default=np.float32(0)) / np.float32(127))
    if scale < np.finfo(np.float32).tiny:
        return [0] * len(row), np.float32(0)
    return [int(min(max(np.rint(np.float32(value / scale)), -127), 127)) for value in row], scale
