#!/usr/bin/env bash
# Makes the types of the Python and the Node package out of docs/event.unions.schema.json. With --check it
# compares instead, and then compiles both packages and their examples (mypy --strict, tsc --strict), and loads
# the events of docs/examples as these types. The generators are installed into target/consumers (--install:
# nothing else), which needs the network once.
set -euo pipefail
cd "$(dirname "$0")"
tools="${CARGO_TARGET_DIR:-$PWD/../../target}/consumers"
schema=../event.unions.schema.json
python=python/whatsapp_events/events.py
node=node/events.d.ts

if [ ! -e "$tools/generators/.installed" ]; then
    python3 -m venv "$tools/generators"
    "$tools/generators/bin/pip" -q install datamodel-code-generator==0.89.0 mypy==2.4.1 pika==1.3.2
    (cd "$tools/generators" && npm --silent install --no-save json-schema-to-typescript@16.0.0 typescript@7.0.2 @types/node@26.6.7)
    touch "$tools/generators/.installed"
fi

[ "${1-}" != --install ] || exit 0

new="$(mktemp -d)"
trap 'rm -rf "$new"' EXIT
"$tools/generators/bin/datamodel-codegen" --input "$schema" --input-file-type jsonschema \
    --output "$new/events.py" --output-model-type typing.TypedDict --target-python-version 3.11 \
    --use-union-operator --disable-timestamp --use-schema-description 2>"$new/log" \
    || { cat "$new/log" >&2; exit 1; }
"$tools/generators/node_modules/.bin/json2ts" --input "$schema" --additionalProperties=false >"$new/events.d.ts"

if [ "${1-}" != --check ]; then
    cp "$new/events.py" "$python"
    cp "$new/events.d.ts" "$node"
    exit
fi
diff -u "$python" "$new/events.py"
diff -u "$node" "$new/events.d.ts"
"$tools/generators/bin/mypy" --strict --cache-dir "$new/mypy" python/whatsapp_events python/consume.py
"$tools/generators/node_modules/.bin/tsc" --strict --noEmit --allowJs --checkJs --target es2022 --module nodenext \
    --types node --typeRoots "$tools/generators/node_modules/@types" node/consume.js node/index.d.ts node/events.d.ts
# Every example is an event of these types.
sed 's/^from typing import/from typing_extensions import/' "$new/events.py" >"$new/loaded.py"
PYTHONPATH="$new" "$tools/generators/bin/python" - ../examples <<'END'
import json, pathlib, sys
from loaded import Event
from pydantic import TypeAdapter
events = TypeAdapter(Event)
for path in pathlib.Path(sys.argv[1]).glob("*.json"):
    if path.stem != "index":
        events.validate_python(json.loads(path.read_text()))
END
node - ../examples "$new" <<'END'
const fs = require('fs');
const [, , folder, to] = process.argv;
const files = fs.readdirSync(folder).filter((name) => name !== 'index.json');
const lines = files.map((name) => `(${fs.readFileSync(`${folder}/${name}`)}) satisfies Event;`);
fs.writeFileSync(`${to}/loaded.ts`, `import type { Event } from './events';\n${lines.join('\n')}\n`);
END
"$tools/generators/node_modules/.bin/tsc" --strict --noEmit --target es2022 --module commonjs "$new/loaded.ts"
