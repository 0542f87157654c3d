"""How a model is fitted: one folder a method, and the conditional of rows that they share."""
