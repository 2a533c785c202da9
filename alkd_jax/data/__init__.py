"""Datasets: readers of public formats, session making, splits and the synthetic dataset, all on the host."""

from alkd_jax.data.columns import map_columns, save_columns
from alkd_jax.data.prepared import prepare
from alkd_jax.data.prepared_folder import load_prepared, read_prepared, save_prepared
from alkd_jax.data.readers.amazon import load_amazon
from alkd_jax.data.readers.amazon_m2 import load_amazon_m2
from alkd_jax.data.readers.diginetica import load_diginetica
from alkd_jax.data.readers.gru4rec import load_gru4rec, write_gru4rec
from alkd_jax.data.readers.hetrec import load_hetrec
from alkd_jax.data.readers.lastfm import load_lastfm
from alkd_jax.data.readers.merrec import load_merrec
from alkd_jax.data.readers.movielens import load_movielens
from alkd_jax.data.readers.otto import load_otto
from alkd_jax.data.readers.recbole import load_recbole, write_recbole
from alkd_jax.data.readers.registry import read
from alkd_jax.data.readers.released import load_released, load_released_rankings, load_released_selection
from alkd_jax.data.readers.released_student import load_released_student
from alkd_jax.data.readers.retailrocket import load_retailrocket
from alkd_jax.data.readers.srgnn import load_srgnn
from alkd_jax.data.readers.tables import load_table
from alkd_jax.data.readers.user_sequences import load_user_sequences
from alkd_jax.data.readers.yambda import load_yambda
from alkd_jax.data.readers.yoochoose import load_yoochoose
from alkd_jax.data.recipes import RECIPES, Recipe, prepare_by
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import sessionize
from alkd_jax.data.splits import SplitRules
from alkd_jax.data.synthetic import synthetic
from alkd_jax.data.windows import prepare_windows, save_windows

__all__ = [
    "RECIPES",
    "Recipe",
    "SessionRules",
    "SplitRules",
    "load_amazon",
    "load_amazon_m2",
    "load_diginetica",
    "load_gru4rec",
    "load_hetrec",
    "load_lastfm",
    "load_merrec",
    "load_movielens",
    "load_otto",
    "load_prepared",
    "load_recbole",
    "load_released",
    "load_released_rankings",
    "load_released_selection",
    "load_released_student",
    "load_retailrocket",
    "load_srgnn",
    "load_table",
    "load_user_sequences",
    "load_yambda",
    "load_yoochoose",
    "map_columns",
    "prepare",
    "prepare_by",
    "prepare_windows",
    "read",
    "read_prepared",
    "save_columns",
    "save_prepared",
    "save_windows",
    "sessionize",
    "synthetic",
    "write_gru4rec",
    "write_recbole",
]
