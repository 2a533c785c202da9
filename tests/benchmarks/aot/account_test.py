import pytest

from benchmarks.aot.account import account, as_json, pessimistic_seconds
from benchmarks.aot.compiled_text import CompiledText
from benchmarks.aot.targets import TARGETS
from tests.helpers.compiled_texts import LOOP

V5E, H100 = TARGETS["v5e"], TARGETS["h100"]
TABLE_BYTES = 8 * 4 * 4


def of(text, target=V5E, **options):
    return account(CompiledText.parse(text), target, table_bytes=TABLE_BYTES, **options)


def test_cycles_inside_a_loop_count_as_often_as_it_runs():
    assert of(LOOP).estimated_us == pytest.approx(1e6 * (20 * 300 + 50) / 1.5e9)


def test_operations_without_an_estimate_are_listed_with_their_calls_and_added_pessimistically():
    result = of(LOOP)
    assert result.uncosted == (
        ("gather", "f32[3,4]", 20),
        ("custom-call:TopK", "f32[8,2], s32[8,2]", 1),
    )
    # 3 rows of one tile of 4 KB each, 20 times; TopK of 8 x 4 numbers: 1 + 2 * 2 stages of 5 operations.
    gathers = 20 * 3 * 4096 / 819e9
    top_k = 8 * 4 * (1 + 2 * 2) * 5 / (1024 * 4 * 1.5e9)
    assert result.pessimistic_us - result.estimated_us == pytest.approx(1e6 * (gathers + top_k))


def test_copies_of_a_table_are_counted_inside_loops_and_outside():
    assert (of(LOOP).table_copies, of(LOOP).table_copies_in_loops) == (1, 1)
    smaller = account(CompiledText.parse(LOOP), V5E, table_bytes=TABLE_BYTES + 1)
    assert (smaller.table_copies, smaller.table_copies_in_loops) == (0, 0)


def test_kernels_are_those_of_one_step():
    # In the body: add, iota, fusion, copy.
    assert of(LOOP, H100, steps=20).kernels_per_step == 4
    # In the entry: the loop's twenty bodies and TopK.
    assert of(LOOP, H100).kernels_per_step == 20 * 4 + 1


def test_numbers_that_enter_a_sort_are_counted():
    assert of(LOOP).sorted_elements == 8 * 4
    sort = "  %values = (f32[8,4]{1,0}, f32[8,4]{1,0}) sort(%x, %x), dimensions={0}, to_apply=%condition\n"
    lines = [sort.rstrip("\n") if "TopK" in line else line for line in LOOP.splitlines()]
    assert of("\n".join(lines)).sorted_elements == 8 * 4


def test_the_price_of_a_sort_grows_with_its_length_and_its_operands():
    def seconds(shape, operands):
        lines = [
            f"  %values = ({', '.join([shape] * operands)}) sort({', '.join(['%x'] * operands)}), dimensions={{1}}"
            if "TopK" in line
            else line.replace("f32[8,4]{1,0} parameter(0)", f"{shape} parameter(0)")
            for line in LOOP.splitlines()
        ]
        text = CompiledText.parse("\n".join(lines))
        return pessimistic_seconds("sort", text.by_name["values"], text, V5E)

    assert seconds("f32[8,4]", 2) / seconds("f32[8,4]", 1) == pytest.approx(5 / 3)
    # log2 8 (log2 8 + 1) / log2 4 (log2 4 + 1) = 12 / 6 stages, and twice the numbers.
    assert seconds("f32[8,8]", 1) / seconds("f32[8,4]", 1) == pytest.approx(4)


def test_the_largest_array_that_devices_exchange_is_found():
    line = "  %sum = f32[100]{0} all-reduce(%x), replica_groups={}, to_apply=%condition\n"
    assert of(LOOP.replace("  %values", f"{line}  %values")).largest_collective_bytes == 400
    assert of(LOOP).largest_collective_bytes == 0


def test_fields_without_a_meaning_on_a_target_say_why():
    gpu, tpu = as_json(of(LOOP, H100), H100), as_json(of(LOOP), V5E)
    for fields in (gpu, tpu):
        nulls = {name for name, value in fields.items() if value is None}
        assert nulls == set(fields["why"])
    assert gpu["kernels_per_step"] is not None
    assert tpu["estimated_us"] is not None


def test_a_loop_that_ends_when_its_data_say_so_has_no_trips():
    text = LOOP.replace("  ROOT %less", "  %both = pred[] and(%counter, %counter)\n  ROOT %less")
    result = of(text)
    assert result.longest_loop_trips is None
    assert result.unknown_loops == 1
    assert "longest_loop_trips" in as_json(result, V5E)["why"]
