"""Answers in the styles of models and the wrappings of servers, with titles that look like lists, labels and numbers.

The wrappings are those of the chat templates that llama.cpp's server knows, of the providers that litellm translates,
and of public reports; they were written down from these, not from the reader.
"""

import json
import random

from alkd_jax.llm import prompts

HOSTILE = (
    "1942",
    "300",
    "7 Wonders",
    "Halo 3",
    "C05",
    "C00, C01, C02",
    "'C00' 'C01' 'C02' 'C03'",
    "1. C02",
    "#1 C03",
    "[1] Doom",
    '{"ranking": ["C04", "C03", "C02", "C01", "C00"]}',
    '["C02", "C01"]',
    "Se7en (1995)",
    "Rank 1: C09",
    "C07: the movie",
    "10,000 BC",
    "2",
    "3",
    "12",
    "The 1st | 2nd",
    "Final ranking: C03, C02, C01",
    "</think> C04",
    "Vitamin C 12",
    "x (C06)",
    "Wait Until Dark",
    "Jupiter Ascending",
    "Catch-22",
    "Toy Story",
    "Toy Story 2",
    'Who\'s Afraid of "C"?',
    "C",
    "C0",
    "Answer: {'C01': 1, 'C02': 2}",
    "Not another list",
    "Reversed",
    "Excluded",
    "a, b, c",
    "- C08",
    "| C03 | 1 |",
    "```json",
    "Best of 2010 - C11",
    "No. 1",
    "1984",
    "9",
    "21 Grams (C04, C05)",
    "é è ü",
    "Ωmega",
    "(no title)",
    "The End.",
    "A; B; C01",
)
"""Titles whose text looks like a part of an answer."""


def _lines(form):
    return lambda order, rng: "\n".join(form(n, label, title) for n, (label, title) in enumerate(order, 1))


def _shuffled(order, rng):
    ranked = [(n, label, title) for n, (label, title) in enumerate(order, 1)]
    rng.shuffle(ranked)
    return ranked


def _objects(*names):
    def style(order, rng):
        rows = []
        for n, (label, title) in enumerate(order, 1):
            values = {"id": label, "label": label, "candidate": label, "candidate_id": label, "item": label, "rank": n}
            values |= {
                "position": n,
                "title": title,
                "name": title,
                "reason": f"close to {title}",
                "score": 1 - n / 100,
            }
            rows.append({name: values[name] for name in names})
        return json.dumps({"ranking": rows})

    return style


def _dump(value, rng):
    indent = rng.choice((None, None, 2))
    return json.dumps(value, indent=indent, ensure_ascii=rng.random() < 0.5)


JSON_STYLES = {
    "as asked": lambda o, r: _dump({"ranking": [label for label, _ in o]}, r),
    "bare list": lambda o, r: _dump([label for label, _ in o], r),
    "another name": lambda o, r: _dump({r.choice(("result", "items", "ranked_ids", "answer")): [a for a, _ in o]}, r),
    "nested": lambda o, r: _dump({"answer": {"ranking": [a for a, _ in o]}}, r),
    "in a list": lambda o, r: _dump([{"ranking": [a for a, _ in o]}], r),
    "reasoning first": lambda o, r: _dump({"reasoning": f"{o[-1][0]} then {o[0][0]}", "ranking": [a for a, _ in o]}, r),
    "explanation after": lambda o, r: _dump({"ranking": [a for a, _ in o], "explanation": o[3][1]}, r),
    "draft first": lambda o, r: _dump({"draft": [a for a, _ in reversed(o)], "ranking": [a for a, _ in o]}, r),
    "lower case": lambda o, r: _dump({"ranking": [a.lower() for a, _ in o]}, r),
    "short": lambda o, r: _dump({"ranking": [f"C{int(a[1:])}" for a, _ in o]}, r),
    "dashes": lambda o, r: _dump({"ranking": [f"C-{a[1:]}" for a, _ in o]}, r),
    "spaces": lambda o, r: _dump({"ranking": [f"C {a[1:]}" for a, _ in o]}, r),
    "nouns": lambda o, r: _dump({"ranking": [f"Candidate {a}" for a, _ in o]}, r),
    "id=": lambda o, r: _dump({"ranking": [f"id={a}" for a, _ in o]}, r),
    "numbered": lambda o, r: _dump({"ranking": [f"{n}. {a}" for n, (a, _) in enumerate(o, 1)]}, r),
    "with titles": lambda o, r: _dump({"ranking": [f"{a}: {t}" for a, t in o]}, r),
    "with dashed titles": lambda o, r: _dump({"ranking": [f"{a} - {t}" for a, t in o]}, r),
    "titles first": lambda o, r: _dump({"ranking": [f"{t} ({a})" for a, t in o]}, r),
    "objects of ids": _objects("id"),
    "objects of labels": _objects("label"),
    "objects of candidates": _objects("candidate_id", "title"),
    "objects with titles": _objects("title", "id"),
    "objects with ranks": _objects("rank", "id", "title"),
    "objects with positions": _objects("candidate", "position", "reason"),
    "objects with scores": _objects("item", "score", "name"),
    "shuffled objects with ranks": lambda o, r: _dump(
        {"ranking": [{"id": a, "title": t, "rank": n} for n, a, t in _shuffled(o, r)]}, r
    ),
    "shuffled candidates with ranks": lambda o, r: _dump(
        [{"candidate": a, "rank": n} for n, a, _ in _shuffled(o, r)], r
    ),
    "ranks by label": lambda o, r: _dump({a: n for n, a, _ in _shuffled(o, r)}, r),
    "ranks by label inside": lambda o, r: _dump({"ranking": {a: n for n, a, _ in _shuffled(o, r)}}, r),
    "labels by rank": lambda o, r: _dump({str(n): a for n, a, _ in _shuffled(o, r)}, r),
    "labels by named rank": lambda o, r: _dump({"ranking": {f"rank_{n}": a for n, a, _ in _shuffled(o, r)}}, r),
    "titles by label": lambda o, r: _dump({"ranking": {a: t for a, t in o}}, r),
    "rows": lambda o, r: _dump({"ranking": [[n, a] for n, (a, _) in enumerate(o, 1)]}, r),
    "rows with titles": lambda o, r: _dump({"ranking": [[a, t] for a, t in o]}, r),
    "one text": lambda o, r: _dump({"ranking": ", ".join(a for a, _ in o)}, r),
    "one text with arrows": lambda o, r: _dump({"ranking": " > ".join(a for a, _ in o)}, r),
    "encoded twice": lambda o, r: json.dumps(json.dumps({"ranking": [a for a, _ in o]})),
    "encoded inside": lambda o, r: _dump({"answer": json.dumps({"ranking": [a for a, _ in o]})}, r),
    "a call": lambda o, r: _dump({"name": "rank", "arguments": {"ranking": [a for a, _ in o]}}, r),
    "trailing comma": lambda o, r: '{"ranking": [' + ", ".join(f'"{a}"' for a, _ in o) + ",]}",
    "single quotes": lambda o, r: str({"ranking": [a for a, _ in o]}),
    "bare name": lambda o, r: "{ranking: [" + ", ".join(f'"{a}"' for a, _ in o) + "]}",
    "smart quotes": lambda o, r: "{“ranking”: [" + ", ".join(f"“{a}”" for a, _ in o) + "]}",
    "comments": lambda o, r: '{\n  // best first\n  "ranking": [' + ", ".join(f'"{a}"' for a, _ in o) + "]\n}",
    "unclosed": lambda o, r: '{"ranking": [' + ", ".join(f'"{a}"' for a, _ in o),
    "lines of objects": lambda o, r: "\n".join(
        json.dumps({"rank": n, "id": a, "title": t}) for n, (a, t) in enumerate(o, 1)
    ),
    "in the schema": lambda o, r: _dump({"type": "object", "properties": {"ranking": [a for a, _ in o]}}, r),
}

TEXT_STYLES = {
    "numbered": _lines(lambda n, a, t: f"{n}. {a}"),
    "numbered with titles": _lines(lambda n, a, t: f"{n}. {a} - {t}"),
    "numbered with colons": _lines(lambda n, a, t: f"{n}) {a}: {t}"),
    "numbered bold": _lines(lambda n, a, t: f"**{n}. {a}**"),
    "numbered, bold labels": _lines(lambda n, a, t: f"{n}. **{a}** – {t}"),
    "numbered, titles first": _lines(lambda n, a, t: f"{n}. {t} ({a})"),
    "numbered, quoted titles first": _lines(lambda n, a, t: f'{n}. "{t}" [{a}]'),
    "rank n": _lines(lambda n, a, t: f"Rank {n}: {a}"),
    "#n": _lines(lambda n, a, t: f"#{n}: {a} ({t})"),
    "ordinals": _lines(lambda n, a, t: f"{n}{('st', 'nd', 'rd')[n - 1] if n < 4 else 'th'}: {a}"),
    "all ones": _lines(lambda n, a, t: f"1. {a} {t}"),
    "bullets": _lines(lambda n, a, t: f"- {a}"),
    "bullets with titles": _lines(lambda n, a, t: f"* {a}: {t}"),
    "bold bullets": _lines(lambda n, a, t: f"- **{a}** ({t})"),
    "titles first": _lines(lambda n, a, t: f"- {t} ({a})"),
    "plain lines": _lines(lambda n, a, t: a),
    "lines with titles": _lines(lambda n, a, t: f"{a} | {t}" if "|" not in t else f"{a}: {t}"),
    "candidates": _lines(lambda n, a, t: f"{n}. Candidate {a}"),
    "yaml of ranks": lambda o, r: "\n".join(f"- rank: {n}\n  id: {a}" for n, a, _ in _shuffled(o, r)),
    "yaml": lambda o, r: "ranking:\n" + "\n".join(f"  - {a}" for a, _ in o),
    "yaml of objects": lambda o, r: "\n".join(f"- id: {a}\n  rank: {n}" for n, a, _ in _shuffled(o, r)),
    "numbers in disorder": lambda o, r: "\n".join(f"{n}. {a}" for n, a, _ in _shuffled(o, r)),
    "countdown": lambda o, r: "\n".join(reversed([f"{n}. {a}" for n, (a, _) in enumerate(o, 1)])),
    "ranks behind": lambda o, r: "\n".join(f"{a}: {n}" for n, a, _ in _shuffled(o, r)),
    "named ranks behind": lambda o, r: "\n".join(f"{a} (rank {n})" for n, a, _ in _shuffled(o, r)),
    "commas": lambda o, r: ", ".join(a for a, _ in o),
    "intro and commas": lambda o, r: "My ranking: " + ", ".join(a for a, _ in o) + ".",
    "intro line and commas": lambda o, r: "Here is my ranking:\n" + ", ".join(a for a, _ in o),
    "arrows": lambda o, r: " > ".join(a for a, _ in o),
    "long arrows": lambda o, r: " → ".join(a for a, _ in o),
    "spaces": lambda o, r: " ".join(a for a, _ in o),
    "semicolons": lambda o, r: "; ".join(a for a, _ in o),
    "inline numbers": lambda o, r: " ".join(f"{n}. {a}" for n, (a, _) in enumerate(o, 1)),
    "ranks in a row": lambda o, r: ", ".join(f"{a} ({n})" for n, a, _ in _shuffled(o, r)),
    "quoted": lambda o, r: ", ".join(f'"{a}"' for a, _ in o),
    "table": lambda o, r: (
        "| Rank | ID | Title |\n|---|---|---|\n" + "\n".join(f"| {n} | {a} | {t} |" for n, (a, t) in enumerate(o, 1))
    ),
    "table by id": lambda o, r: (
        "| ID | Rank |\n|:--|--:|\n" + "\n".join(f"| {a} | {n} |" for n, a, _ in _shuffled(o, r))
    ),
    "table without header": lambda o, r: "\n".join(f"| {n} | {a} |" for n, (a, _) in enumerate(o, 1)),
    "csv": lambda o, r: "rank,id\n" + "\n".join(f"{n},{a}" for n, (a, _) in enumerate(o, 1)),
    "csv by id": lambda o, r: "id,rank\n" + "\n".join(f"{a},{n}" for n, a, _ in _shuffled(o, r)),
    "csv with titles": lambda o, r: (
        "rank,id,title\n" + "\n".join(f"{n},{a},{json.dumps(t)}" for n, (a, t) in enumerate(o, 1))
    ),
    "xml": lambda o, r: "<ranking>\n" + "\n".join(f"<item>{a}</item>" for a, _ in o) + "\n</ranking>",
    "xml with ranks": lambda o, r: "".join(f'<item rank="{n}">{a}</item>' for n, a, _ in _shuffled(o, r)),
}

TITLE_STYLES = {
    "titles in a list": lambda o, r: _dump({"ranking": [t for _, t in o]}, r),
    "numbered titles": _lines(lambda n, a, t: f"{n}. {t}"),
    "titles on lines": _lines(lambda n, a, t: t),
}

PROSE = (
    'The history shows a liking for series, so {a} ("{t}") and {b} stand out, while {c} is far away.',
    "Let me think about '{a}', '{b}' and '{c}'.\nFirst I compare {b} with {c}: {t} is nearer.\nHmm, {c} > {a}?",
    "Candidates: {all}\nThe last one watched was {t}.",
    'Draft: {{"ranking": ["{c}", "{b}", "{a}"]}}\nWait, {t} comes before that.',
    "1. {c}\n2. {b}\n3. {a}\nNo, the other way round. {t}",
    'Okay, so the user wants 5 ids. {{"ranking": ["C00", ...]}} is the format.',
    "{t}",
)

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("", "</think>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysis", "assistantfinal"),
    ("<|channel>thought\n", "<channel|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<reflection>", "</reflection>"),
    ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<start_working_out>", "<end_working_out>"),
    ("", "[BEGIN FINAL RESPONSE]\n"),
    ("<think>\n</think><think>", "</think>"),
    ("<analysis>", "</analysis>"),
    ("<Think>", "</Think>"),
    ("<scratchpad>", "</scratchpad>"),
)


def reasoning(labels, titles, rng):
    """Prose that names candidates and titles in any order."""
    a, b, c = rng.sample(labels, 3)
    parts = rng.sample(PROSE, rng.randint(1, 3))
    return "\n".join(p.format(a=a, b=b, c=c, t=rng.choice(titles), all=" ".join(map(repr, labels))) for p in parts)


def wrapped(text, kind, labels, titles, rng):
    """An answer within a wrapping of that kind."""
    thoughts = reasoning(labels, titles, rng)
    if kind == "tags":
        start, end = rng.choice(TAGS)
        return f"{start}{thoughts}{end}{rng.choice(('', chr(10), chr(10) * 2))}{text}"
    if kind == "fence":
        return f"```{rng.choice(('', 'json', 'text'))}\n{text}\n```"
    if kind == "intro and fence":
        return f"Here is the ranking:\n\n```\n{text}\n```\nI hope this helps!"
    if kind == "intro":
        return f"{rng.choice(('Sure!', 'Here is the final ranking:', 'Based on the history, I recommend:'))}\n\n{text}"
    if kind == "outro":
        return f"{text}\n\n{rng.choice(('Let me know if you need more.', 'These fit the history best.', 'Enjoy!'))}"
    if kind == "end marks":
        return text + rng.choice(("<|im_end|>", "<|eot_id|>", "</s>", "<|return|>", "<end_of_turn>"))
    if kind == "answer tags":
        return f"<think>{thoughts}</think>\n<answer>\n{text}\n</answer>"
    if kind == "byte order mark":
        return "\ufeff" + text
    return text


WRAPPINGS = (
    "none",
    "tags",
    "fence",
    "intro and fence",
    "intro",
    "outro",
    "end marks",
    "answer tags",
    "byte order mark",
)


def case(seed):
    """One answer with its question and its true order, all drawn from the seed.

    Returns:
        Question, name of style and wrapping, text, and the true list of items.
    """
    rng = random.Random(seed)
    size, k = rng.choice(((8, 5), (12, 5), (20, 12), (50, 25)))
    titles = [f"Title {n}" for n in rng.sample(range(500), size)]
    for place, title in zip(rng.sample(range(size), size // 2), rng.sample(HOSTILE, size // 2), strict=True):
        titles[place] = title
    prompt = prompts.RankingPrompt(3, (1,), tuple(range(2, size + 2)), k)
    question = prompts.ranking_question(prompt, prompts.ITEMS, ("", rng.choice(HOSTILE), *titles), seed=seed)
    labels = [f"C{n:02d}" for n in range(size)]
    order = rng.sample(range(size), k)
    group = rng.choices((JSON_STYLES, TEXT_STYLES, TITLE_STYLES), (5, 5, 1))[0]
    style, kind = rng.choice(sorted(group)), rng.choice(WRAPPINGS)
    text = group[style]([(labels[n], question.titles[n]) for n in order], rng)
    text = wrapped(text, kind, labels, list(question.titles), rng)
    return question, f"{style} / {kind}", text, tuple(question.candidates[n] for n in order)
