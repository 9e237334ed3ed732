"""Which files belong together, and which of them a selector means."""

from __future__ import annotations

import hashlib

import pytest

from ostler.hub import (
    AmbiguousSelector,
    HubFile,
    IncompleteRepo,
    NoSuchFile,
    RepoInfo,
    UnsupportedRepo,
)
from ostler.hub.choosing import DEFAULT_ORDER, Choice, choose, find_mmprojs, find_variants


def repo(*paths: str, tags: tuple[str, ...] = ()) -> RepoInfo:
    files = tuple(
        HubFile(path, 1000 + n, "a" * 64, hashlib.sha1(path.encode()).hexdigest(), lfs=True)
        for n, path in enumerate(sorted(paths))
    )
    return RepoInfo(
        repo="org/repo",
        commit="c" * 40,
        revision="main",
        gated=None,
        private=False,
        downloads=0,
        likes=0,
        tags=tags,
        pipeline_tag=None,
        license=None,
        last_modified=None,
        files=files,
        variants=find_variants(files, tags),
        mmprojs=find_mmprojs(files),
    )


def paths(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


@pytest.mark.parametrize(
    ("path", "tag"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q4_k_m.gguf", "Q4_K_M"),
        ("llama_3_Q8_0.gguf", "Q8_0"),
        ("DeepSeek-R1-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00001.gguf", "UD-IQ1_S"),
        ("Model.i1-IQ3_XXS.gguf", "IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("model-fp16.gguf", "F16"),
        ("model-bf16.gguf", "BF16"),
        ("F16-based-Q5_K_S.gguf", "Q5_K_S"),
        ("phi-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("phi-TQ1_0.gguf", "TQ1_0"),
        ("phi-IQ4_NL.gguf", "IQ4_NL"),
        ("Q6_K/weights.gguf", "Q6_K"),
        ("phi-Q6_K_L.gguf", "Q6_K_L"),
        ("plain.gguf", "plain"),
        ("model-Q4_K_M-imatrix.gguf", "Q4_K_M"),
    ],
)
def test_the_tag_is_read_from_the_name(path: str, tag: str) -> None:
    (variant,) = repo(path).variants
    assert variant.tag == tag


def test_a_repo_is_listed_as_its_models_and_nothing_else() -> None:
    info = repo(
        *("m-Q4_K_M.gguf", "big/m-Q8_0-00001-of-00002.gguf", "big/m-Q8_0-00002-of-00002.gguf"),
        *("mmproj-F16.gguf", "imatrix.gguf", "ggml-vocab-llama.gguf", "README.md", "config.json"),
    )
    assert {(v.tag, len(v.files)) for v in info.variants} == {("Q4_K_M", 1), ("Q8_0", 2)}
    split = next(v for v in info.variants if v.tag == "Q8_0")
    assert split.size_bytes == sum(file.size_bytes for file in split.files)
    assert split.primary == "big/m-Q8_0-00001-of-00002.gguf"
    assert [file.path for file in info.mmprojs] == ["mmproj-F16.gguf"]


def test_without_a_selector_four_bits_come_first_then_more_then_fewer() -> None:
    have = ["m-F32.gguf", "m-Q2_K.gguf", "m-Q8_0.gguf", "m-Q5_K_M.gguf", "m-Q4_0.gguf", "m-Q4_K_M.gguf"]
    chosen = []
    while have:
        chosen.append(choose(repo(*have), None).variant.primary)
        have.remove(chosen[-1])
    assert chosen == [
        *("m-Q4_K_M.gguf", "m-Q4_0.gguf", "m-Q5_K_M.gguf", "m-Q8_0.gguf", "m-Q2_K.gguf", "m-F32.gguf")
    ]
    assert len(set(DEFAULT_ORDER)) == len(DEFAULT_ORDER)


@pytest.mark.parametrize("selector", [None, "latest", "LATEST"])
def test_a_single_model_needs_no_selector(selector: str | None) -> None:
    assert paths(choose(repo("strange-name.gguf", "README.md"), selector)) == ["strange-name.gguf"]


@pytest.mark.parametrize(
    ("selector", "path"),
    [
        ("Q8_0", "m-Q8_0.gguf"),
        ("q8_0", "m-Q8_0.gguf"),
        ("FP16", "m-F16.gguf"),
        ("UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
        ("q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        ("m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("M-q8_0.GGUF", "m-Q8_0.gguf"),
        ("sub/m-Q5_0.gguf", "sub/m-Q5_0.gguf"),
        ("m-Q5_0.gguf", "sub/m-Q5_0.gguf"),
        ("sub", "sub/m-Q5_0.gguf"),
        ("sub/", "sub/m-Q5_0.gguf"),
    ],
)
def test_a_selector_finds_its_model_in_any_case(selector: str, path: str) -> None:
    info = repo("m-Q8_0.gguf", "m-F16.gguf", "m-UD-Q4_K_XL.gguf", "sub/m-Q5_0.gguf")
    assert choose(info, selector).variant.primary == path


SHARDS = [f"UD-Q4_K_XL/m-UD-Q4_K_XL-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize("selector", [None, "UD-Q4_K_XL", *SHARDS, "m-UD-Q4_K_XL-00002-of-00003.gguf"])
def test_a_split_model_comes_whole_whichever_part_is_named(selector: str | None) -> None:
    choice = choose(repo(*reversed(SHARDS)), selector)
    assert paths(choice) == SHARDS
    assert choice.variant.primary == SHARDS[0]


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_missing_shard_is_named(absent: int) -> None:
    present = [shard for n, shard in enumerate(SHARDS) if n != absent]
    with pytest.raises(IncompleteRepo) as incomplete:
        choose(repo(*present), None)
    assert incomplete.value.facts["missing"] == [SHARDS[absent]]
    assert SHARDS[absent] in incomplete.value.message
    assert incomplete.value.hint


def test_a_promise_of_very_many_shards_gives_a_short_error() -> None:
    with pytest.raises(IncompleteRepo) as incomplete:
        choose(repo("m-Q4_0-00001-of-99999.gguf"), None)
    assert "99,998" in incomplete.value.message
    assert len(incomplete.value.message) < 300
    assert len(incomplete.value.facts["missing"]) == 20


def test_two_models_of_one_quantization_have_to_be_named() -> None:
    info = repo("small-Q4_K_M.gguf", "large-Q4_K_M.gguf")
    for selector in (None, "Q4_K_M"):
        with pytest.raises(AmbiguousSelector) as ambiguous:
            choose(info, selector)
        assert ambiguous.value.facts["files"] == ["large-Q4_K_M.gguf", "small-Q4_K_M.gguf"]
        assert "org/repo:large-Q4_K_M.gguf" in (ambiguous.value.hint or "")
    assert choose(info, "small-Q4_K_M.gguf").variant.primary == "small-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("selector", "near"), [("Q4_KM", "Q4_K_M"), ("Q8", "Q8_0"), ("m-Q4_K_N.gguf", "m-Q4_K_M.gguf")]
)
def test_a_wrong_name_is_answered_with_near_ones_and_all_tags(selector: str, near: str) -> None:
    with pytest.raises(NoSuchFile) as wrong:
        choose(repo("m-Q4_K_M.gguf", "m-Q8_0.gguf"), selector)
    assert wrong.value.facts["near"][0] == near
    assert f"org/repo:{near}" in (wrong.value.hint or "")
    assert wrong.value.facts["available"] == ["Q4_K_M", "Q8_0"]


@pytest.mark.parametrize(
    ("projectors", "chosen"),
    [
        (["mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["m-mmproj-q8_0.gguf", "m-mmproj-f32.gguf"], "m-mmproj-f32.gguf"),
        (["mmproj-model.gguf"], "mmproj-model.gguf"),
        (["other/mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        (["other/mmproj-F16.gguf"], "other/mmproj-F16.gguf"),
    ],
)
def test_the_projector_comes_along_f16_first(projectors: list[str], chosen: str) -> None:
    choice = choose(repo("m-Q4_K_M.gguf", *projectors), None)
    assert paths(choice) == ["m-Q4_K_M.gguf", chosen]


def test_a_projector_in_the_models_own_folder_is_preferred() -> None:
    info = repo("4b/m-Q4_K_M.gguf", "4b/mmproj-BF16.gguf", "12b/m-Q4_K_M.gguf", "mmproj-F16.gguf")
    assert paths(choose(info, "4b")) == ["4b/m-Q4_K_M.gguf", "4b/mmproj-BF16.gguf"]
    assert paths(choose(info, "12b")) == ["12b/m-Q4_K_M.gguf", "mmproj-F16.gguf"]


def test_a_projector_asked_for_by_name_comes_alone() -> None:
    assert paths(choose(repo("m-Q4_K_M.gguf", "mmproj-F16.gguf"), "mmproj-F16.gguf")) == ["mmproj-F16.gguf"]


SAFETENSORS = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("tokenizer.model", "chat_template.jinja", "modeling_custom.py", "README.md", ".gitattributes"),
)


def test_safetensors_come_with_config_and_tokenizer_and_without_duplicates() -> None:
    info = repo(
        *SAFETENSORS,
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"),
        *("consolidated.safetensors", "original/consolidated.00.pth", "onnx/model.onnx", "tf_model.h5"),
        *("trainer_state.json", "onnx/config.json", "1_Pooling/config.json"),
    )
    choice = choose(info, None)
    assert choice.variant.primary == "model-00001-of-00002.safetensors"
    assert set(paths(choice)) == {
        *SAFETENSORS[:8],
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "1_Pooling/config.json"),
    }
    assert paths(choice)[0] == choice.variant.primary


def test_a_repo_with_both_formats_gives_gguf_unless_safetensors_is_asked_for() -> None:
    info = repo("config.json", "model.safetensors", "m-Q4_K_M.gguf", tags=("safetensors", "awq"))
    assert paths(choose(info, None)) == ["m-Q4_K_M.gguf"]
    for selector in ("safetensors", "model.safetensors"):
        choice = choose(info, selector)
        assert paths(choice) == ["model.safetensors", "config.json"]
        assert choice.variant.quantization == "awq"


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["model.safetensors"], ["config.json"]),
        (
            ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            ["model-00002-of-00002.safetensors"],
        ),
        (
            [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)] + ["config.json"],
            ["model.safetensors.index.json"],
        ),
    ],
)
def test_safetensors_that_lack_a_part_are_incomplete(files: list[str], missing: list[str]) -> None:
    with pytest.raises(IncompleteRepo) as incomplete:
        choose(repo(*files), None)
    assert incomplete.value.facts["missing"] == missing


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], "LoRA adapter"),
        (["model_index.json", "unet/model.safetensors"], "diffusion model"),
        (["pytorch_model.bin", "config.json"], "no GGUF and no safetensors"),
        ([], "no GGUF and no safetensors"),
    ],
)
@pytest.mark.parametrize("selector", [None, "Q4_K_M"])
def test_a_repo_that_no_engine_can_load_says_what_it_is(
    files: list[str], what: str, selector: str | None
) -> None:
    with pytest.raises(UnsupportedRepo, match=what) as unsupported:
        choose(repo(*files), selector)
    assert unsupported.value.hint


def test_a_file_that_is_no_model_is_refused() -> None:
    with pytest.raises(UnsupportedRepo, match=r"README\.md") as refused:
        choose(repo("m-Q4_K_M.gguf", "README.md"), "README.md")
    assert "Q4_K_M" in (refused.value.hint or "")
