"""The commands and their one-line help. Standard library only: `garrison --help` is printed from this table."""

from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "find"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `garrison`."""

    name: str
    group: str
    help: str
    module: str
    """Holds `app`, a Typer application."""
    takes_rest: bool = False
    """Whether the command passes on what follows `--`."""


COMMANDS = (
    Command(
        "serve", "Serve", "Bring a model from a name to a live OpenAI endpoint.", "garrison.cli.serve.command", True
    ),
    Command("preflight", "Serve", "Check and reclaim the port, check the GPUs.", "garrison.cli.serve.preflight", True),
    Command("resolve", "Serve", "Find or fetch a model and pin it.", "garrison.cli.artifacts.resolve"),
    Command("wait", "Serve", "Wait until an endpoint is ready.", "garrison.cli.serve.wait"),
    Command("smoke", "Serve", "Try every API of an endpoint and report each.", "garrison.cli.serve.smoke"),
    Command(
        "doctor",
        "Serve",
        "Check whether this machine can serve, with a remedy for each failure.",
        "garrison.cli.serve.doctor",
    ),
    Command("up", "Server", "Run the server: instances, gateway, fleet agent, API.", "garrison.cli.server.up"),
    Command("down", "Server", "End the server.", "garrison.cli.server.down"),
    Command(
        "instance", "Server", "Create, start, stop and change instances.", "garrison.cli.server.instance.commands", True
    ),
    Command("nodes", "Server", "List, add and remove other servers.", "garrison.cli.server.nodes"),
    Command("profile", "Server", "Show the profiles, or choose one.", "garrison.cli.server.profile"),
    Command("keys", "Server", "Create, list, change, rotate and delete API keys.", "garrison.cli.server.keys.commands"),
    Command("usage", "Server", "Show requests and tokens by day, key and route.", "garrison.cli.server.usage"),
    Command("requests", "Server", "List requests to models, and stop them.", "garrison.cli.server.requests"),
    Command("ps", "Server", "List what runs: instances, and what `serve` started.", "garrison.cli.server.ps"),
    Command("logs", "Server", "Print the log of an engine that runs.", "garrison.cli.server.logs"),
    Command("stop", "Server", "Stop an instance, or a `garrison serve`.", "garrison.cli.server.stop"),
    Command("models", "Artifacts", "Import, list, show, verify and remove models.", "garrison.cli.artifacts.models"),
    Command(
        "adapters",
        "Artifacts",
        "Import, list, show, verify and remove LoRA adapters.",
        "garrison.cli.artifacts.adapters",
    ),
    Command("engine", "Engines", "Install, list, choose, describe and remove engines.", "garrison.cli.engines.engine"),
    Command("parse", "Engines", "Translate an engine's command line into options.", "garrison.cli.engines.parse", True),
    Command("sim", "Engines", "Run the vLLM simulator.", "garrison.cli.engines.sim", True),
    Command("example", "Fleet", "Write a small fleet to try without hardware.", "garrison.cli.fleet.example"),
    Command("plan", "Fleet", "Show what an apply would do, without doing it.", "garrison.cli.fleet.plan"),
    Command("apply", "Fleet", "Make the targets serve what a manifest declares.", "garrison.cli.fleet.apply"),
    Command("destroy", "Fleet", "Unload everything a stack owns.", "garrison.cli.fleet.destroy"),
    Command("status", "Fleet", "Show the state of every stack and target.", "garrison.cli.fleet.status"),
    Command("drift", "Fleet", "Show what differs from what was last applied.", "garrison.cli.fleet.drift"),
    Command("inventory", "Fleet", "List what is on record, managed or not.", "garrison.cli.fleet.inventory"),
    Command("discover", "Fleet", "Look at targets and list unmanaged adapters.", "garrison.cli.fleet.discover"),
    Command("extract", "Fleet", "Write a manifest from what was last seen.", "garrison.cli.fleet.extract"),
    Command("adopt", "Fleet", "Adopt unmanaged adapters into a stack, unchanged.", "garrison.cli.fleet.adopt"),
    Command("forget", "Fleet", "Drop a target that will not come back.", "garrison.cli.fleet.forget"),
    Command("history", "Fleet", "Show what changed and what was done, with times.", "garrison.cli.fleet.history"),
    Command("agent", "Fleet", "Keep the fleet as declared, on a timer.", "garrison.cli.fleet.agent"),
    Command("eval", "Fleet", "Check a manifest and print what it declares.", "garrison.cli.fleet.eval"),
    Command("schema", "Fleet", "Print the JSON Schema of the manifest, for editors.", "garrison.cli.fleet.schema"),
    Command(
        "migrate",
        "Fleet",
        "Write a manifest from llamactl's, llama-swap's or Ollama's configuration.",
        "garrison.cli.fleet.migrate",
    ),
    Command(
        "config", "Settings", "Show every setting, its value and where it came from.", "garrison.cli.settings.config"
    ),
    Command(
        "completion", "Settings", "Print a completion script for bash, zsh or fish.", "garrison.cli.settings.completion"
    ),
)


def find(name: str) -> Command | None:
    """Return the command of that name, or None."""
    return next((command for command in COMMANDS if command.name == name), None)
