import pytest

from experiments.pipeline import distributed
from experiments.pipeline.distributed import Address, parse_address


def test_an_address_names_the_leading_process_and_this_one():
    assert parse_address("auto") is None
    assert parse_address("10.0.0.1:8476,4,3") == Address("10.0.0.1:8476", 4, 3)
    assert parse_address("[::1]:80,1,0") == Address("[::1]:80", 1, 0)


@pytest.mark.parametrize(
    "text", ["", "Auto", "host", "host:80", "host:80,2", "host,2,0", ":80,2,0", "host:0,2,0", "host:65536,2,0"]
)
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r"--distributed is '.*'; expected auto, or HOST:PORT,COUNT,INDEX such as"):
        parse_address(text)


@pytest.mark.parametrize("text", ["host:80,0,0", "host:80,2,-1", "host:80,²,0", "host:80,2,0,1"])
def test_other_numbers_are_refused(text):
    with pytest.raises(ValueError, match="--distributed is"):
        parse_address(text)


def test_an_index_is_below_the_count():
    with pytest.raises(ValueError, match="expected an index below the count of 2 processes"):
        parse_address("host:80,2,2")


def test_a_single_process_leads_and_tells_nobody():
    assert distributed.leads()
    distributed.tell({"call": "nothing"})
