from garrison.engines.help.argparse_help import parse_argparse

# Lines of `vllm serve --help=all`, unwrapped, and what Python 3.13 makes of short spellings.
HELP = """usage: vllm serve [model_tag] [options]

positional arguments:
  model_tag             The model tag to serve (optional if specified in config) (default: None)

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run. (default: None)
  -h, --help            show this help message and exit

Frontend:
  Arguments for the OpenAI-compatible frontend server.

  --allowed-origins ALLOWED_ORIGINS
                        Allowed origins. (default: [])
  --api-key API_KEY [API_KEY ...]
                        One of these keys. Do not rely on `--api-key` alone
                        - it does not protect all. (default: None)
  --middleware MIDDLEWARE
                        Apply this to the app. We accept multiple
                        --middleware arguments. (default: [])
  --port PORT           Port number. (default: 8000)
  --enable-lora, --no-enable-lora
                        Turn it on. (default: False)
  --max-lora-rank {1,8,16}
                        Max LoRA rank. (default: 16)
  --load-strategy {eager,lazy,None}
                        Strategy. (default: None)
  --config-format ['auto', 'hf']
                        Format (default: auto)
  --hf-token [HF_TOKEN]
                        The token. (default: None)
  --compilation-config COMPILATION_CONFIG, -cc COMPILATION_CONFIG
                        Should either be a valid JSON string or JSON keys passed individually.
                        (default: {'mode': None, 'x': (1, 2)})
  --enable-expert-parallel, --no-enable-expert-parallel, -ep
                        Experts. (default: False)
  -q, --quantization QUANTIZATION
                        Method. (default: None)
  --tool-call-parser {apertus,hermes} or name registered in --tool-parser-plugin
                        A parser. (default: None)
  --traces {all,model,None} [{all,model,None} ...]
                        What to trace. (default: None)
  --ratio RATIO         A ratio. (default: 0.92)

When passing JSON CLI arguments, the following sets of arguments are equivalent:
   --json-arg '{"key1": "value1"}'
"""


def test_every_form_of_an_option() -> None:
    options = {option.flag: option for option in parse_argparse(HELP)}
    assert list(options) == [
        "--api-server-count", "--allowed-origins", "--api-key", "--middleware", "--port", "--enable-lora",
        "--max-lora-rank", "--load-strategy", "--config-format", "--hf-token", "--compilation-config",
        "--enable-expert-parallel", "--quantization", "--tool-call-parser", "--traces", "--ratio",
    ]  # fmt: skip
    assert options["--api-server-count"].aliases == ("-asc",)
    assert options["--api-server-count"].group == ""
    assert options["--api-key"].nargs == "+"
    assert options["--api-key"].group == "Frontend"
    assert options["--api-key"].help.endswith("- it does not protect all.")
    assert (options["--middleware"].repeatable, options["--middleware"].type) == (True, "text")
    assert (options["--allowed-origins"].repeatable, options["--allowed-origins"].type) == (False, "json")
    assert (options["--port"].type, options["--port"].default) == ("integer", "8000")
    assert (options["--enable-lora"].type, options["--enable-lora"].negations) == ("flag", ("--no-enable-lora",))
    assert options["--max-lora-rank"].choices == ("1", "8", "16")
    assert options["--load-strategy"].choices == ("eager", "lazy")
    assert options["--config-format"].metavar == "['auto', 'hf']"
    assert options["--config-format"].choices == ()
    assert options["--tool-call-parser"].choices == ()
    assert options["--tool-call-parser"].nargs == "1"
    assert (options["--traces"].choices, options["--traces"].nargs) == (("all", "model"), "+")
    assert options["--hf-token"].nargs == "?"
    assert options["--compilation-config"].type == "json"
    assert options["--compilation-config"].default == "{'mode': None, 'x': (1, 2)}"
    assert options["--enable-expert-parallel"].aliases == ("-ep",)
    assert options["--quantization"].aliases == ("-q",)
    assert (options["--ratio"].type, options["--ratio"].help) == ("number", "A ratio.")


def test_a_text_without_options_gives_none() -> None:
    assert parse_argparse("usage: x\n\nnothing here\n") == []
