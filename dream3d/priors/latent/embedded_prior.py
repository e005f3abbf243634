"""The embedded model as a `Prior`: the general adapter, speaking the procedural world's language."""

from jaxtyping import Float
from torch import Tensor

from dream3d.priors.latent.diffusers_prior import DiffusersPrior
from dream3d.world.grammar import caption_text, parse


def canonical_prompt(prompt: str) -> str:
    """The sentence the model was trained on that means the same; the empty prompt stays empty.

    Raises:
        PromptError: unknown words.
    """
    return caption_text(parse(prompt)) if prompt.strip() else ""


class EmbeddedPrior(DiffusersPrior):
    """A `DiffusersPrior` that refuses words it was never taught."""

    joint_views = 4

    def check_prompt(self, prompt: str) -> None:
        """Refuse what the world cannot show; see `dream3d.world.grammar.parse`."""
        parse(prompt)

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Embeddings of the prompts' canonical forms.

        Raises:
            PromptError: unknown words.
        """
        return super().embed([canonical_prompt(prompt) for prompt in prompts])
