"""Texts of compiled programs, small enough to count by hand."""

LOOP = """
HloModule jit_f, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%condition (state: (s32[], f32[8,4])) -> pred[] {
  %state = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(20)
  %counter = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %limit), direction=LT
}

%gathering (table: f32[8,4], ids: s32[3]) -> f32[3,4] {
  %table = f32[8,4]{1,0} parameter(0)
  %ids = s32[3]{0} parameter(1)
  ROOT %rows = f32[3,4]{1,0} gather(%table, %ids), offset_dims={1}, slice_sizes={1,4}
}

%body (state.1: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state.1 = (s32[], /*index=1*/f32[8,4]{1,0}) parameter(0)
  %number = s32[] get-tuple-element(%state.1), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%number, %one)
  %table.1 = f32[8,4]{1,0} get-tuple-element(%state.1), index=1
  %ids.1 = s32[3]{0} iota(), iota_dimension=0
  %rows.1 = f32[3,4]{1,0} fusion(%table.1, %ids.1), kind=kCustom, calls=%gathering
  %copied = f32[8,4]{0,1} copy(%table.1), backend_config={"estimated_cycles":"300"}
  ROOT %out = (s32[], f32[8,4]{1,0}) tuple(%next, %copied)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,4]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%body
  %values = (f32[8,2]{1,0}, s32[8,2]{1,0}) custom-call(%x), custom_call_target="TopK"
  ROOT %result = f32[8,4]{1,0} get-tuple-element(%loop), index=1, backend_config={"estimated_cycles":"50"}
}
"""
"""A loop of 20 steps that gathers three rows and copies a table, and a TopK after it."""
