"""Settings: one class, read once at start (`settings_sources`) and handed down.

`docs/settings.md` is checked against this class by a test.
"""

from __future__ import annotations

import os
import re
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from ostler.core.errors import Invalid
from ostler.core.principals import Role
from ostler.core.sizes import parse_size

MIB = 1024 * 1024
DEFAULT_PORT = 11500


class BadSetting(Invalid):
    """A setting has an unknown name or a value that it cannot have."""

    hint = "See every setting with: ostler settings"


def _setting(
    default: Any, help_text: str, *, env: tuple[str, ...] = (), live: bool = False, **checks: Any
) -> Any:
    """One setting. `env`: more environment variables beside OSTLER_<NAME>; `live`: changes at run time."""
    extra: JsonDict = {"env": list(env), "live": live}
    if callable(default):
        return Field(default_factory=default, description=help_text, json_schema_extra=extra, **checks)
    return Field(default=default, description=help_text, json_schema_extra=extra, **checks)


def _hub_cache() -> Path:
    """Where huggingface_hub keeps models, as its `constants.py` has it."""
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _llama_cache() -> Path:
    """Where llama.cpp keeps what it downloaded, as its `fs_get_cache_directory` has it."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches/llama.cpp").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "llama.cpp" / "cache"
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return home / "llama.cpp"


class Settings(BaseModel):
    """Everything that can be set. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # Where things are
    data_dir: Path = _setting(
        lambda: Path(platformdirs.user_data_dir("ostler")),
        "Folder of Ostler's own data: database, logs, staging of downloads, secret.",
    )
    database_url: str | None = _setting(
        None,
        "Database; by default SQLite in the data folder. PostgreSQL: postgresql+psycopg://user:pass@host/db.",
    )
    models_dir: Path | None = _setting(
        None,
        "Folder of your own model files, read in place. Ostler never deletes or changes anything in it. "
        "Default: the folder `models` in the data folder.",
        env=("CORTEX_MODELS_DIR",),
    )
    models_base_dir: Path | None = _setting(
        None,
        "Folder that is browsed first when a model is added, and that relative paths of Cortex's API start "
        "from. It must lie in a library folder. Default: the models folder.",
        live=True,
    )
    hub_cache_dir: Path = _setting(
        _hub_cache,
        "Hugging Face cache that downloads go to and that is listed, shared with other programs.",
        env=("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    )
    llama_cache_dir: Path = _setting(
        _llama_cache,
        "llama.cpp's own flat cache. What is pulled through llamactl's API gets its names there; it is "
        "listed where it exists. Default: $XDG_CACHE_HOME/llama.cpp or ~/.cache/llama.cpp "
        "(macOS: ~/Library/Caches/llama.cpp).",
        env=("LLAMA_CACHE", "LLAMACTL_LLAMACPP_CACHE_DIR"),
    )
    reshaped_dir: Path | None = _setting(
        None,
        "Folder of files that Ostler merged or split or that clients uploaded, listed with the others. "
        "Default: the folder `reshaped` in the data folder.",
    )
    predefined_aliases_file: Path | None = _setting(
        None,
        "YAML file with predefined aliases of your own (`alias`, `repo`, `filename`, ...), beside those that "
        "come with Ostler. Default: `predefined-aliases.yaml` in the data folder, where there is one.",
    )

    # The server
    host: str = _setting("127.0.0.1", "Address to listen on. Any other than loopback needs keys.")
    port: int = _setting(DEFAULT_PORT, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Further names under which this server may be addressed (the Host header) on loopback."
    )
    allowed_origins: tuple[str, ...] = _setting(
        (),
        "Further web origins that may call the API from a browser.",
        env=("CORS_ALLOW_ORIGINS",),
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), "Addresses and networks of proxies in front of this server, whose X-Forwarded-For is believed."
    )
    oidc_issuer: str | None = _setting(
        None,
        "Address of the provider for sign-in by OpenID Connect, as it calls itself; https unless on this "
        "machine.",
    )
    oidc_client_id: str | None = _setting(None, "Name under which the provider knows this server.")
    oidc_client_secret: SecretStr | None = _setting(
        None, "Secret that the provider shares with this server; none for a public client."
    )
    oidc_scopes: tuple[str, ...] = _setting(
        ("openid", "profile", "email"), "Scopes that are asked for at the provider."
    )
    oidc_role_claim: str = _setting(
        "groups", "Claim that holds the provider's roles or groups of a person; `a.b` for b within a."
    )
    oidc_roles: tuple[str, ...] = _setting(
        (),
        "Which of the provider's roles lead to which role here, as `theirs=role`; the highest counts, at "
        "each sign-in. None: roles are given here.",
    )
    oidc_default_role: Literal["none", "user", "power_user", "manager", "admin"] = _setting(
        "user", "Role of people to whom `oidc_roles` gives none; `none` does not let them in."
    )
    oidc_redirect_uri: str | None = _setting(
        None,
        "Address to which the provider sends people back: this server's, with the path "
        "`/ostler/v1/session/oidc/callback`. Default on this machine: the address that was asked.",
    )
    request_body_limit_bytes: int = _setting(
        64 * MIB,
        "Largest request body that is accepted; above it the answer is 413.",
        env=("REQUEST_MAX_BODY_BYTES",),
        ge=1024,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "How much is logged.")
    log_format: Literal["text", "json"] = _setting("text", "Log lines for people (text) or machines (json).")
    stop_engines_on_exit: bool = _setting(
        False, "Stop every engine when the server ends; by default engines outlive it and are adopted again."
    )

    # The hub and downloads
    hf_endpoint: str = _setting(
        "https://huggingface.co", "Address of the Hugging Face hub or a mirror.", env=("HF_ENDPOINT",)
    )
    hf_token: SecretStr | None = _setting(
        None,
        "Hugging Face token for gated and private repos; else the token file of `hf auth login` is used.",
        env=("HF_TOKEN", "HUGGINGFACE_API_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    )
    offline: bool = _setting(
        False, "Make no call to the outside at all.", env=("HF_HUB_OFFLINE", "OFFLINE_MODE")
    )
    download_jobs: int = _setting(3, "How many downloads run at once.", live=True, ge=1, le=32)
    download_connections: int = _setting(4, "Connections per download.", live=True, ge=1, le=32)
    download_rate_limit: int = _setting(
        0, "Most bytes per second of each download; 0 means no limit.", live=True, ge=0
    )
    download_retries: int = _setting(
        8, "How often a fetch is tried again after a fault.", live=True, ge=0, le=100
    )
    download_timeout_s: float = _setting(30.0, "How long a connection may be silent.", live=True, gt=0)
    disk_reserve_bytes: int = _setting(
        512 * MIB, "Free disk space that a download must leave.", live=True, ge=0
    )

    # Engines and their lives
    llama_server_command: str | None = _setting(
        None,
        "Command that starts llama-server; by default `llama-server` on PATH, else the built-in one.",
        env=("LLAMA_SERVER_COMMAND",),
    )
    docker_host: str | None = _setting(
        None,
        "Where the Docker Engine listens, or Podman's compatible service: `unix:///path`, `tcp://host:port`. "
        "By default the usual sockets are looked for, rootless ones too.",
        env=("DOCKER_HOST",),
    )
    docker_network: str = _setting(
        "ostler", "Network of engines in containers, made where it is missing; `host` for the host's own."
    )
    docker_name_prefix: str = _setting(
        "",
        "What stands before the names of containers (`llamacpp-model-7`), for a second Ostler on one daemon.",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,30})?$",
    )
    llamacpp_image: str = _setting(
        "ghcr.io/ggml-org/llama.cpp:server-cuda",
        "Image of llama.cpp's server for models in containers that name none.",
        env=("LLAMACPP_IMAGE",),
    )
    vllm_image: str = _setting(
        "vllm/vllm-openai:latest",
        "Image of vLLM for models in containers that name none.",
        env=("VLLM_IMAGE",),
    )
    cortex_runtime: Literal["auto", "docker", "process"] = _setting(
        "auto",
        "Where models run that are made by way of Cortex's API and do not say it: in containers, or as "
        "processes. auto: in containers where a daemon answers when they are made.",
    )
    vllm_command: str | None = _setting(
        None,
        "Command that starts vLLM, or the folder of the virtual environment that it is installed in; by "
        "default `vllm` on PATH.",
        env=("VLLM_COMMAND",),
    )
    max_running: int = _setting(
        4,
        "How many models run at once; an idle one leaves for a new one. 0 means no limit but memory.",
        live=True,
        ge=0,
    )
    group_limits: str = _setting(
        "",
        "How many models of one group (`policy.group`) run at once: `chat=2,embeddings=1`. An idle one of it "
        "leaves for a new one. A group that is not named has no limit.",
        live=True,
    )
    max_models: int = _setting(
        0, "How many models may be made; 0 means no limit. Those that are there stay.", live=True, ge=0
    )
    devices: str | None = _setting(
        None,
        "Devices to plan with in place of those that are here, for tests and plans, described as for "
        "`ostler fit --on`: `2x24GiB`, `rtx-4090+64GiB host` or the path of a JSON file. A host that is not "
        "described is the real one.",
    )
    device_reserve: str = _setting(
        "256MiB",
        "Memory of each device that models never get; after commas, of single devices: `512MiB,cuda:0=2GiB`.",
        live=True,
    )
    swap_after_s: float = _setting(
        10.0,
        "How long a model may serve without a pause while another waits for its memory. After that, and not "
        "before it has served as long as its load took, it finishes what it serves and leaves.",
        live=True,
        ge=0,
    )
    memory_return_s: float = _setting(
        10.0,
        "How long a start waits for the memory of a model that has ended to be free again.",
        live=True,
        ge=0,
    )
    max_queue: int = _setting(
        64,
        "How many requests may wait for models to start; above it the answer is 503. Batch work is refused "
        "at the half of it.",
        live=True,
        ge=0,
    )
    start_timeout_s: float = _setting(
        600.0, "How long an engine may load before it counts as failed.", live=True, gt=0
    )
    request_wait_s: float = _setting(
        300.0, "How long a request waits for its model to be ready.", live=True, gt=0
    )
    idle_timeout_s: float = _setting(
        900.0,
        "A model started on demand stops after this long without a request; 0 means never.",
        live=True,
        ge=0,
    )
    max_keep_alive_s: float = _setting(
        3600.0,
        "How long a request may ask (with `keep_alive`) that a model started on demand stays without another "
        "request; never longer than the model's own `idle_timeout_s`. 0 means that requests have no say.",
        live=True,
        ge=0,
    )
    drain_timeout_s: float = _setting(30.0, "How long a stop waits for requests in flight.", live=True, ge=0)
    stop_grace_s: float = _setting(
        10.0, "How long an engine may take to end before it is killed.", live=True, ge=0
    )
    probe_interval_s: float = _setting(
        5.0, "How often a running engine is asked for its health.", live=True, gt=0
    )
    probe_timeout_s: float = _setting(5.0, "How long a health probe may take.", live=True, gt=0)
    probe_failures: int = _setting(3, "How many failed probes in a row end in a restart.", live=True, ge=1)
    restart_limit: int = _setting(
        3, "How many restarts in a row before a model counts as failed.", live=True, ge=0
    )
    restart_backoff_s: float = _setting(
        1.0, "Wait before the first restart; doubles each time, up to 60.", live=True, ge=0
    )
    restart_reset_s: float = _setting(
        300.0, "Healthy time after which the restart counter begins again.", live=True, gt=0
    )
    heartbeat_s: float = _setting(10.0, "How often a waiting stream gets a comment line.", live=True, gt=0)
    engine_log_bytes: int = _setting(16 * MIB, "Size at which an engine's log file is rotated.", ge=4096)
    upstream_timeout_s: float = _setting(
        3600.0, "How long an engine may be silent within one request.", live=True, gt=0
    )
    vllm_gen_urls: tuple[str, ...] = _setting(
        (),
        "vLLM servers elsewhere that generate text; what they serve is routed to them.",
        env=("VLLM_GEN_URLS",),
    )
    vllm_emb_urls: tuple[str, ...] = _setting(
        (), "vLLM servers elsewhere that make embeddings.", env=("VLLM_EMB_URLS",)
    )
    llamacpp_gen_urls: tuple[str, ...] = _setting(
        (), "llama.cpp servers elsewhere that generate text.", env=("LLAMACPP_GEN_URLS",)
    )
    upstream_api_key: SecretStr | None = _setting(
        None, "Key that servers elsewhere are asked with.", env=("INTERNAL_VLLM_API_KEY",)
    )
    upstream_poll_s: float = _setting(
        10.0, "How often servers elsewhere are looked at.", env=("HEALTH_POLL_SEC",), live=True, ge=0.1
    )
    breaker_failures: int = _setting(
        5,
        "After so many failures in a row a server elsewhere is left alone for a while; 0: never.",
        env=("CB_FAILURE_THRESHOLD",),
        live=True,
        ge=0,
    )
    breaker_cooldown_s: float = _setting(
        30.0,
        "How long a server elsewhere is left alone before one request tries it again.",
        env=("CB_COOLDOWN_SEC",),
        live=True,
        gt=0,
    )
    usage_retention_days: int = _setting(90, "How long accounted requests are kept.", live=True, ge=1)
    event_retention_days: int = _setting(90, "How long events are kept.", live=True, ge=1)

    @field_validator(
        "data_dir",
        "models_dir",
        "models_base_dir",
        "hub_cache_dir",
        "llama_cache_dir",
        "reshaped_dir",
        "predefined_aliases_file",
    )
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - links stay

    @field_validator("device_reserve")
    @classmethod
    def _reserve(cls, text: str) -> str:
        _reserve_by_device(text)
        return text

    @field_validator("group_limits")
    @classmethod
    def _groups(cls, text: str) -> str:
        _limits_by_group(text)
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            ip_network(text)
        return texts

    @field_validator("vllm_gen_urls", "vllm_emb_urls", "llamacpp_gen_urls")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError("each must begin with http:// or https://")
        return tuple(url.rstrip("/").removesuffix("/v1") for url in urls)

    @field_validator("oidc_issuer", "oidc_redirect_uri")
    @classmethod
    def _safe_address(cls, url: str | None) -> str | None:
        if url is not None and not re.match(
            r"https://[^/]|http://(127\.0\.0\.1|localhost|\[::1\])([:/]|$)", url
        ):
            raise ValueError("must begin with https://; http:// only on this machine")
        return url

    @field_validator("oidc_roles")
    @classmethod
    def _known_roles(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            theirs, equals, role = text.rpartition("=")
            if not equals or not theirs:
                raise ValueError("each must be theirs=role, such as staff=power_user")
            Role.parse(role)
        return texts

    @field_validator("hf_endpoint")
    @classmethod
    def _endpoint(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")

    @property
    def effective_database_url(self) -> str:
        """The database's URL, SQLite in the data folder unless set."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'ostler.db'}"

    @property
    def effective_models_dir(self) -> Path:
        """The models folder."""
        return self.models_dir or self.data_dir / "models"

    @property
    def effective_base_dir(self) -> Path:
        """The folder that is browsed first."""
        return self.models_base_dir or self.effective_models_dir

    @property
    def effective_reshaped_dir(self) -> Path:
        """Where merged and split files go."""
        return self.reshaped_dir or self.data_dir / "reshaped"

    @property
    def effective_predefined_file(self) -> Path:
        """Where the operator's own predefined aliases are; the file need not exist."""
        return self.predefined_aliases_file or self.data_dir / "predefined-aliases.yaml"

    @property
    def reserve_by_device(self) -> dict[str, int]:
        """The reserve in bytes by the id of the device; "" for all that are not named."""
        return _reserve_by_device(self.device_reserve)

    @property
    def oidc_role_mapping(self) -> dict[str, Role]:
        """Roles here by the provider's."""
        pairs = (text.rpartition("=") for text in self.oidc_roles)
        return {theirs: Role.parse(role) for theirs, _, role in pairs}

    @property
    def limit_by_group(self) -> dict[str, int]:
        """How many models run at once, by the group that has a limit."""
        return _limits_by_group(self.group_limits)

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the server."""
        return self.host in ("127.0.0.1", "::1", "localhost") or self.host.startswith("127.")


def _reserve_by_device(text: str) -> dict[str, int]:
    parts = [part.rpartition("=") for part in text.split(",") if part.strip()]
    return {device.strip(): parse_size(size) for device, _, size in parts}


def _limits_by_group(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        group, _, limit = part.partition("=")
        if not group.strip() or not limit.strip().isdecimal() or int(limit) < 1:
            raise ValueError(f"{part[:50]!r} is no limit of a group, such as chat=2")
        found[group.strip()] = int(limit)
    return found


def is_live(name: str) -> bool:
    """True when the setting may change while the server runs."""
    return bool(_extra(Settings.model_fields[name]).get("live"))


def environment_names(name: str) -> list[str]:
    """The environment variables that set it, strongest first."""
    more = _extra(Settings.model_fields[name]).get("env")
    return [
        f"OSTLER_{name.upper()}",
        *(str(variable) for variable in (more if isinstance(more, list) else [])),
    ]


def _extra(field: FieldInfo) -> JsonDict:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
