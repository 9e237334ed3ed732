"""Headers of files that stay on the hub: the same facts as from disk, for few requests and bytes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from ostler.core.errors import Offline, OstlerError
from ostler.hub import GatedRepo, Hub, HubBusy, HubError, RangesRefused, UntrustedAnswer, parse_spec
from ostler.library.errors import BrokenFile
from ostler.library.loose import inspect_loose
from tests.hub.conftest import MakeHub
from tests.hub.server import HubServer
from tests.library.gguf_files import (
    Tensor,
    model_metadata,
    model_tensors,
    write_gguf,
    write_model,
    write_safetensors,
)

TOKEN = "hf_secret"
TOKENS = 150_000


def many_tensors() -> list[Tensor]:
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    blocks = [Tensor(f"blk.{n}.{part}.weight", (256, 256)) for n in range(80) for part in parts]
    return [Tensor("token_embd.weight", (256, 512)), *blocks, Tensor("huge.weight", (8_192, 1_048_576))]


def large_model(path: Path, **more: object) -> Path:
    """17 GB by its size (a hole on the disk), with a vocabulary of 150,000 tokens and as many merges."""
    metadata = model_metadata(n_tokens=5)
    metadata["tokenizer.ggml.tokens"] = [f"token{n}" for n in range(TOKENS)]
    metadata["tokenizer.ggml.token_type"] = [1] * TOKENS
    metadata["tokenizer.ggml.merges"] = [f"tok en{n}" for n in range(TOKENS)]
    after = {"tokenizer.ggml.eos_token_id": 3, "tokenizer.chat_template": "{{ tools }}" * 400}
    return write_gguf(path, {**metadata, **after, **more, "general.file_type": 1}, many_tensors())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_model(tmp_path_factory.mktemp("large") / "large-F16.gguf")


def add_large(hub_server: HubServer, large: Path, **about: object) -> None:
    """A repo with the large file; its hash is not worked out, which would read all 17 GB."""
    from tests.hub.repos import Blob

    repo = hub_server.add_repo("org/large-GGUF", {"large-F16.gguf": b"x"}, **about)  # type: ignore[arg-type]
    commit = repo.commits[-1]
    blob = Blob(large, large.stat().st_size, "a" * 64, "b" * 40, lfs=True)
    commit.files["large-F16.gguf"] = blob  # type: ignore[index]


async def test_a_large_header_costs_four_requests_and_two_megabytes(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    found = await hub.inspect(parse_spec("org/large-GGUF"))
    local = inspect_loose(large)
    assert found.facts == local.facts
    assert found.facts.vocab_size == TOKENS and "tools" in found.facts.capabilities
    (header,) = found.gguf
    assert len(header.tensors) == len(many_tensors()) and header.size_bytes == large.stat().st_size
    reads = hub_server.requests_for("*.gguf")
    assert len(reads) == found.requests <= 4
    assert sum(request.bytes_sent for request in reads) <= 2_000_000
    assert found.fetched_bytes <= 2_000_000

    await hub.inspect(parse_spec("org/large-GGUF:F16"))
    assert len(hub_server.requests_for("*.gguf")) == len(reads), "headers of a commit are read once"


async def test_the_token_goes_to_the_hub_and_not_where_it_redirects(
    make_hub: MakeHub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large, token=TOKEN, gated="manual")
    await make_hub(hf_token=TOKEN).inspect(parse_spec("org/large-GGUF"))
    assert {r.token for r in hub_server.requests_for(host="hub")} == {TOKEN}
    at_storage = hub_server.requests_for(host="cdn")
    assert at_storage and {r.token for r in at_storage} == {None}
    assert all("authorization" not in request.headers for request in at_storage)


async def test_a_gated_repo_is_said_to_be_so(hub: Hub, hub_server: HubServer, large: Path) -> None:
    add_large(hub_server, large, gated="manual")
    with pytest.raises(GatedRepo):
        await hub.inspect(parse_spec("org/large-GGUF"))
    assert hub_server.requests_for("*.gguf") == []


async def test_offline_nobody_is_asked(make_hub: MakeHub, hub_server: HubServer) -> None:
    with pytest.raises(Offline):
        await make_hub(offline=True).inspect(parse_spec("org/large-GGUF"))
    assert hub_server.requests == []


async def test_a_hub_without_ranges_is_noticed_and_the_file_is_not_fetched(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    hub_server.faults.no_ranges("*.gguf")
    with pytest.raises(RangesRefused) as refused:
        await hub.inspect(parse_spec("org/large-GGUF"))
    assert "ostler pull org/large-GGUF" in (refused.value.hint or "")
    (sent,) = hub_server.requests_for("*.gguf", host="cdn")
    assert sent.bytes_sent < 64 * 1024 * 1024, "the connection was closed, 17 GB were not fetched"


async def test_what_passes_is_tried_again_and_what_does_not_is_said(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    hub_server.faults.status("*.gguf", status=503, host="cdn")
    hub_server.faults.cut("*.gguf", host="cdn", after_bytes=1_000, nth=2)
    assert (await hub.inspect(parse_spec("org/large-GGUF"))).facts.vocab_size == TOKENS


async def test_a_busy_hub_is_not_pressed(hub: Hub, hub_server: HubServer, large: Path) -> None:
    add_large(hub_server, large)
    hub_server.faults.status("*.gguf", status=429, retry_after=60, times=None)
    with pytest.raises(HubBusy) as busy:
        await hub.inspect(parse_spec("org/large-GGUF"))
    assert busy.value.retry_after_s == 60


async def test_an_address_that_has_run_out_is_asked_for_again(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    hub_server.faults.status("*.gguf", status=403, host="cdn", nth=2)
    assert (await hub.inspect(parse_spec("org/large-GGUF"))).facts.vocab_size == TOKENS
    hub_server.faults.clear()


async def test_a_storage_that_always_refuses_is_an_error(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    hub_server.faults.status("*.gguf", status=403, host="cdn", times=None)
    with pytest.raises(HubError, match="403"):
        await hub.inspect(parse_spec("org/large-GGUF"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 5-9/100"},
        {"Content-Range": "none"},
        {"Content-Range": "bytes 0-327679/1"},
        {},
    ],
)
async def test_another_part_than_was_asked_for_is_not_believed(
    hub: Hub, hub_server: HubServer, large: Path, headers: dict[str, str]
) -> None:
    add_large(hub_server, large)
    hub_server.faults.status("*.gguf", status=206, headers=headers, host="cdn", times=None)
    with pytest.raises(UntrustedAnswer):
        await hub.inspect(parse_spec("org/large-GGUF"))


@pytest.mark.parametrize("named", ["tokenizer.json", "config.json", "../x.safetensors", "absent.safetensors"])
async def test_an_index_that_names_what_is_no_weights_ends_in_our_error_or_in_facts(
    hub: Hub, hub_server: HubServer, tmp_path: Path, named: str
) -> None:
    weights = write_safetensors(tmp_path / "model.safetensors", {"w": ("BF16", (4, 4))})
    index = json.dumps({"weight_map": {"w": named}}).encode()
    small = {"model.safetensors.index.json": index, "config.json": b"{}", "tokenizer.json": b"{}"}
    hub_server.add_repo("org/odd", {"model.safetensors": weights, **small})
    with contextlib.suppress(OstlerError):
        assert (await hub.inspect(parse_spec("org/odd"))).format == "safetensors"


async def test_other_contents_than_were_resolved_are_not_believed(
    hub: Hub, hub_server: HubServer, large: Path
) -> None:
    add_large(hub_server, large)
    for name in ("X-Linked-Etag", "X-Repo-Commit"):
        headers = {name: '"0000"', "Location": f"{hub_server.cdn}/x"}
        hub_server.faults.status("*.gguf", status=302, headers=headers, host="hub")
        with pytest.raises(UntrustedAnswer, match="than it announced"):
            await hub.inspect(parse_spec("org/large-GGUF"))


@pytest.mark.parametrize("to", ["", "ftp://example.org/x", "file:///etc/passwd", "http://"])
async def test_a_redirect_to_nowhere_is_not_followed(
    hub: Hub, hub_server: HubServer, large: Path, to: str
) -> None:
    add_large(hub_server, large)
    hub_server.faults.redirect("*.gguf", to, host="hub", times=None)
    with pytest.raises(HubError, match="cannot be used"):
        await hub.inspect(parse_spec("org/large-GGUF"))


async def test_wrong_bytes_are_a_broken_file_named(hub: Hub, hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.add_repo("org/bad-GGUF", {"bad-F16.gguf": b"GGUF\3\0\0\0" + bytes(range(200)) * 9})
    with pytest.raises(BrokenFile, match=r"bad-F16\.gguf"):
        await hub.inspect(parse_spec("org/bad-GGUF"))
    path = write_model(tmp_path / "m-F16.gguf")
    hub_server.add_repo("org/flip-GGUF", {"m-F16.gguf": path})
    hub_server.faults.wrong_bytes("*.gguf", at=8, times=None)
    with pytest.raises(OstlerError):
        await hub.inspect(parse_spec("org/flip-GGUF"))


async def test_a_split_model_is_read_by_shard(hub: Hub, hub_server: HubServer, tmp_path: Path) -> None:
    tensors = model_tensors()
    half, names = len(tensors) // 2, [f"big-F16-0000{n}-of-00002.gguf" for n in (1, 2)]
    split = {"split.count": 2, "split.tensors.count": len(tensors)}
    first = {**model_metadata(n_tokens=20_000), **split, "split.no": 0}
    write_gguf(tmp_path / names[0], first, tensors[:half])
    write_gguf(tmp_path / names[1], {**split, "split.no": 1}, tensors[half:])
    hub_server.add_repo("org/big-GGUF", {name: tmp_path / name for name in names})
    found = await hub.inspect(parse_spec("org/big-GGUF:F16"))
    assert found.facts == inspect_loose(tmp_path / names[0]).facts
    assert [len(header.tensors) for header in found.gguf] == [half, len(tensors) - half]
    second = hub_server.requests_for(f"*{names[1]}", host="cdn")
    assert sum(request.bytes_sent for request in second) <= 64 * 1024


def large_shards(folder: Path, **changed: tuple[str, tuple[int, ...]]) -> dict[str, bytes | Path]:
    """140 GB of a model of 80 layers in 30 shards (holes on the disk), with its index and configuration."""
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (8192, 8192),
        "self_attn.k_proj": (1024, 8192),
        "self_attn.v_proj": (1024, 8192),
        "self_attn.o_proj": (8192, 8192),
        "mlp.gate_proj": (28672, 8192),
        "mlp.up_proj": (28672, 8192),
        "mlp.down_proj": (8192, 28672),
        "input_layernorm": (8192,),
    }
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (128256, 8192))}
    for n in range(80):
        tensors |= {f"model.layers.{n}.{name}.weight": ("BF16", shape) for name, shape in layer.items()}
    tensors |= {"model.norm.weight": ("BF16", (8192,)), "lm_head.weight": ("BF16", (128256, 8192))}
    tensors |= {name.replace("__", "."): shape for name, shape in changed.items()}
    names = list(tensors)
    each = -(-len(names) // 30)
    files: dict[str, bytes | Path] = {}
    weight_map: dict[str, str] = {}
    for n in range(30):
        file = f"model-{n + 1:05}-of-00030.safetensors"
        inside = {name: tensors[name] for name in names[n * each : (n + 1) * each]}
        weight_map |= dict.fromkeys(inside, file)
        files[file] = write_safetensors(folder / file, inside)
    small = {
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        "config.json": b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 80}',
    }
    for name, content in small.items():
        (folder / name).write_bytes(content)
    return {**files, **small}


def add_shards(hub_server: HubServer, files: dict[str, bytes | Path]) -> None:
    """A repo of them; hashes of the weights are not worked out, which would read 140 GB."""
    from tests.hub.repos import Blob

    small = {name: content for name, content in files.items() if isinstance(content, bytes)}
    repo = hub_server.add_repo(
        "org/seventy", {**small, **{name: b"x" for name in files if name not in small}}
    )
    for n, (name, path) in enumerate(files.items()):
        if isinstance(path, Path):
            blob = Blob(path, path.stat().st_size, f"{n:064x}", f"{n:040x}", lfs=True)
            repo.commits[-1].files[name] = blob  # type: ignore[index]


async def test_of_many_shards_only_those_are_read_from_which_the_others_follow(
    hub: Hub, hub_server: HubServer, tmp_path: Path
) -> None:
    add_shards(hub_server, large_shards(tmp_path))
    found = await hub.inspect(parse_spec("org/seventy"))
    assert found.facts == inspect_loose(tmp_path).facts
    assert found.size_bytes > 130e9 and found.headers_read == 2, "the first and the last"
    assert found.requests <= 6 and found.fetched_bytes <= 500_000
    assert found.safetensors is not None and len(found.safetensors) == 30
    shapes = {t.name: t.shape for header in found.safetensors.values() for t in header.tensors}
    assert len(shapes) == 643 and shapes["model.layers.40.self_attn.k_proj.weight"] == (1024, 8192)


async def test_a_layer_that_is_not_like_the_others_is_read(
    hub: Hub, hub_server: HubServer, tmp_path: Path
) -> None:
    odd = {"model__layers__40__mlp__gate_proj__weight": ("BF16", (14336, 8192))}
    add_shards(hub_server, large_shards(tmp_path, **odd))
    found = await hub.inspect(parse_spec("org/seventy"))
    assert found.headers_read == 3 and found.facts == inspect_loose(tmp_path).facts
    assert found.safetensors is not None
    shapes = {t.name: t.shape for header in found.safetensors.values() for t in header.tensors}
    assert shapes["model.layers.40.mlp.gate_proj.weight"] == (14336, 8192)


async def test_sharded_safetensors_give_the_facts_of_the_folder(
    hub: Hub, hub_server: HubServer, tmp_path: Path
) -> None:
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
    }
    files = {
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"model.embed_tokens.weight": names[0], "lm_head.weight": names[1]}}
        ).encode(),
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "{{ tools }}"}',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, tensor in zip(names, ("model.embed_tokens.weight", "lm_head.weight"), strict=True):
        write_safetensors(tmp_path / name, {tensor: ("BF16", (512, 1024))})
    hub_server.add_repo("org/safe", {**files, **{name: tmp_path / name for name in names}})
    found = await hub.inspect(parse_spec("org/safe"))
    assert found.facts == inspect_loose(tmp_path).facts
    assert found.facts.parameters == 2 * 512 * 1024 and found.facts.chat_template
    assert "vision" not in found.facts.capabilities and found.facts.architecture == "LlamaForCausalLM"
    assert found.config == config and found.safetensors is not None and set(found.safetensors) == set(names)
    for name in names:
        (read,) = hub_server.requests_for(f"*{name}", host="cdn")
        assert read.bytes_sent <= 64 * 1024
