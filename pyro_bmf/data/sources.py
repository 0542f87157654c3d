"""The named data sets: one table of where they come from, under which licence, and how they are read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import DataError

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
_AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/"
_MOVIELENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM "
    "Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
_AMAZON_CITATION = (
    "Jianmo Ni, Jiacheng Li, Julian McAuley. 2019. Justifying Recommendations using Distantly-Labeled "
    "Reviews and Fine-Grained Aspects. EMNLP-IJCNLP 2019. https://doi.org/10.18653/v1/D19-1018"
)
_RESEARCH = (
    "research use only: no redistribution without permission, no commercial use, no implied endorsement "
    "by the University of Minnesota; cite the paper"
)
_AMAZON_LICENCE = "published for research use by its authors, without a formal licence; cite the paper"


@dataclass(frozen=True)
class Member:
    """One file of a data set, inside its archive or lying extracted in a folder.

    Attributes
    ----------
    path
        Path inside the archive, also looked for below the data folder.
    sha256
        Official checksum of the file, or None where it is not known (then only the archive can be verified).
    """

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A package-index wheel that carries a data set as plain files; it is read as a zip, never installed."""

    requirement: str
    sha256: str
    ratings: Member
    titles: Member


@dataclass(frozen=True)
class Source:
    """A row of the table: where a named set comes from and how it is read.

    Attributes
    ----------
    name
        What the set is called here.
    title
        What its makers call it.
    address
        Where the official file lies; None for a generated set.
    checksum
        ``"sha256:..."`` or ``"md5:..."`` of the official file; None where none is published or known.
    ratings, titles
        The files read, with their own checksums; `titles` is None for a set without titles.
    archive
        Whether the official file is a zip archive that holds them.
    format, header, columns
        How the ratings are read (see `readers.read_raw`).
    titles_format
        ``"csv"``, ``"::"``, ``"pipe"`` or ``"recbole"``.
    scale
        The declared rating scale, as ``low:high:step``.
    min_ratings
        The filter: users and items with at least so many ratings, one pass, both counted on the full file.
    duplicates
        What the set does with repeated pairs unless told otherwise.
    counts
        Users, items and ratings after the filter.
    counts_verified
        Whether the counts were checked on the official file; False where they are published figures.
    licence, citation
        Terms of use in short, and what to cite.
    timestamps
        Whether the official ratings carry timestamps.
    wheel
        A second way to the same ratings, or None.
    """

    name: str
    title: str
    address: str | None
    checksum: str | None
    ratings: Member | None
    titles: Member | None
    archive: bool
    format: str
    header: bool
    columns: tuple[int, ...]
    titles_format: str
    scale: str
    counts: tuple[int, int, int]
    licence: str
    citation: str
    min_ratings: int = 0
    duplicates: str = "error"
    counts_verified: bool = True
    timestamps: bool = True
    wheel: Wheel | None = None

    @property
    def file_name(self) -> str:
        """Name of the official file."""
        return "" if self.address is None else self.address.rsplit("/", 1)[-1]


def _amazon(name: str, title: str, category: str, counts: tuple[int, int, int]) -> Source:
    return Source(
        name=name,
        title=title,
        address=f"{_AMAZON}{category}.csv",
        checksum=None,
        ratings=Member(f"{category}.csv"),
        titles=None,
        archive=False,
        format="csv",
        header=False,
        columns=(1, 0, 2, 3),  # the 2018 files are item, user, rating, timestamp
        titles_format="",
        scale="1:5:1",
        counts=counts,
        counts_verified=False,
        licence=_AMAZON_LICENCE,
        citation=_AMAZON_CITATION,
        min_ratings=10,
        duplicates="last",
    )


_TABLE = (
    Source(
        name="ml100k",
        title="MovieLens 100K",
        address=f"{_GROUPLENS}ml-100k.zip",
        checksum="sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ratings=Member("ml-100k/u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),
        titles=Member("ml-100k/u.item", "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"),
        archive=True,
        format="tsv",
        header=False,
        columns=(0, 1, 2, 3),
        titles_format="pipe",
        scale="1:5:1",
        counts=(943, 1_682, 100_000),
        licence=_RESEARCH,
        citation=_MOVIELENS_CITATION,
        wheel=Wheel(
            "recbole==1.2.1",
            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            Member(
                "recbole/dataset_example/ml-100k/ml-100k.inter",
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            ),
            Member(
                "recbole/dataset_example/ml-100k/ml-100k.item",
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            ),
        ),
    ),
    Source(
        name="ml1m",
        title="MovieLens 1M",
        address=f"{_GROUPLENS}ml-1m.zip",
        checksum="sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ratings=Member("ml-1m/ratings.dat"),
        titles=Member("ml-1m/movies.dat", "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9"),
        archive=True,
        format="::",
        header=False,
        columns=(0, 1, 2, 3),
        titles_format="::",
        scale="1:5:1",
        counts=(6_040, 3_706, 1_000_209),
        licence=_RESEARCH,
        citation=_MOVIELENS_CITATION,
    ),
    Source(
        name="ml10m",
        title="MovieLens 10M",
        address=f"{_GROUPLENS}ml-10m.zip",
        checksum="md5:ce571fd55effeba0271552578f2648bd",
        ratings=Member("ml-10M100K/ratings.dat"),
        titles=Member("ml-10M100K/movies.dat"),
        archive=True,
        format="::",
        header=False,
        columns=(0, 1, 2, 3),
        titles_format="::",
        scale="0.5:5:0.5",
        counts=(69_878, 10_677, 10_000_054),
        counts_verified=False,
        licence=_RESEARCH,
        citation=_MOVIELENS_CITATION,
    ),
    Source(
        name="ml20m",
        title="MovieLens 20M",
        address=f"{_GROUPLENS}ml-20m.zip",
        checksum="sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        ratings=Member("ml-20m/ratings.csv"),
        titles=Member("ml-20m/movies.csv"),
        archive=True,
        format="csv",
        header=True,
        columns=(0, 1, 2, 3),
        titles_format="csv",
        scale="0.5:5:0.5",
        counts=(138_493, 26_744, 20_000_263),
        counts_verified=False,
        licence=_RESEARCH,
        citation=_MOVIELENS_CITATION,
    ),
    Source(
        name="ml-latest-small",
        title="MovieLens latest-small (September 2018)",
        address=f"{_GROUPLENS}ml-latest-small.zip",
        checksum="sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        ratings=Member(
            "ml-latest-small/ratings.csv", "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646"
        ),
        titles=Member(
            "ml-latest-small/movies.csv", "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07"
        ),
        archive=True,
        format="csv",
        header=True,
        columns=(0, 1, 2, 3),
        titles_format="csv",
        scale="0.5:5:0.5",
        counts=(610, 9_724, 100_836),
        licence=(
            "research use, no commercial use without permission, no implied endorsement by the University of "
            "Minnesota; redistribution under the same conditions only; cite the paper"
        ),
        citation=_MOVIELENS_CITATION,
    ),
    _amazon("amazon-pet", "Amazon 2018 ratings, Pet Supplies", "Pet_Supplies", (46_403, 61_673, 1_008_336)),
    _amazon(
        "amazon-kindle", "Amazon 2018 ratings, Kindle Store", "Kindle_Store", (92_351, 55_924, 1_619_155)
    ),
    Source(
        name="synthetic",
        title="Ratings drawn from the generative model (seed 0)",
        address=None,
        checksum=None,
        ratings=None,
        titles=None,
        archive=False,
        format="",
        header=False,
        columns=(),
        titles_format="",
        scale="",
        counts=(500, 400, 30_000),
        licence="none needed: generated on this machine",
        citation="",
        timestamps=False,
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _TABLE}
_ALIASES = {"ml-100k": "ml100k", "ml-1m": "ml1m", "ml-10m": "ml10m", "ml-20m": "ml20m"}


def find_source(name: str) -> Source | None:
    """Return the named set, or None when there is no such name."""
    key = name.lower().replace("_", "-")
    return SOURCES.get(_ALIASES.get(key, key))


def get_source(name: str) -> Source:
    """Return the named set; raises DataError that lists the names."""
    source = find_source(name)
    if source is None:
        raise DataError(f"no data set is called {name!r}: use one of {', '.join(SOURCES)}{meant(name)}")
    return source


def meant(name: str) -> str:
    """Return the end of a sentence that names the set that was probably meant; nothing for other names."""
    near = difflib.get_close_matches(name.lower(), [*SOURCES, *_ALIASES], n=1, cutoff=0.8)
    return f"; did you mean {_ALIASES.get(near[0], near[0])!r}?" if near else ""
