"""`garrison schema`."""

import json as json_module

from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Print the JSON Schema of the manifest.")


@app.command()
def schema(json: Json = False) -> int:
    """Print the JSON Schema (draft 2020-12) of the manifest, for editors.

    Save it with `garrison schema > garrison.schema.json`, and make `#
    yaml-language-server: $schema=garrison.schema.json` the first line of the
    manifest.
    """
    from garrison.fleet.manifest.schema import manifest_schema

    print(json_module.dumps(manifest_schema(), indent=2))
    return 0
