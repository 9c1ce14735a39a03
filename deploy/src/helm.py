"""Helm's own engine behind a pipe: a request per line on standard input, its answer per line on standard output, as JSON."""

import json
import sys

from helm_python import Config
from helm_python.chart import Chart, lint, values_from_yaml


def documents(text):
    """The objects of a rendered file, read as Kubernetes reads YAML."""
    found = []
    for part in ("\n" + text).split("\n---"):
        if any(line.strip() and not line.lstrip().startswith("#") for line in part.splitlines()):
            found.append(values_from_yaml(part))
    return found


def render(request):
    chart = Chart.load(request["chart"])
    values = values_from_yaml(request["values"])
    files = chart.render(values, name=request["name"], namespace=request["namespace"])
    notes = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
    files = {name: text for name, text in files.items() if name.endswith(".yaml") and text.strip()}
    objects = [thing for text in files.values() for thing in documents(text)]
    return {"notes": notes, "files": files, "objects": objects}


def check(request):
    return lint(request["chart"], values_from_yaml(request["values"]), strict=True)["messages"]


def package(request):
    from helm_python.chart import package as pack

    return pack(request["chart"], destination=request["destination"])


def release(request):
    config = Config(kubeconfig_path=request["kubeconfig"], namespace=request["namespace"])
    action = request["action"]
    if action == "uninstall":
        return config.uninstall(request["name"], timeout=60)
    how = getattr(config, action)
    values = values_from_yaml(request["values"])
    return how(request["chart"], request["name"], values, namespace=request["namespace"], timeout=60)


ACTIONS = {"render": render, "lint": check, "package": package, "release": release}

for line in sys.stdin:
    try:
        request = json.loads(line)
        answer = {"ok": ACTIONS[request["do"]](request)}
    except Exception as error:  # whatever it was, it belongs to this request
        answer = {"error": str(error) or repr(error)}
    print(json.dumps(answer), flush=True)
