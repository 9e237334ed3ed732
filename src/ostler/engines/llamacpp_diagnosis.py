"""Why a llama.cpp engine ended, read from its last log lines.

The patterns were provoked from llama-server b11434 and xllamacpp 2026.10.11549; those on GPU memory
are from its source.
"""

from __future__ import annotations

from ostler.engines.diagnosis import HOST, Rule, Rules, rule

SMALLER = (
    "Set a smaller context_length or parallel_slots, a smaller kv_cache_type such as q8_0, fewer gpu_layers, "
    "or take a smaller quantization; or stop another model: ostler ps"
)

RULES: tuple[Rule, ...] = (
    rule(
        r"invalid argument: (?P<flag>-\S+)",
        "arguments",
        "Unknown flag",
        "The engine does not know the flag {flag}.",
        "Correct the model's options or extra arguments; see docs/engines/llamacpp.md",
    ),
    rule(
        r"error: (?P<flag>--\S+) cannot be honoured by the built-in engine(?:: (?P<why>.*))?",
        "arguments",
        "Option not possible here",
        "The built-in engine cannot do {flag}.",
        "Take the option away, or install llama-server and name it in the setting llama_server_command",
    ),
    rule(
        r'error while handling (?:argument|environment variable) "(?P<flag>[^"]+)": (?P<why>.*)',
        "arguments",
        "Bad value",
        "The engine refuses the value of {flag}: {why}",
        "Correct the model's option of that name: ostler show MODEL",
    ),
    rule(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "system",
        "Port in use",
        "The engine could not listen on {host}:{port}; something else does.",
        "Start the model again: another port is chosen",
    ),
    rule(
        r"failed to load multimodal model, '(?P<file>[^']*)'|Failed to load CLIP model from (?P<clip>\S+)",
        "model",
        "Projector not usable",
        "The projector file (mmproj) does not load or does not belong to this model.",
        "Name the right file in the option mmproj, or set mmproj_auto to false to go without",
    ),
    rule(
        r"failed to load lora adapter '(?P<file>[^']*)'",
        "model",
        "Adapter not usable",
        "The LoRA adapter {file} does not load; it may be made for another model.",
        "Correct or remove the option lora",
    ),
    rule(
        r"failed to load draft model|failed to create draft context",
        "model",
        "Drafting model not usable",
        "The model for speculative decoding does not load.",
        "Correct or remove the option draft_model",
    ),
    rule(
        r"failed to open GGUF file '(?P<file>[^']*-\d{5}-of-\d{5}\.gguf)' \(No such file or directory\)",
        "model",
        "Part missing",
        "The model consists of several files, and {file} is not there.",
        "Pull the model again: ostler pull; or put the part beside the others under its own name",
        "See which parts are missing: ostler inspect PATH",
    ),
    rule(
        r"model must be loaded with the first split",
        "model",
        "Not the first part",
        "The engine was given a later part of a model that consists of several files.",
        "Name the file that ends in -00001-of-N.gguf as the model's source",
    ),
    rule(
        r"failed to open GGUF file '(?P<file>[^']*)' \(No such file or directory\)",
        "model",
        "File missing",
        "The file {file} is not there.",
        "Put it back or pull the model again: ostler pull",
        "Check the model's source: ostler show MODEL",
    ),
    rule(
        r"failed to load GGUF split from (?P<file>\S+)|illegal split|invalid split (?:file|count)",
        "model",
        "Part missing",
        "The model consists of several files, and one of them is missing or broken.",
        "Pull the model again: ostler pull",
    ),
    rule(
        r"failed to open GGUF file '(?P<file>[^']*)' \((?P<why>[^)]*)\)",
        "system",
        "File cannot be read",
        "The file {file} cannot be read: {why}.",
        "Check who owns it and its permissions: it must be readable by the user that runs Ostler",
    ),
    rule(
        r"invalid magic characters",
        "model",
        "Not a GGUF file",
        "The file is not a GGUF file.",
        "Look at it with: ostler inspect PATH",
    ),
    rule(
        r"data is not within the file bounds|corrupted or incomplete|unexpected end of file"
        r"|failed to read (?:tensor|key-value|magic)",
        "model",
        "File broken",
        "The model file is cut off or damaged.",
        "Pull the model again: ostler pull",
    ),
    rule(
        r"unknown model architecture: '(?P<architecture>[^']*)'",
        "model",
        "Architecture not supported",
        "This engine does not know the architecture {architecture}.",
        "A newer llama.cpp may: name it in the setting llama_server_command, or update Ostler",
    ),
    rule(
        r"unknown pre-tokenizer type: '(?P<kind>[^']*)'|unknown tokenizer: '(?P<tokenizer>[^']*)'",
        "model",
        "Tokenizer not supported",
        "This engine does not know the model's tokenizer.",
        "A newer llama.cpp may: name it in the setting llama_server_command, or update Ostler",
    ),
    rule(
        r"(?:key not found in model|missing tensor|wrong number of tensors|check_tensor_dims)[:\s]*"
        r"(?P<what>.*)",
        "model",
        "File does not fit the engine",
        "The file lacks something that the engine expects: {what}",
        "It may be made for another version of llama.cpp, or be a part of a model; try another file of it",
    ),
    rule(
        r"quantized V cache requires flash_attn|V cache quantization requires flash_attn",
        "arguments",
        "Quantized cache without flash attention",
        "A quantized kv_cache_type_v works with flash attention only.",
        "Set flash_attention to on, or kv_cache_type_v to f16",
    ),
    rule(
        r"failed to allocate compute",
        "memory",
        "Batch too large for the memory",
        "There is not enough memory to compute a batch this large over a context this long.",
        "Set a smaller ubatch_size, then a smaller context_length",
        SMALLER,
    ),
    rule(
        r"supplied chat template is not supported",
        "arguments",
        "Chat template not usable",
        "The engine cannot use the chat template given in the options.",
        "Correct or remove chat_template, and keep jinja on",
    ),
    rule(
        r"failed to allocate buffer for kv cache|failed to allocate (?:memory for )?kv cache"
        r"|failed to initialize the context: failed to allocate",
        "memory",
        "Context too large",
        "There is not enough memory for the KV cache of a context this long.",
        SMALLER,
    ),
    rule(
        r"cudaMalloc failed: out of memory|out of device memory|ErrorOutOfDeviceMemory|hipErrorOutOfMemory"
        r"|unable to allocate (?P<device>CUDA|ROCm|Vulkan|Metal|SYCL)\d* buffer",
        "memory",
        "Out of GPU memory",
        "The model does not fit into the GPU's free memory.",
        SMALLER,
    ),
    rule(
        r"failed to allocate (?:CPU )?buffer|unable to allocate (?P<device>\S+) buffer|std::bad_alloc"
        r"|cannot allocate memory",
        "memory",
        "Out of memory",
        "There is not enough memory for this model.",
        SMALLER,
    ),
)

LAST: tuple[Rule, ...] = (
    rule(
        r"HTTPLIB failed: (?P<why>.*)",
        "network",
        "No connection",
        "The engine could not reach the server that it should fetch from: {why}",
        "Pull the model first (ostler pull ORG/REPO): engines of Ostler need no network then",
        "Check the setting hf_endpoint and the network",
    ),
    rule(
        r"error writing to file: (?P<file>\S+)",
        "system",
        "Disk full",
        "The engine could not write {file}: mostly because the disk is full.",
        "Free some space (df -h shows where), or pull the model first: ostler pull ORG/REPO",
    ),
    rule(
        r"error loading model: (?P<why>.*)|failed to load model, '(?P<file>[^']*)'",
        "model",
        "Model does not load",
        "The engine could not load the model.",
        "Look at its file with: ostler inspect PATH, and at the log: ostler logs MODEL",
    ),
)

NOTES: tuple[Rule, ...] = (
    rule(
        r"missing pre-tokenizer type, using: '(?P<kind>[^']*)'",
        "model",
        "Tokenizer not named in the file",
        "The GGUF does not say how text is cut into tokens; '{kind}' is taken, and answers may be worse.",
        "Pull a newer GGUF of the model, converted by a current llama.cpp",
        severity="warning",
    ),
    rule(
        r"slot context \((?P<asked>\d+)\) exceeds the training context of the model \((?P<most>\d+)\)",
        "arguments",
        "Context longer than trained",
        "A context of {asked} tokens was asked for, the model was trained on {most}; it gets {most}.",
        "Set context_length to {most} times parallel_slots, which saves memory; or use rope scaling",
        severity="warning",
    ),
    rule(
        r"failed to mlock",
        "system",
        "Memory not locked",
        "The system did not let the engine keep all of the model in memory; parts may be swapped out.",
        "Raise the limit (ulimit -l unlimited), or take the option mlock away",
        severity="warning",
    ),
    rule(
        r"no usable GPU found, --gpu-layers option will be ignored",
        "gpus",
        "No GPU used",
        "The engine sees no GPU that its build can use, so the processor does all the work.",
        "Use a llama-server built for this GPU: the setting llama_server_command",
        severity="warning",
    ),
)
"""What a running engine says that a person may wonder about; none of it ends an engine."""

DIAGNOSIS = Rules(
    rules=(*RULES, *HOST, *LAST),
    notes=NOTES,
    smaller=SMALLER,
    other_build="Use a llama-server built for this machine: the setting llama_server_command",
)
