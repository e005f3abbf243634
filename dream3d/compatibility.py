"""What a prior cannot do for a run, said before anything is written."""

from dataclasses import replace

from dream3d.errors import ConfigError, PromptError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp
from systems.base import RunConfig


def as_first(config: RunConfig, prior: Prior) -> RunConfig:
    """`config` with its second prior, and what is told to that one, in the first's place."""
    second = config.second
    assert second is not None
    # What the first is told to avoid, a second that takes no words is not told.
    negative = config.negative_prompt if prior.needs_text else ""
    stages = [second.of(stage) for stage in config.stages]
    return replace(config, prior=second.prior, stages=stages, negative_prompt=negative, second=None)


def check_second(config: RunConfig, prior: Prior) -> None:
    """Refuse a second prior that cannot be asked beside the first.

    Raises:
        ConfigError, PromptError: as `check_run`, with the second's names; also for a scene of latents.
    """
    try:
        if any(getattr(stage.scene, "latent", 0) for stage in config.stages):
            raise ConfigError(
                "a scene of latents belongs to one prior; choose scene.latent=0 for two"
            )
        check_run(as_first(config, prior), prior)
    except ConfigError as error:
        raise ConfigError(f"second: {error}") from error


def doubts(config: RunConfig, prior: Prior) -> list[str]:
    """What can be done and hardly is meant: guidance scales that mean nothing to this prior."""
    if not prior.cfg_trouble:
        return []
    kind = getattr(type(config.prior), "registered_name", type(prior).__name__)
    found = []
    for index, stage in enumerate(config.stages):
        for part in getattr(stage.guidance, "parts", (stage.guidance,)):
            scale = getattr(part, "cfg_scale", None)
            if isinstance(scale, Ramp) and {scale.initial, scale.final} - {0.0, 1.0}:
                told = " to ".join(f"{s:g}" for s in dict.fromkeys((scale.initial, scale.final)))
                found.append(
                    f"stages.{index}: guidance.cfg_scale is {told}, but the model of prior '{kind}' "
                    f"{prior.cfg_trouble}"
                )
    return found


def check_run(config: RunConfig, prior: Prior) -> None:
    """Refuse stages this prior cannot serve.

    Raises:
        ConfigError: a stage's guidance needs a trainable companion, cameras, another number of views, or a picture.
        PromptError: the prompt is empty and matters.
    """
    kind = getattr(type(config.prior), "registered_name", type(prior).__name__)
    if prior.needs_picture and not config.reference.image:
        raise ConfigError(
            f"prior '{kind}' shows a picture from other sides and was given none; give one with --image FILE"
        )
    if prior.needs_text and config.reference.image and not config.prompt.strip():
        raise PromptError(
            f"the prompt is empty, and prior '{kind}' knows what to make by words; say what the picture shows, for "
            "example: a red mug"
        )
    if config.negative_prompt and not prior.needs_text:
        raise ConfigError(f"prior '{kind}' takes no words; leave the negative prompt out")
    for index, stage in enumerate(config.stages):
        where = f"stages.{index}"
        latent = getattr(stage.scene, "latent", 0)
        if latent and (latent != prior.latent_shape[0] or prior.latent_shape[0] == 3):
            raise ConfigError(
                f"{where}.scene.latent is {latent}, but the latents of prior '{kind}' have {prior.latent_shape[0]} "
                "channels"
                + (
                    ", which are pixels; choose scene.latent=0"
                    if prior.latent_shape[0] == 3
                    else f"; choose scene.latent={prior.latent_shape[0]}, or 0 for a scene of colours"
                )
            )
        if latent and config.reference.image:
            raise ConfigError(
                f"{where}.scene.latent is {latent}, but a reference picture is compared with colours; choose "
                "scene.latent=0"
            )
        if stage.conditioning != "text" and not prior.accepts_cameras:
            raise ConfigError(
                f"{where}.conditioning is '{stage.conditioning}', but prior '{kind}' takes no cameras; choose "
                "conditioning=text"
            )
        joint = prior.joint_views
        if stage.conditioning == "multiview" and joint is not None and stage.views != joint:
            raise ConfigError(
                f"{where}.views is {stage.views}, but prior '{kind}' denoises {joint} views of an object together; "
                f"choose views={joint}, or conditioning=camera"
            )
        if stage.conditioning not in prior.conditionings:
            views = f" views={joint}" if prior.conditionings == ("multiview",) else ""
            raise ConfigError(
                f"{where}.conditioning is '{stage.conditioning}', which prior '{kind}' cannot be asked with; choose "
                f"conditioning={' or '.join(prior.conditionings)}{views}"
            )
        if stage.guidance.companion_settings() is not None and not prior.has_companion:
            guidance = type(stage.guidance).registered_name  # type: ignore[attr-defined]
            raise ConfigError(
                f"{where}.guidance is '{guidance}', which needs a trainable companion, and prior '{kind}' has none; "
                "choose a guidance that needs none, such as sds, or another prior"
            )
