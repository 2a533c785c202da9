"""What a run says: its verdicts follow from the tests, whatever these found."""

from experiments.reporting import answers

RECALL = {"Student": 0.06, "Random": 0.09, "ALKDRec": 0.1, "Shuffled lists": 0.06, "Markov": 0.2, "Popularity": 0.01}
QUALITY = {
    "teacher": "simulated",
    "selections": {"ALKDRec": {"effective": 0.25}, "Random": {"effective": 0.125}},
}


def difference(method, against, p_value, *, sign=1, metric="recall@10"):
    return {
        "method": method,
        "against": against,
        "metric": metric,
        "difference": sign * 0.04,
        "interval": [sign * 0.04 - 0.01, sign * 0.04 + 0.01],
        "p_randomization_holm": p_value,
    }


def results(*tests):
    return {"methods": {name: {"recall@10": {"mean": mean}} for name, mean in RECALL.items()}, "tests": tests}


def test_each_question_is_answered_by_its_test():
    tests = (
        difference("ALKDRec", "Student", 0.9, metric="ndcg@10"),
        difference("ALKDRec", "Student", 0.0004),
        difference("Shuffled lists", "Student", 1.0),
        difference("ALKDRec", "Random", 0.3),
        difference("ALKDRec", "Markov", 0.01, sign=-1),
    )
    lists, selection, counting = answers.answers(results(*tests), QUALITY)
    assert (lists.verdict, selection.verdict, counting.verdict) == (
        "Yes.",
        "No significant difference.",
        "No: it is worse.",
    )
    assert lists.details[0] == (
        "recall@10 of the student is 0.0600 before and 0.1000 after the lists: difference +0.0400, "
        "95 % interval over sessions +0.0300 to +0.0500, uncorrected, p < 0.001 after Holm."
    )
    assert lists.details[1].startswith("Shuffled lists, a control without the lists' content, reaches 0.0600")
    assert "25.0% of those for ALKDRec's sessions and 12.5% of the random ones" in selection.details[1]
    assert "simulated LLM" in selection.details[2]
    assert (
        "The best of 2 training-free methods on these test sessions, Markov, has recall@10 0.2000"
        in counting.details[0]
    )


def test_a_selection_that_is_worse_than_chance_is_named_so():
    (selection,) = answers.answers(results(difference("ALKDRec", "Random", 0.01, sign=-1)), QUALITY)
    assert selection.verdict == "Yes: a random choice is better."
    assert len(selection.details) == 2


def test_a_control_that_kept_the_plain_student_says_so():
    control = difference("Shuffled lists", "Student", 1.0) | {"difference": 0.0, "interval": [0.0, 0.0]}
    (lists,) = answers.answers(results(difference("ALKDRec", "Student", 0.2), control), QUALITY)
    assert lists.details[1].endswith(
        "reaches 0.0600: the same hits in every session, since training keeps the plain "
        "student where no step improves validation."
    )


def test_a_run_answers_only_what_it_tested():
    assert answers.answers(results(), QUALITY) == []
    own = QUALITY | {"teacher": "openai"}
    (selection,) = answers.answers(results(difference("ALKDRec", "Random", None)), own)
    assert selection.verdict == "Not tested."
    assert "after Holm" not in selection.details[0]
    assert not [sentence for sentence in selection.details if "simulated" in sentence]
