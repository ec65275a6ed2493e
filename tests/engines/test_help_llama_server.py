from garrison.engines.help.llama_server import parse_llama_server

# Lines of `llama-server --help`, build 11434.
HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
--rope-scaling {none,linear,yarn}       RoPE frequency scaling method, defaults to linear unless specified by
                                        the model
--cpu-strict <0|1>                      use strict CPU placement (default: 0)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--repack, -nr, --no-repack              whether to enable weight repacking (default: enabled)
--no-host                               bypass host buffer allowing extra buffers to be used
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0
                                        (default: f16)
--control-vector-layer-range START END
                                        layer range to apply the control vector(s) to, start and end inclusive
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM, either an exact number,
                                        'auto', or 'all' (default: auto)


----- example-specific params -----

--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--ui-config, --webui-config JSON        JSON that provides default UI settings (overrides UI defaults)
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
"""


def test_every_form_of_an_option() -> None:
    options = {option.flag: option for option in parse_llama_server(HELP)}
    assert list(options) == [
        "--threads", "--ctx-size", "--flash-attn", "--rope-scaling", "--cpu-strict", "--kv-offload", "--repack",
        "--no-host", "--cache-type-k", "--control-vector-layer-range", "--gpu-layers", "--draft", "--ui-config",
        "--metrics",
    ]  # fmt: skip
    threads = options["--threads"]
    assert (threads.aliases, threads.type, threads.default) == (("-t",), "integer", "-1")
    assert (threads.env, threads.group) == ("LLAMA_ARG_THREADS", "common")
    assert options["--ctx-size"].default == "0"
    assert options["--flash-attn"].choices == ("on", "off", "auto")
    assert (
        options["--rope-scaling"].help
        == "RoPE frequency scaling method, defaults to linear unless specified by the model"
    )
    assert options["--cpu-strict"].choices == ("0", "1")
    assert options["--kv-offload"].aliases == ("-kvo",)
    assert options["--kv-offload"].negations == ("-nkvo", "--no-kv-offload")
    assert options["--repack"].negations == ("-nr", "--no-repack")
    assert (options["--no-host"].type, options["--no-host"].negations) == ("flag", ())
    assert options["--cache-type-k"].choices == ("f32", "f16", "q8_0")
    assert options["--control-vector-layer-range"].nargs == "2"
    assert (options["--gpu-layers"].type, options["--gpu-layers"].aliases) == ("text", ("-ngl", "--n-gpu-layers"))
    assert options["--draft"].removed
    assert options["--ui-config"].type == "json"
    assert options["--metrics"].group == "example-specific"
