"""The paper's method: amortized cross-feedback guides, fitted by Algorithm 1."""
