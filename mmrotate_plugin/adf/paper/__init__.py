"""The layers and classifiers of the ADF paper's code, as thin front ends to the moment rules.

Loquercio, Segu, Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020
(arXiv:1907.06890).
"""
