"""A small HTTPS REST API: measurements of patients, kept in memory."""

import os
import sys

from flask import Flask, abort, jsonify, request

app = Flask(__name__)
patients: dict[str, dict[str, object]] = {}


@app.get("/")
def index():
    """Say who answers."""
    return jsonify(service="patients", greeting=os.environ.get("GREETING", ""), arguments=sys.argv[1:])


@app.get("/patient/<name>")
def read(name: str):
    """Return one patient's record."""
    if name not in patients:
        abort(404)
    return jsonify(patients[name])


@app.post("/patient/<name>")
def write(name: str):
    """Keep one patient's record."""
    patients[name] = request.get_json()
    return jsonify(patients[name]), 201


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=4996, ssl_context=("/tls/flask.crt", "/tls/flask.key"), threaded=True)
