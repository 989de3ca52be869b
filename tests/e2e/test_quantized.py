"""`moss serve` with a checkpoint as MOSS has published its int4 ones, on two ranks."""

import re
from pathlib import Path

from tests.e2e.moss_process import MossProcess
from tests.moss_tp.quantized_moss import Gptq, change_config, make_quantized

KIND = Gptq(group_size=32)


def test_it_is_served_and_says_what_it_takes(tmp_path: Path) -> None:
    model = make_quantized(tmp_path / "int4", KIND, positions=1024)
    change_config(model, quantization_config=None, **KIND.fields)
    with MossProcess(tmp_path, "--tp", "2", model=model) as moss:
        assert moss.ask("Hello", max_new_tokens=4)["response"] is not None
        lines = moss.output
    assert "weights in int4 (groups of 32), lm_head in bfloat16: 0.0 GiB a rank" in lines
    limits = re.search(r"the 2 ranks take (\S+) GiB .* the KV cache holds (\S+) tokens", lines)
    assert limits is not None and 0 < float(limits[1]) < 8
