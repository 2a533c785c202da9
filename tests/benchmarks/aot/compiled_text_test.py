import jax
import jax.numpy as jnp
import pytest

from benchmarks.aot.compiled_text import ArrayShape, CompiledText
from tests.helpers.compiled_texts import LOOP


def test_instructions_have_operation_shape_operands_and_cycles():
    text = CompiledText.parse(LOOP)
    assert text.entry == "main"
    copied, values = text.by_name["copied"], text.by_name["values"]
    assert (copied.op, copied.operands, copied.cycles, copied.num_bytes) == ("copy", ("table.1",), 300, 8 * 4 * 4)
    assert values.op == "custom-call:TopK"
    assert values.arrays == (ArrayShape("f32", (8, 2)), ArrayShape("s32", (8, 2)))
    assert values.short_shape == "f32[8,2], s32[8,2]"
    assert text.by_name["rows.1"].called == ("gathering",)


def test_a_loop_runs_as_often_as_its_condition_says():
    text = CompiledText.parse(LOOP)
    assert text.trips(text.by_name["loop"]) == 20


@pytest.mark.parametrize(
    "line",
    [
        "  %other = pred[] compare(%counter, %counter), direction=NE\n",
        "  %both = pred[] and(%counter, %counter)\n",
    ],
)
def test_the_trips_of_a_loop_with_a_further_condition_are_unknown(line):
    text = CompiledText.parse(LOOP.replace("  ROOT %less", f"{line}  ROOT %less"))
    assert text.trips(text.by_name["loop"]) is None


def test_an_annotated_number_of_trips_is_taken():
    annotated = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    text = CompiledText.parse(LOOP.replace("body=%body\n", f"{annotated}\n"))
    assert text.trips(text.by_name["loop"]) == 7


def test_the_text_of_a_program_compiled_here_is_parsed():
    def steps(x):
        return jax.lax.fori_loop(0, 6, lambda _, y: jnp.sin(y) @ y, x)

    text = CompiledText.parse(jax.jit(steps).lower(jnp.ones((5, 5))).compile().as_text())
    loops = [instruction for instruction in text.walk() if instruction.op == "while"]
    assert [text.trips(loop) for loop in loops] == [6]
    assert any("dot" in i.op for i in text.walk())


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation; expected the text of a compiled program"):
        CompiledText.parse("HloModule nothing")
