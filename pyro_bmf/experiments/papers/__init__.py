"""The paper's tables and figures beside its Table 3: ablations, convergence, sparse data, pairs of models."""
