"""Weights fitted to held-out data while the members stay as they are.

Members run once over the data (``outputs``); what is fitted after that sees only what they said:
constant weights (``constants``) or the parameters of a gate (``training``), by the likelihood of
the labels under the combined distribution (``rows``).
"""

from toolkit.fitting.combiner import Trainee, fit_combiner, judge, said
from toolkit.fitting.constants import fit_constants
from toolkit.fitting.examples import Batch, Split, labelled_examples, text_examples
from toolkit.fitting.outputs import OutputCache, label_log_probabilities, whole
from toolkit.fitting.rows import Objective, Rows, Score, gather, score
from toolkit.fitting.training import GateFit, TrainingOptions, fit_gate, gate_scores

__all__ = [
    "Batch",
    "GateFit",
    "Objective",
    "OutputCache",
    "Rows",
    "Score",
    "Split",
    "Trainee",
    "TrainingOptions",
    "fit_combiner",
    "fit_constants",
    "fit_gate",
    "gate_scores",
    "gather",
    "judge",
    "label_log_probabilities",
    "labelled_examples",
    "said",
    "score",
    "text_examples",
    "whole",
]
