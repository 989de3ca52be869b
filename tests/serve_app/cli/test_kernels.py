"""`moss kernels`: a line a kernel; what spills, does not fit or does not compile is a status."""

import pytest
from click.testing import CliRunner

from moss_tp.kernels.cuda import catalogue
from moss_tp.kernels.cuda.runtime.cubins import Cubin, Variant
from serve_app.cli.kernels import command, table

PROBES = "tests.moss_tp.kernels.cuda.runtime.probe_kernels"


def test_all_kernels_of_the_catalogue() -> None:
    result = CliRunner().invoke(command, ["--cc", "8.6"])
    assert result.exit_code == 0, result.output
    assert "| read_sums" in result.output


def test_a_spill_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "NAME", f"{PROBES}:spills")
    assert CliRunner().invoke(command, ["--cc", "90"]).exit_code == 1


def test_the_table() -> None:
    variant = Variant("float16", 256, 86)
    cubins = [
        Cubin("fits", variant, 40, 0, 2048),
        Cubin("large", variant, 255, 16, 200 * 1024),
        Cubin("broken", variant, error="line 1\nline 2"),
    ]
    lines = table(cubins).splitlines()[2:]
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["fits", "86", "40", "2.0", "0"]
    assert "200.0 too much" in lines[1]
    assert "does not compile: line 1 line 2" in lines[2]


@pytest.mark.parametrize("cc", ["", "70", "9.0.0", "sm_90"])
def test_what_is_no_capability(cc: str) -> None:
    assert CliRunner().invoke(command, ["--cc", cc]).exit_code == 2
