"""Which files of a repo belong together, and which of them a selector means. No network in here.

The rules, in the order in which they are tried:

Without a selector (or with `latest`): the only GGUF model there is; of several the first in
`DEFAULT_ORDER`; without any GGUF the safetensors weights.
With a selector, in any case: a path in the repo; a quantization tag (`Q4_K_M`, also found as
`UD-Q4_K_M` where only that exists; `FP16` is `F16`); `safetensors`; a folder that holds one model;
a file's name without its folder. All shards of a split file are taken, and the multimodal projector
(mmproj) that lies nearest: in the same folder before others, then by `MMPROJ_ORDER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ostler.core.near import near_names
from ostler.hub.errors import AmbiguousSelector, IncompleteRepo, NoSuchFile, UnsupportedRepo
from ostler.hub.records import HubFile, RepoInfo, Variant

DEFAULT_ORDER = (
    # Around four bits first: the best quality for its size. Then more bits, then fewer, then none saved.
    *("Q4_K_M", "UD-Q4_K_XL", "Q4_K_L", "Q4_K_S", "IQ4_XS", "IQ4_NL", "MXFP4", "MXFP4_MOE", "Q4_1", "Q4_0"),
    *("Q5_K_M", "UD-Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q6_K", "UD-Q6_K_XL", "Q6_K_L", "Q8_0", "UD-Q8_K_XL"),
    *("Q3_K_L", "UD-Q3_K_XL", "Q3_K_M", "IQ3_M", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
    *(
        "Q2_K",
        "Q2_K_L",
        "UD-Q2_K_XL",
        "IQ2_M",
        "IQ2_S",
        "IQ2_XS",
        "IQ2_XXS",
        "TQ2_0",
        "TQ1_0",
        "IQ1_M",
        "IQ1_S",
    ),
    *("BF16", "F16", "F32"),
)
MMPROJ_ORDER = ("F16", "BF16", "F32", "Q8_0")

_TAG = re.compile(
    r"""(?<![A-Za-z0-9])
    (?P<dynamic>UD-)?
    (?P<quantization>
        I?Q[1-9] (?: _[01](?:_\d_\d)?
                   | _K(?:_(?:XXS|XXL|XS|XL|SS|S|M|L))?
                   | _(?:XXS|XS|XL|NL|KSS|KS|KT|KL|S|M|L) )
        | TQ[12]_0 | I2_S | BF16 | FP?(?:16|32|64) | FP8 | NVFP4 | MXFP[468](?:_MOE)?
    )
    (?![A-Za-z0-9])""",
    re.IGNORECASE | re.VERBOSE,
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[a-z]+)", re.IGNORECASE)
_COMPANION_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
_COMPANION_FOLDERS = re.compile(
    r"(?:additional_)?chat_templates/[^/]+\.jinja|\d+_[A-Za-z]+/[^/]+\.(?:json|safetensors)"
)
_NOT_NEEDED = re.compile(
    r"(?:trainer_state|(?:all|train|eval|test)_results|training_args)\.json|requirements.*\.txt"
)
_WEIGHT_METHODS = (
    "awq",
    "gptq",
    "fp8",
    "nvfp4",
    "mxfp4",
    "compressed-tensors",
    "bitsandbytes",
    "aqlm",
    "quark",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a selector means: one variant, and the files that go with it."""

    variant: Variant
    companions: tuple[HubFile, ...] = ()
    mmproj: HubFile | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """Everything to fetch, each file once; the primary file first."""
        more = (self.mmproj,) if self.mmproj else ()
        return tuple(dict.fromkeys((*self.variant.files, *more, *self.companions)))


def find_variants(files: Sequence[HubFile], tags: Iterable[str] = ()) -> tuple[Variant, ...]:
    """The models in a repo: every GGUF (its shards together), and the safetensors weights."""
    ggufs = [file for file in files if _is_model_gguf(file.path)]
    variants = [_gguf_variant(group) for group in _group(ggufs)]
    return (*sorted(variants, key=lambda v: (v.size_bytes, v.tag, v.primary)), *_safetensors(files, tags))


def find_mmprojs(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """The multimodal projectors in a repo."""
    return tuple(file for file in files if _is_mmproj(file.path))


def choose(info: RepoInfo, selector: str | None) -> Choice:
    """What the selector means in this repo.

    Raises NoSuchFile with near names, AmbiguousSelector, IncompleteRepo naming what is missing,
    UnsupportedRepo when no engine could load anything of it.
    """
    if selector is None or selector.lower() == "latest":
        variant = _default(info)
    else:
        variant = _select(info, selector)
    if variant.missing:
        raise IncompleteRepo(
            f"{info.repo} lacks {len(variant.missing):,} of the files of {variant.tag}: "
            f"{_listed(variant.missing, 3)}",
            repo=info.repo,
            missing=list(variant.missing[:20]),
        )
    if variant.format == "safetensors":
        return Choice(variant, companions=_companions(info.files, variant))
    return Choice(variant, mmproj=_nearest_mmproj(info.mmprojs, variant.files[0]))


def _default(info: RepoInfo) -> Variant:
    ggufs = [variant for variant in info.variants if variant.format == "gguf"]
    candidates = ggufs or list(info.variants)
    if not candidates:
        raise _unsupported(info)
    best = min(_rank(variant) for variant in candidates)
    return _the_one(info, [variant for variant in candidates if _rank(variant) == best], None)


def _rank(variant: Variant) -> int:
    return DEFAULT_ORDER.index(variant.tag) if variant.tag in DEFAULT_ORDER else len(DEFAULT_ORDER)


def _select(info: RepoInfo, selector: str) -> Variant:
    wanted = selector.rstrip("/")
    for find in (_by_path, _by_tag, _by_folder, _by_name):
        if found := find(info, wanted):
            return _the_one(info, found, selector)
    if not info.variants:
        raise _unsupported(info)
    raise _no_such_file(info, selector)


def _by_path(info: RepoInfo, wanted: str) -> list[Variant]:
    exact = [file for file in info.files if file.path == wanted]
    alike = exact or [file for file in info.files if file.path.casefold() == wanted.casefold()]
    return [_variant_of(info, file) for file in alike]


def _by_tag(info: RepoInfo, wanted: str) -> list[Variant]:
    tag = _normal(wanted)
    exact = [variant for variant in info.variants if _normal(variant.tag) == tag]
    return exact or [variant for variant in info.variants if _normal(variant.quantization or "") == tag]


def _by_folder(info: RepoInfo, wanted: str) -> list[Variant]:
    folder = f"{wanted.casefold()}/"
    return [variant for variant in info.variants if variant.primary.casefold().startswith(folder)]


def _by_name(info: RepoInfo, wanted: str) -> list[Variant]:
    return [_variant_of(info, file) for file in info.files if file.name.casefold() == wanted.casefold()]


def _variant_of(info: RepoInfo, file: HubFile) -> Variant:
    """The model that a file belongs to; for a GGUF that is no model (an mmproj) the file alone."""
    for variant in info.variants:
        if file in variant.files:
            return variant
    lower = file.path.lower()
    if lower.endswith(".gguf"):
        return _gguf_variant([file])
    if lower.endswith(".safetensors"):
        same = [f for f in info.files if _folder(f.path) == _folder(file.path) and _is_safetensors(f.path)]
        (group,) = (group for group in _group(same) if file in group)
        return _safetensors_variant(group, info.files, info.tags, tag=_stem(file.name))
    raise UnsupportedRepo(
        f"{file.path} of {info.repo} is not a model file", hint=_offer(info), repo=info.repo, file=file.path
    )


def _the_one(info: RepoInfo, found: list[Variant], selector: str | None) -> Variant:
    unique = list(dict.fromkeys(found))
    if len(unique) == 1:
        return unique[0]
    paths = [variant.primary for variant in unique]
    asked = f"{selector!r} fits" if selector else "without a file or quantization it could be"
    raise AmbiguousSelector(
        f"{info.repo} holds several models: {asked} {_listed(paths, 4)}",
        hint=f"Name the file: {info.repo}:{paths[0]}",
        repo=info.repo,
        files=paths[:50],
    )


def _no_such_file(info: RepoInfo, selector: str) -> NoSuchFile:
    tags = list(dict.fromkeys(variant.tag for variant in info.variants))
    names = [path for variant in info.variants for path in (variant.primary, variant.files[0].name)]
    is_file = selector.lower().endswith((".gguf", ".safetensors"))
    near = near_names(selector, names if is_file else tags)
    hint = f"Did you mean {info.repo}:{near[0]}? " if near else ""
    return NoSuchFile(
        f"{info.repo} has no {'file' if is_file else 'quantization or file'} {selector!r}",
        hint=hint + _offer(info),
        repo=info.repo,
        selector=selector,
        near=near,
        available=tags[:50],
    )


def _offer(info: RepoInfo) -> str:
    tags = list(dict.fromkeys(variant.tag for variant in info.variants))
    if not tags:
        return "The repo holds no GGUF or safetensors model."
    return f"It has: {_listed(tags, 30)}"


def _listed(names: Sequence[str], limit: int) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _unsupported(info: RepoInfo) -> UnsupportedRepo:
    names = {file.name for file in info.files}
    name = info.repo.partition("/")[2]
    if "adapter_config.json" in names:
        what, hint = "is a LoRA adapter and not a model", "Pull the model that it was made for."
    elif "model_index.json" in names:
        what, hint = "is a diffusion model, which no engine here runs", "Choose a language model."
    else:
        what, hint = (
            "holds no GGUF and no safetensors model",
            f"Look for a GGUF of it: ostler search {name} GGUF",
        )
    return UnsupportedRepo(f"{info.repo} {what}", hint=hint, repo=info.repo)


# --- GGUF


def _is_model_gguf(path: str) -> bool:
    name = path.lower().rpartition("/")[2]
    if not name.endswith(".gguf") or "mmproj" in name or name.startswith("ggml-vocab-"):
        return False
    # An importance matrix is data for quantizing; "...-Q4_K_M-imatrix.gguf" is a model made with one.
    return "imatrix" not in name or _TAG.search(name) is not None


def _is_mmproj(path: str) -> bool:
    name = path.lower().rpartition("/")[2]
    return name.endswith(".gguf") and "mmproj" in name


def _gguf_variant(files: list[HubFile]) -> Variant:
    tag, quantization = _tag_of(files[0].path)
    size = sum(file.size_bytes for file in files)
    return Variant(tag, quantization, tuple(files), size, "gguf", _missing_shards(files))


def _tag_of(path: str) -> tuple[str, str | None]:
    """The tag in a file's name, else in its folder's; else the name itself, so that it can be chosen."""
    for text in (_stem(path.rpartition("/")[2]), _folder(path)):
        if found := list(_TAG.finditer(text)):
            quantization = _normal(found[-1]["quantization"])
            return ("UD-" if found[-1]["dynamic"] else "") + quantization, quantization
    return _stem(path.rpartition("/")[2]), None


def _normal(tag: str) -> str:
    upper = tag.upper()
    return upper.replace("FP", "F") if upper in ("FP16", "FP32", "FP64") else upper


def _nearest_mmproj(mmprojs: Sequence[HubFile], model: HubFile) -> HubFile | None:
    if _is_mmproj(model.path) or not mmprojs:
        return None

    def distance(file: HubFile) -> tuple[bool, bool, int, str]:
        _, quantization = _tag_of(file.path)
        rank = MMPROJ_ORDER.index(quantization) if quantization in MMPROJ_ORDER else len(MMPROJ_ORDER)
        folder = _folder(file.path)
        return folder != _folder(model.path), folder != "", rank, file.path

    return min(mmprojs, key=distance)


# --- safetensors


def _is_safetensors(path: str) -> bool:
    return path.lower().endswith(".safetensors")


def _safetensors(files: Sequence[HubFile], tags: Iterable[str]) -> list[Variant]:
    """The weights at the top of the repo. `model*` wins over copies under other names."""
    groups = {
        _stem(group[0].name).lower(): group
        for group in _group([file for file in files if _is_safetensors(file.path) and "/" not in file.path])
    }
    groups.pop("adapter_model", None)
    if "model" in groups:
        groups = {"model": groups["model"]}
    elif len(groups) > 1:
        groups.pop("consolidated", None)  # Mistral's own form of the same weights
    only = len(groups) == 1
    return [
        _safetensors_variant(group, files, tags, tag="safetensors" if only else stem)
        for stem, group in sorted(groups.items())
    ]


def _safetensors_variant(
    group: list[HubFile], files: Sequence[HubFile], tags: Iterable[str], *, tag: str
) -> Variant:
    known, folder = {file.path for file in files}, _folder(group[0].path)
    missing = list(_missing_shards(group))
    if not {folder + "config.json", folder + "params.json"} & known:
        missing.append(folder + "config.json")
    index = f"{folder}{_stem(group[0].name)}.safetensors.index.json"
    if _SHARD.fullmatch(group[0].name) and index not in known:
        missing.append(index)
    lower = {t.lower() for t in tags}
    method = next((name for name in _WEIGHT_METHODS if name in lower), None)
    size = sum(file.size_bytes for file in group)
    return Variant(tag, method, tuple(group), size, "safetensors", tuple(missing))


def _companions(files: Sequence[HubFile], variant: Variant) -> tuple[HubFile, ...]:
    """Config, tokenizer, templates and code beside the weights; no weights in other formats."""
    folder = _folder(variant.primary)
    index = f"{_stem(variant.files[0].name)}.safetensors.index.json"
    found = []
    for file in files:
        if not file.path.startswith(folder):
            continue
        rest = file.path[len(folder) :]
        if "/" in rest:
            wanted = _COMPANION_FOLDERS.fullmatch(rest) is not None
        else:
            wanted = rest.lower().endswith(_COMPANION_SUFFIXES) and not _NOT_NEEDED.fullmatch(rest)
            wanted = wanted and (rest == index or not rest.endswith(".index.json"))
        if wanted:
            found.append(file)
    return tuple(found)


# --- both


def _group(files: Iterable[HubFile]) -> list[list[HubFile]]:
    """Shards of one model together, in order; every other file alone."""
    groups: dict[tuple[str, str], list[HubFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        shard = _SHARD.fullmatch(file.path)
        key = (shard["stem"], shard["count"]) if shard else (file.path, "")
        groups.setdefault(key, []).append(file)
    return list(groups.values())


def _missing_shards(files: Sequence[HubFile]) -> tuple[str, ...]:
    shard = _SHARD.fullmatch(files[0].path)
    if shard is None:
        return ()
    have = {file.path for file in files}
    stem, count, suffix = shard["stem"], shard["count"], shard["suffix"]
    needed = (f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1))
    return tuple(path for path in needed if path not in have)


def _stem(name: str) -> str:
    """A file's name without shard number and suffix."""
    shard = _SHARD.fullmatch(name)
    return shard["stem"] if shard else name.rpartition(".")[0]


def _folder(path: str) -> str:
    """The folder of a path with its slash, "" at the top."""
    return path[: path.rfind("/") + 1]
