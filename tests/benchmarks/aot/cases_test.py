import pytest

from benchmarks.aot.cases import PARAMETERS, default_cases, parse_case


def test_a_case_has_its_sizes_and_defaults():
    case = parse_case("top_k:V=1e5,B=256,k=100")
    assert case.options == {"V": 100_000, "B": 256, "k": 100, "D": 64, "precision": "highest"}
    assert parse_case(str(case)) == case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topk:V=3", "expected top_k or another of"),
        ("ranks:V=10", "without B; expected all of V, B, D, precision"),
        ("ranks:V=10,B=2,C=3", "has 'C=3'; expected NAME=VALUE"),
        ("ranks:V=10,B=2,B=3", "has 'B=3'; expected NAME=VALUE, once"),
        ("ranks:V=10,B", "has 'B'; expected NAME=VALUE"),
        ("ranks:V=1.5,B=2", "V of case ranks is '1.5'; expected a whole number of at least 1"),
        ("ranks:V=0,B=2", "V of case ranks is '0'"),
        ("ranks:V=nan,B=2", "V of case ranks is 'nan'"),
        ("ranks:V=inf,B=2", "V of case ranks is 'inf'"),
        ("ranks:V=many,B=2", "V of case ranks is 'many'"),
    ],
)
def test_a_malformed_case_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match="expected") as error:
        parse_case(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_default_cases_cover_every_kind_once():
    cases = default_cases()
    assert {case.kind for case in cases} == set(PARAMETERS)
    assert len(set(map(str, cases))) == len(cases)
