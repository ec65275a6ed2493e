"""What is odd about the options of an instance, and no reason to refuse them."""

from garrison.base.errors import GarrisonError
from garrison.engines import registry
from garrison.engines.findings import check_args
from garrison.engines.options import to_args
from garrison.instances.values.spec import InstanceSpec

__all__ = ["remarks"]


def remarks(spec: InstanceSpec) -> list[str]:
    """Return what an engine may not take, in sentences. The start checks the rest, by the version that it runs."""
    if spec.engine == "custom":
        return []
    catalogue = registry.engine("vllm" if spec.engine == "sim" else spec.engine).catalogue()
    try:
        findings = check_args(catalogue, to_args(spec.options, catalogue), strays=False)
    except GarrisonError as error:
        return [error.message]
    found = [one.message for one in findings]
    if not spec.model and not spec.router:
        found.append("it names no model, without which it cannot start")
    return list(dict.fromkeys(found))
