"""Runs llama.cpp's server on a model until standard input is closed: MODEL, CONTEXT, SLOTS; prints its address."""

import sys

import xllamacpp


def main():
    path, context, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = path, {"tiny"}
    params.n_ctx, params.n_parallel = context * slots, slots
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.cpuparams.n_threads = 1
    params.warmup, params.use_jinja = False, True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main()
