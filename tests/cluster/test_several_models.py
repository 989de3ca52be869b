"""Two models side by side in one Serve, deployed from a config as `serve deploy` does it: each
below its prefix, with replicas and a store's database of its own. A third is refused that has no
database of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.store.embedded import EmbeddedStore

SCRIPT = """
import os, sys, tempfile, time
import httpx
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from serve_app.bench.load.server_process import free_port
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.deployments.serve_environment import SERVE_ENVIRONMENT

store = sys.argv[1]
ray.init(
    address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR",
    _temp_dir=tempfile.mkdtemp(prefix="moss-", dir="/tmp"), object_store_memory=80 << 20,
    log_to_driver=False,
)
port = free_port()
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})

def app(name, database, **args):
    args = {"model": str(BUNDLED_MODEL), "store": f"{store}?db={database}", "ingresses": 1, **args}
    return {
        "name": name, "route_prefix": f"/{name}", "import_path": "serve_app.app:build_app",
        "args": args,
    }

apps = [
    app("tools", 0, plugins=["calculator"]),
    app("plain", 1, dialogue="plain", served_model_names=["plain-nano"]),
]
config = ServeDeploySchema.model_validate({"applications": apps})
_get_global_client().deploy_apps(config)
began = time.monotonic()
while {a.status for a in serve.status().applications.values()} != {"RUNNING"}:
    assert time.monotonic() - began < 150, serve.status()
    time.sleep(0.2)
with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
    uids = {}
    for name in ("tools", "plain"):
        assert http.get(f"/{name}/readyz").status_code == 200, name
        assert http.get(f"/{name}/openapi.json").status_code == 200
        uid = uids[name] = http.post(f"/{name}/v1/sessions", json={}).json()["id"]
        path = f"/{name}/v1/sessions/{uid}/turns"
        told = http.post(path, json={"user": "2+3", "stream": True}).text
        assert "event: done" in told, told
        again = http.post(f"/{name}/", json={"prompt": "hi", "max_length": 64})
        assert again.status_code == 200, again.text
        (group,) = http.get(f"/{name}/health").json()["groups"]
        (replica,) = http.get(f"/{name}/stats").json()["replicas"]
        assert replica["replica"] == group["replica"]
        metrics = http.get(f"/{name}/metrics").text
        ends = [l for l in metrics.splitlines() if l.startswith("vllm:request_success_total")]
        model = "moss_nano" if name == "tools" else "plain-nano"
        assert ends and all(f'model_name="{model}"' in line for line in ends), ends
        assert http.get(f"/{name}/version").json()["model"] == model
    assert http.get(f"/plain/v1/sessions/{uids['tools']}").status_code == 404
    assert http.get(f"/tools/v1/sessions/{uids['tools']}").status_code == 200
third = app("third", 0, plugins=[], start_attempts=1)
_get_global_client().deploy_apps(ServeDeploySchema.model_validate({"applications": [*apps, third]}))
began = time.monotonic()
while (found := serve.status().applications["third"]).status != "DEPLOY_FAILED":
    assert time.monotonic() - began < 60, found
    time.sleep(0.2)
ingress = found.deployments["Ingress"].message
assert "in use by the application 'tools', which serves moss_nano" in ingress, found
assert f"such as {store}?db=1" in ingress, ingress
serve.shutdown()
ray.shutdown()
print("held")
"""


@pytest.mark.timeout(300)
def test_two_applications_in_one_serve(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "store") as store:
        shown = subprocess.run(
            [sys.executable, "-c", SCRIPT, store.url],
            capture_output=True,
            text=True,
            timeout=280,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        )
    assert shown.stdout.endswith("held\n"), shown.stderr[-4000:] + shown.stdout
