"""The keys of features name the instructions of the processor that computed them."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from pipeline import kinds
from pipeline.backbones.engines import open_engine, processor
from pipeline.core.params import ExtractParams
from pipeline.runners.wanted import every_view
from tests.conftest import ROOT, SMALL, Project

SAY = "from pipeline.backbones.engines.processor import arithmetic; print(arithmetic())"
LATEST = "X86_V4 AVX512_ICL AVX512_SPR"


@pytest.mark.skipif(processor.arithmetic() != "x86_64 avx512", reason="needs AVX-512")
@pytest.mark.parametrize(
    ("without", "said"), [("", "avx512"), (LATEST, "avx2"), (f"{LATEST} X86_V3", "avx")]
)
def test_it_names_the_instructions_that_there_are(without: str, said: str) -> None:
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": without, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SAY], env=environment, text=True,
                          stdout=subprocess.PIPE, check=True)  # fmt: skip
    assert done.stdout == f"x86_64 {said}\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no line of flags")
def test_what_computes_in_bfloat16_names_the_instructions_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = processor.arithmetic()
    for flags, named in (("fpu", ""), ("fpu avx512_bf16 amx_bf16", " avx512_bf16 amx_bf16")):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
        assert processor.arithmetic(bfloat16=True) == plain + named
        assert processor.arithmetic() == plain


def test_a_processor_of_another_maker_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    assert processor.arithmetic().split()[0] == "aarch64"


@pytest.mark.parametrize(("operator", "found"), [("MatMulInteger", True), ("MatMul", False)])
def test_a_graph_of_integers_is_known(tmp_path: Path, operator: str, found: bool) -> None:
    kind = TensorProto.UINT8 if found else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, kind, [2, 2]) for name in "ab"]
    result = TensorProto.INT32 if found else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "one",
        inputs,
        [helper.make_tensor_value_info("c", result, [2, 2])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "one.onnx")
    assert processor.computes_with_integers(tmp_path / "one.onnx") is found


@pytest.mark.slow
def test_another_processor_has_other_keys_and_the_same_backbone(
    project: Project, small_backbone: Path
) -> None:
    settings = ExtractParams.model_validate(
        {name.partition(".")[2]: value for name, value in SMALL.items()}
    )
    here = open_engine(settings, kinds.named("image"))
    assert here.arithmetic == processor.arithmetic()
    there = replace(here, arithmetic="x86_64 another")
    assert there.fingerprint == here.fingerprint
    manifest = pd.DataFrame({"digest": ["0" * 64], "path": ["a.png"]})
    plan = pd.DataFrame(columns=["digest", "view", *here.kind.view_columns])
    keys = [every_view(manifest, plan, engine)["key"][0] for engine in (here, here, there)]
    assert keys[0] == keys[1] != keys[2]
