"""What vLLM refuses: arguments that it cannot follow, and models that it cannot load (`vllm_diagnosis`)."""

from __future__ import annotations

from ostler.engines.diagnosis import Rule, rule

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
        r"We couldn't connect to '(?P<where>[^']+)'|trying to locate the file on the Hub",
        "network",
        "No connection",
        "The engine could not reach the hub {where}",
        "Pull what it needs first (ostler pull): engines of Ostler run offline",
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
