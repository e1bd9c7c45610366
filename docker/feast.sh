#!/bin/sh
# Feast's own command, on the dataset of this container: found before the one of its package.
[ $# -gt 0 ] || set -- --help
exec musicrec feast "dataset=${MUSICREC_DATASET:?names no dataset}" "$@"
