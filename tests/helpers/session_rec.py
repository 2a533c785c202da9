"""The methods of session-rec in plain loops over sessions and items, as their definitions say it.

A training session is ``(items, time)``, its items in time order and the time of its last event in days. A history is a
list of items. Scores are ``{item: score}``.
"""

import math
from collections import Counter, defaultdict

WEIGHTS = {
    "same": lambda i: 1.0,
    "div": lambda i: 1 / i,
    "linear": lambda i: 1 - 0.1 * i,
    "log": lambda i: 1 / math.log10(i + 1.7),
    "quadratic": lambda i: 1 / i**2,
}
PLACES = {
    "same": lambda n, length: 1.0,
    "div": lambda n, length: n / length,
    "linear": lambda n, length: max(1 - 0.1 * (length - n), 0.0),
    "log": lambda n, length: 1 / math.log10(length - n + 1.7),
    "quadratic": lambda n, length: (n / length) ** 2,
}


def sequential_rules(train, *, steps, weighting, pruning):
    rules = defaultdict(dict)
    for items, _ in train:
        for later, item in enumerate(items):
            for i in range(1, min(steps, later) + 1):
                rule = rules[items[later - i]]
                rule[item] = rule.get(item, 0.0) + WEIGHTS[weighting](i)
    return pruned(rules, pruning)


def association_rules(train, *, pruning):
    rules = defaultdict(dict)
    for items, _ in train:
        for later, item in enumerate(items):
            for other in items[:later]:
                rules[other][item] = rules[other].get(item, 0) + 1
                rules[item][other] = rules[item].get(other, 0) + 1
    return pruned(rules, pruning)


def pruned(rules, pruning):
    """Python's sort is stable, and a dict keeps the order in which its keys were first met."""
    return {
        item: dict(sorted(rule.items(), key=lambda entry: -entry[1])[: pruning or None]) for item, rule in rules.items()
    }


def rule_scores(rules, history, *, last_in_session=0, weighting="div"):
    scores = Counter(rules.get(history[-1], {}))
    for i in range(2, last_in_session + 2):
        if len(history) >= i:
            for item, strength in rules.get(history[-i], {}).items():
                scores[item] += WEIGHTS[weighting](i) * strength
    return scores


def sample(train, history, sample_size):
    """The most recent sessions with an item of the history; of equal times, the later ones in the data."""
    found = [n for n, (items, _) in enumerate(train) if set(items) & set(history)]
    return sorted(found, key=lambda n: (train[n][1], n), reverse=True)[: sample_size or None]


def nearest(similarities, k):
    return sorted(similarities, key=lambda entry: -round(entry[1], 13))[:k]


def inverse_frequency(train, *, rescaled):
    clicks = Counter(item for items, _ in train for item in items)
    idf = {item: math.log(len(train) / count) for item, count in clicks.items()}
    low, high = min(idf.values()), max(idf.values())
    return {item: (value - low) / (high - low) for item, value in idf.items()} if rescaled else idf


def sknn(train, history, *, k, sample_size):
    similarities = []
    for n in sample(train, history, sample_size):
        items = set(train[n][0])
        similarities.append((n, len(items & set(history)) / math.sqrt(len(items) * len(set(history)))))
    scores = Counter()
    for n, similarity in nearest(similarities, k):
        for item in set(train[n][0]):
            scores[item] += similarity
    return scores


def vsknn(train, history, *, k, sample_size, weighting, weighting_score, idf_weighting):
    weight = {item: PLACES[weighting](n, len(history)) for n, item in enumerate(history, 1)}
    idf = inverse_frequency(train, rescaled=True)
    similarities = []
    for n in sample(train, history, sample_size):
        shared = set(train[n][0]) & set(history)
        similarities.append((n, sum(weight[item] for item in shared) / len(weight)))
    scores = Counter()
    for n, similarity in nearest([entry for entry in similarities if entry[1] > 0], k):
        items = set(train[n][0])
        step = next(step for step, item in enumerate(reversed(history), 1) if item in items)
        for item in items:
            scores[item] += similarity * WEIGHTS[weighting_score](step) * (1 + idf_weighting * idf[item])
    return scores


def stan(train, history, now, *, k, sample_size, spw, snh, inh, ipw=None, idf_factor=0.0):
    """STAN, and V-STAN with the last two options; ``now`` is the time of the history's last item in days."""
    length = len(history)
    weight = {item: math.exp((n - length) / spw) for n, item in enumerate(history, 1)}
    idf = inverse_frequency(train, rescaled=False)
    similarities = []
    for n in sample(train, history, sample_size):
        items, time = set(train[n][0]), train[n][1]
        cosine = sum(weight[item] for item in items & set(history))
        cosine /= math.sqrt(sum(value**2 for value in weight.values()) * len(items))
        similarities.append((n, cosine * math.exp(-(now - time) / snh)))
    scores = Counter()
    for n, similarity in sorted(similarities, key=lambda entry: -entry[1])[:k]:
        items = train[n][0]
        last = {item: place for place, item in enumerate(items)}
        matched = max(place for place, item in enumerate(items) if item in weight)
        match = max(place for place, item in enumerate(history, 1) if item in last)
        for item, place in last.items():
            score = similarity * math.exp(-abs(place - matched) / inh) * (1 + idf_factor * idf[item])
            scores[item] += score * (math.exp((match - length) / ipw) if ipw else 1.0)
    return scores
