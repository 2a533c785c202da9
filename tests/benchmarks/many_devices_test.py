import json

import pytest

from benchmarks import many_devices
from benchmarks.aot.compiled_text import CompiledText
from benchmarks.many_devices import Collective, Links

TEXT = """
HloModule step

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %a = f32[8,4]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %b = f32[16,4]{1,0} all-gather(%a), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %c = f32[2,4]{1,0} reduce-scatter(%a), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %d = f32[8,4]{1,0} all-reduce(%x), channel_id=4, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  ROOT %e = f32[8,4]{1,0} collective-permute(%x), channel_id=5, source_target_pairs={{0,4},{4,0}}
}
"""
LINKS = Links(1e12, 1e12, near=4, near_bytes=100.0, far_bytes=10.0, near_seconds=0.0, far_seconds=0.0)


def test_collectives_have_whole_arrays_and_the_devices_that_they_join():
    found = list(many_devices.collectives(CompiledText.parse(TEXT), data=2, model=4))
    assert found == [
        Collective("all-reduce", 128, 4, 1),
        Collective("all-gather", 256, 2, 4),
        Collective("reduce-scatter", 128, 4, 1),
        Collective("collective-permute", 128, 2, 4),
    ]


def test_fast_links_carry_what_they_join_and_the_others_each_device_its_share():
    assert Collective("all-reduce", 100, 4, 1).seconds(LINKS) == pytest.approx(2 * 100 * 3 / 4 / 100)
    assert Collective("all-gather", 100, 2, 4).seconds(LINKS) == pytest.approx(100 / 2 / 10)
    both = 100 * 3 / 4 / 100 + 100 / 4 * 1 / 2 / 10
    assert Collective("all-gather", 100, 8, 1).seconds(LINKS) == pytest.approx(both)
    assert Collective("collective-permute", 100, 2, 1).seconds(LINKS) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_command_writes_a_line_for_every_program_mesh_and_accelerator(tmp_path):
    many_devices.main(many_devices.ManyDevices(json=tmp_path / "out.jsonl", smoke=True))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * (1 + 2) * 2
    for line in lines:
        assert line["efficiency"] == 1 if line["data"] * line["model"] == 1 else line["exchanged_bytes"] > 0
