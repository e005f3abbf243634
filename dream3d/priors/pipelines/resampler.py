"""A few tokens from the many that an image encoder makes: the Perceiver's resampler, as in IP-Adapter "plus".

Learnt queries look at the picture's features and at each other, layer by layer. The names of the weights are those of
the published files.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

PER_HEAD = 64
"""Channels of an attention head; the weights do not tell."""


class Looking(nn.Module):
    """Attention of the queries to features and queries.

    Args:
        width: of both.
        inner: of keys and values, a multiple of `PER_HEAD`.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(
        self, features: Float[Tensor, "B S W"], queries: Float[Tensor, "B N W"]
    ) -> Float[Tensor, "B N W"]:
        """What the queries find."""
        queries = self.norm2(queries)
        both = torch.cat([self.norm1(features), queries], dim=1)
        keys, values = self.to_kv(both).chunk(2, dim=-1)
        query, key, value = (
            x.unflatten(-1, (-1, PER_HEAD)).transpose(1, 2)
            for x in (self.to_q(queries), keys, values)
        )
        return self.to_out(
            scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )


class Resampler(nn.Module):
    """See the module.

    Args:
        tokens: it makes.
        reads: width of the features.
        width: of its own layers.
        inner: of their attention.
        makes: width of a token.
        layers: count.
        hidden: width inside the perceptron of a layer.
    """

    def __init__(
        self, tokens: int, reads: int, width: int, inner: int, makes: int, layers: int, hidden: int
    ) -> None:
        super().__init__()
        self.tokens, self.reads = tokens, reads
        self.latents = nn.Parameter(torch.zeros(1, tokens, width))
        self.proj_in, self.proj_out = nn.Linear(reads, width), nn.Linear(width, makes)
        self.norm_out = nn.LayerNorm(makes)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Looking(width, inner),
                    nn.Sequential(
                        nn.LayerNorm(width),
                        nn.Linear(width, hidden, bias=False),
                        nn.GELU(),
                        nn.Linear(hidden, width, bias=False),
                    ),
                ]
            )
            for _ in range(layers)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.latents.dtype

    def forward(self, features: Float[Tensor, "B S reads"]) -> Float[Tensor, "B N makes"]:
        """The tokens."""
        features = self.proj_in(features)
        queries = self.latents.expand(len(features), -1, -1)
        for looking, thinking in self.layers:  # type: ignore[misc]
            queries = looking(features, queries) + queries
            queries = thinking(queries) + queries
        return self.norm_out(self.proj_out(queries))


def open_resampler(weights: dict[str, Tensor]) -> Resampler:
    """A resampler of the sizes its weights have, frozen.

    Raises:
        KeyError, RuntimeError: weights are missing, left over, or of sizes that do not fit each other.
    """
    width, reads = weights["proj_in.weight"].shape
    layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("layers."))
    resampler = Resampler(
        tokens=weights["latents"].shape[1],
        reads=reads,
        width=width,
        inner=weights["layers.0.0.to_q.weight"].shape[0],
        makes=weights["proj_out.weight"].shape[0],
        layers=layers,
        hidden=weights["layers.0.1.1.weight"].shape[0],
    )
    resampler.load_state_dict(weights)
    return resampler.eval().requires_grad_(False)
