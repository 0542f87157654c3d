"""RecBole's networks on a split: its own data set, negatives, batches and trainer; imported where RecBole is.

LightGCN, NGCF and CDAE are as the library has them. MultiVAE, MultiDAE and NeuMF (its perceptron alone) have
their loss changed to what section 4.3 of the paper says, the squared error at observed ratings about their
mean, and the autoencoders read ratings. `MultiVAE` draws with a standard deviation of 0.01 times that of the
embedding's posterior; here it draws from the posterior, as Liang et al. (2018) do.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import cdae, lightgcn, multidae, multivae, neumf, ngcf
from recbole.trainer import Trainer
from recbole.utils import init_seed
from torch.nn.functional import mse_loss

Validate = Callable[[Any], float]


class _ReadsRatings:
    """Rows of ratings for RecBole's autoencoders, and the squared error at their observed entries."""

    def build_histroy_items(self, dataset: Any) -> None:
        """Compress the rows with ratings as values; the name is the library's."""
        self.history_item_id, self.history_item_value, _ = dataset.history_item_matrix(value_field="rating")
        self.mean = float(dataset.inter_feat["rating"].mean())

    def squared_error(self, output: Any, rows: Any) -> Any:
        """Return the mean over observed ratings."""
        observed = rows > 0
        return mse_loss(output[observed] + self.mean, rows[observed])


class RatingVAE(_ReadsRatings, multivae.MultiVAE):
    """MultiVAE on squared errors."""

    def reparameterize(self, mu: Any, logvar: Any) -> Any:
        """Draw from the posterior in training."""
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu

    def calculate_loss(self, interaction: Any) -> Any:
        """Return squared error and annealed KL."""
        rows = self.get_rating_matrix(interaction[self.USER_ID])
        self.update += 1
        weight = self.anneal_cap * min(1.0, self.update / self.total_anneal_steps)
        output, mu, logvar = self.forward(rows)
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
        return self.squared_error(output, rows) + weight * kl


class RatingDAE(_ReadsRatings, multidae.MultiDAE):
    """MultiDAE on squared errors."""

    def calculate_loss(self, interaction: Any) -> Any:
        """Return the squared error."""
        rows = self.get_rating_matrix(interaction[self.USER_ID])
        return self.squared_error(self.forward(rows), rows)


class RatingMLP(neumf.NeuMF):
    """NeuMF's perceptron on squared errors."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.mean = float(dataset.inter_feat["rating"].mean())

    def calculate_loss(self, interaction: Any) -> Any:
        """Return the squared error."""
        output = self.forward(interaction[self.USER_ID], interaction[self.ITEM_ID])
        return mse_loss(output + self.mean, interaction["rating"])


class RatingMLPFromOurStart(RatingMLP):
    """The same from embeddings ten times as wide, and layers by Glorot's uniform: how ours starts."""

    def _init_weights(self, module: Any) -> None:
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
            torch.nn.init.zeros_(module.bias)


class NGCFWithoutNorms(ngcf.NGCF):
    """NGCF without the division of every layer by its norm, of which its paper says nothing."""

    def forward(self) -> Any:
        """Spread the embeddings, the module's `normalize` doing nothing meanwhile."""
        kept, ngcf.F = ngcf.F, SimpleNamespace(normalize=lambda layer, **_: layer)
        try:
            return super().forward()
        finally:
            ngcf.F = kept


def shared(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what all of RecBole's networks read."""
    return {
        "learning_rate": settings["learning_rate"],
        "train_batch_size": settings["batch_size"],
        "embedding_size": settings["n_factors"],
    }


def of_graph(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of LightGCN and NGCF in RecBole's words."""
    return {
        "n_layers": settings["n_layers"],
        "hidden_size_list": [settings["n_factors"]] * settings["n_layers"],
        "reg_weight": settings["l2"],
        "require_pow": True,
        "node_dropout": 0.0,
        "message_dropout": settings.get("dropout", 0.0),
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "dynamic": False},
    }


def of_cdae(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of CDAE in RecBole's words; its loss is over all items and draws none."""
    return {
        "corruption_ratio": settings["dropout"],
        "hid_activation": "sigmoid",
        "loss_type": "BCE",
        "reg_weight_1": 0.0,
        "reg_weight_2": settings["l2"],
        "train_neg_sample_args": None,
    }


def of_autoencoder(settings: dict[str, Any], n_users: int) -> dict[str, Any]:
    """Return settings of MultiVAE and MultiDAE in RecBole's words."""
    steps = -(-n_users // settings["batch_size"])
    return {
        "mlp_hidden_size": [settings["n_units"]] * settings["n_layers"],
        # MultiVAE's holds mean and log variance.
        "latent_dimension": settings["n_factors"] * (2 if "beta" in settings else 1),
        "dropout_prob": settings["dropout"],
        "anneal_cap": settings.get("beta", 0.0),
        "total_anneal_steps": steps * settings.get("anneal_iterations", 0),
        "train_neg_sample_args": None,
    }


def of_perceptron(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of NeuMF's perceptron in RecBole's words."""
    return {
        "mf_embedding_size": 1,
        "mlp_embedding_size": settings["n_factors"],
        "mlp_hidden_size": [settings["n_units"]] * settings["n_layers"],
        "dropout_prob": 0.0,
        "mf_train": False,
        "mlp_train": True,
        "use_pretrain": False,
        "train_neg_sample_args": None,
    }


#: By the name of a peer: ours, RecBole's name, the class, and its settings in RecBole's words.
PEERS: dict[str, tuple[str, str, type, Callable[[dict[str, Any], int], dict[str, Any]]]] = {
    "LightGCN": ("lightgcn", "LightGCN", lightgcn.LightGCN, lambda own, _: of_graph(own)),
    "NGCF": ("ngcf", "NGCF", ngcf.NGCF, lambda own, _: of_graph(own)),
    "NGCF without norms": ("ngcf", "NGCF", NGCFWithoutNorms, lambda own, _: of_graph(own)),
    "CDAE": ("cdae", "CDAE", cdae.CDAE, lambda own, _: of_cdae(own)),
    "MultiVAE": ("vae-cf", "MultiVAE", RatingVAE, of_autoencoder),
    "MultiDAE": ("dae-cf", "MultiDAE", RatingDAE, of_autoencoder),
    "NeuMF": ("ncf", "NeuMF", RatingMLP, lambda own, _: of_perceptron(own)),
    "NeuMF from our start": ("ncf", "NeuMF", RatingMLPFromOurStart, lambda own, _: of_perceptron(own)),
}


class ValidatingTrainer(Trainer):
    """RecBole's trainer, which has the scores of every epoch measured and keeps the best."""

    def __init__(self, config: Any, model: Any, scores: Callable[[Any], Any], validate: Validate) -> None:
        super().__init__(config, model)
        self.scores, self.validate = scores, validate
        self.curve: list[float] = []
        self.best: Any = None
        self.seconds = 0.0

    def _train_epoch(self, train_data: Any, epoch_idx: int, **how: Any) -> Any:
        started = time.perf_counter()
        loss = super()._train_epoch(train_data, epoch_idx, **how)
        self.model.eval()
        found = self.scores(self.model)
        self.curve.append(self.validate(found))
        if self.curve[-1] == max(self.curve):
            self.best = found
        self.seconds += time.perf_counter() - started
        return loss


def fit(
    name: str, split: Any, settings: dict[str, Any], epochs: int, validate: Validate, seed: int = 0
) -> dict[str, Any]:
    """Fit a peer; return the scores of its best epoch, and what happened.

    Parameters
    ----------
    name
        Of `PEERS`.
    split
        A `split_arrays.SplitArrays`, of which the test part is not read.
    settings
        In our words.
    epochs
        All of them are trained.
    validate
        Returns the figure, higher is better, of (n_users, n_items) scores: ratings, of a network that has
        the mean of the training ratings, else what it ranks by.
    seed
        Of everything random in the fit.
    """
    # The library writes logs where it is run.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        made = build(name, split, settings, epochs, folder, seed)
        trainer = ValidatingTrainer(made.config, made.model, lambda _: scores_of(made), validate)
        trainer.fit(made.batches, None, verbose=False, saved=False)
    return {
        "scores": trainer.best,
        "curve": trainer.curve,
        "epoch": int(np.argmax(trainer.curve)) + 1,
        "seconds": trainer.seconds,
        "recbole": made.words,
    }


@dataclass(frozen=True)
class Made:
    """A network of RecBole's before its training: what it reads, and its numbers of our users and items."""

    config: Any
    dataset: Any
    batches: Any
    model: Any
    users: Any
    items: Any
    words: dict[str, Any]


def build(name: str, split: Any, settings: dict[str, Any], epochs: int, folder: str, seed: int = 0) -> Made:
    """Write the library's files of a split into a folder, and build a peer's network over them."""
    _, word, kind, words = PEERS[name]
    write_atomic(split, Path(folder) / "split")
    told, own = Path(folder) / "settings.yaml", shared(settings) | words(settings, split.n_users)
    told.write_text(yaml.safe_dump(common(folder, epochs, seed) | own))
    config = Config(model=word, dataset="split", config_file_list=[str(told)])
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    model = kind(config, batches.dataset)
    users, items = (
        torch.as_tensor(dataset.token2id(f"{side}_id", np.arange(n).astype(str)))
        for side, n in (("user", split.n_users), ("item", split.n_items))
    )
    return Made(config, dataset, batches, model, users, items, {key: config[key] for key in own})


@torch.no_grad()
def scores_of(made: Made) -> Any:
    """Return (n_users, n_items) scores by `full_sort_predict`; of a network of ratings, the ratings."""
    model, users, items = made.model, made.users, made.items
    if isinstance(model, neumf.NeuMF):
        rows = [model.forward(user.repeat(len(items)), items) for user in users]
        return torch.stack(rows).numpy() + model.mean
    found = model.full_sort_predict({made.dataset.uid_field: users}).view(len(users), -1)[:, items]
    mean = model.mean if isinstance(model, _ReadsRatings) else 0.0
    return found.numpy() + mean


def common(folder: str, epochs: int, seed: int) -> dict[str, Any]:
    """Return where the data are, and how long is trained."""
    return {
        "data_path": folder,
        "checkpoint_dir": folder,
        "benchmark_filename": ["train", "valid", "valid"],
        "load_col": {"inter": ["user_id", "item_id", "rating"], "user": ["user_id"], "item": ["item_id"]},
        "LABEL_FIELD": "rating",
        "epochs": epochs,
        "seed": seed,
        "use_gpu": False,
        "state": "WARNING",
        "show_progress": False,
        "worker": 0,
        "eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": "user", "mode": "full"},
        "eval_step": epochs,
    }


def write_atomic(split: Any, folder: Path) -> None:
    """Write RecBole's files: ratings of train and validation, and every user and item."""
    folder.mkdir(parents=True)
    for name in ("train", "valid"):
        part = getattr(split, name)
        lines = [f"{u}\t{i}\t{r:g}" for u, i, r in zip(part.users, part.items, part.ratings, strict=True)]
        text = "\n".join(["user_id:token\titem_id:token\trating:float", *lines])
        (folder / f"split.{name}.inter").write_text(text + "\n")
    for side, n in (("user", split.n_users), ("item", split.n_items)):
        (folder / f"split.{side}").write_text("\n".join([f"{side}_id:token", *map(str, range(n))]) + "\n")
