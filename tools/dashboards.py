"""Writes the Grafana dashboards in deploy/grafana anew: `python tools/dashboards.py`.

A dashboard is a list of rows of panels; a panel is a title, a unit and queries. Everything else that Grafana
wants is the same for all and stands here once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana"
WIDTH, HEIGHT = 24, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Query = tuple[str, str]
Panel = tuple[str, str, list[Query]]


def quantile(share: float, metric: str, by: str, where: str = "") -> str:
    """The quantile of a histogram over the last five minutes."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{where}[5m])))"


def rate(metric: str, by: str, where: str = "") -> str:
    """The rate of a counter over the last five minutes."""
    return f"sum by ({by}) (rate({metric}{where}[5m]))"


def both(metric: str, by: str, where: str = "") -> list[Query]:
    """Median and 95th percentile of a histogram."""
    return [(quantile(s, metric, by, where), f"p{round(s * 100)} {{{{{by}}}}}") for s in (0.5, 0.95)]


OVERVIEW: list[list[Panel]] = [
    [
        ("Requests", "reqps", [(rate("gateway_requests_total", "status"), "{{status}}")]),
        ("Duration", "s", both("gateway_request_latency_seconds", "route")),
        ("First piece of a stream", "s", both("gateway_stream_ttft_seconds", "path")),
    ],
    [
        ("Tokens", "short", [(rate("ostler_tokens_total", "kind"), "{{kind}} per second")]),
        ("In flight", "short", [("ostler_requests_in_flight", "requests")]),
        ("Instances", "short", [("ostler_instances", "{{state}}")]),
    ],
    [
        (
            "Refused",
            "short",
            [
                (rate("gateway_requests_blocked_total", "reason"), "{{reason}}"),
                (rate("gateway_ratelimit_blocked_total", "type"), "limit: {{type}}"),
            ],
        ),
        (
            "Faults",
            "short",
            [
                (rate("gateway_upstream_error_total", "model"), "broke off: {{model}}"),
                (rate("gateway_timeout_errors_total", "model"), "timed out: {{model}}"),
                ("rate(gateway_request_cancellations_total[5m])", "clients that left"),
                ("rate(ostler_usage_dropped_total[5m])", "not accounted"),
            ],
        ),
        (
            "Who came in",
            "short",
            [
                (rate("gateway_key_auth_allowed_total", "reason"), "{{reason}}"),
                (rate("gateway_key_auth_blocked_total", "reason"), "not let in: {{reason}}"),
            ],
        ),
    ],
]

ENGINES: list[list[Panel]] = [
    [
        (
            "Requests sent",
            "reqps",
            [(rate("gateway_upstream_selected_by_engine_total", "engine_type"), "{{engine_type}}")],
        ),
        (
            "Engine's latency to its headers",
            "s",
            both("gateway_upstream_latency_by_engine_seconds", "engine_type"),
        ),
        (
            "Servers elsewhere",
            "short",
            [
                ("gateway_upstream_health", "up: {{base_url}}"),
                ("increase(gateway_breaker_open_total[1h])", "left alone: {{base_url}}"),
                (rate("gateway_upstream_retries_total", "path"), "sent on: {{path}}"),
            ],
        ),
    ],
    [
        (
            "vLLM: requests",
            "short",
            [
                ("vllm:num_requests_running", "running {{model}}"),
                ("vllm:num_requests_waiting", "waiting {{model}}"),
            ],
        ),
        (
            "vLLM: tokens per second",
            "short",
            [
                (rate("vllm:prompt_tokens_total", "model"), "prompt {{model}}"),
                (rate("vllm:generation_tokens_total", "model"), "generated {{model}}"),
            ],
        ),
        ("vLLM: KV cache", "percentunit", [("vllm:kv_cache_usage_perc", "{{model}}")]),
    ],
    [
        ("vLLM: first token", "s", both("vllm:time_to_first_token_seconds", "model")),
        ("vLLM: between tokens", "s", both("vllm:inter_token_latency_seconds", "model")),
        ("vLLM: whole request", "s", both("vllm:e2e_request_latency_seconds", "model")),
    ],
    [
        (
            "llama.cpp: requests",
            "short",
            [
                ("llamacpp:requests_processing", "running {{model}}"),
                ("llamacpp:requests_deferred", "waiting {{model}}"),
            ],
        ),
        (
            "llama.cpp: tokens per second",
            "short",
            [
                (rate("llamacpp:prompt_tokens_total", "model"), "prompt {{model}}"),
                (rate("llamacpp:tokens_predicted_total", "model"), "generated {{model}}"),
            ],
        ),
        ("llama.cpp: busy slots", "short", [("llamacpp:n_busy_slots_per_decode", "{{model}}")]),
    ],
]

_MODEL = '{model=~"$model"}'
MODELS: list[list[Panel]] = [
    [
        ("Takes requests", "short", [(f"ostler_instance_up{_MODEL}", "{{model}}")]),
        ("Requests in it", "short", [(f"ostler_instance_requests_in_flight{_MODEL}", "{{model}}")]),
        ("Memory, measured", "bytes", [(f"ostler_instance_memory_bytes{_MODEL}", "{{model}}")]),
    ],
    [
        (
            "Tokens per second",
            "short",
            [(rate("ostler_tokens_total", "model, kind", _MODEL), "{{kind}} {{model}}")],
        ),
        (
            "Faults",
            "short",
            [
                (rate("gateway_upstream_error_total", "model", _MODEL), "broke off: {{model}}"),
                (rate("gateway_timeout_errors_total", "model", _MODEL), "timed out: {{model}}"),
            ],
        ),
        ("Restarts after faults", "short", [(f"ostler_instance_restarts{_MODEL}", "{{model}}")]),
    ],
]

HOST: list[list[Panel]] = [
    [
        ("Processors", "percentunit", [("ostler_host_cpu_ratio", "busy")]),
        ("Load", "short", [("ostler_host_load_1m", "1 minute")]),
        (
            "Memory",
            "bytes",
            [("ostler_host_memory_used_bytes", "used"), ("ostler_host_memory_total_bytes", "total")],
        ),
    ],
    [
        ("Disks", "Bps", [("ostler_disk_bytes_per_second", "{{disk}} {{direction}}")]),
        ("Network", "Bps", [("ostler_network_bytes_per_second", "{{interface}} {{direction}}")]),
        (
            "The models' disk",
            "bytes",
            [("ostler_models_disk_used_bytes", "used"), ("ostler_models_disk_total_bytes", "total")],
        ),
    ],
    [
        ("GPUs", "percentunit", [("ostler_gpu_busy_ratio", "{{gpu}} {{name}}")]),
        (
            "GPU memory",
            "bytes",
            [
                ("ostler_gpu_memory_used_bytes", "used {{gpu}}"),
                ("ostler_gpu_memory_total_bytes", "total {{gpu}}"),
            ],
        ),
        (
            "Temperature and power",
            "short",
            [
                ("ostler_gpu_temperature_celsius", "°C {{gpu}}"),
                ("ostler_gpu_power_watts", "W {{gpu}}"),
            ],
        ),
    ],
]

DASHBOARDS: dict[str, tuple[str, list[list[Panel]]]] = {
    "overview": ("Ostler: overview", OVERVIEW),
    "engines": ("Ostler: engines", ENGINES),
    "models": ("Ostler: models", MODELS),
    "host": ("Ostler: host and GPUs", HOST),
}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard in Grafana's own JSON."""
    title, rows = DASHBOARDS[name]
    panels: list[dict[str, Any]] = []
    for y, row in enumerate(rows):
        width = WIDTH // len(row)
        for x, (heading, unit, queries) in enumerate(row):
            place = {"x": x * width, "y": y * HEIGHT, "w": width, "h": HEIGHT}
            panels.append(_panel(len(panels) + 1, place, heading, unit, queries))
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    ]
    if name == "models":
        variables.append(
            {
                "name": "model",
                "type": "query",
                "datasource": DATASOURCE,
                "query": "label_values(ostler_instance_up, model)",
                "multi": True,
                "includeAll": True,
                "refresh": 2,
            }
        )
    return {
        "uid": f"ostler-{name}",
        "title": title,
        "tags": ["ostler"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def _panel(number: int, place: dict[str, int], title: str, unit: str, queries: list[Query]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(65 + i), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
            for i, (expr, legend) in enumerate(queries)
        ],
    }


def text_of(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(dashboard(name), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text_of(name))


if __name__ == "__main__":
    main()
